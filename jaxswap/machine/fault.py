"""Page faults: first touch, write to the shared zero page, swap-in; and MADV_WILLNEED, which is half of one.

Source of the rules: mm/memory.c (do_anonymous_page, alloc_anon_folio, do_swap_page,
thp_swapin_suitable_orders), mm/swap_state.c (__swap_cache_add_check, swap_cache_alloc_folio),
mm/workingset.c (workingset_refault), mm/madvise.c (swapin_walk_pmd_entry), 7.3.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxswap.machine import blocks, heuristic, lru, places
from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count, count_order, count_orders, count_refused
from jaxswap.machine.reclaim import charge, fitting_orders, note_cost
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask
from jaxswap.machine.swapout import SWAP_CLUSTER_MAX, shadow_parts
from jaxswap.policy import Features, Outcome
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.lanes import load1, repeat, store1, when

PLAIN, HUGE, NOHUGE = 0, 1, 2  # advice of a VMA
ANON_ORDERS = 0b1_1111_1100


class Access(NamedTuple):
    """One access, or MADV_WILLNEED of one page, that cannot go on without the kernel.

    page: of the region. write, zero (overwrites with zeros), willneed. start, end: of its VMA, cut to the 2 MiB
    block, as pages of the block. advice: of the VMA.
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
    found = jnp.zeros(page.shape, jnp.uint32)
    for order in range(2, 9):
        base = page >> order << order
        inside = (base >= low) & (base + (1 << order) <= high)
        found = found | jnp.where(inside, jnp.uint32(1 << order), jnp.uint32(0))
    return found


def _run_around(obstacles: bits.Bits, page: Lane) -> tuple[Lane, Lane]:
    """The members around `page`, itself left out of the question, that are no obstacle: [low, high)."""
    low = bits.last(obstacles & bits.below(page)) + 1
    high = bits.first(obstacles & ~bits.below(page + 1))
    return low, high


def _touch_orders(planes: Block, page: Lane, edges: Mask) -> Mask:
    """alloc_anon_folio: orders whose PTE range is none throughout."""
    low, high = _run_around(planes.present | planes.zeropage | planes.swapped, page)
    return edges & _blocks_inside(page, low, high)


class _Table(NamedTuple):
    """What the swap table says of one target slot."""

    suitable: Mask  # orders the add check passes
    cached: Mask  # orders refused for a cached neighbour first
    zero_flag: Mask  # orders refused for a neighbour's zero flag first
    zero: Flag  # the target's zero flag


def _add_check(c: clusters.Clusters, slot: Lane, candidates: Mask) -> _Table:
    """__swap_cache_add_check of every candidate order of one cgroup's slot that is in use and not cached.

    A range is refused by its first conflicting slot in ascending order.
    """
    cached, zeros = clusters.planes(c, slot)
    at = slot % 512
    zero = bits.has(zeros, at)
    conflict = cached | (zeros ^ jnp.where(zero[None], jnp.uint32(0xFFFF_FFFF), jnp.uint32(0)))
    suitable = candidates & _blocks_inside(at, *_run_around(conflict, at))

    def reason(_: None) -> Mask:
        found = jnp.zeros(slot.shape, jnp.uint32)
        for order in range(2, 9):
            base = at >> order << order
            first = bits.first(conflict & ~bits.below(base))
            found = found | jnp.where(bits.has(cached, first), jnp.uint32(1 << order), jnp.uint32(0))
        return found

    refused = candidates & ~suitable
    by_cache = lax.cond(jnp.any(refused != 0), reason, lambda _: jnp.zeros(slot.shape, jnp.uint32), None)
    return _Table(suitable, refused & by_cache, refused & ~by_cache, zero)


def _above(mask: Mask, order: Lane) -> Mask:
    return mask & ~((jnp.uint32(2) << order.astype(jnp.uint32)) - jnp.uint32(1))


def _only(mask: Mask, on: Flag) -> Mask:
    return jnp.where(on, mask, jnp.uint32(0))


def _top(mask: Mask) -> Lane:
    return jnp.maximum(bits.highest(mask), 0)


