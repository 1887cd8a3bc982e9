"""Reading and writing the bit planes of one 2 MiB block."""

from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp
from jax import lax

from jaxswap.machine.state import BLOCK_WORDS, QUIET, READY, STORED, Flag, Lane, MachineState, Plane
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import load, store

ORDER = (Plane.O0, Plane.O1, Plane.O2, Plane.O3)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Block:
    """The stored planes of one block of each lane, by number."""

    planes: tuple[Bits, ...]

    def __getitem__(self, plane: Plane) -> Bits:
        return self.planes[plane]

    def has(self, plane: Plane, page: Lane) -> Flag:
        """Whether a page (0 to 511) is in a plane."""
        return bits.has(self.planes[plane], page)

    def order(self, page: Lane) -> Lane:
        """Order of the folio of a present page."""
        return sum((self.has(plane, page).astype(jnp.int32) << i for i, plane in enumerate(ORDER)), page * 0)

    def of_order(self, order: Lane) -> Bits:
        """Pages whose order field is `order`."""
        order = bits.once(order)
        same = jnp.full_like(self.planes[0], 0xFFFF_FFFF)
        for i, plane in enumerate(ORDER):
            wanted = jnp.where(((order >> i) & 1)[None] == 1, jnp.uint32(0), jnp.uint32(0xFFFF_FFFF))
            same = same & (self.planes[plane] ^ wanted)
        return same

    def folio(self, page: Lane, order: Lane) -> Bits:
        """Mapped pages of the folio of a present page."""
        base = page >> order << order
        whole = bits.span(base, base + (1 << order))

        def partial() -> Bits:
            return whole & self[Plane.PRESENT] & self.of_order(order)

        return bits.once(lax.cond(jnp.any(self.has(Plane.PARTIAL, page)), partial, lambda: whole))

    def heads(self, pages: Bits) -> Bits:
        """First pages of the folios that lie wholly in `pages`."""
        found = jnp.zeros_like(pages)
        for order in (0, *range(2, 10)):
            same = self.of_order(jnp.full(pages.shape[1:], order, jnp.int32))
            found = found | (pages & same & bits.ALIGNED[order])
        return found

    def set(self, pages: Bits, *planes: Plane) -> Self:
        """The block with `pages` set in the named planes."""
        pages = bits.once(pages)
        return self._with({plane: self.planes[plane] | pages for plane in planes})

    def clear(self, pages: Bits, *planes: Plane) -> Self:
        """The block with `pages` cleared in the named planes."""
        pages = bits.once(pages)
        return self._with({plane: self.planes[plane] & ~pages for plane in planes})

    def _with(self, changed: dict[Plane, Bits]) -> Self:
        return replace(self, planes=tuple(changed.get(Plane(i), old) for i, old in enumerate(self.planes)))


def get(state: MachineState, block: Lane) -> tuple[Block, MachineState]:
    """The planes of each lane's block."""
    words, table = load(state.blocks, block * BLOCK_WORDS, STORED * 16)
    planes = tuple(words[16 * i : 16 * i + 16] for i in range(STORED))
    return Block(planes), replace(state, blocks=table)


def put(state: MachineState, block: Lane, before: Block, planes: Block, on: Flag) -> MachineState:
    """The state with the planes written that are not those of `before`, and what derives from them."""
    changed = [plane for plane in Plane if planes[plane] is not before[plane]]
    words = {int(plane): planes[plane] for plane in changed}
    present, zeropage = planes[Plane.PRESENT], planes[Plane.ZEROPAGE]
    if {Plane.PRESENT, Plane.ZEROPAGE} & set(changed):
        words |= {READY: present | zeropage, READY + 1: present}
    if {Plane.PRESENT, Plane.ZEROPAGE, Plane.YOUNG, Plane.TOUCHED, Plane.NONZERO} & set(changed):
        known = present & planes[Plane.YOUNG] & planes[Plane.TOUCHED]
        words |= {QUIET: known | zeropage, QUIET + 1: known & planes[Plane.NONZERO]}
    table = state.blocks
    for plane, value in words.items():
        table = store(table, block * BLOCK_WORDS + plane * 16, value, on)
    return replace(state, blocks=table)
