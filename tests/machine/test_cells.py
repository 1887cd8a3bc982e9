"""Pressure cells of the tree held against the machine: one kernel under memory.max, ranges of its boots."""

from pathlib import Path

import pytest

from jaxswap.pressure import Cell
from jaxswap.report.cells import cell_text
from jaxswap.validate import cells, hold_cell

DATA = Path(__file__).parents[1] / "data" / "recordings"
QUICK = (
    "7.3.4-seqP-classic-64",
    "7.3.4-seqP-mglru-64",
    "7.3.4-uniP-classic-64",
    "7.3.4-seqS-classic-64-swapmax16640K",
    "7.2.12-seqP-classic-64",
)
OUTSIDE = {
    "7.3.4-uniP-classic-16-1024": "16 kB swap-in fallbacks 2.2 % above four boots, 2 % are allowed",
    "7.3.4-uniS-classic-64-swapmax16640K": "1,914 large swap-ins, the only boot of five that lived 1,533",
    "6.18.15-uniP-mglru-64": "287 large swap-ins, boots 146 to 177: large folios of 6.18 age otherwise",
}


def name_of(cell: Cell) -> str:
    return f"{cell.header['kernel']}-{cell.name}"


def marks(cell: Cell) -> list[pytest.MarkDecorator]:
    """Slow, but for a few; and those that are known to be outside."""
    found = [] if name_of(cell) in QUICK else [pytest.mark.slow]
    reason = OUTSIDE.get(name_of(cell))
    return [*found, pytest.mark.xfail(reason=reason, strict=True)] if reason else found


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, id=name_of(cell), marks=marks(cell)) for cell in cells(DATA) if cell.boots],
)
def test_within_the_bounds(cell: Cell) -> None:
    held = hold_cell(cell)
    if held.refused:
        pytest.skip(held.refused)
    assert held.inside, cell_text(held)
