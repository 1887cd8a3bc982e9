"""The swap slot allocator: slots for folios, and slots given back.

Source of the rules: mm/swapfile.c of 6.12 to 7.3 (folio_alloc_swap, swap_alloc_fast, swap_alloc_slow,
cluster_alloc_swap_entry, alloc_swap_scan_cluster, relocate_cluster; get_swap_pages of 6.12), block devices
without discard that do not rotate. Nothing here takes slots from folios in the swap cache. Every array has a
trailing lane axis L.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.swaptable import bits, slot_cache
from jaxswap.swaptable.cluster_table import (
    BEHIND,
    CACHED,
    COUNT,
    CPUS,
    FLAG,
    FRAG,
    FRAG_LIST,
    FREE,
    FREE_LIST,
    FULL,
    HINTS,
    LISTS,
    NONFULL,
    NONFULL_LIST,
    ORDER,
    PRIORITY,
    ROW,
    STRIDE,
    USED,
    ZERO,
    Clusters,
    Flag,
    Lane,
    Mask,
    SlotRules,
    all_flags,
    at_device,
    capacity,
    change,
    device_of,
    devices,
    flags,
    free,
    layout_of,
    move,
    notes_of,
    of_device,
    sentinels,
    set_plane,
    set_state,
    state,
    take_turn,
    whole_set,
)
from jaxswap.swaptable.geometry import CLUSTER, CLUSTER_SHIFT, MAX_ORDER
from jaxswap.swaptable.lanes import load, load1, repeat, store1, surely, when
from jaxswap.swaptable.swapon import Device, swapon

__all__ = [
    "CACHED", "CLUSTER", "COUNT", "CPUS", "FLAG", "FRAG", "FREE", "FULL", "LISTS", "NONFULL", "ORDER", "ROW",
    "STRIDE", "USED", "ZERO", "Clusters", "Device", "SlotRules", "all_flags", "alloc", "capacity", "flags",
    "put", "set_plane", "swapon",
]  # fmt: skip

_NEVER, _OWN_FRAG = 99, 3
_PICK, _HINTED, _SLOW = -1, 0, 1  # ranks: choose a device; try the hint; then the lists


def _ranks() -> np.ndarray:
    """In which turn the slow path of an order takes from each list: [free or nonfull first, order, list]."""
    ranks = np.full((2, MAX_ORDER + 1, LISTS), _NEVER, np.int32)
    for first, (nonfull, free_) in enumerate(((2, 1), (1, 2))):
        for order in range(MAX_ORDER + 1):
            ranks[first, order, FREE_LIST] = free_
            if order < MAX_ORDER:
                ranks[first, order, NONFULL_LIST + order] = nonfull
                ranks[first, order, FRAG_LIST + order] = _OWN_FRAG
    for stolen in range(1, MAX_ORDER + 1):
        ranks[:, 0, FRAG_LIST + stolen] = 2 + 2 * stolen
        ranks[:, 0, NONFULL_LIST + stolen] = 3 + 2 * stolen
    return ranks.reshape(-1, LISTS)


_ALL = np.uint32(0xFFFF_FFFF)
_MULTIPLES = np.array([0xFFFF_FFFF // ((1 << (1 << order)) - 1) for order in range(6)], np.uint32)
_RANKS = _ranks()


def _free_in(used: Mask, order: Lane) -> Mask:
    """First slots of the aligned blocks of 2^order (0 to 5) in a row that are wholly free."""
    free = ~used
    for level in range(1, 6):
        free = jnp.where(order >= level, free & (free >> np.uint32(1 << (level - 1))), free)
    return free & jnp.take(jnp.asarray(_MULTIPLES), order, mode="clip")


def _find(c: Clusters, cluster: Lane, start: Lane, order: Lane, on: Flag) -> tuple[Lane, Mask, Clusters]:
    """The first free aligned block of 2^order in a cluster from `start` on, or 512: (position, free slots of
    its row)."""

    def looking(carry: tuple[Lane, Lane, Mask]) -> Flag:
        return on & (order <= 5) & (carry[0] < CLUSTER)

    def look(carry: tuple[Lane, Lane, Mask]) -> tuple[Lane, Lane, Mask]:
        at, found, free = carry
        active = surely(looking(carry))
        used, _ = load1(c.words, cluster * STRIDE + (at >> 5) * ROW)
        hits = bits.once(_free_in(used, order) & (_ALL << (at & 31).astype(jnp.uint32)))
        hit = active & (hits != 0)
        found = jnp.where(hit, (at & -32) + bits.ctz(hits), found)
        beyond = jnp.where(hit, CLUSTER, (at & -32) + 32)
        return jnp.where(active, beyond, at), found, jnp.where(hit, ~used, free)

    nowhere = jnp.full_like(start, CLUSTER)
    _, found, free = repeat(looking, look, (start, nowhere, jnp.zeros(start.shape, jnp.uint32)))

    def wide() -> Lane:
        used, _ = whole_set(c, cluster, USED)
        return bits.from_on(bits.free_blocks(used, order), start)

    large = on & (order > 5)
    found = jnp.where(large, lax.cond(jnp.any(large), wide, lambda: nowhere), found)
    (found, free), words = lax.optimization_barrier(((found, free), c.words))
    return found, free, replace(c, words=words)


class _Search(NamedTuple):
    """A search for slots. active: goes on. rank: whose turn it is. first, got: the slots found, and for how
    many folios. device: that is looked at; visited: bits of those that were. mark: the first cluster that
    this search put on the tail of frag, -1 if none.
    """

    active: Flag
    rank: Lane
    first: Lane
    got: Lane
    device: Lane
    visited: Lane
    mark: Lane


def _hint_at(c: Clusters, rules: SlotRules, cpu: Lane, device: Lane, order: Lane) -> Lane:
    """Where the hint of a CPU and order is kept: once for all devices, or by each."""
    if devices(c) == 1:
        return cpu * HINTS + order
    return (cpu * devices(c) + jnp.where(rules.device_hints, device, 0)) * HINTS + order


def _next_device(c: Clusters, rules: SlotRules, s: _Search, on: Flag) -> tuple[Clusters, _Search]:
    """The next device in swap_avail_head, moved behind its equals; the search ends if there is none."""
    number = np.arange(devices(c), dtype=np.int32)[:, None]
    turns, notes = load(c.notes, jnp.full_like(s.rank, notes_of(devices(c)).turns), devices(c))
    c, priorities = replace(c, notes=notes), layout_of(c, PRIORITY)
    there = (c.left > 0) & ((s.visited[None] >> number) & 1 == 0)
    best = jnp.max(jnp.where(there, priorities, np.iinfo(np.int32).min), axis=0)
    equal = there & (priorities == best[None])
    turn = jnp.min(jnp.where(equal, turns, np.iinfo(np.int32).max), axis=0)
    device = jnp.sum(jnp.where(equal & (turns == turn[None]), number, 0), axis=0)
    some = jnp.any(there, axis=0)
    picked = on & some
    return take_turn(c, device, picked), s._replace(
        active=s.active & (~on | some),
        rank=jnp.where(picked, jnp.where(rules.device_hints, _HINTED, _SLOW), s.rank),
        device=jnp.where(picked, device, s.device),
        visited=jnp.where(picked, s.visited | (jnp.int32(1) << device), s.visited),
        mark=jnp.where(picked, -1, s.mark),
    )


def _search(
    c: Clusters,
    rules: SlotRules,
    cpu: Lane,
    order: Lane,
    want: Lane,
    pinned: Lane,
    on: Flag,
) -> tuple[Clusters, _Search]:
    """Slots for one folio of 2^order, or at order 0 for up to `want`, one behind the other.

    pinned: the only device to look at, -1 for any. No slot is held by the swap cache alone here, so what
    swap_reclaim_full_clusters does is turn the list of full clusters, whose order decides nothing: it is left
    out.
    """
    several = devices(c) > 1
    size = jnp.int32(1) << order
    zero = jnp.zeros_like(order)
    row = jnp.where(rules.nonfull_first, MAX_ORDER + 1, 0) + order
    hint_at = _hint_at(c, rules, cpu, jnp.maximum(pinned, 0), order)
    hint, notes = load1(c.notes, hint_at)
    c = replace(c, notes=notes)

    def scan(carry: tuple[Clusters, _Search]) -> tuple[Clusters, _Search]:
        c, s = carry
        s = s._replace(active=surely(s.active))
        hint_here, hint_there = hint, hint_at
        if several:
            pick = s.active & (s.rank == _PICK)
            c, s = when(pick, lambda carry: _next_device(carry[0], rules, carry[1], surely(pick)), (c, s))
            hint_there = _hint_at(c, rules, cpu, s.device, order)
            hint_here, notes = load1(c.notes, hint_there)
            c = replace(c, notes=notes)
        active, rank = s.active, s.rank
        # A cluster: the hinted one, else the head of the first list whose turn it is.
        hinted = rank == _HINTED
        sentinel = sentinels(c, s.device)

        def listed() -> tuple[Lane, Lane]:
            ranks = jnp.take(jnp.asarray(_RANKS), row, axis=0, mode="clip").T
            heads, _ = load(c.next, jnp.broadcast_to(sentinel, order.shape), LISTS)
            empty = heads == sentinel + jnp.arange(LISTS, dtype=jnp.int32)[:, None]
            empty = empty | (heads == s.mark[None])
            turn = jnp.where(empty | (ranks < rank[None]), _NEVER, ranks)
            best = jnp.min(turn, axis=0)
            return best, jnp.max(jnp.where(turn == best[None], heads, -1), axis=0)

        none = jnp.full_like(rank, _NEVER)
        best, head = lax.cond(jnp.any(active & ~hinted), listed, lambda: (none, none))
        (best, head), next = lax.optimization_barrier(((best, head), c.next))
        c = replace(c, next=next)
        there = best < _NEVER
        # A full device is asked only while slots of it are taken ahead.
        asks = (of_device(c.left, s.device) > 0) | (pinned >= 0)
        cluster = bits.once(jnp.where(hinted, hint_here >> CLUSTER_SHIFT, jnp.where(there, head, 0)))
        count, owner, flag, c = state(c, cluster)
        usable = ((flag == NONFULL) | (flag == FRAG)) & ((order == 0) | (owner == order))
        usable = (hint_here > 0) & (usable | rules.device_hints)
        chosen = bits.once(active & jnp.where(hinted, usable, there))
        start = jnp.where(hinted, hint_here & (CLUSTER - 1), 0)
        position, free, c = _find(c, cluster, start, order, chosen & (count + size <= CLUSTER))
        taken = bits.once(chosen & (position < CLUSTER))
        run = bits.ctz(~(free >> (position & 31).astype(jnp.uint32)))
        folios = bits.once(jnp.where(taken, jnp.where(order == 0, jnp.minimum(run, want), 1), 0))
        slots = bits.once(folios << order)
        owner = jnp.where(taken & (count == 0), order, owner)
        count = bits.once(count + slots)
        # Where it goes: 6.18 and later FRAG; 6.12 NONFULL if it was free, FRAG if it was scanned in turn.
        in_turn = ~hinted & ((flag == FRAG) | (flag == NONFULL)) & (best <= _OWN_FRAG)
        keeps = jnp.where(flag == FREE, jnp.where(taken, NONFULL, FREE), jnp.where(in_turn, FRAG, flag))
        target = jnp.where(count == CLUSTER, FULL, jnp.where(rules.fill_nonfull, keeps, FRAG))
        again = jnp.where(rules.fill_nonfull, in_turn, ~hinted)
        shifts = chosen & (again | (flag != target))
        c = set_state(c, cluster, count, owner, jnp.where(shifts, target, flag), chosen)
        c = change(c, cluster, position, position + slots, {USED: True}, taken)
        c = move(c, cluster, target, owner, shifts)
        end = position + slots
        limit = jnp.minimum(of_device(layout_of(c, BEHIND), s.device) - cluster * CLUSTER, CLUSTER)
        follows = taken & (count < CLUSTER) & (end + size <= limit)
        # Only a scan writes the hint; in 6.12 a device that has nothing to scan leaves none.
        asked = active & ~hinted & ~there & asks & rules.device_hints
        notes = store1(c.notes, hint_there, jnp.where(follows, cluster * CLUSTER + end, 0), chosen | asked)
        c = replace(c, notes=notes)
        if several:
            c = replace(c, left=at_device(c.left, s.device, of_device(c.left, s.device) - slots, taken))
        else:
            c = replace(c, left=c.left - slots[None])
        # A hint that fails: the lists. A list that fails: its next cluster, the last of them once.
        last = ~there | ((best == _OWN_FRAG) & ~rules.scan_all_frag)
        ended = ~taken & ~hinted & last
        rank = jnp.where(hinted, _SLOW, best)
        goes_on = ~taken & ~ended
        if several:
            rank = jnp.where(hinted & ~rules.device_hints, _PICK, rank)
            other = ended & (order == 0) & (pinned < 0)
            rank = jnp.where(other, _PICK, rank)
            goes_on = goes_on | (other & ~taken)
        marks = chosen & ~taken & ~hinted & rules.scan_all_frag & (s.mark < 0)
        return c, _Search(
            active & goes_on,
            rank,
            jnp.where(taken, cluster * CLUSTER + position, s.first),
            jnp.where(taken, folios, s.got),
            s.device,
            s.visited,
            jnp.where(marks, cluster, s.mark),
        )

    device = jnp.where(rules.device_hints, jnp.maximum(pinned, 0), device_of(c, hint >> CLUSTER_SHIFT))
    begin = jnp.full_like(order, _HINTED)
    if several:
        begin = jnp.where(rules.device_hints & (pinned < 0), _PICK, _HINTED)
    enough = ~rules.device_hints | (c.free >= size)
    search = _Search(on & enough, begin, zero - 1, zero, device if several else zero, zero, zero - 1)
    return repeat(lambda carry: carry[1].active, scan, (c, search))


def _from_hand(
    c: Clusters, rules: SlotRules, cpu: Lane, want: Lane, on: Flag
) -> tuple[Clusters, Lane, Lane, Flag]:
    """Up to `want` consecutive order-0 slots out of the CPU's hand, which is filled first if it is empty:
    (clusters, first slot, how many, whether there were any)."""
    c, active = slot_cache.check_active(c, on)
    hand, zero = slot_cache.taken(c, cpu), jnp.zeros_like(want)
    empty, c = slot_cache.empty(c, hand)
    on = bits.once(on & active)

    def fill(carry: tuple[Clusters, Lane, Lane, Flag]) -> tuple[Clusters, Lane, Lane, Flag]:
        c, left, pinned, going = carry
        going = surely(going)
        c, s = _search(c, rules, cpu, zero, left, pinned, going)
        held = going & (s.got > 0)
        c = when(held, lambda c: slot_cache.push(c, hand, s.first, s.got, surely(held)), c)
        left = left - s.got
        return c, left, jnp.where(held, s.device, pinned), held & (left > 0)

    goal = jnp.minimum(slot_cache.BATCH, c.free)
    c, *_ = repeat(lambda carry: carry[3], fill, (c, goal, zero - 1, on & empty))
    empty, c = slot_cache.empty(c, hand)
    drawn = bits.once(on & ~empty)

    def draw(carry: tuple[Clusters, Lane, Lane]) -> tuple[Clusters, Lane, Lane]:
        here = surely(drawn)
        # The next call checks again.
        most = jnp.where(slot_cache.scarce(carry[0]), 1, want)
        c, slot, number = slot_cache.pop(carry[0], hand, most, here)
        return c, jnp.where(here, slot, carry[1]), jnp.where(here, number, carry[2])

    return *when(drawn, draw, (c, zero - 1, zero)), drawn


def alloc(
    c: Clusters, rules: SlotRules, cpu: Lane | int, order: Lane, want: Lane, on: Flag
) -> tuple[Clusters, Lane, Lane]:
    """folio_alloc_swap: the first slot of 2^order consecutive free ones in one cluster, or -1.

    At order 0 up to `want` consecutive slots are taken at once, as many calls in a row would take them.
    Returns (clusters, first slot, folios that got their slots).
    """
    cpu = jnp.broadcast_to(jnp.asarray(cpu, jnp.int32), order.shape)
    none = jnp.full_like(order, -1)
    # Each call turns the devices of 6.12 once more.
    many = jnp.where(rules.device_hints, 1, want) if devices(c) > 1 else want
    if not slot_cache.present(c):
        c, s = _search(c, rules, cpu, order, many, none, on)
        return c, s.first, s.got
    by_hand = bits.once(on & (order == 0))
    c, first, got, drawn = when(
        by_hand,
        lambda carry: _from_hand(carry[0], rules, cpu, want, surely(by_hand)),
        (c, none, jnp.zeros_like(order), jnp.zeros_like(on)),
    )
    c, s = _search(c, rules, cpu, order, many, none, on & ~drawn)
    return c, jnp.where(drawn, first, s.first), jnp.where(drawn, got, s.got)


def put(
    c: Clusters,
    cpu: Lane | int,
    slot: Lane,
    size: Lane,
    direct: Flag,
    on: Flag,
) -> Clusters:
    """Give back `size` slots from `slot`, all in one cluster, that nobody counts on.

    direct: past 6.12's slot cache: a whole run of two or more swapped PTEs of count 1 that are not cached, or
    a large folio of which no slot has a count (free_swap_and_cache_nr, put_swap_folio).
    """
    if not slot_cache.present(c):
        return free(c, slot, size, on)
    cpu = jnp.broadcast_to(jnp.asarray(cpu, jnp.int32), slot.shape)
    by_hand = bits.once(on & ~direct)

    def hand_over(carry: tuple[Clusters, Flag]) -> tuple[Clusters, Flag]:
        active, c = slot_cache.caching(carry[0])
        given = active & surely(by_hand)
        return slot_cache.give(c, cpu, slot, size, given), given

    c, given = when(by_hand, hand_over, (c, jnp.zeros_like(on)))
    return free(c, slot, size, on & ~given)
