"""Page faults: first touch, write to the shared zero page, swap-in; and MADV_WILLNEED, which is half of one.

Source of the rules: mm/memory.c (do_anonymous_page, alloc_anon_folio, do_swap_page,
thp_swapin_suitable_orders), mm/swap_state.c (__swap_cache_add_check, swap_cache_alloc_folio),
mm/workingset.c (workingset_refault), mm/madvise.c (swapin_walk_pmd_entry), 7.3.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt32

from jaxswap.machine import blocks, cgroups, faultlog, frames, generations, heuristic, lru, places, rows, tlb
from jaxswap.machine.counters import Counts, count, count_order, count_orders, count_refused
from jaxswap.machine.huge import TOP, settle_block, wanted
from jaxswap.machine.reclaim import fitting_orders, note_cost
from jaxswap.machine.rows import once, only
from jaxswap.machine.settings import Setting
from jaxswap.machine.state import ORDER, PLANES, Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.swapout import SWAP_CLUSTER_MAX, swap_left
from jaxswap.machine.tables import FOLIO, TABLE
from jaxswap.machine.tables import HUGE as BLOCK_HUGE
from jaxswap.machine.work import Gfp, vma_thp_gfp_mask
from jaxswap.policy import Features, Outcome
from jaxswap.policy.base import near
from jaxswap.policy.describe import foresees
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.lanes import load1, repeat, surely, when

PLAIN, HUGE, NOHUGE = 0, 1, 2  # advice of a VMA
ANON_ORDERS = np.uint32(0b1_1111_1100)
_WIDE = np.uint32(0b1_1100_0000)  # orders larger than a row


class Access(NamedTuple):
    """One access, or MADV_WILLNEED of one page, that cannot go on without the kernel.

    page: of the region. stop: the program goes on page by page up to there (page + 1: no further). write,
    zero (overwrites with zeros), willneed. start, end: of its VMA, cut to the 2 MiB block, as pages of the
    block. advice: of the VMA. now: page accesses before it; None where the program has no `before`.
    """

    page: Lane
    stop: Lane
    write: Flag
    zero: Flag
    willneed: Flag
    start: Lane
    end: Lane
    advice: Lane
    now: Lane | None = None


Foresee = Callable[[Lane], Int32[Array, "512 L"]]
"""From a page to `Features.future` of its block."""


def _between(page: Lane, below: Lane, above: Lane) -> Mask:
    """Orders whose aligned block around `page` lies strictly between two others: below < page < above."""
    top = lax.clz(page ^ below), lax.clz(page ^ above)
    return (np.uint32(2) << (31 - jnp.maximum(*top)).astype(jnp.uint32)) - np.uint32(1)


def _around(obstacles: Mask, page: Lane) -> tuple[Lane, Lane]:
    """The nearest obstacles before and behind `page` in its row, or where the row ends."""
    here = rows.bit(page)
    base = page & -32
    before = 31 - lax.clz(obstacles & (here - np.uint32(1))).astype(jnp.int32)
    behind = bits.ctz(obstacles & ~(here | (here - np.uint32(1))))
    return base + before, base + behind


class _Table(NamedTuple):
    """What the swap table says of one target slot: orders that the add check passes, orders refused for a
    cached neighbour first, orders refused for a neighbour's zero flag first, the target's zero flag."""

    suitable: Mask
    cached: Mask
    zero_flag: Mask
    zero: Flag


def _add_check(c: clusters.Clusters, slot: Lane, candidates: Mask) -> tuple[_Table, clusters.Clusters]:
    """__swap_cache_add_check of every candidate order of one cgroup's slot that is in use and not cached.

    A range is refused by its first conflicting slot in ascending order.
    """
    cached, zeros, c = clusters.flags(c, slot)
    zero = once(rows.has(zeros, slot))
    flip = only(rows.ALL, zero)
    conflict = once(cached | (zeros ^ flip))
    suitable = candidates & _between(slot, *_around(conflict, slot))
    none = jnp.zeros_like(candidates)

    def whole_cluster() -> tuple[Mask, Mask]:
        cached, zeros = clusters.all_flags(c, slot)
        conflict = bits.once(cached | (zeros ^ flip[None]))
        at = slot & 511
        suitable = candidates & _between(at, bits.up_to(conflict, at - 1), bits.from_on(conflict, at + 1))

        def of_order(carry: tuple[Mask, Lane]) -> tuple[Mask, Lane]:
            by_cache, order = carry
            first = bits.from_on(conflict, at >> order << order)
            bit = jnp.uint32(1) << order.astype(jnp.uint32)
            return by_cache | only(bit, bits.has(cached, first)), order + 1

        start = (none, jnp.full_like(slot, 2))
        return suitable, repeat(lambda carry: carry[1] < 9, of_order, start)[0]

    wide = (candidates & ~suitable) != 0
    answers = lax.cond(jnp.any(wide), whole_cluster, lambda: (suitable, none))
    (suitable, by_cache), words = lax.optimization_barrier((answers, c.words))
    refused = candidates & ~suitable
    return _Table(suitable, refused & by_cache, refused & ~by_cache, zero), replace(c, words=words)


def _above(mask: Mask, order: Lane) -> Mask:
    return mask & ~((np.uint32(2) << order.astype(jnp.uint32)) - np.uint32(1))


def _top(mask: Mask) -> Lane:
    return jnp.maximum(bits.highest(mask), 0)


class Plan(NamedTuple):
    """What a fault has found out before memory is charged for it.

    bare: the block has no page table. needs_table: one is charged; but for a 2 MiB folio the access then
    comes again. huge: 2 MiB are wanted. block: what it has, as in `tables`. touch, swapin, zeropage, swapped,
    cached: what it is. stores: swapped, and the fault is one of a write (a page with content is read first).
    read_none: a read that maps
    the shared zero page. allowed .. orders: order masks as sysfs and the region, the VMA's edges, alignment,
    the PTEs, the rule of the kernel version and the heuristic left
    them. slot, shadow: of the page. table: the add check's answers. run: pages from this one on that the
    program goes on to and that fault alike, for none of which a large folio is allowed.
    """

    bare: Flag
    needs_table: Flag
    huge: Flag
    block: Lane
    touch: Flag
    swapin: Flag
    zeropage: Flag
    swapped: Flag
    cached: Flag
    stores: Flag
    read_none: Flag
    allowed: Mask
    edges: Mask
    aligned: Mask
    candidates: Mask
    offered: Mask
    orders: Mask
    slot: Lane
    shadow: Mask
    table: _Table
    run: Lane


class Ask(NamedTuple):
    """The charge a fault asks for: the order to begin with, those to fall back to, those refused at once."""

    on: Flag
    order: Lane
    tried: Mask
    refused: Mask
    gfp: Gfp


def nothing(like: Lane) -> tuple[Plan, Ask]:
    """Of lanes without a fault."""
    zero, none, off = jnp.zeros_like(like), jnp.zeros(like.shape, jnp.uint32), jnp.zeros(like.shape, bool)
    plan = Plan(
        bare=off, needs_table=off, huge=off, block=zero, touch=off, swapin=off, zeropage=off, swapped=off,
        cached=off, stores=off, read_none=off, allowed=none, edges=none, aligned=none, candidates=none,
        offered=none, orders=none, slot=zero, shadow=none, table=_Table(none, none, none, off), run=zero,
    )  # fmt: skip
    return plan, Ask(off, zero, none, none, Gfp(off, off, off))


def begin(
    state: MachineState, params: MachineParams, access: Access, on: Flag, foresee: Foresee | None = None
) -> tuple[MachineState, Plan, Ask]:
    """Look at the fault of each lane that is on: (state, plan, the charge to make).

    foresee: None where no heuristic looks at the accesses to come.
    """
    state = tick(state, params, on & ~access.willneed)
    page = access.page & 511
    block, tables = load1(state.tables, access.page >> 9)
    bare = once(on & (block != TABLE) & ~access.willneed)
    needs_table = bare & (block != BLOCK_HUGE)
    on = on & ~needs_table
    enabled = jnp.where(access.advice == HUGE, state.settings[Setting.HUGE], state.settings[Setting.PLAIN])
    enabled = once(only(enabled, access.advice != NOHUGE))
    huge = once(bare & wanted(params, block, access.start, access.end, enabled))
    row, state = rows.get(replace(state, tables=tables), access.page)
    swapped = on & row.has(Plane.SWAPPED, access.page)
    zeropage = on & row.has(Plane.ZEROPAGE, access.page)
    cached = swapped & row.has(Plane.INCACHE, access.page)
    on, swapped, zeropage, cached = once((on, swapped, zeropage, cached))
    swapin = swapped & ~cached
    stores = swapped & access.write & (access.zero | ~row.has(Plane.NONZERO, access.page))
    read_none = on & ~swapped & ~zeropage & ~access.write
    touch = on & ~swapped & ~zeropage & access.write
    swapin, stores, read_none, touch = once((swapin, stores, read_none, touch))

    allowed = once(only(enabled & ANON_ORDERS, touch | (swapin & ~access.willneed)))
    slot, shadow, state = places.of(state, access.page)
    none = jnp.zeros_like(allowed)

    def look_around() -> tuple[Mask, Mask, Mask]:
        return _candidates(state, access, row, slot, allowed, touch, swapin)

    found, table_rows = lax.optimization_barrier(
        (lax.cond(jnp.any(allowed != 0), look_around, lambda: (none, none, none)), state.rows)
    )
    edges, aligned, candidates = found
    state = replace(state, rows=table_rows)
    unread = _Table(none, none, none, jnp.zeros_like(on))

    def look_up() -> _Table:
        return _add_check(state.clusters, jnp.where(swapped, slot, 0), only(candidates, swapin))[0]

    table, words = lax.optimization_barrier(
        (lax.cond(jnp.any(swapped), look_up, lambda: unread), state.clusters.words)
    )
    state = replace(state, clusters=replace(state.clusters, words=words))
    suitable = once(jnp.where(touch, candidates, table.suitable))
    # Until 7.1 an order that the table refuses is not offered.
    offered = once(jnp.where(params.rules.filtered, suitable, candidates))

    gfp = vma_thp_gfp_mask(params.defrag, access.advice == HUGE)

    def look(state: MachineState, seen: Features) -> tuple[Features, MachineState]:
        distance, recent, state = refault_distance(state, params, shadow, slot)
        if (known := foresee) is not None:
            asks = heuristic.where(params, foresees)
            seen = seen._replace(future=when(asks, lambda _: known(access.page), seen.future))
        return seen._replace(
            chargeable=jnp.where(gfp.reclaims, rows.ALL, fitting_orders(state, params)),
            distance=jnp.where(swapin, distance, 0),
            recent=swapin & recent,
            present=row[Plane.PRESENT],
            swapped=row[Plane.SWAPPED],
            young=row[Plane.PRESENT] & row[Plane.YOUNG],
        ), state

    seen = near(touch, offered, suitable, frames.available(state))
    state, orders = heuristic.decide(state, params, seen, access.page, look)
    tried = once(orders & suitable)
    top, refused = _top(tried), none
    if state.frames is None:
        state, top, refused = when(
            tried != 0,
            lambda c: _choose(c[0], params, tried, gfp.reclaims),
            (state, jnp.zeros_like(page), none),
        )
    charged = touch | swapin | (zeropage & access.write) | needs_table
    top = jnp.where(huge & access.write & (block != FOLIO), TOP, top)
    going_on = (touch | swapin) & ~access.willneed & (allowed == 0) & (access.stop > access.page + 1)
    one = jnp.ones_like(page)
    alike = lax.cond(
        jnp.any(going_on),
        lambda: _run(state, access, row, slot, shadow, table.zero, touch),
        lambda: one,
    )
    # A flush of the statistics comes between faults.
    until = jnp.where(params.flush > 0, params.flush - (state.clock - state.last_flush), alike)
    alike = jnp.minimum(alike, until)
    if params.switch is not None:
        until = params.switch - (state.clock - state.last_switch)
        alike = jnp.where(params.switch > 0, jnp.minimum(alike, until), alike)
    run, shadows = lax.optimization_barrier((jnp.where(going_on, alike, 1), state.shadows))
    state = replace(state, shadows=shadows)
    plan = Plan(
        bare, needs_table, huge, block, touch, swapin, zeropage, swapped, cached, stores, read_none,
        allowed, edges, aligned, candidates, offered, orders, slot, shadow, table, run,
    )  # fmt: skip
    return state, plan, Ask(charged, top, tried, refused, gfp)


def _candidates(
    state: MachineState, access: Access, row: rows.Row, slot: Lane, allowed: Mask, touch: Flag, swapin: Flag
) -> tuple[Mask, Mask, Mask]:
    """The orders of `allowed` that the VMA's edges, alignment and the PTEs leave, one after the other."""
    page = access.page & 511
    edges = once(allowed & _between(page, access.start - 1, access.end))
    agree = jnp.minimum(bits.ctz((page ^ slot).astype(jnp.uint32)), 9)
    aligned = edges & ((np.uint32(2) << agree.astype(jnp.uint32)) - np.uint32(1))

    # First touch: pages in the way are those that are not none; swap-in: those that begin another extent.
    taken = row[Plane.PRESENT] | row[Plane.ZEROPAGE] | row[Plane.SWAPPED]
    obstacles = once(jnp.where(touch, taken, ~row[Plane.NEXT]))
    begins = rows.has(obstacles, page)
    before, behind = once(_around(obstacles, page))
    before = jnp.where(touch, before, jnp.where(begins, page, before) - 1)
    narrow = _between(page, before, behind)
    near = obstacles & ~jnp.where(touch, rows.bit(page), np.uint32(1))
    far = once((near == 0) & (edges & _WIDE != 0))

    def whole_block() -> Mask:
        wanted = (Plane.PRESENT, Plane.ZEROPAGE, Plane.SWAPPED, Plane.NEXT)
        (present, zeropage, swapped, follow), _ = blocks.planes(state, access.page, wanted)
        obstacles = bits.once(jnp.where(touch[None], present | zeropage | swapped, ~follow))
        before = bits.up_to(obstacles, page - touch) - swapin
        return jnp.where(far, _between(page, before, bits.from_on(obstacles, page + 1)), narrow)

    fits = lax.cond(jnp.any(far), whole_block, lambda: narrow)
    return edges, aligned, jnp.where(touch, edges, aligned) & fits


