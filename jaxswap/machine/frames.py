"""Page frames of the pages of a machine, and giving them back when a folio is gone.

Only where the machine has frames (`MachineState.frames`); else none of this is compiled. A folio's frames are
aligned to its order, one behind the other. Taking them is in holding.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from jaxswap import frames
from jaxswap.frames import buddy
from jaxswap.frames.buddy import Buddy
from jaxswap.machine import rows
from jaxswap.machine.rows import once, only
from jaxswap.machine.state import Flag, Lane, MachineState, Mask, Plane
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, store1, surely, when

_ROW = np.arange(32, dtype=np.int32)[:, None]
NOTHING = -1  # in `held`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PageFrames:
    """buddy: the free lists; its `next` is the page of each frame in use. of: the frame of each page that is
    present or in the swap cache.

    Of the fault under way: held: order of the frames it holds, or NOTHING; base: the first of them; small: an
    order-0 charge is for a page, not for a page table; lacked: orders for which there were no frames.

    chance: of 65,536 compactions, those that nothing hinders. draws: state of the generator that says which.
    """

    buddy: Buddy
    of: Int32[Array, "pages L"]
    held: Lane
    base: Lane
    small: Flag
    lacked: Mask
    chance: Lane
    draws: Mask


def mixed(x: Mask) -> Mask:
    """The last step of MurmurHash3."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EB_CA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2_AE35)
    return x ^ (x >> np.uint32(16))


def chance_of(given: frames.Frames) -> int:
    """Of 65,536 compactions, those that nothing hinders."""
    return round(given.compaction / 100 * (1 << 16))


def init(given: Sequence[frames.Frames], pages: int) -> PageFrames:
    """As numpy, a lane for each of `given`; `pages` as in the state."""
    lanes = len(given)
    starts = {one: one.start() for one in dict.fromkeys(given)}
    most = max(one.count for one in given)
    free_lists = buddy.buddy_of([starts[one] for one in given], buddy.room(most))
    none: Any = np.zeros(lanes, np.int32)
    numbers: Any = np.zeros((pages + SPARE, lanes), np.int32)
    seeds = mixed(jnp.array([one.seed for one in given], jnp.uint32))
    chances: Any = np.array([chance_of(one) for one in given], np.int32)
    return PageFrames(
        buddy=free_lists,
        of=numbers,
        held=none + NOTHING,
        base=none,
        small=none.astype(bool),
        lacked=none.astype(np.uint32),
        chance=chances,
        draws=jax.device_get(seeds),
    )


def of(state: MachineState) -> PageFrames:
    """The frames of a machine that has them."""
    assert state.frames is not None
    return state.frames


def available(state: MachineState) -> Mask:
    """Orders for which there is a free block now: those up to the largest block's."""
    if state.frames is None:
        return jnp.full(state.oom.shape, rows.ALL)
    return rows.below(bits.highest(state.frames.buddy.orders) + 1)


def with_buddy(state: MachineState, free_lists: Buddy) -> MachineState:
    """The state with other free lists."""
    return replace(state, frames=replace(of(state), buddy=free_lists))


def assign(state: MachineState, page: Lane, frame: Lane, order: Lane, on: Flag) -> MachineState:
    """2^order pages from `page` on are in the frames from `frame` on."""
    f = of(state)
    size = jnp.int32(1) << order
    one, several = on & (order == 0), on & (order > 0)
    tables = store1(f.of, page, frame, one), store1(f.buddy.next, frame, page, one)

    def going(carry: tuple[Array, Array, Lane]) -> Flag:
        return several & (carry[2] < size)

    def row(carry: tuple[Array, Array, Lane]) -> tuple[Array, Array, Lane]:
        here = surely(going(carry))

        def fill(table: Array, first: Lane, value: Lane) -> Array:
            start = (first + carry[2]) & -32
            at = start[None] + _ROW - first[None]
            old, table = load(table, start, 32)
            return store(table, start, jnp.where((at >= 0) & (at < size[None]), value[None] + at, old), here)

        return fill(carry[0], page, frame), fill(carry[1], frame, page), carry[2] + 32

    tables = when(several, lambda t: repeat(going, row, (*t, jnp.zeros_like(page)))[:2], tables)
    return replace(state, frames=replace(f, of=tables[0], buddy=replace(f.buddy, next=tables[1])))


def drop(state: MachineState, page: Lane, order: Lane, on: Flag) -> MachineState:
    """The folio of 2^order around a page is gone."""
    f = of(state)
    frame, table = load1(f.of, page)
    frame = frame - (page & ((jnp.int32(1) << order) - 1))
    return replace(state, frames=replace(f, of=table, buddy=buddy.free(f.buddy, frame, order, on)))


def drop_all(
    state: MachineState, page: Lane, order: Lane, folios: Lane, down: Flag, on: Flag
) -> MachineState:
    """A folio is gone, or several small ones from `page` on, upwards or downwards."""
    up = jnp.where(down, -1, 1)

    def going(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < folios)

    def one(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        return drop(carry[0], page + up * carry[1], order, surely(going(carry))), carry[1] + 1

    return repeat(going, one, (state, jnp.zeros_like(page)))[0]


def drop_parts(state: MachineState, page: Lane, order: Lane, kept: bits.Bits, on: Flag) -> MachineState:
    """Of a folio around a page that was split only the pages `kept` of the block stay; ascending."""
    f = of(state)
    base = page >> order << order
    frame, table = load1(f.of, page)
    shift = once(frame - (page & 511))
    gone = bits.span(base & 511, (base & 511) + (jnp.int32(1) << order)) & ~kept
    zero = jnp.zeros_like(page)

    def one(carry: tuple[Buddy, bits.Bits]) -> tuple[Buddy, bits.Bits]:
        b, left = carry
        at, more = once((bits.first(left), surely(bits.some(left))))
        return buddy.free(b, shift + jnp.minimum(at, 511), zero, more), left & ~bits.one(at)

    free_lists, _ = repeat(lambda carry: bits.some(carry[1]), one, (f.buddy, bits.only(gone, on)))
    return replace(state, frames=replace(f, of=table, buddy=free_lists))


def drop_cached(state: MachineState, start: Lane, end: Lane, on: Flag) -> MachineState:
    """The folios that MADV_WILLNEED left in the swap cache for pages start .. end - 1 are gone."""

    def release(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        cached = once(only(rows.inside(at, start, end) & row[Plane.INCACHE], on))

        def one(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
            state, left = carry
            page = (at & -32) + jnp.minimum(bits.ctz(left), 31)
            state = drop(state, page, jnp.zeros_like(page), surely(left != 0))
            return state, left & (left - np.uint32(1))

        return repeat(lambda carry: carry[1] != 0, one, (state, cached))[0]

    return rows.each(start, end, release, state, on)
