"""Refusals by order and reason: every number is a counter of the results, and the sums are sums."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxswap.config import load_config
from jaxswap.machine.counters import PATHS, REASONS
from jaxswap.report.explain import explain_text
from jaxswap.report.tables import number
from jaxswap.report.winners import winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.run import run_sweep
from tests.sweep.fake import FakeReplay

SIZES = ("16kB", "32kB")


@pytest.fixture
def sweep(config_file: Path, fake: FakeReplay) -> Sweep:
    config = load_config(config_file, [f"out={config_file.parent / 'out'}"])
    return run_sweep(config, ["jaxswap", "sweep", "small.toml"])


def refused(sweep: Sweep, workload: int, path: str, reason: str, index: int) -> list[float]:
    result = sweep.results[workload]
    return [
        result.counter(f"refused/{path}/{reason}/{size}")[index] * 1000 / result.accesses for size in SIZES
    ]


def test_every_refusal_of_every_winner(sweep: Sweep) -> None:
    best = winners(sweep)
    parts = explain_text(sweep).split("\n\n")
    shown = {index for index in (best.sysfs, best.heuristic) if index not in (None, sweep.reference)}
    assert shown
    for index in shown:
        for workload, result in enumerate(sweep.results):
            ends = f"{sweep.candidates[index]}\n"
            part = next(part for part in parts if part.startswith(f"{result.name}: ") and ends in part)
            table = part[: part.index("largest changes")].splitlines()[4:]
            rows = [[cell for cell in line.split() if re.fullmatch(r"[\d.,]+", cell)] for line in table]
            pairs = list(zip(rows[::2], rows[1::2], strict=True))
            assert len(pairs) == len(PATHS) * len(REASONS) + 1
            wanted = [(path, reason) for path in PATHS for reason in REASONS]
            for (kernel, winner), (path, reason) in zip(pairs, wanted, strict=False):
                for row, at in ((kernel, sweep.reference), (winner, index)):
                    values = refused(sweep, workload, path, reason, at)
                    assert row == [number(value) for value in (*values, sum(values))]
            total = [
                np.sum([refused(sweep, workload, path, reason, at) for path, reason in wanted])
                for at in (sweep.reference, index)
            ]
            assert [row[-1] for row in pairs[-1]] == [number(value) for value in total]


def test_kernel_names_and_largest_changes(sweep: Sweep) -> None:
    text = explain_text(sweep)
    for name in ("VMA edge", "slot alignment", "PTEs", "-EBUSY zero flag", "-ENOMEM charge", "-ENOMEM frame"):
        assert name in text
    assert "-EEXIST and -ENOENT" in text
    changes = [line for line in text.splitlines() if line.startswith("    ") and " -> " in line]
    assert len(changes) == text.count("largest changes:") * 3
    assert max(map(len, text.splitlines())) <= 120


def test_a_reason_of_neither_is_left_out(sweep: Sweep) -> None:
    for result in sweep.results:
        columns = [index for index, name in enumerate(result.names) if "/zswap/" in name]
        result.counters[:, columns] = 0
    assert "zswap" not in explain_text(sweep)


def test_no_refusals_at_all(sweep: Sweep) -> None:
    for result in sweep.results:
        result.counters[
            :, [index for index, name in enumerate(result.names) if name.startswith("refused/")]
        ] = 0
    assert "neither had a refusal" in explain_text(sweep)


def test_the_kernels_rule_itself_is_said(config_file: Path, fake: FakeReplay) -> None:
    overrides = [f"out={config_file.parent / 'out'}", "policies={}", "space.sizes=[32]", "reference="]
    text = explain_text(run_sweep(load_config(config_file, overrides), ["jaxswap"]))
    assert "best heuristic: none ran to its end" in text
