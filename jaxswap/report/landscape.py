"""What a landscape says: tables as text, and every number as CSV."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxswap.landscape.config import LandscapeConfig
from jaxswap.landscape.faults import REASONS, SWAPIN_ORDERS
from jaxswap.landscape.run import Landscape
from jaxswap.landscape.store import MANIFEST, REPORT
from jaxswap.report.landscape_figure import draw_landscape
from jaxswap.report.provenance import said
from jaxswap.report.tables import text_table
from jaxswap.swaptable.geometry import SIZE_NAMES
from jaxswap.workload.files import write_atomic

NAMES = {
    "vma_edge": "VMA edge",
    "alignment": "slot alignment",
    "pte_gap": "PTEs",
    "policy": "heuristic",
    "no_table": "-ENOENT no table",
    "bad": "-EBUSY bad slot",
    "cached": "-EBUSY cached",
    "count": "-EBUSY free",
    "zero": "-EBUSY zero flag",
    "memcg": "-EBUSY other memcg",
    "frame": "-ENOMEM frame",
    "charge": "-ENOMEM charge",
}
"""Reason -> the kernel's name for it: its error where it has one, else the test."""
assert tuple(NAMES) == REASONS


def write_landscape(made: Landscape, manifest: dict[str, Any], folder: Path) -> str:
    """Fill a directory with manifest, report, CSV files and the figure; returns the report."""
    lines = provenance(made.config, manifest)
    text = _report(made, lines)
    for name, data in (
        (MANIFEST, json.dumps(manifest, indent=2) + "\n"),
        (REPORT, text),
        ("refusals.csv", _csv(lines, _REFUSALS, _refusal_rows(made))),
        ("heuristics.csv", _csv(lines, _HEURISTICS, _heuristic_rows(made))),
        ("tables.csv", _csv(lines, _TABLES, _table_rows(made))),
    ):
        write_atomic(folder / name, data.encode(), "landscape")
    draw_landscape(made, lines, folder / "refusals", NAMES)
    return text


def provenance(config: LandscapeConfig, manifest: dict[str, Any]) -> tuple[str, str]:
    """The two lines that say what a result was made by."""
    own = [f"{own.policy.name} from {own.path.name} {own.sha256[:12]}" for own in config.own]
    model = (f"model {manifest['model']}", f"kernel profile {config.kernel}", f"seed {config.seed}", *own)
    return said(model, manifest["versions"], manifest["git"], manifest["device"], manifest["command"])


def _report(made: Landscape, lines: Sequence[str]) -> str:
    config = made.config
    mixes = "\n".join(f"    {mix}" for mix in config.mixes)
    head = (
        f"{config.repeats} tables of {config.slots:,} slots of each kind, {config.faults:,} faults on each; "
        f"written in blocks of {4 << config.block} kB, {config.single:.0%} of frees of one page, "
        f"{config.zero:.1%} of pages of zeros\n"
        "age: times the device has been written over since it was filled. Mixes, by share of blocks:\n"
        f"{mixes}"
    )
    return (
        "\n\n".join(
            [
                "\n".join(lines),
                head,
                "Faults refused each order, were it the only one, in % (± half the spread of the tables) and "
                f"the most frequent reason:\n{_legend(made)}\n\n{_refusals(made)}",
                f"Heuristics at age {config.ages[-1]:g}; enabled: {_sizes(made)}\n\n{_heuristics(made)}",
            ]
        )
        + "\n"
    )


def _sizes(made: Landscape) -> str:
    return " ".join(SIZE_NAMES[order] for order in made.config.sizes)


def _letters(made: Landscape) -> dict[int, str]:
    """A letter for each reason that occurs, by its number."""
    letters: dict[int, str] = {}
    for number, reason in enumerate(REASONS):
        if made.alone[..., 1 + number].any():
            letters[number] = next(one for one in reason if one not in letters.values())
    return letters


def _legend(made: Landscape) -> str:
    return ", ".join(f"{letter} {NAMES[REASONS[number]]}" for number, letter in _letters(made).items())


def _refusals(made: Landscape) -> str:
    config, letters, rows = made.config, _letters(made), []
    for mix, occupancy, age in np.ndindex(len(config.mixes), len(config.occupancies), len(config.ages)):
        found = made.alone[mix, occupancy, :, age] / config.faults
        cells = [_kind(made, mix, occupancy, age)]
        for row in range(len(SWAPIN_ORDERS)):
            refused = 1 - found[:, row, 0]
            most = int(found[:, row, 1:].sum(axis=0).argmax())
            why = letters[most] if refused.any() else " "
            cells.append([f"{100 * refused.mean():.1f} ±{50 * np.ptp(refused):.1f} {why}"])
        rows.append([cell for part in cells for cell in part])
    return text_table(["mix", "in use", "age", *(SIZE_NAMES[order] for order in SWAPIN_ORDERS)], rows, 1)


