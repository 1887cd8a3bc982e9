"""Pages given back: MADV_DONTNEED and munmap.

Source of the rules: mm/memory.c (zap_pte_range), mm/swapfile.c (swap_put_entries_direct,
swap_put_entries_cluster), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import blocks, deferred, frames, generations, lru, places, rows, usefulness
from jaxswap.machine.counters import count
from jaxswap.machine.rows import Row, once, only
from jaxswap.machine.state import Flag, Lane, MachineState, Mask, Plane
from jaxswap.swaptable import bits, clusters, slot_cache
from jaxswap.swaptable.lanes import repeat, surely, when


def dont_need(state: MachineState, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Pages start .. end - 1 of a block become none: folios lose them, slots are freed run by run."""
    if state.frames is not None:
        state = frames.drop_cached(state, start, end, on)
    by_hand = slot_cache.present(state.clusters)
    if by_hand:
        state = _free_runs(state, start, end, on)

    def release(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = once(only(rows.inside(at, start, end), on))
        going = pages & (row[Plane.PRESENT] | row[Plane.INCACHE]) != 0
        state = generations.lru_add_drain(state, going)
        if state.generations is not None:
            row, state = rows.get(state, at)
        base = at & -32
        present, swapped, cached = (pages & row[p] for p in (Plane.PRESENT, Plane.SWAPPED, Plane.INCACHE))
        none = jnp.zeros_like(pages)
        state, partial = when(present != 0, lambda c: _unmap(c[0], base, row, pages, present), (state, none))
        if not by_hand:
            state = when(swapped != 0, lambda s: _free_slots(s, base, row, swapped), state)
        state = when(cached != 0, lambda s: _drop_cached(s, base, row, cached), state)
        emptied = Row(row.words & ~pages[None]).clear((pages << np.uint32(1), (Plane.NEXT,)))
        return rows.put(state, at, emptied.add((partial, (Plane.PARTIAL,))), on)

    state = rows.each(start, end, release, state, on)
    border = on & (end & 31 == 0) & (end & 511 != 0)

    def cut(state: MachineState) -> MachineState:
        row, state = rows.get(state, end)
        return rows.put(state, end, row.clear((rows.bit(end), (Plane.NEXT,))), surely(border))

    return when(border, cut, state)


def _unmap(
    state: MachineState, base: Lane, row: Row, pages: Mask, present: Mask
) -> tuple[MachineState, Mask]:
    """Take pages of a row from their folios and free empty ones: (state, pages of the row left in folios that
    lost some)."""
    some = surely(present != 0)
    state = usefulness.leave(state, usefulness.judge(row, present), some)

    def folio(carry: tuple[MachineState, Mask, Mask]) -> tuple[MachineState, Mask, Mask]:
        state, left, partial = carry
        on = surely(left != 0)
        page = once(base + jnp.minimum(bits.ctz(left), 31))
        order, active = row.order(page), lru.is_active(state, row.has(Plane.ACTIVE, page))
        order, active = once((order, active))
        members = rows.folio(page, order) & row[Plane.PRESENT] & row.of_order(order)
        members = once(only(members, on))
        rest = once(members & ~pages)
        near = base + bits.ctz(members), base + bits.ctz(rest), rest != 0

        def far() -> tuple[Lane, Lane, Flag]:
            found, _ = blocks.folio(state, page, order)
            kept = found & ~jnp.where(np.arange(16)[:, None] == (base >> 5) & 15, pages, jnp.uint32(0))
            block = page & -512
            return block + bits.first(found), block + bits.first(kept), bits.some(kept)

        large = on & (order > 5)
        wide = lax.cond(jnp.any(large), far, lambda: near)
        wide, table = lax.optimization_barrier((wide, state.rows))
        state = replace(state, rows=table)
        name, kept, remains = once(tuple(jnp.where(large, a, b) for a, b in zip(wide, near, strict=True)))
        size = jnp.int32(1) << order
        gone = on & ~remains
        renamed = on & remains & (kept != name)
        broken = row.has(Plane.PARTIAL, page)
        state = lru.remove(state, name, active, size, gone)
        state = when(renamed, lambda s: lru.rename(s, name, kept, surely(renamed)), state)

        loses = on & (broken | remains)
        state = when(loses, lambda s: deferred.lose(s, name, broken, kept, remains, surely(loses)), state)
        state = replace(state, used=state.used - jnp.where(gone, size, 0))
        if state.frames is not None:
            state = when(gone, lambda s: frames.drop(s, name, order, surely(gone)), state)
        spread = large & remains

        def lose(state: MachineState, at: Lane, on: Flag) -> MachineState:
            other, state = rows.get(state, at)
            left = only(other[Plane.PRESENT] & other.of_order(order), at >> 5 != base >> 5)
            return rows.put(state, at, other.add((left, (Plane.PARTIAL,))), on)

        first = page >> order << order
        state = rows.each(first, first + size, lose, state, spread)
        return state, left & ~members, partial | rest

    start = (state, present, jnp.zeros_like(present))
    state, _, partial = repeat(lambda carry: carry[1] != 0, folio, start)
    return state, partial


def _free_slots(state: MachineState, base: Lane, row: Row, swapped: Mask) -> MachineState:
    """swap_put_entries_direct for each run of consecutive slots, cut at cluster borders.

    A run that goes on in the next row is freed in two parts, which comes to the same.
    """

    def run(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
        state, left = carry
        on = surely(left != 0)
        at = once(jnp.minimum(bits.ctz(left), 31))
        slot, _, state = places.of(state, base + at)
        follow = (left & row[Plane.NEXT]) >> at.astype(jnp.uint32)
        size = bits.ctz(~(follow >> np.uint32(1))) + 1
        size = once(
            jnp.minimum(jnp.minimum(size, 32 - at), clusters.CLUSTER - (slot & (clusters.CLUSTER - 1)))
        )
        freed = clusters.put(state.clusters, state.cpu, slot, size, size > 1, on)
        state = replace(state, clusters=freed)
        return state, left & ~rows.below(at + size)

    return repeat(lambda carry: carry[1] != 0, run, (state, swapped))[0]


def _free_runs(state: MachineState, start: Lane, end: Lane, on: Flag) -> MachineState:
    """The same in 6.12, run by run: what is no whole run inside one cluster goes through the slot cache
    (free_swap_and_cache_nr)."""

    def going(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < end)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, at = carry
        (swapped, follow), state = blocks.planes(state, at, (Plane.SWAPPED, Plane.NEXT))
        base = at & -512
        page = bits.from_on(swapped, at - base)
        stop = jnp.minimum(bits.from_on(~follow, page + 1), end - base)
        here = surely(going(carry)) & (base + page < end)
        page = jnp.minimum(page, 511)
        slot, _, state = places.of(state, base + page)
        # One cluster at a time.
        part = jnp.minimum(stop - page, clusters.CLUSTER - (slot & (clusters.CLUSTER - 1)))
        begins = ~bits.has(follow, page) | (base + page == start)
        direct = begins & (part == stop - page) & (part > 1)
        freed = clusters.put(state.clusters, state.cpu, slot, part, direct, here)
        return replace(state, clusters=freed), jnp.where(here, base + page + part, end)

    return repeat(going, turn, (state, start))[0]


def _drop_cached(state: MachineState, base: Lane, row: Row, cached: Mask) -> MachineState:
    """Free the folios that MADV_WILLNEED left in the swap cache for these pages."""

    def drop(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
        state, left = carry
        on, page = surely(left != 0), base + jnp.minimum(bits.ctz(left), 31)
        active = lru.is_active(state, row.has(Plane.ACTIVE, page))
        state = lru.remove(state, page, active, jnp.ones_like(page), on)
        n = count(state.n, on & ~row.has(Plane.UNWRITTEN, page), useless_swapin=1)
        return replace(state, used=state.used - on, n=n), left & (left - np.uint32(1))

    return repeat(lambda carry: carry[1] != 0, drop, (state, cached))[0]
