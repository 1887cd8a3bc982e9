"""What a page was good for, judged when it leaves memory (or when the run ends)."""

from dataclasses import replace

from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, MachineState
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits


def leave(state: MachineState, block: Block, pages: Bits, on: Flag) -> MachineState:
    """Count `pages`, about to leave: useless if never accessed since they came, needed if they came back and were."""
    unused, back = pages & ~block.touched, pages & block.cameback
    n = count(state.n, "useless_swapin", bits.size(unused & block.cameback), on)
    n = count(n, "useless_touch", bits.size(unused & ~block.cameback), on)
    n = count(n, "needed_pages", bits.size(back & block.touched), on)
    n = count(n, "covered_pages", bits.size(back & block.touched & block.large), on)
    return replace(state, n=n)
