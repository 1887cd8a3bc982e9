"""Page faults: first touch, write to the shared zero page, swap-in; and MADV_WILLNEED, which is half of one.

Source of the rules: mm/memory.c (do_anonymous_page, alloc_anon_folio, do_swap_page,
thp_swapin_suitable_orders), mm/swap_state.c (__swap_cache_add_check, swap_cache_alloc_folio),
mm/workingset.c (workingset_refault), mm/madvise.c (swapin_walk_pmd_entry), 7.3.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import blocks, heuristic, lru, places, words
from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import Counts, count, count_order, count_orders, count_refused
from jaxswap.machine.reclaim import fitting_orders, note_cost
from jaxswap.machine.state import QUIET, READY, Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.swapout import SWAP_CLUSTER_MAX
from jaxswap.policy import Features, Outcome
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.lanes import load1, store1, when

PLAIN, HUGE, NOHUGE = 0, 1, 2  # advice of a VMA
ANON_ORDERS = 0b1_1111_1100
_ORDERS = np.arange(2, 9, dtype=np.int32)[:, None]


_MAPPED = (
    Plane.PRESENT,
    Plane.SWAPPED,
    Plane.NEXT,
    Plane.NONZERO,
    Plane.YOUNG,
    Plane.TOUCHED,
    Plane.CAMEBACK,
    QUIET,
    QUIET + 1,
    READY,
    READY + 1,
)


class Access(NamedTuple):
    """One access, or MADV_WILLNEED of one page, that cannot go on without the kernel.

    page: of the region. write, zero (overwrites with zeros), willneed. start, end: of its VMA, cut to the 2
    MiB block, as pages of the block. advice: of the VMA.
    """

    page: Lane
    write: Flag
    zero: Flag
    willneed: Flag
    start: Lane
    end: Lane
    advice: Lane


def _blocks_inside(page: Lane, low: Lane, high: Lane) -> Mask:
    """Orders 2 to 8 whose aligned block around `page` lies in [low, high)."""
    size = jnp.int32(1) << _ORDERS
    base = page[None] & -size
    inside = (base >= low[None]) & (base + size <= high[None])
    return jnp.sum(jnp.where(inside, size, 0), axis=0).astype(jnp.uint32)


def _run_around(obstacles: bits.Bits, page: Lane) -> tuple[Lane, Lane]:
    """The members around `page`, itself left out of the question, that are no obstacle: [low, high)."""
    return bits.up_to(obstacles, page - 1) + 1, bits.from_on(obstacles, page + 1)


def _empty_around(planes: Block, page: Lane) -> Mask:
    """alloc_anon_folio: orders whose PTE range is none throughout, the page itself apart."""
    low, high = _run_around(planes[Plane.PRESENT] | planes[Plane.ZEROPAGE] | planes[Plane.SWAPPED], page)
    return _blocks_inside(page, low, high)


class _Table(NamedTuple):
    """What the swap table says of one target slot."""

    suitable: Mask  # orders the add check passes
    cached: Mask  # orders refused for a cached neighbour first
    zero_flag: Mask  # orders refused for a neighbour's zero flag first
    zero: Flag  # the target's zero flag


def _add_check(c: clusters.Clusters, slot: Lane, candidates: Mask) -> tuple[_Table, clusters.Clusters]:
    """__swap_cache_add_check of every candidate order of one cgroup's slot that is in use and not cached.

    A range is refused by its first conflicting slot in ascending order.
    """
    cached, zeros, c = clusters.planes(c, slot)
    zero = bits.has(zeros, slot & 511)
    none = jnp.zeros_like(candidates)
    answers = lax.cond(
        jnp.any(candidates != 0),
        lambda: _check_orders(cached, zeros, zero, slot, candidates),
        lambda: (none, none, none),
    )
    suitable, by_cache, by_zero = answers
    return _Table(suitable, by_cache, by_zero, zero), c


def _check_orders(
    cached: bits.Bits, zeros: bits.Bits, zero: Flag, slot: Lane, candidates: Mask
) -> tuple[Mask, Mask, Mask]:
    at = slot & 511
    conflict = cached | (zeros ^ jnp.where(zero[None], jnp.uint32(0xFFFF_FFFF), jnp.uint32(0)))
    suitable = candidates & _blocks_inside(at, *_run_around(conflict, at))

    def reason() -> Mask:
        found = jnp.zeros(slot.shape, jnp.uint32)
        for order in range(2, 9):
            base = at >> order << order
            first = bits.from_on(conflict, base)
            found = found | jnp.where(bits.has(cached, first), jnp.uint32(1 << order), jnp.uint32(0))
        return found

    refused = candidates & ~suitable
    by_cache = lax.cond(jnp.any(refused != 0), reason, lambda: jnp.zeros(slot.shape, jnp.uint32))
    return suitable, refused & by_cache, refused & ~by_cache


def _above(mask: Mask, order: Lane) -> Mask:
    return mask & ~((jnp.uint32(2) << order.astype(jnp.uint32)) - jnp.uint32(1))


def _only(mask: Mask, on: Flag) -> Mask:
    return jnp.where(on, mask, jnp.uint32(0))


def _top(mask: Mask) -> Lane:
    return jnp.maximum(bits.highest(mask), 0)


class Plan(NamedTuple):
    """What a fault has found out before memory is charged for it.

    needs_table: the block has no page table and gets only that; the access then comes again. touch, swapin,
    zeropage, swapped, cached: what it is. read_none: a read that maps the shared zero page. allowed ..
    orders: order masks as sysfs and the region, the VMA's edges, alignment, the PTEs and the heuristic left
    them. slot, shadow: of the page. table: the add check's answers.
    """

    needs_table: Flag
    touch: Flag
    swapin: Flag
    zeropage: Flag
    swapped: Flag
    cached: Flag
    read_none: Flag
    allowed: Mask
    edges: Mask
    aligned: Mask
    candidates: Mask
    orders: Mask
    slot: Lane
    shadow: Mask
    table: _Table


class Ask(NamedTuple):
    """The charge a fault asks for: the order to begin with, those to fall back to, those refused at once."""

    on: Flag
    order: Lane
    tried: Mask
    refused: Mask
    may_reclaim: Flag


def begin(
    state: MachineState, params: MachineParams, access: Access, on: Flag
) -> tuple[MachineState, Plan, Ask]:
    """Look at the fault of each lane that is on: (state, plan, the charge to make)."""
    block, page = access.page >> 9, access.page & 511
    table_there, tables = load1(state.tables, block)
    needs_table = on & (table_there == 0) & ~access.willneed
    on = on & ~needs_table
    flags = (Plane.SWAPPED, Plane.ZEROPAGE, Plane.INCACHE)
    found, state = words.get(replace(state, tables=tables), access.page, flags)
    swapped, zeropage, cached = (on & words.has(word, access.page) for word in found)
    cached = swapped & cached
    swapin = swapped & ~cached
    read_none = on & ~swapped & ~zeropage & ~access.write
    touch = on & ~swapped & ~zeropage & access.write

    enabled = params.always | jnp.where(access.advice == HUGE, params.madvise, 0)
    allowed = jnp.where(access.advice == NOHUGE, 0, enabled & ANON_ORDERS).astype(jnp.uint32)
    allowed = _only(allowed, touch | (swapin & ~access.willneed))
    edges = allowed & _blocks_inside(page, access.start, access.end)

    slot, state = places.slot_of(state, access.page)
    shadow, state = places.shadow_of(state, access.page)
    offset = bits.ctz((page ^ slot).astype(jnp.uint32))
    aligned = edges & ((jnp.uint32(2) << jnp.minimum(offset, 9).astype(jnp.uint32)) - jnp.uint32(1))

    def neighbours() -> tuple[Mask, Mask]:
        planes, _ = blocks.get(state, block)
        breaks = ~planes[Plane.NEXT]
        run = bits.up_to(breaks, page), bits.from_on(breaks, page + 1)
        return _empty_around(planes, page), _blocks_inside(page, *run)

    none = jnp.zeros_like(allowed)
    fits = lax.cond(jnp.any(allowed != 0), neighbours, lambda: (none, none))
    (empty, consecutive), pages = lax.optimization_barrier((fits, state.blocks))
    state = replace(state, blocks=pages)
    consecutive = consecutive & aligned
    table, checked = _add_check(state.clusters, jnp.where(swapped, slot, 0), _only(consecutive, swapin))
    state = replace(state, clusters=checked)

    candidates = jnp.where(touch, edges & empty, consecutive)
    candidates = _only(candidates, touch | swapin)
    suitable = jnp.where(touch, candidates, table.suitable)
    state, orders = heuristic.decide(state, params, Features(touch, candidates, suitable), touch | swapin)
    plan = Plan(
        needs_table, touch, swapin, zeropage, swapped, cached, read_none,
        allowed, edges, aligned, candidates, orders, slot, shadow, table,
    )  # fmt: skip

    # Where a large charge may not reclaim, orders that do not fit now are refused at once.
    tried = orders & suitable
    may_reclaim = access.advice == HUGE
    at_once = jnp.where(may_reclaim, tried, tried & fitting_orders(state, params))
    refused = _only(_above(tried, _top(at_once)), ~may_reclaim)
    charged = touch | swapin | (zeropage & access.write) | needs_table
    fails = lax.population_count(refused).astype(jnp.int32)
    state = replace(state, n=count(state.n, fails > 0, memcg_max=fails))
    return state, plan, Ask(charged, _top(at_once), tried, refused, may_reclaim)


def end(
    state: MachineState, params: MachineParams, access: Access, plan: Plan, got: Lane, refused: Mask, on: Flag
) -> tuple[MachineState, Flag]:
    """Map what was charged, an order each: (state, whether the access is done)."""
    block, page = access.page >> 9, access.page & 511
    asked = on & (plan.allowed != 0)
    state = when(asked, lambda s: _account(s, params, access, plan, refused, got), state)
    alive = on & ~state.oom
    on = alive & ~plan.needs_table
    touch, swapin, zeropage = plan.touch & on, plan.swapin & on, plan.zeropage & on
    tables = store1(state.tables, block, jnp.ones_like(block), plan.needs_table & alive)
    state = replace(state, tables=tables)
    size = jnp.int32(1) << got
    base = page >> got << got
    shift = base - page
    state, active, workingset = _refault(state, size, plan.shadow, swapin)
    state = _read(state, access, got, size, plan.slot + shift, plan.table.zero, swapin)
    arrive = touch | swapin | (zeropage & access.write)
    state = lru.add(state, access.page + shift, active, size, arrive)

    read_none = plan.read_none & on
    mapped = on & ~access.willneed & ~read_none
    back = mapped & plan.swapped
    slot = plan.slot + shift
    state = replace(
        state,
        clusters=when(back, lambda c: clusters.put(c, slot, size, back), state.clusters),
        n=count(state.n, on & ~access.willneed, faults=1, pgmajfault=swapin),
    )
    state = _map(state, access, got, back, mapped)

    # What few faults change.
    def settle(state: MachineState) -> MachineState:
        before, state = blocks.get(state, block)
        here = bits.one(page)
        planes = before.clear(bits.only(here, mapped), Plane.ZEROPAGE, Plane.INCACHE)
        planes = planes.set(bits.only(here, swapin & access.willneed), Plane.INCACHE)
        unread = bits.only(here, read_none)
        planes = planes.set(unread, Plane.ZEROPAGE).clear(unread, Plane.NONZERO)
        return blocks.put(state, block, before, planes, on)

    def carry_flags(state: MachineState, at: Lane, on: Flag) -> MachineState:
        planes = (Plane.ACTIVE, Plane.WORKINGSET, Plane.LARGE, *blocks.ORDER)
        found, state = words.get(state, at, planes)
        pages = words.mask(at, got)
        sets = (active, workingset, back & (got > 0), *((got >> i) & 1 == 1 for i in range(4)))
        after = (word | jnp.where(on, pages, 0) for word, on in zip(found, sets, strict=True))
        return words.put(state, at, dict(zip(planes, after, strict=True)), on)

    state = words.each(access.page, got, carry_flags, state, arrive & (active | (got > 0)))
    few = plan.zeropage | plan.cached | read_none | access.willneed
    return when(on & few, settle, state), on


def touched(planes: Block, pages: bits.Bits, write: Flag, zero: Flag) -> Block:
    """The block after the program accessed present pages of it."""
    planes = planes.set(pages, Plane.YOUNG, Plane.TOUCHED)
    planes = planes.set(bits.only(pages, write & ~zero), Plane.NONZERO)
    return planes.clear(bits.only(pages, zero), Plane.NONZERO)


def _account(
    state: MachineState, params: MachineParams, access: Access, plan: Plan, refused: Mask, got: Lane
) -> MachineState:
    """Count what was tried and refused, and tell the heuristic."""
    swapin = plan.swapin & ~access.willneed
    large = plan.touch | swapin
    refused = _only(refused, large)
    conflicts = _only(_above(plan.orders & (plan.table.cached | plan.table.zero_flag), got), swapin)
    failed = refused | conflicts
    state = heuristic.learn(state, params, Outcome(plan.touch, failed, got), large)
    usable = jnp.where(plan.touch, plan.edges, plan.aligned)
    reasons = {
        "vma_edge": _above(plan.allowed & ~plan.edges, got),
        "alignment": _only(_above(plan.edges & ~plan.aligned, got), swapin),
        "pte_gap": _above(usable & ~plan.candidates, got),
        "policy": _above(plan.candidates & ~plan.orders, got),
        "zero_flag": conflicts & plan.table.zero_flag,
        "cached": conflicts & plan.table.cached,
        "charge": refused,
    }
    reasons = {name: _only(mask, large) for name, mask in reasons.items()}
    some = jnp.zeros_like(large)
    for mask in reasons.values():
        some = some | (mask != 0)

    def tell(n: Counts) -> Counts:
        n = count_refused(n, swapin, reasons)
        n = count_orders(
            n,
            swpin_fallback=_only(failed, swapin),
            swpin_fallback_charge=_only(refused, swapin),
            anon_fault_fallback=_only(refused, plan.touch),
            anon_fault_fallback_charge=_only(refused, plan.touch),
            charge_refused=refused,
        )
        folios = lax.population_count(refused).astype(jnp.int32)
        return count(n, refused != 0, thrown_folios=folios, thrown_pages=refused.astype(jnp.int32))

    n = when(some, tell, state.n)
    return replace(state, n=count_order(n, "anon_fault_alloc", got, plan.touch & ~state.oom))


def _refault(state: MachineState, size: Lane, shadow: Mask, on: Flag) -> tuple[MachineState, Flag, Flag]:
    """workingset_refault of a folio just read: (state, starts active, carries the workingset flag)."""
    age, before = (shadow >> 1).astype(jnp.int32), shadow & 1 == 1
    distance = (state.age - age) & 0x7FFF_FFFF
    recent = on & (distance <= jnp.where(state.clusters.free > 0, state.flushed_active, 0))
    restored = recent & before
    n = count(
        state.n,
        on,
        workingset_refault_anon=size,
        workingset_activate_anon=jnp.where(recent, size, 0),
        workingset_restore_anon=jnp.where(restored, size, 0),
    )
    grown = jnp.where(recent, size, 0)
    state = replace(state, n=n, age=state.age + grown, activations=state.activations + grown)
    return note_cost(state, SWAP_CLUSTER_MAX * size, restored), recent, restored


def _read(
    state: MachineState, access: Access, order: Lane, size: Lane, slot: Lane, zero: Flag, on: Flag
) -> MachineState:
    """swap_read_folio; a page read ahead by MADV_WILLNEED stays in the swap cache."""
    n = count(state.n, on, pswpin=jnp.where(zero, 0, size), swpin_zero=jnp.where(zero, size, 0))
    n = count_order(n, "swpin", order, on & ~zero)
    ahead = on & access.willneed

    def cache(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.CACHED, slot, size, ahead, ahead)

    return replace(state, n=n, clusters=when(ahead, cache, state.clusters))


def _map(state: MachineState, access: Access, order: Lane, back: Flag, on: Flag) -> MachineState:
    """Map the folio and let the program access its page: young, and that page touched.

    From swap (`back`) pages keep their content, else they are empty. A page that is not present carries no
    flag of a folio or of an arrival, so none has to be cleared.
    """
    store = access.write & ~access.zero
    behind = (access.page >> order << order) + (jnp.int32(1) << order)

    def map_word(state: MachineState, at: Lane, on: Flag) -> MachineState:
        pages = words.mask(at, order)
        here = jnp.where(at >> 5 == access.page >> 5, words.bit(access.page), jnp.uint32(0))
        found, state = words.get(state, at, _MAPPED)
        present, swapped, chain, nonzero, young, touched, returned, quiet, quiet_write, *ready = found
        nonzero = jnp.where(back, nonzero, nonzero & ~pages)
        nonzero = jnp.where(store, nonzero | here, jnp.where(access.zero, nonzero & ~here, nonzero))
        after = (
            present | pages,
            swapped & ~pages,
            chain & ~pages,
            nonzero,
            young | pages,
            touched | here,
            jnp.where(back, returned | pages, returned),
            quiet | here,
            quiet_write | (here & nonzero),
            *(word | pages for word in ready),
        )
        return words.put(state, at, dict(zip(_MAPPED, after, strict=True)), on)

    state = words.each(access.page, order, map_word, state, on)
    # The page behind follows no swapped page any more.
    (chain,), state = words.get(state, behind, (Plane.NEXT,))
    inside = on & (behind & 511 != 0)
    return words.put(state, behind, {Plane.NEXT: chain & ~words.bit(behind)}, inside)
