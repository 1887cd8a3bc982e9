"""Runs side by side: what differs is named, and every number is that of the run's results."""

import re
from pathlib import Path

import pytest

from jaxswap.config import load_config
from jaxswap.report.compare import compare_text
from jaxswap.report.tables import number, percent
from jaxswap.report.winners import winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.objective import AXES
from jaxswap.sweep.run import run_sweep
from tests.sweep.fake import FakeReplay


def run(config_file: Path, name: str, *overrides: str) -> Sweep:
    config = load_config(config_file, [f"out={config_file.parent / name}", *overrides])
    return run_sweep(config, ["jaxswap", "sweep", "small.toml"])


@pytest.fixture
def pair(config_file: Path, fake: FakeReplay) -> list[Sweep]:
    """Two runs of other sizes, heuristics and limits."""
    return [
        run(config_file, "first"),
        run(
            config_file,
            "second",
            "space.sizes=[16,64]",
            "policies={ never = {}, single = {} }",
            "workloads.one.limit=40%",
        ),
    ]


def table_of(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a title, cells apart."""
    part = next(part for part in text.split("\n\n") if part.startswith(title))
    rows = [line for line in part.splitlines()[3:] if not line.startswith("-")]
    return [re.split(r" {2,}", row) for row in rows]


def test_what_differs_is_named(pair: list[Sweep]) -> None:
    text = compare_text(pair)
    part = next(part for part in text.split("\n\n") if part.startswith("They differ in"))
    found = {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in part.splitlines()[2:])}
    assert found == {
        "workloads.one.limit": ["50%", "40%"],
        "space.sizes": ["[16, 32]", "[16, 64]"],
        "policies": ["kernel, never, cap order=2, cap order=3", "kernel, never, single order=4"],
        "reference": ["16 32", "16 64"],
    }
    for sweep in pair:
        assert str(sweep.folder) in text


def test_numbers_and_their_differences(pair: list[Sweep]) -> None:
    first, second = pair
    rows = table_of(compare_text(pair), "one")
    assert [row[:2] for row in rows] == [
        ["kernel's rule", "A"],
        ["", "B"],
        ["best sysfs", "A"],
        ["", "B"],
        ["best heuristic", "A"],
        ["", "B"],
    ]
    for index, name in enumerate((*AXES, "pages_in", "pages_out")):
        base = first.results[0].metrics[name][first.reference]
        now = second.results[0].metrics[name][second.reference]
        assert rows[0][-5 + index] == number(base)
        assert rows[1][-5 + index] == f"{number(now)} {percent(now, base)}"
    for row, sweep in zip(rows[4:], pair, strict=True):
        heuristic = winners(sweep, [sweep.results[0]]).heuristic
        assert heuristic is not None
        assert row[2:4] == [sweep.candidates[heuristic].mthp, str(sweep.candidates[heuristic].policy)]


def test_dominance_is_said_whatever_the_objective(config_file: Path, fake: FakeReplay) -> None:
    pair = [run(config_file, "first"), run(config_file, "second", "objective=pages_in")]
    text = compare_text(pair)
    for title, results in (("one", slice(0, 1)), ("All workloads", slice(0, 2))):
        for row, sweep in zip(table_of(text, title)[4:], pair, strict=True):
            chosen = sweep.results[results]
            index = winners(sweep, chosen).heuristic
            ours = [
                [one.metrics[name][at] for name in AXES for one in chosen] for at in (index, sweep.reference)
            ]
            no_worse = all(
                one.metrics[name][index] <= one.metrics[name][sweep.reference]
                for one in chosen
                for name in AXES[1:]
            )
            fewer = sum(ours[0][: len(chosen)]) < sum(ours[1][: len(chosen)])
            assert row[4] == ("yes" if no_worse and fewer else "no")


def test_runs_of_other_workloads(config_file: Path, fake: FakeReplay) -> None:
    pair = [
        run(config_file, "first"),
        run(config_file, "second", 'workloads={ one = { trace = "one.t", limit = "50%" } }'),
    ]
    text = compare_text(pair)
    assert "workloads.two.limit" in text and "content of two.t" in text
    assert [row[1] for row in table_of(text, "two")] == ["A", "A", "A"]
    assert len(table_of(text, "Workloads of all runs (means)")) == 6


def test_equal_runs(config_file: Path, fake: FakeReplay) -> None:
    text = compare_text([run(config_file, name) for name in ("first", "second", "third")])
    assert "They differ in nothing that decides results." in text
    assert "%" not in "".join(cell for row in table_of(text, "one") for cell in row)
