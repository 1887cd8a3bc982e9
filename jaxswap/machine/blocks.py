"""Reading and writing the bit planes of one 2 MiB block."""

from dataclasses import dataclass, fields, replace
from typing import Self

import jax
import jax.numpy as jnp

from jaxswap.machine.state import BLOCK_WORDS, PLANE_NAMES, STORED, Flag, Lane, MachineState
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import load, store


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Block:
    """The planes of one block; see state.py for what each means."""

    present: Bits
    zeropage: Bits
    swapped: Bits
    next: Bits
    nonzero: Bits
    young: Bits
    touched: Bits
    cameback: Bits
    large: Bits
    o0: Bits
    o1: Bits
    o2: Bits
    o3: Bits
    referenced: Bits
    active: Bits
    workingset: Bits
    partial: Bits
    incache: Bits

    def order(self, page: Lane) -> Lane:
        """Order of the folio of a present page."""
        return sum(
            (bits.has(plane, page).astype(jnp.int32) << i)
            for i, plane in enumerate((self.o0, self.o1, self.o2, self.o3))
        )

    def of_order(self, order: Lane) -> Bits:
        """Pages whose order field is `order`."""
        same = jnp.full_like(self.o0, 0xFFFF_FFFF)
        for i, plane in enumerate((self.o0, self.o1, self.o2, self.o3)):
            wanted = ((order >> i) & 1)[None] == 1
            same = same & jnp.where(wanted, plane, ~plane)
        return same

    def folio(self, page: Lane, order: Lane) -> Bits:
        """Mapped pages of the folio of a present page."""
        base = page >> order << order
        return self.present & self.of_order(order) & bits.span(base, base + (1 << order))

    def with_order(self, pages: Bits, order: Lane) -> Self:
        """The block with the order field of `pages` set."""
        planes = {
            f"o{i}": jnp.where(((order >> i) & 1)[None] == 1, getattr(self, f"o{i}") | pages, getattr(self, f"o{i}") & ~pages)
            for i in range(4)
        }
        return replace(self, **planes)

    def set(self, pages: Bits, *names: str) -> Self:
        """The block with `pages` set in the named planes."""
        return replace(self, **{name: getattr(self, name) | pages for name in names})

    def clear(self, pages: Bits, *names: str) -> Self:
        """The block with `pages` cleared in the named planes."""
        return replace(self, **{name: getattr(self, name) & ~pages for name in names})


FIELDS = tuple(field.name for field in fields(Block))
assert [name.upper() for name in FIELDS] == PLANE_NAMES


def get(state: MachineState, block: Lane) -> Block:
    """The planes of each lane's block."""
    words = load(state.blocks, block * BLOCK_WORDS, STORED * 16)
    return Block(*(words[16 * i : 16 * i + 16] for i in range(STORED)))


def put(state: MachineState, block: Lane, planes: Block, on: Flag) -> MachineState:
    """The state with a block's planes written, the derived ones with them."""
    known = planes.present & planes.young & planes.touched
    words = jnp.concatenate(
        [
            *(getattr(planes, name) for name in FIELDS),
            known | planes.zeropage,
            known & planes.nonzero,
            planes.present | planes.zeropage,
            planes.present,
        ]
    )
    return replace(state, blocks=store(state.blocks, block * BLOCK_WORDS, words, on))
