"""What a page was good for, judged when it leaves memory (or when the run ends)."""

from dataclasses import replace
from typing import NamedTuple

from jaxswap.machine.counters import count
from jaxswap.machine.rows import Row, size
from jaxswap.machine.state import Flag, Lane, MachineState, Mask, Plane


class Judged(NamedTuple):
    """Pages that leave: never accessed after they came by swap-in or by first touch; accessed after they came
    back, and those of them that came in a large folio."""

    useless_swapin: Lane
    useless_touch: Lane
    needed_pages: Lane
    covered_pages: Lane


def judge(row: Row, pages: Mask) -> Judged:
    """What some present pages of a row were good for."""
    back, touched = pages & row[Plane.CAMEBACK], row[Plane.TOUCHED]
    needed = back & touched
    unused = pages & ~touched
    return Judged(size(back & ~touched), size(unused & ~back), size(needed), size(needed & row[Plane.LARGE]))


def leave(state: MachineState, judged: Judged, on: Flag) -> MachineState:
    """Count pages that leave."""
    return replace(state, n=count(state.n, on, **judged._asdict()))
