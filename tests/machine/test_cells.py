"""Pressure cells of the tree held against the machine: one kernel under memory.max, ranges of its boots."""

from pathlib import Path

import pytest

from jaxswap.pressure import Cell
from jaxswap.report.cells import cell_text
from jaxswap.validate import cells, hold_cell

DATA = Path(__file__).parents[1] / "data" / "recordings"
QUICK = (
    "seqP-classic-64",
    "seqP-mglru-64",
    "uniP-classic-64",
    "uniP-mglru-64",
    "seqS-classic-64-swapmax16640K",
)
OUTSIDE = {
    "hotS-classic-64-max16M": "one of two boots was killed, the other has a fifth more faults: the TLB",
    "hotP-classic-64": "swap-in fallbacks 8 % above the boots: when the statistics are flushed",
    "hotP-classic-64-max24M": "large swap-ins 6 % below the only boot that lived: likewise",
    "uniP-classic-16-64": "64 kB swap-ins 20 % above the boots: likewise",
    "uniS-classic-64-swapmax16640K": "1,427 large swap-ins, the only boot that lived 1,533: likewise",
    "uniS-mglru-64-defer": "297 large swap-ins, boots 221 to 238: not explained",
}


def marks(cell: Cell) -> list[pytest.MarkDecorator]:
    """Slow, but for a few; and those that are known to be outside."""
    found = [] if cell.name in QUICK else [pytest.mark.slow]
    reason = OUTSIDE.get(cell.name)
    return [*found, pytest.mark.xfail(reason=reason, strict=True)] if reason else found


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=f"{cell.header['kernel']}-{cell.name}", marks=marks(cell))
        for cell in cells(DATA)
        if cell.boots
    ],
)
def test_within_the_bounds(cell: Cell) -> None:
    held = hold_cell(cell)
    if held.refused:
        pytest.skip(held.refused)
    assert held.inside, cell_text(held)