def fault(state: MachineState, params: MachineParams, access: Access, on: Flag) -> tuple[MachineState, Flag]:
    """Handle the fault of each lane that is on: (state, whether the access is done).

    A block without a page table only gets that first; the access then comes again.
    """
    block, page = access.page // 512, access.page % 512
    needs_table = on & (load1(state.tables, block) == 0) & ~access.willneed
    on = on & ~needs_table
    planes = blocks.get(state, block)
    swapped = on & bits.has(planes.swapped, page)
    zeropage = on & bits.has(planes.zeropage, page)
    cached = swapped & bits.has(planes.incache, page)
    swapin = swapped & ~cached
    read_none = on & ~swapped & ~zeropage & ~access.write
    touch = on & ~swapped & ~zeropage & access.write

    enabled = params.always | jnp.where(access.advice == HUGE, params.madvise, 0)
    allowed = jnp.where(access.advice == NOHUGE, 0, enabled & ANON_ORDERS).astype(jnp.uint32)
    allowed = _only(allowed, touch | (swapin & ~access.willneed))
    edges = allowed & _blocks_inside(page, access.start, access.end)

    slot = places.slot_of(state, access.page)
    shadow = places.shadow_of(state, access.page)
    offset = bits.ctz((page ^ slot).astype(jnp.uint32))
    aligned = edges & ((jnp.uint32(2) << jnp.minimum(offset, 9).astype(jnp.uint32)) - jnp.uint32(1))
    consecutive = _blocks_inside(page, bits.last(~planes.next & bits.below(page + 1)), _run_end(planes, page))
    table = _add_check(state.clusters, jnp.where(swapped, slot, 0), _only(aligned & consecutive, swapin))

    candidates = jnp.where(touch, _touch_orders(planes, page, edges), aligned & consecutive)
    candidates = _only(candidates, touch | swapin)
    suitable = jnp.where(touch, candidates, table.suitable)
    state, orders = heuristic.decide(state, params, Features(touch, candidates, suitable), touch | swapin)
    tried = orders & suitable

    may_reclaim = access.advice == HUGE
    charged = touch | swapin | (zeropage & access.write) | needs_table
    at_once = jnp.where(may_reclaim, tried, tried & fitting_orders(state, params))
    refused = _above(tried, _top(at_once)) & ~_only(tried, may_reclaim)

    def attempt(carry: tuple) -> tuple:
        state, order, refused, pending = carry
        state, done = charge(state, params, order, may_reclaim | (order == 0), pending)
        failed = pending & ~done & (order > 0)
        refused = refused | jnp.where(failed, jnp.uint32(1) << order.astype(jnp.uint32), jnp.uint32(0))
        lower = _top(tried & ((jnp.uint32(1) << order.astype(jnp.uint32)) - jnp.uint32(1)))
        return state, jnp.where(failed, lower, order), refused, failed

    fails = lax.population_count(refused).astype(jnp.int32)
    state = replace(state, n=count(state.n, "memcg_max", fails, fails > 0))
    start = (state, _top(at_once), refused, charged)
    state, got, refused, _ = repeat(lambda carry: carry[3], attempt, start)

    alive = ~state.oom
    on, touch, swapin = on & alive, touch & alive, swapin & alive
    state = replace(state, tables=store1(state.tables, block, jnp.ones_like(block), needs_table & alive))
    state = _account(state, params, access, allowed, edges, aligned, candidates, orders, table, refused, got, touch, swapin)

    # Reclaim may have changed other pages of the block.
    planes = blocks.get(state, block)
    size = jnp.int32(1) << got
    base = page >> got << got
    shift = base - page
    state, active, workingset = _refault(state, size, shadow, swapin)
    state = _read(state, access, got, size, slot + shift, table.zero, swapin)
    arrive = touch | swapin | (on & zeropage & access.write)
    state = lru.add(state, access.page + shift, active, size, arrive)

    map_pages = on & ~access.willneed & ~read_none
    back = map_pages & swapped
    state = replace(
        state,
        clusters=when(back, lambda c: clusters.put(c, slot + shift, size, back), state.clusters),
        n=count(count(state.n, "faults", size * 0 + 1, on & ~access.willneed), "pgmajfault", size * 0 + 1, swapin & map_pages),
    )
    planes = _arrive(planes, page, base, size, got, active, workingset, map_pages, back, cached, arrive)
    here = bits.one(page)
    planes = planes.set(jnp.where(read_none[None], here, 0), "zeropage").clear(jnp.where(read_none[None], here, 0), "nonzero")
    planes = planes.set(jnp.where((swapin & access.willneed)[None], here, 0), "incache")
    planes = touched(planes, jnp.where(map_pages[None], here, 0), access.write, access.zero)
    state = blocks.put(state, block, planes, on)
    return state, on


def _run_end(planes: Block, page: Lane) -> Lane:
    return bits.first(~planes.next & ~bits.below(page + 1))


def touched(planes: Block, pages: bits.Bits, write: Flag, zero: Flag) -> Block:
    """The block after the program accessed present pages of it."""
    planes = planes.set(pages, "young", "touched")
    planes = planes.set(jnp.where((write & ~zero)[None], pages, 0), "nonzero")
    return planes.clear(jnp.where(zero[None], pages, 0), "nonzero")


