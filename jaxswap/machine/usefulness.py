"""What a page was good for, judged when it leaves memory (or when the run ends)."""

from dataclasses import replace

from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, MachineState, Plane
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits


def leave(state: MachineState, block: Block, pages: Bits, on: Flag) -> MachineState:
    """Count pages about to leave: useless if never accessed, needed if they came back and were."""
    touched, back = block[Plane.TOUCHED], pages & block[Plane.CAMEBACK]
    n = count(
        state.n,
        on,
        useless_swapin=bits.size(back & ~touched),
        useless_touch=bits.size(pages & ~block[Plane.CAMEBACK] & ~touched),
        needed_pages=bits.size(back & touched),
        covered_pages=bits.size(back & touched & block[Plane.LARGE]),
    )
    return replace(state, n=n)