def _choose(
    state: MachineState, params: MachineParams, tried: Mask, may_reclaim: Flag
) -> tuple[MachineState, Lane, Mask]:
    """The order to charge first, and those refused before it.

    Where a large charge may not reclaim, orders that do not fit now are refused at once.
    """
    at_once = jnp.where(may_reclaim, tried, tried & fitting_orders(state, params))
    top = once(_top(at_once))
    refused = once(only(_above(tried, top), ~may_reclaim))
    fails = once(jnp.where(params.rules.counts_all_max, rows.size(refused), 0))

    def tell(n: Counts) -> Counts:
        return count(n, surely(fails > 0), memcg_max=fails)

    return replace(state, n=when(fails > 0, tell, state.n)), top, refused


def _run(
    state: MachineState,
    access: Access,
    row: rows.Row,
    slot: Lane,
    shadow: Mask,
    zero: Flag,
    touch: Flag,
) -> Lane:
    """How many pages from this one on fault alike: none, or swapped to consecutive slots of one kind, with
    shadows that activate nothing, or all with the same shadow."""
    at = (access.page & 31).astype(jnp.uint32)
    empty = ~(row[Plane.PRESENT] | row[Plane.ZEROPAGE] | row[Plane.SWAPPED])
    follow = (row[Plane.NEXT] & ~row[Plane.INCACHE]) | rows.bit(access.page)
    _, zeros, _ = clusters.flags(state.clusters, slot)
    same = (zeros ^ only(rows.ALL, ~zero)) >> (slot & 31).astype(jnp.uint32)
    shadows = places.shadows_of(state, access.page)
    distance = (state.age[None] - (shadows >> 1).astype(jnp.int32)) & 0x7FFF_FFFF
    # Where swap was full there is room again after the first of them.
    differ = distance <= state.flushed_active[None]
    if state.generations is not None:
        differ = shadows != shadow[None]
    place = np.uint32(1) << np.arange(32, dtype=np.uint32)[:, None]
    old = jnp.sum(jnp.where(differ, np.uint32(0), place), axis=0, dtype=jnp.uint32)
    # Some with content, which are read first, are not like some without.
    content = row[Plane.NONZERO] ^ only(rows.ALL, ~row.has(Plane.NONZERO, access.page))
    follow = follow & (content | only(rows.ALL, ~access.write | access.zero))
    pages = jnp.where(touch, empty >> at, (follow & (old | rows.bit(access.page))) >> at & same)
    run = jnp.minimum(bits.ctz(~pages), access.stop - access.page)
    if state.generations is not None:
        # The one that fills the batch goes alone.
        return jnp.maximum(
            jnp.where(touch, run, jnp.minimum(run, lru.FOLIO_BATCH_SIZE - 1 - state.waiting)), 1
        )
    fresh = touch | rows.has(old, access.page)
    return jnp.where(fresh, jnp.maximum(run, 1), 1)


