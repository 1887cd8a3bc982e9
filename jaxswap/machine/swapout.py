"""Folios that are to go: slots, split on failure, unmapping, shadows.

Source of the rules: mm/vmscan.c (shrink_folio_list, __remove_mapping), mm/page_io.c (swap_writeout),
mm/huge_memory.c (split of a folio), mm/workingset.c (workingset_eviction), 7.3, synchronous device.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import (
    blocks,
    deferred,
    frames,
    generations,
    heuristic,
    lru,
    places,
    rows,
    tables,
    tlb,
    usefulness,
)
from jaxswap.machine.counters import count, count_order
from jaxswap.machine.rows import once, only
from jaxswap.machine.rules import Rules
from jaxswap.machine.state import ORDER, PLANES, Flag, Lane, MachineParams, MachineState, Plane
from jaxswap.machine.usefulness import Judged
from jaxswap.machine.work import Leaving, Pieces
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.geometry import MAX_ORDER
from jaxswap.swaptable.lanes import load1, repeat, store1, surely, when

SWAP_CLUSTER_MAX = 32
FOLIO_FLAGS = (
    Plane.REFERENCED, Plane.ACTIVE, Plane.WORKINGSET, Plane.GEN1, Plane.REFS0, Plane.REFS1
)  # fmt: skip
ARRIVAL = (Plane.YOUNG, Plane.TOUCHED, Plane.CAMEBACK, Plane.LARGE, Plane.QUIET, Plane.QUIET_WRITE)
_WORD = np.arange(16, dtype=np.int32)[:, None]


def swap_left(state: MachineState, params: MachineParams) -> Lane:
    """mem_cgroup_get_nr_swap_pages: slots that the cgroup may still have."""
    return jnp.maximum(state.clusters.free - params.withheld, 0)


def split_folio(state: MachineState, page: Lane, order: Lane, on: Flag) -> tuple[MachineState, Bits]:
    """Split the folio of 2^order with `page` as its lowest mapped one to order 0: (state, its parts, as pages
    of the block).

    Parts are the pieces that somebody maps. Sub-pages whose content is all zero become the shared zero page,
    and like pages that the folio had lost they are nobody's.
    """
    base = page >> order << order
    waits, state = deferred.waits(state, page)
    leaves = on & waits
    state = when(leaves, lambda s: deferred.remove(s, page, surely(leaves)), state)

    def divide(carry: tuple[MachineState, Bits], at: Lane, on: Flag) -> tuple[MachineState, Bits]:
        state, pieces = carry
        row, state = rows.get(state, at)
        folio = once(only(rows.folio(at, order) & row[Plane.PRESENT] & row.of_order(order), on))
        zeros, parts = folio & ~row[Plane.NONZERO], folio & row[Plane.NONZERO]
        state = usefulness.leave(state, usefulness.judge(row, zeros), on)
        row = row.clear(
            (zeros, (Plane.PRESENT, *FOLIO_FLAGS, *ARRIVAL)),
            (folio, (Plane.PARTIAL, *ORDER)),
        )
        row = row.add((zeros, (Plane.ZEROPAGE, Plane.QUIET)))
        pieces = jnp.where(on & ((at >> 5) & 15 == _WORD), parts, pieces)
        return rows.put(state, at, row, on), pieces

    none = jnp.zeros((16, *page.shape), jnp.uint32)
    state, pieces = rows.each(base, base + (jnp.int32(1) << order), divide, (state, none), on)
    if state.frames is not None:
        state = frames.drop_parts(state, page, order, pieces, on)
    used = state.used + jnp.where(on, bits.size(pieces) - (jnp.int32(1) << order), 0)
    return replace(state, used=used, n=count_order(state.n, "split", order, on)), pieces


class Next(NamedTuple):
    """What goes next: a piece of a split folio, or a folio, or several small ones.

    page: lowest mapped page. order, and `want` folios of that order one behind the other (one before the
    other if `down`), all alike. piece: of a split folio, so on no list. nobodys: a piece that nobody
    maps. cached: in the swap cache only. partial: has lost pages, or the heuristic does not leave it whole:
    it is split. flags: of the multi-gen LRU.
    """

    on: Flag
    page: Lane
    order: Lane
    want: Lane
    down: Flag
    piece: Flag
    nobodys: Flag
    cached: Flag
    partial: Flag
    active: Flag
    workingset: Flag
    flags: generations.Flags


def _first_piece(rules: Rules, leaving: Leaving) -> tuple[Lane, Lane, Flag, Flag]:
    """Where pieces are left: page, how many go with it, whether downwards, whether nobody maps it. Else the
    victim."""
    split, piece = leaving.pieces, leaving.pieces.count > 0
    ascending = once(split.fresh | rules.ascending_pieces)

    def nearest() -> tuple[Lane, Lane, Flag]:
        at = jnp.clip(jnp.where(ascending, bits.first(split.left), bits.last(split.left)), 0, 511)
        # Mapped ones as far as they go on in the row; a piece that is nobody's goes alone.
        mapped = bits.word(split.mapped & split.left, at >> 5)
        down = lax.clz(~(mapped << (31 - (at & 31)).astype(jnp.uint32))).astype(jnp.int32)
        up = bits.ctz(~(mapped >> (at & 31).astype(jnp.uint32)))
        run = jnp.maximum(jnp.where(rules.ascending_pieces, up, jnp.where(split.fresh, 1, down)), 1)
        page = jnp.where(piece, split.block * 512 + at, leaving.victim)
        return page, jnp.where(piece, run, leaving.alike), piece & ~bits.has(split.mapped, at)

    nearby = (leaving.victim, leaving.alike, jnp.zeros_like(piece))
    page, run, nobodys = once(lax.cond(jnp.any(piece), nearest, lambda: nearby))
    return page, run, piece & ~ascending, nobodys


def next_to_go(state: MachineState, rules: Rules, leaving: Leaving) -> tuple[Next, MachineState]:
    """A piece, else the victim."""
    piece = once(leaving.pieces.count > 0)
    page, want, down, nobodys = _first_piece(rules, leaving)
    on = once(piece | (leaving.victim >= 0))
    page = jnp.where(on, page, 0)
    row, state = rows.get(state, page)
    cached = on & ~piece & ~row.has(Plane.PRESENT, page)
    active = lru.is_active(state, row.has(Plane.ACTIVE, page))
    return once(
        Next(
            on=on,
            page=page,
            order=jnp.where(piece | cached, 0, row.order(page)),
            want=want,
            down=down,
            piece=piece,
            nobodys=nobodys,
            cached=cached,
            partial=on & ~piece & row.has(Plane.PARTIAL, page),
            active=active,
            workingset=row.has(Plane.WORKINGSET, page) | active,
            flags=generations.flags_of(row, page),
        )
    ), state


def next_in_range(state: MachineState, leaving: Leaving, on: Flag) -> tuple[MachineState, Leaving]:
    """The next victims of advice: a folio wholly in [at, stop), or several small ones that are alike."""
    stop = leaving.stop

    def look(carry: tuple[MachineState, Lane, Lane, Lane]) -> tuple[MachineState, Lane, Lane, Lane]:
        state, at, victim, alike = carry
        sure = surely(going(carry))
        row, state = rows.get(state, at)
        inside = once(only(row[Plane.PRESENT] & rows.rest(at, stop), sure))
        here = inside != 0
        page = once(jnp.where(here, (at & -32) + bits.ctz(inside), at))
        same = inside & row.small()
        for plane in (Plane.ACTIVE, Plane.NONZERO):
            same = same & (row[plane] ^ only(rows.ALL, ~row.has(plane, page)))
        run = jnp.where(row.order(page) == 0, bits.ctz(~(same >> (page & 31).astype(jnp.uint32))), 1)
        return (
            state,
            jnp.where(here, page, jnp.where(sure, (at & -32) + 32, at)),
            jnp.where(here, page, victim),
            jnp.where(here, run, alike),
        )

    def going(carry: tuple[MachineState, Lane, Lane, Lane]) -> Flag:
        _, at, victim, _ = carry
        return on & (victim < 0) & (at < stop)

    start = (state, leaving.at, leaving.victim, leaving.alike)
    state, at, victim, alike = repeat(going, look, start)
    return state, leaving._replace(at=at, victim=victim, alike=alike)


def _choose(state: MachineState, params: MachineParams, go: Next) -> tuple[MachineState, Next]:
    """Ask the heuristic of a large folio, before slots are looked for, whether it leaves whole."""

    def inside(state: MachineState) -> tuple[dict[str, Lane], MachineState]:
        size = jnp.int32(1) << go.order
        wanted = (Plane.YOUNG, Plane.TOUCHED, Plane.NONZERO)
        (young, touched, nonzero), state = blocks.planes(state, go.page, wanted)
        pages = bits.span(go.page & 511, (go.page & 511) + size)
        young, touched, full = (bits.size(pages & some) for some in (young, touched, nonzero))
        return {"young": young, "touched": touched, "zeros": size - full}, state

    asks = once(go.on & ~go.cached & ~go.partial & (go.order > 0))
    state, whole = heuristic.leave_whole(state, params, go.order, go.page, go.workingset, inside, asks)
    return state, go._replace(partial=once(go.partial | ~whole))


def shrink_folio(
    state: MachineState, params: MachineParams, leaving: Leaving, go: Next
) -> tuple[MachineState, Leaving]:
    """shrink_folio_list for a folio or several small ones, unreferenced.

    A large folio that finds no slots, or more than memory.swap.max allows, or has lost pages, is to be split;
    its pieces follow at once: the first, then from the last down. One that nobody maps takes a slot too, and
    gives it back unwritten. A small folio that finds no slot is activated. A large one that the heuristic
    does not leave whole is split before slots are looked for: nothing has failed, and `split` counts it.
    """
    if heuristic.asked_at_swapout(params.heuristics):
        state, go = _choose(state, params, go)
    v, order, on = go.page, go.order, go.on
    size = jnp.int32(1) << order
    whole = on & ~go.cached & ~go.partial
    # Under memory.swap.max each folio is charged for its slots by itself.
    want = jnp.where(params.withheld > 0, 1, go.want)
    allocated, slot, got = clusters.alloc(state.clusters, params.rules.slots, state.cpu, order, want, whole)
    state = replace(state, clusters=allocated)
    found = whole & (slot >= 0)
    beyond = found & (state.clusters.free < params.withheld)
    found = found & ~beyond
    out = found & ~go.nobodys
    splits = on & ~go.cached & ~found & (order > 0)
    stay = whole & ~found & (order == 0)
    through = found & go.nobodys
    returns = through | beyond
    out, splits, stay, returns, folios = once((out, splits, stay, returns, jnp.where(found, got, 1)))
    state = tables.lose_entry(state, v, on & (order == MAX_ORDER))
    state = lru.remove_all(state, v, go.active, size, folios, on & ~go.piece)
    pages = once(folios << order)

    low = once(jnp.where(go.down, v - folios + 1, v))
    state = when(out, lambda s: _swap_out(s, low, order, pages, slot, go, surely(out)), state)
    state = tlb.flush_range(state, params, size, out)
    state = when(go.cached, lambda s: _drop_cached(s, go, surely(go.cached)), state)
    state = when(
        returns,
        lambda s: replace(
            s, clusters=clusters.put(s.clusters, s.cpu, slot, pages, order > 0, surely(returns))
        ),
        state,
    )
    if state.frames is not None:
        state = frames.drop_all(state, v, order, folios, go.down, out | go.cached)
    lost = jnp.where(out | go.cached, pages, 0)
    state = replace(state, age=state.age + lost, used=state.used - lost, reclaimed=state.reclaimed + lost)

    def take(split: Pieces) -> Pieces:
        on = surely(go.piece)
        gone = only(rows.rest(low, low + folios), on)
        gone = jnp.where((v >> 5) & 15 == _WORD, gone[None], jnp.uint32(0))
        return split._replace(left=split.left & ~gone, count=split.count - jnp.where(on, folios, 0))

    pieces = when(go.piece, take, leaving.pieces)
    state = when(splits | stay, lambda s: _remain(s, go, splits, stay), state)
    chosen = on & ~go.piece
    return state, leaving._replace(
        pieces=pieces._replace(fresh=pieces.fresh & ~on),
        victim=jnp.where(chosen, -1, leaving.victim),
        at=jnp.where(chosen, v + pages, leaving.at),
        cut=jnp.where(splits, v, leaving.cut),
        listed=leaving.listed & ~splits,
    )


def _swapped(state: MachineState, page: Lane) -> tuple[Flag, Lane, MachineState]:
    """Whether a page is swapped, and its slot."""
    word, table = load1(state.rows, (page >> 5) * PLANES + Plane.SWAPPED)
    slot, slots = load1(state.slots, page)
    return rows.has(word, page), slot, replace(state, rows=table, slots=slots)


def _neighbours(
    state: MachineState, start: Lane, end: Lane, first: Lane, last: Lane, on: Flag
) -> tuple[MachineState, Flag, Flag]:
    """Pages start .. end - 1 get the slots first .. last: (state, whether they follow the slot of the page
    before, whether the slot of the page behind follows theirs)."""
    below, low, state = _swapped(state, jnp.maximum(start - 1, 0))
    above, high, state = _swapped(state, end)
    joined = below & (start & 511 != 0) & (low + 1 == first)
    return state, joined, once(on & above & (end & 511 != 0) & (high == last + 1))


def _join(state: MachineState, page: Lane, on: Flag) -> MachineState:
    """The slot of a swapped page follows that of the page before."""

    def join(state: MachineState) -> MachineState:
        row, state = rows.get(state, page)
        return rows.put(state, page, row.add((rows.bit(page), (Plane.NEXT,))), surely(on))

    return when(on, join, state)


def _swap_out(
    state: MachineState, v: Lane, order: Lane, pages: Lane, slot: Lane, go: Next, on: Flag
) -> MachineState:
    """Unmap folios of one order that have slots from `slot` on, and write them out (swap_writeout).

    Several of them are small ones, alike in content; if `down`, the last page went first.
    """
    end, down = v + pages, go.down
    up = jnp.where(down, -1, 1)
    first, last = jnp.where(down, slot + pages - 1, slot), jnp.where(down, slot, slot + pages - 1)
    state, joined, behind = _neighbours(state, v, end, first, last, on)
    first_follows = once(jnp.where(joined, np.uint32(0), rows.bit(v)))
    step = once(jnp.where(order == 0, up, 0))
    oldest = once(jnp.where(down, state.age + pages - 1, state.age))
    generational = state.generations is not None
    if generational:
        oldest, step = generations.shadow_of(state, go.flags).astype(jnp.int32), jnp.zeros_like(v)

    def unmap(carry: tuple[MachineState, Judged, Flag, Lane], at: Lane, on: Flag) -> tuple:
        state, judged, nonzero, again = carry
        row, state = rows.get(state, at)
        going = once(only(rows.inside(at, v, end), on))
        judged = Judged(*(a + b for a, b in zip(judged, usefulness.judge(row, going), strict=True)))
        nonzero = nonzero | (going & row[Plane.NONZERO] != 0)
        workingset = row[Plane.WORKINGSET]
        if generational:
            again = again + rows.size(going & workingset)
        else:
            workingset = workingset | row[Plane.ACTIVE]
        # Upwards every page but the first follows the one before it.
        follows = jnp.where(down, going & rows.bit(v) & ~first_follows, going & ~only(first_follows, at == v))
        row = row.clear((going, (Plane.PRESENT, *FOLIO_FLAGS, *ARRIVAL, *ORDER)))
        row = row.add((going, (Plane.SWAPPED,)), (follows, (Plane.NEXT,)))
        state = rows.put(state, at, row, on)
        state = places.write(state, at, going, first + (at - v), up, oldest, step, workingset)
        return state, judged, nonzero, again

    none = jnp.zeros_like(v)
    start = (state, Judged(none, none, none, none), jnp.zeros_like(on), none)
    state, judged, nonzero, again = rows.each(v, end, unmap, start, on)
    if generational:
        state = generations.evicted(state, go.flags, pages, again, on)
    zero, written = once((on & ~nonzero, on & nonzero))

    def flag(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.ZERO, slot, pages, True, surely(zero))

    state = usefulness.leave(_join(state, end, behind), judged, on)
    n = count(state.n, on, pswpout=jnp.where(written, pages, 0), swpout_zero=jnp.where(zero, pages, 0))
    return replace(
        state,
        n=count_order(n, "swpout", order, written),
        clusters=when(zero, flag, state.clusters),
        cost_at_end=state.cost_at_end + jnp.where(written, SWAP_CLUSTER_MAX * pages, 0),
    )


def _drop_cached(state: MachineState, go: Next, on: Flag) -> MachineState:
    """Take an unmapped folio out of the swap cache, written if need be; its slot keeps its count."""
    slot, _, state = places.of(state, go.page)
    here = only(rows.bit(go.page), on)
    row, state = rows.get(state, go.page)
    # None but the multi-gen LRU leaves one unwritten; one that was read ahead is clean, and was never used.
    dirty, nonzero = on & row.has(Plane.UNWRITTEN, go.page), row.has(Plane.NONZERO, go.page)
    row = row.clear((here, (Plane.INCACHE, Plane.UNWRITTEN, *FOLIO_FLAGS)))
    state = rows.put(state, go.page, row, on)
    kept = only(here, go.workingset)
    zero, one = jnp.zeros_like(slot), jnp.ones_like(slot)
    age, n = state.age, count(state.n, on & ~dirty, useless_swapin=1)
    c = clusters.set_plane(state.clusters, clusters.CACHED, slot, one, False, on)
    if state.generations is not None:
        age = generations.shadow_of(state, go.flags).astype(jnp.int32)
        state = generations.evicted(state, go.flags, one, go.workingset.astype(jnp.int32), on)
        emptied = dirty & ~nonzero
        c = clusters.set_plane(c, clusters.ZERO, slot, one, True, emptied)
        n = count(n, dirty, pswpout=nonzero, swpout_zero=~nonzero)
    state = places.write(state, go.page, here, slot, zero, age, zero, kept)
    return replace(state, clusters=c, n=n)


def keep_in_cache(
    state: MachineState, params: MachineParams, page: Lane, cached: Flag, on: Flag
) -> tuple[MachineState, Flag]:
    """shrink_folio_list for a small folio that a per-CPU batch holds: it gets a slot and is unmapped, and
    then stays in the swap cache, unwritten. (state, whether it did: not if there was no slot.)
    """
    one = jnp.ones_like(page)
    asks = on & ~cached
    allocated, slot, _ = clusters.alloc(state.clusters, params.rules.slots, state.cpu, 0 * one, one, asks)
    state = replace(state, clusters=allocated)
    found = asks & (slot >= 0)
    unmaps = found & (allocated.free >= params.withheld)
    returns = found & ~unmaps

    def give_back(state: MachineState) -> MachineState:
        c = clusters.put(state.clusters, state.cpu, slot, one, ~returns, surely(returns))
        return replace(state, clusters=c)

    state = when(returns, give_back, state)

    def unmap(state: MachineState) -> MachineState:
        sure = surely(unmaps)
        here = only(rows.bit(page), sure)
        state, follows, behind = _neighbours(state, page, page + 1, slot, slot, sure)
        row, state = rows.get(state, page)
        judged = usefulness.judge(row, here)
        row = row.clear((here, (Plane.PRESENT, *ARRIVAL)))
        row = row.add((here, (Plane.SWAPPED, Plane.INCACHE, Plane.UNWRITTEN)))
        row = row.add((only(here, follows), (Plane.NEXT,)))
        state = rows.put(state, page, row, sure)
        state = replace(
            state,
            slots=store1(state.slots, page, slot, sure),
            clusters=clusters.set_plane(state.clusters, clusters.CACHED, slot, one, True, sure),
        )
        return usefulness.leave(_join(state, page + 1, behind), judged, sure)

    return when(unmaps, unmap, state), on & (cached | unmaps)


def _remain(state: MachineState, go: Next, split: Flag, stay: Flag) -> MachineState:
    """A folio that found no slots: to be split, or activated if it is small."""
    v, order = go.page, go.order

    def settle(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        folio = rows.folio(at, order) & row[Plane.PRESENT] & row.of_order(order)
        folio = once(only(folio, on))
        row = row.clear((folio, (Plane.REFERENCED, Plane.ACTIVE)))
        row = row.add((only(folio, go.workingset), (Plane.WORKINGSET,)), (only(folio, stay), (Plane.ACTIVE,)))
        return rows.put(state, at, row, on)

    base = v >> order << order
    one, listed = jnp.ones_like(v), stay & ~go.nobodys
    if state.generations is None:
        state = rows.each(base, base + (jnp.int32(1) << order), settle, state, split | listed)
        state = lru.add(state, v, stay, one, listed)
    else:
        state = generations.add_new(state, v, listed)
    n = count_order(count(state.n, stay, pgactivate=1), "swpout_fallback", order, split & ~go.partial)
    return replace(state, n=n, age_at_end=state.age_at_end + stay)