def _account(
    state: MachineState,
    params: MachineParams,
    access: Access,
    allowed: Mask,
    edges: Mask,
    aligned: Mask,
    candidates: Mask,
    orders: Mask,
    table: _Table,
    refused: Mask,
    got: Lane,
    touch: Flag,
    swapin: Flag,
) -> MachineState:
    """Count what was tried and refused, and tell the heuristic."""
    large = (touch | swapin) & ~access.willneed
    refused = _only(refused, large)
    conflicts = _above(orders & (table.cached | table.zero_flag), got)
    failed = refused | _only(conflicts, swapin)
    state = heuristic.learn(state, params, Outcome(touch, failed, got), large)
    usable = jnp.where(touch, edges, aligned)
    reasons = {
        "vma_edge": _above(allowed & ~edges, got),
        "alignment": _only(_above(edges & ~aligned, got), swapin),
        "pte_gap": _above(usable & ~candidates, got),
        "policy": _above(candidates & ~orders, got),
        "zero_flag": conflicts & table.zero_flag,
        "cached": conflicts & table.cached,
        "charge": refused,
    }
    reasons = {name: _only(mask, large) for name, mask in reasons.items()}
    some = jnp.zeros_like(large)
    for mask in reasons.values():
        some = some | (mask != 0)

    def tell(n: jnp.ndarray) -> jnp.ndarray:
        n = count_refused(n, swapin, reasons)
        n = count_orders(n, "swpin_fallback", _only(failed, swapin))
        n = count_orders(n, "swpin_fallback_charge", _only(refused, swapin))
        n = count_orders(n, "anon_fault_fallback", _only(refused, touch))
        n = count_orders(n, "anon_fault_fallback_charge", _only(refused, touch))
        n = count_orders(n, "charge_refused", refused)
        n = count(n, "thrown_folios", lax.population_count(refused).astype(jnp.int32), refused != 0)
        return count(n, "thrown_pages", refused.astype(jnp.int32), refused != 0)

    n = when(some, tell, state.n)
    return replace(state, n=count_order(n, "anon_fault_alloc", got, touch))


def _refault(state: MachineState, size: Lane, shadow: Mask, on: Flag) -> tuple[MachineState, Flag, Flag]:
    """workingset_refault of a folio just read: (state, starts active, carries the workingset flag)."""
    age, before = shadow_parts(shadow)
    distance = (state.age - age) & 0x7FFF_FFFF
    recent = on & (distance <= jnp.where(state.clusters.free > 0, state.flushed_active, 0))
    restored = recent & before
    n = count(state.n, "workingset_refault_anon", size, on)
    n = count(n, "workingset_activate_anon", size, recent)
    n = count(n, "workingset_restore_anon", size, restored)
    grown = jnp.where(recent, size, 0)
    state = replace(state, n=n, age=state.age + grown, activations=state.activations + grown)
    return note_cost(state, SWAP_CLUSTER_MAX * size, restored), recent, restored


def _read(
    state: MachineState, access: Access, order: Lane, size: Lane, slot: Lane, zero: Flag, on: Flag
) -> MachineState:
    """swap_read_folio; a page read ahead by MADV_WILLNEED stays in the swap cache."""
    n = count(state.n, "swpin_zero", size, on & zero)
    n = count(n, "pswpin", size, on & ~zero)
    n = count_order(n, "swpin", order, on & ~zero)
    ahead = on & access.willneed

    def cache(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.CACHED, slot, size, ahead, ahead)

    return replace(state, n=n, clusters=when(ahead, cache, state.clusters))


def _arrive(
    planes: Block,
    page: Lane,
    base: Lane,
    size: Lane,
    order: Lane,
    active: Flag,
    workingset: Flag,
    mapped: Flag,
    back: Flag,
    cached: Flag,
    fresh: Flag,
) -> Block:
    """The block with the folio's pages mapped (or, ahead of its use, only its flags set)."""
    folio = bits.span(base, base + size)
    new = jnp.where(fresh[None], folio, 0)
    planes = planes.clear(new, "referenced", "active", "workingset", "partial")
    planes = planes.set(jnp.where(active[None], new, 0), "active").set(jnp.where(workingset[None], new, 0), "workingset")
    pages = jnp.where(mapped[None], folio, 0)
    empty = jnp.where((mapped & ~back)[None], folio, 0)
    planes = planes.clear(pages, "swapped", "zeropage", "incache", "touched", "cameback", "large").clear(empty, "nonzero")
    planes = replace(planes, next=planes.next & ~pages & ~bits.up(pages))
    planes = planes.set(pages, "present", "young").with_order(pages, order)
    planes = planes.set(jnp.where(back[None], pages, 0), "cameback")
    return planes.set(jnp.where((back & (order > 0))[None], pages, 0), "large")