def _kind(made: Landscape, mix: int, occupancy: int, age: int) -> list[str]:
    config = made.config
    return [config.mixes[mix].name, f"{config.occupancies[occupancy]:.0%}", f"{config.ages[age]:g}"]


def _heuristics(made: Landscape) -> str:
    config, rows = made.config, []
    for mix, occupancy, policy in np.ndindex(
        len(config.mixes), len(config.occupancies), len(config.policies)
    ):
        at = (mix, occupancy, slice(None), -1, policy)
        got = made.got[at] / config.faults
        pages = got @ (1 << np.arange(got.shape[1]))
        rows.append(
            [
                *_kind(made, mix, occupancy, -1)[:2],
                str(config.policies[policy]),
                *(_spread(values) for values in (pages, 100 * (1 - got[:, 0]))),
                _spread(1000 * made.failed[at] / config.faults),
                f"{made.slots[at].mean() / config.faults:.3g}",
            ]
        )
    header = [
        "mix",
        "in use",
        "heuristic",
        "pages a fault",
        "large %",
        "failed / 1,000",
        "slots read a fault",
    ]
    return text_table(header, rows, 3)


def _spread(values: Float64[np.ndarray, "repeats"]) -> str:
    return f"{values.mean():.2f} ±{np.ptp(values) / 2:.2f}"


_REFUSALS = ["mix", "occupancy", "age", "size", "outcome", "mean", "least", "most", "tables"]
_HEURISTICS = ["mix", "occupancy", "age", "heuristic", "size", "outcome", "mean", "least", "most", "tables"]
_TABLES = ["mix", "occupancy", "age", "table", "slots_written", "size", "unusable_free_index"]


def _csv(lines: Sequence[str], header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows after comment lines with their provenance."""
    buffer = io.StringIO()
    for line in lines:
        buffer.write(f"# {line}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _share(values: Float64[np.ndarray, "repeats"]) -> list[str]:
    """Mean, least, most, and each table's."""
    shown = [f"{value:.6f}" for value in (values.mean(), values.min(), values.max())]
    return [*shown, " ".join(f"{value:.6f}" for value in values)]


def _refusal_rows(made: Landscape) -> Iterable[list[str]]:
    """A row for each outcome of each order alone, those left out that never are."""
    config = made.config
    for mix, occupancy, age in np.ndindex(len(config.mixes), len(config.occupancies), len(config.ages)):
        found = made.alone[mix, occupancy, :, age] / config.faults
        for row, order in enumerate(SWAPIN_ORDERS):
            for outcome, name in enumerate(("got", *REASONS)):
                if outcome == 0 or made.alone[..., outcome].any():
                    head = [*_kind(made, mix, occupancy, age), SIZE_NAMES[order], name]
                    yield head + _share(found[:, row, outcome])


def _heuristic_rows(made: Landscape) -> Iterable[list[str]]:
    """What each heuristic got, and for what it was refused, by order; per fault."""
    config = made.config
    for mix, occupancy, age, policy in np.ndindex(
        len(config.mixes), len(config.occupancies), len(config.ages), len(config.policies)
    ):
        at = (mix, occupancy, slice(None), age, policy)
        head = [*_kind(made, mix, occupancy, age), str(config.policies[policy])]
        yield [*head, "", "failed attempts", *_share(made.failed[at] / config.faults)]
        yield [*head, "", "slots read", *_share(made.slots[at] / config.faults)]
        for order in (0, *config.sizes):
            if order in SWAPIN_ORDERS or order == 0:
                yield [*head, SIZE_NAMES[order], "got", *_share(made.got[at][:, order] / config.faults)]
        for row, order in enumerate(SWAPIN_ORDERS):
            for number, reason in enumerate(REASONS):
                if order in config.sizes and made.refused[..., number].any():
                    values = made.refused[at][:, row, number] / config.faults
                    yield [*head, SIZE_NAMES[order], reason, *_share(values)]


def _table_rows(made: Landscape) -> Iterable[list[str]]:
    """Every table by itself: slots taken, and how far its free slots are of no use to each order."""
    for mix, occupancy, repeat, age in np.ndindex(made.written.shape):
        for order, name in enumerate(SIZE_NAMES):
            at = (mix, occupancy, repeat, age)
            head = [*_kind(made, mix, occupancy, age), str(repeat), str(made.written[at])]
            yield [*head, name, f"{made.unusable[*at, order]:.6f}"]
