"""Pressure cells of the tree held against the machine: one kernel under memory.max, ranges of its boots."""

from pathlib import Path

import pytest

from jaxswap.pressure import Cell
from jaxswap.report.cells import cell_text
from jaxswap.validate import cells, hold_cell

DATA = Path(__file__).parents[1] / "data" / "recordings"
QUICK = ("seqP", "uniP")


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(
            cell,
            id=f"{cell.header['kernel']}-{cell.name}",
            marks=() if cell.name.startswith(QUICK) else pytest.mark.slow,
        )
        for cell in cells(DATA)
        if cell.boots
    ],
)
def test_within_the_bounds(cell: Cell) -> None:
    held = hold_cell(cell)
    if held.refused:
        pytest.skip(held.refused)
    assert held.inside, cell_text(held)