def _recent_enough(state: MachineState, params: MachineParams, active: Lane | None = None) -> Lane:
    """Largest refault distance that counts as recent: the active pages of the cgroup that reclaimed."""
    active = state.flushed_active if active is None else active
    return jnp.where(swap_left(state, params) > 0, active, 0)


def over(state: MachineState, faults: Lane, on: Flag) -> MachineState:
    """Faults are over."""
    ended = state.ended + jnp.where(on, faults, 0)
    return replace(state, ended=ended, clock=jnp.where(on, ended, state.clock))


def tick(state: MachineState, params: MachineParams, on: Flag) -> MachineState:
    """A fault begins, unless it began before: the statistics and the TLB may be due to be flushed."""
    begins = on & (state.clock == state.ended)
    state = replace(state, clock=state.clock + begins)
    due = begins & (params.flush > 0) & (state.clock - state.last_flush == params.flush)
    state = replace(state, last_flush=jnp.where(due, state.clock, state.last_flush))
    return tlb.switch(lru.flush_statistics(state, due), params, begins)


def end(
    state: MachineState,
    params: MachineParams,
    access: Access,
    plan: Plan,
    got: Lane,
    refused: Mask,
    run: Lane,
    comes_again: Flag,
    on: Flag,
) -> tuple[MachineState, Flag]:
    """Map what was charged, an order each or `run` small pages: (state, whether the fault is over).

    comes_again: the access does, after the fault.
    """
    asked = on & (plan.allowed != 0)
    state = when(
        asked, lambda s: _account(s, params, access, plan, refused, got, access.page, surely(asked)), state
    )

    def settle(state: MachineState) -> MachineState:
        return settle_block(state, access.page, access.write, plan.huge, plan.block, got, surely(plan.bare))

    state = when(plan.bare, settle, state)
    fresh = once(plan.huge & access.write & jnp.where(plan.needs_table, plan.block == FOLIO, got == TOP))
    got = jnp.where(fresh, TOP, got)
    on = once(on & ~state.oom & (~plan.needs_table | fresh))
    touch, swapin, zeropage = plan.touch & on, plan.swapin & on, plan.zeropage & on
    pages = once((jnp.int32(1) << got) + run - 1)
    base = once(access.page >> got << got)
    slot = plan.slot + base - access.page

    no = jnp.zeros_like(on)
    state, active, workingset = when(
        swapin,
        lambda c: _refault(c[0], params, access, plan, got, pages, slot, surely(swapin)),
        (state, no, no),
    )
    arrive = once(touch | swapin | (on & fresh) | (zeropage & access.write))
    cached = swapin & params.rules.free_after_map
    state, listed = _list(state, base, active, workingset, cached, access, plan, got, run, arrive)
    read_none = plan.read_none & on
    mapped = once(on & ~access.willneed & ~read_none)
    back = once(mapped & plan.swapped)
    # do_swap_page wants to be the only one that holds a folio it is to write to; WILLNEED drains at its end.
    drains = (back & plan.stores & params.rules.free_after_map) | (swapin & access.willneed)
    state = generations.lru_add_drain(state, drains)

    def free(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.put(c, state.cpu, slot, pages, no, surely(back))

    state = replace(
        state,
        clusters=when(back, free, state.clusters),
        n=count(state.n, on & ~access.willneed, faults=run, pgmajfault=jnp.where(swapin, run, 0)),
    )
    state = over(state, run, on & ~access.willneed)
    state = faultlog.over(state, access, plan, got, run, on)
    listed = jnp.where(swapin | ~back, listed, jnp.uint32(0))
    new = _Mapping(base + pages, got == 0, ~comes_again, _arrivals(got, back) | listed)
    state = generations.use(state, access.page, mapped & ~comes_again)
    state = rows.each(base, base + pages, lambda s, at, on: _map(s, access, new, at, on), state, mapped)
    few = on & ~mapped

    def note(state: MachineState) -> MachineState:
        return _note(state, access, read_none, swapin, listed, surely(few))

    return when(few, note, state), on


def _all_arrivals() -> np.ndarray:
    """For order, swapped before: the words of a row that a page arriving so is in."""
    words = np.zeros((10, 2, PLANES), np.uint32)
    words[..., [Plane.PRESENT, Plane.YOUNG]] = rows.ALL
    words[:, 1, ..., Plane.CAMEBACK] = rows.ALL
    words[2:, 1, ..., Plane.LARGE] = rows.ALL
    for i, plane in enumerate(ORDER):
        words[[order for order in range(10) if order >> i & 1], ..., plane] = rows.ALL
    return words.reshape(-1, PLANES)


_ARRIVALS = _all_arrivals()


def _arrivals(order: Lane, back: Flag) -> UInt32[Array, "planes L"]:
    row = order * 2 + back
    if order.shape == (1,):
        found = lax.dynamic_slice(
            jnp.asarray(_ARRIVALS), (row[0].astype(jnp.uint32), np.uint32(0)), (1, PLANES)
        )
        return once(found.reshape(PLANES, 1))
    return jnp.take(jnp.asarray(_ARRIVALS), row, axis=0, mode="clip").T


_ACTIVE, _WORKINGSET = (np.arange(PLANES)[:, None] == plane for plane in (Plane.ACTIVE, Plane.WORKINGSET))


def _list(
    state: MachineState,
    base: Lane,
    active: Flag,
    workingset: Flag,
    cached: Flag,
    access: Access,
    plan: Plan,
    order: Lane,
    run: Lane,
    on: Flag,
) -> tuple[MachineState, UInt32[Array, "planes L"]]:
    """folio_add_lru of what arrives: (state, the words of a row for the flags of its pages).

    cached: it comes through the swap cache. There it still is when it reaches the lists, if it is large, if
    it fills the batch, or if the batch is drained at once.
    """
    pages = jnp.int32(1) << order
    if state.generations is not None:
        early = (order > 0) | (state.waiting + 1 == lru.FOLIO_BATCH_SIZE) | plan.stores | access.willneed
        return generations.arrive(state, base, workingset, cached & early, pages, run, on)
    state = lru.add_all(state, base, active, pages, run, on)
    state = lru.wait(state, active, order > 0, run, on)
    words = jnp.where(_ACTIVE, only(rows.ALL, active), 0) | jnp.where(
        _WORKINGSET, only(rows.ALL, workingset), 0
    )
    return state, words


class _Mapping(NamedTuple):
    """What is mapped: pages up to `end`, small ones or a large folio, accessed at once, and the words of a
    row they go in."""

    end: Lane
    small: Flag
    accessed: Flag
    words: UInt32[Array, "planes L"]


def _map(state: MachineState, access: Access, new: _Mapping, at: Lane, on: Flag) -> MachineState:
    """Map one row of what arrived, and let the program access its page: young, and that page touched.

    From swap pages keep their content, else they are empty. A page that is not present carries no flag of a
    folio or of an arrival, so none has to be cleared.
    """
    row, state = rows.get(state, at)
    pages = once(rows.rest(at, new.end))
    here = only(rows.bit(access.page), at >> 5 == access.page >> 5)
    # Small pages that fault alike are all accessed.
    accessed = once(only(jnp.where(new.small, pages, here), new.accessed))
    stored = only(accessed, access.write & ~access.zero)
    emptied = only(accessed, access.zero)
    quiet = accessed & (row[Plane.NONZERO] | stored) & ~emptied
    row = row.clear(
        (pages, (Plane.SWAPPED, Plane.ZEROPAGE, Plane.INCACHE, Plane.NEXT, Plane.QUIET)),
        (pages << np.uint32(1), (Plane.NEXT,)),
        (emptied, (Plane.NONZERO,)),
    )
    row = row.add(
        (accessed, (Plane.TOUCHED, Plane.QUIET)),
        (stored, (Plane.NONZERO,)),
        (quiet, (Plane.QUIET_WRITE,)),
    )
    row = rows.Row(row.words | (new.words & pages[None]))
    state = rows.put(state, at, row, on)
    # The page behind follows no swapped page any more.
    border = on & (new.end == (at & -32) + 32) & (new.end & 511 != 0)

    def cut(state: MachineState) -> MachineState:
        row, state = rows.get(state, new.end)
        return rows.put(state, new.end, row.clear((rows.bit(new.end), (Plane.NEXT,))), surely(border))

    return when(border, cut, state)


def _note(
    state: MachineState,
    access: Access,
    unread: Flag,
    swapin: Flag,
    listed: UInt32[Array, "planes L"],
    on: Flag,
) -> MachineState:
    """A page that is not mapped: the shared zero page instead, or read ahead."""
    row, state = rows.get(state, access.page)
    here = rows.bit(access.page)
    ahead = swapin & access.willneed
    row = row.clear((only(here, unread), (Plane.NONZERO,)))
    row = row.add(
        (only(here, unread), (Plane.ZEROPAGE, Plane.QUIET)),
        (only(here, ahead), (Plane.INCACHE,)),
    )
    row = rows.Row(row.words | (listed & only(here, ahead)[None]))
    return rows.put(state, access.page, row, on)


def touched(row: rows.Row, pages: Mask, write: Flag, zero: Flag) -> rows.Row:
    """The row after the program accessed present pages of it."""
    stored = only(pages, write & ~zero)
    emptied = only(pages, zero)
    nonzero = (row[Plane.NONZERO] | stored) & ~emptied
    row = row.clear((emptied, (Plane.NONZERO, Plane.QUIET_WRITE)))
    return row.add(
        (pages & ~row[Plane.QUIET], (Plane.YOUNG,)),
        (pages, (Plane.TOUCHED, Plane.QUIET)),
        (stored, (Plane.NONZERO,)),
        (pages & nonzero, (Plane.QUIET_WRITE,)),
    )


def _account(
    state: MachineState,
    params: MachineParams,
    access: Access,
    plan: Plan,
    refused: Mask,
    got: Lane,
    page: Lane,
    on: Flag,
) -> MachineState:
    """Count what was tried and refused, and tell the heuristic. page: of the region, the same in all
    processes."""
    swapin = plan.swapin & ~access.willneed & on
    refusable = jnp.where(params.rules.filtered, plan.candidates, plan.orders)
    large = once((plan.touch & on) | swapin)
    refused = once(only(refused, large))
    conflicts = only(_above(refusable & (plan.table.cached | plan.table.zero_flag), got), swapin)
    conflicts = once(conflicts)
    lacked = jnp.zeros_like(refused) if state.frames is None else once(only(state.frames.lacked, large))
    strange = jnp.zeros_like(refused)
    if state.cgroups is not None:
        conflicting = refusable & ~(plan.table.suitable | plan.table.cached | plan.table.zero_flag)
        strange = once(only(_above(conflicting, got), swapin))
    failed = once(refused | lacked | strange | only(conflicts, ~params.rules.filtered))
    state = heuristic.learn(state, params, Outcome(plan.touch, failed, got), page, large)
    unused = once(only(_above(plan.allowed, got), large))

    def tell(n: Counts) -> Counts:
        usable = jnp.where(plan.touch, plan.edges, plan.aligned)
        reasons = {
            "vma_edge": unused & ~plan.edges,
            "alignment": only(unused & plan.edges & ~plan.aligned, swapin),
            "pte_gap": unused & usable & ~plan.candidates,
            "policy": unused & plan.offered & ~plan.orders,
            "zero_flag": conflicts & plan.table.zero_flag,
            "cached": conflicts & plan.table.cached,
            "charge": refused,
        }
        reasons |= {} if state.cgroups is None else {"memcg": strange}
        reasons |= {} if state.frames is None else {"frame": lacked}
        n = count_refused(n, swapin, reasons)
        fallbacks = {
            "swpin_fallback": only(failed, swapin & params.rules.counts_fallback),
            "swpin_fallback_charge": only(refused, swapin & params.rules.counts_fallback),
            "anon_fault_fallback": only(refused | lacked, plan.touch),
            "anon_fault_fallback_charge": only(refused, plan.touch),
            "charge_refused": refused,
        } | ({} if state.frames is None else {"frame_refused": lacked})

        def give_up(n: Counts) -> Counts:
            n = count_orders(n, **fallbacks)
            # What belongs to several cgroups shows when the folio is there.
            thrown = refused | strange
            folios, pages = rows.size(thrown), thrown.astype(jnp.int32)
            return count(n, thrown != 0, thrown_folios=folios, thrown_pages=pages)

        return when(failed != 0, give_up, n)

    state = replace(state, n=when(unused != 0, tell, state.n))
    return replace(state, n=count_order(state.n, "anon_fault_alloc", got, plan.touch & on & ~state.oom))


def _classic_distance(
    state: MachineState, params: MachineParams, shadow: Mask, slot: Lane
) -> tuple[Lane, Flag, MachineState]:
    """The classic LRU's refault distance of a slot, and workingset_test_recent."""
    word, state = cgroups.slot_word(state, slot)
    now, active = cgroups.evictor(state, word & cgroups.BY_ROOT != 0)
    distance = (now - (shadow >> 1).astype(jnp.int32)) & 0x7FFF_FFFF
    return distance, distance <= _recent_enough(state, params, active), state


def refault_distance(
    state: MachineState, params: MachineParams, shadow: Mask, slot: Lane
) -> tuple[Lane, Flag, MachineState]:
    """Refault distance of a slot and whether it counts as recent, whichever the LRU."""
    if state.generations is not None:
        return *generations.distance(state, shadow), state
    return _classic_distance(state, params, shadow, slot)


def _workingset_refault(
    state: MachineState, params: MachineParams, shadow: Mask, pages: Lane, slot: Lane, on: Flag
) -> tuple[MachineState, Flag, Flag]:
    """The classic LRU's: (state, starts active, carries the workingset flag)."""
    before = shadow & 1 == 1
    _, recent, state = _classic_distance(state, params, shadow, slot)
    recent = once(on & recent)
    restored = once(recent & before)
    grown = jnp.where(recent, pages, 0)
    n = count(
        state.n,
        on,
        workingset_refault_anon=pages,
        workingset_activate_anon=grown,
        workingset_restore_anon=jnp.where(restored, pages, 0),
    )
    state = cgroups.age_root(state, grown)
    state = replace(state, n=n, age=state.age + grown, activations=state.activations + grown)
    return note_cost(state, params, SWAP_CLUSTER_MAX * pages, restored), recent, restored


def _refault(
    state: MachineState,
    params: MachineParams,
    access: Access,
    plan: Plan,
    order: Lane,
    pages: Lane,
    slot: Lane,
    on: Flag,
) -> tuple[MachineState, Flag, Flag]:
    """A folio comes back, workingset_refault and swap_read_folio: (state, starts active, carries the
    workingset flag). A page read ahead by MADV_WILLNEED stays in the swap cache."""
    if state.generations is not None:
        state, restored = generations.refault(state, plan.shadow, pages, on)
        recent = jnp.zeros_like(on)
    else:
        state, recent, restored = _workingset_refault(state, params, plan.shadow, pages, slot, on)
    zero = plan.table.zero
    n = count(state.n, on, pswpin=jnp.where(zero, 0, pages), swpin_zero=jnp.where(zero, pages, 0))
    state = replace(state, n=count_order(n, "swpin", order, on & ~zero & params.rules.counts_swpin))
    ahead = on & access.willneed

    def cache(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.CACHED, slot, pages, True, surely(ahead))

    return replace(state, clusters=when(ahead, cache, state.clusters)), recent, restored
