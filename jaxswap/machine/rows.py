"""Rows of the page state: the words of 32 pages, read and written together.

Most folios lie within one row; larger ones take a turn a row. A set of pages of one row is a word of it. What
looks at all rows of a 2 MiB block is in blocks.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from jaxswap.machine.state import ORDER, PLANES, Flag, Lane, MachineState, Mask, Plane
from jaxswap.swaptable.lanes import load, repeat, store, surely

ALL = np.uint32(0xFFFF_FFFF)


def once[T](value: T) -> T:
    """The same value, computed once: XLA would repeat the work in every use."""
    return lax.optimization_barrier(value)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """The words of the row of each lane's page."""

    words: UInt32[Array, "planes L"]

    def __getitem__(self, plane: Plane) -> Mask:
        return self.words[plane]

    def has(self, plane: Plane, page: Lane) -> Flag:
        """Whether a page of the row is in a plane."""
        return has(self.words[plane], page)

    def order(self, page: Lane) -> Lane:
        """Order of the folio of a present page of the row."""
        at = (page & 31).astype(jnp.uint32)
        order = (self[ORDER[0]] >> at) & 1
        for i, plane in enumerate(ORDER[1:], 1):
            order = order | (((self[plane] >> at) & 1) << np.uint32(i))
        return order.astype(jnp.int32)

    def small(self) -> Mask:
        """The pages whose order is 0."""
        return ~(self[Plane.O0] | self[Plane.O1] | self[Plane.O2] | self[Plane.O3])

    def of_order(self, order: Lane) -> Mask:
        """The pages whose order is `order`."""
        differ = jnp.zeros_like(self.words[0])
        for i, plane in enumerate(ORDER):
            differ = differ | (self[plane] ^ only(ALL, (order >> i) & 1 == 1))
        return ~differ

    def clear(self, *sets: tuple[Mask, tuple[Plane, ...]]) -> "Row":
        """The row with sets of pages taken out of planes."""
        return Row(self.words & ~_spread(sets))

    def add(self, *sets: tuple[Mask, tuple[Plane, ...]]) -> "Row":
        """The row with sets of pages added to planes."""
        return Row(self.words | _spread(sets))


def _spread(sets: Sequence[tuple[Mask, tuple[Plane, ...]]]) -> UInt32[Array, "planes L"]:
    """Words for a whole row: each set of pages in its planes."""
    words = once([word for word, _ in sets])
    total = jnp.zeros((PLANES, *words[0].shape), jnp.uint32)
    for word, (_, planes) in zip(words, sets, strict=True):
        chosen = np.zeros((PLANES, 1), np.uint32)
        chosen[list(planes)] = ALL
        total = total | (chosen & word[None])
    return total


def get(state: MachineState, page: Lane) -> tuple[Row, MachineState]:
    """The row that holds a page of the region."""
    words, table = load(state.rows, (page >> 5) * PLANES, PLANES)
    return Row(words), replace(state, rows=table)


def put(state: MachineState, page: Lane, row: Row, on: Flag) -> MachineState:
    """The state with the row of a page written."""
    return replace(state, rows=store(state.rows, (page >> 5) * PLANES, row.words, on))


def only(word: Mask | np.uint32, on: Flag) -> Mask:
    """The set in the lanes that are on, else none."""
    return jnp.where(on, word, np.uint32(0))


def bit(page: Lane) -> Mask:
    """The set of one page in its row."""
    return jnp.uint32(1) << (page & 31).astype(jnp.uint32)


def has(word: Mask, page: Lane) -> Flag:
    """Whether a page is in a set of its row."""
    return (word >> (page & 31).astype(jnp.uint32)) & 1 == 1


def below(n: Lane) -> Mask:
    """The pages of a row before the n-th (0 to 32)."""
    return jnp.where(n >= 32, ALL, (jnp.uint32(1) << (n & 31).astype(jnp.uint32)) - np.uint32(1))


def inside(page: Lane, start: Lane, end: Lane) -> Mask:
    """The pages of a page's row that lie in [start, end)."""
    base = page & -32
    return below(jnp.clip(end - base, 0, 32)) & ~below(jnp.clip(start - base, 0, 32))


def rest(at: Lane, end: Lane) -> Mask:
    """The pages of a row from `at` on that lie before `end`, which is behind `at`."""
    beyond = 32 - jnp.minimum(end - (at & -32), 32)
    return (ALL >> beyond.astype(jnp.uint32)) & (ALL << (at & 31).astype(jnp.uint32))


def folio(page: Lane, order: Lane) -> Mask:
    """The part of the folio of 2^order around a page that lies in the page's row."""
    order = jnp.minimum(order, 5)
    beyond = 32 - (jnp.int32(1) << order)
    base = (page & 31) >> order << order
    return (ALL >> beyond.astype(jnp.uint32)) << base.astype(jnp.uint32)


def size(word: Mask) -> Lane:
    """How many pages a set has."""
    return lax.population_count(word).astype(jnp.int32)


def each[T](start: Lane, end: Lane, act: Callable[[T, Lane, Flag], T], state: T, on: Flag) -> T:
    """`act(state, page, on)` for the first page in [start, end) of every row, ascending."""

    def turn(carry: tuple[T, Lane]) -> tuple[T, Lane]:
        state, at = carry
        return act(state, at, surely(on & (at < end))), (at & -32) + 32

    return repeat(lambda carry: on & (carry[1] < end), turn, (state, start))[0]
