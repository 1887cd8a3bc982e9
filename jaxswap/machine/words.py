"""Reading and writing single words of the bit planes: 32 pages at a time.

Most folios lie within one word; larger ones take a turn a word. What concerns a whole block is in blocks.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
from jax import lax

from jaxswap.machine.state import BLOCK_WORDS, Flag, Lane, MachineState, Mask
from jaxswap.swaptable.lanes import load1, repeat, store1

_ALL = 0xFFFF_FFFF


def _at(page: Lane, plane: int) -> Lane:
    return (page >> 9) * BLOCK_WORDS + plane * 16 + ((page >> 5) & 15)


def get(state: MachineState, page: Lane, planes: Sequence[int]) -> tuple[list[Mask], MachineState]:
    """The words of some planes that hold a page of the region."""
    words, table = [], state.blocks
    for plane in planes:
        word, table = load1(table, _at(page, plane))
        words.append(word)
    return words, replace(state, blocks=table)


def put(state: MachineState, page: Lane, words: dict[int, Mask], on: Flag) -> MachineState:
    """The state with the words of some planes written that hold a page of the region."""
    table = state.blocks
    for plane, word in words.items():
        table = store1(table, _at(page, plane), word, on)
    return replace(state, blocks=table)


def bit(page: Lane) -> Mask:
    """The page's bit in its words."""
    return jnp.uint32(1) << (page & 31).astype(jnp.uint32)


def mask(page: Lane, order: Lane) -> Mask:
    """The bits that the folio of 2^order around a page has in the page's words."""
    size = jnp.uint32(1) << jnp.minimum(order, 5).astype(jnp.uint32)
    low = jnp.where(order >= 5, jnp.uint32(_ALL), (jnp.uint32(1) << (size & 31)) - jnp.uint32(1))
    base = (page >> order << order) & 31
    return low << base.astype(jnp.uint32)


def each[T](page: Lane, order: Lane, act: Callable[[T, Lane, Flag], T], state: T, on: Flag) -> T:
    """`act(state, page, on)` for one page of every word of the folio of 2^order around `page`, ascending."""
    first = page >> order << order
    end = first + (jnp.int32(1) << order)

    def turn(carry: tuple[T, Lane]) -> tuple[T, Lane]:
        state, at = carry
        active = on & (at < end)
        return act(state, at, active), at + 32

    return repeat(lambda carry: on & (carry[1] < end), turn, (state, first))[0]


def has(word: Mask, page: Lane) -> Flag:
    """Whether a page is in a word of its group."""
    return (word >> (page & 31).astype(jnp.uint32)) & 1 == 1


def order_of(o0: Mask, o1: Mask, o2: Mask, o3: Mask, page: Lane) -> Lane:
    """Order of the folio of a page from its words of the order planes."""
    return sum((has(word, page).astype(jnp.int32) << i for i, word in enumerate((o0, o1, o2, o3))), page * 0)


def size(word: Mask) -> Lane:
    """How many pages a word holds."""
    return lax.population_count(word).astype(jnp.int32)
