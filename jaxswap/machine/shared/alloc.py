"""Slots for folios where the allocator may take them from the swap cache.

Source of the rules: mm/swapfile.c (swap_alloc_fast, cluster_alloc_swap_entry, alloc_swap_scan_cluster,
cluster_reclaim_range, swap_reclaim_full_clusters, relocate_cluster; get_swap_pages of 6.12), mm/swap_slots.c
of 6.12, 6.12 to 7.3; block devices.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine.shared import devices as swaps
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.slots import slot_of
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable import bits, cluster_table, slot_cache
from jaxswap.swaptable.cluster_table import (
    BASE,
    BEHIND,
    FRAG,
    FRAG_LIST,
    FREE,
    FREE_LIST,
    FULL,
    FULL_LIST,
    HINTS,
    LISTS,
    NONFULL,
    NONFULL_LIST,
    PRIORITY,
    USABLE,
    USED,
    Clusters,
    SlotRules,
    at_device,
    device_of,
    devices,
    layout_of,
    notes_of,
    of_device,
    sentinels,
    take_turn,
)
from jaxswap.swaptable.geometry import CLUSTER, CLUSTER_SHIFT, MAX_ORDER
from jaxswap.swaptable.lanes import load, load1, repeat, store1, surely

_NEVER, _OWN_FRAG = 99, 4
_PICK, _HINTED, _LISTED = -1, 0, 1  # ranks: choose a device; the hint it keeps; its lists


def _ranks() -> np.ndarray:
    """In which turn the slow path of an order looks at each list: [6.12, later or discards, order, list]."""
    ranks = np.full((3, MAX_ORDER + 1, LISTS), _NEVER, np.int32)
    for row, (free_, full, nonfull) in enumerate(((1, 2, 3), (2, 3, 1), (1, 3, 2))):
        for order in range(MAX_ORDER + 1):
            ranks[row, order, FREE_LIST], ranks[row, order, FULL_LIST] = free_, full
            if order < MAX_ORDER:
                ranks[row, order, NONFULL_LIST + order] = nonfull
                ranks[row, order, FRAG_LIST + order] = _OWN_FRAG
    for stolen in range(1, MAX_ORDER + 1):
        ranks[:, 0, FRAG_LIST + stolen] = 3 + 2 * stolen
        ranks[:, 0, NONFULL_LIST + stolen] = 4 + 2 * stolen
    return ranks.reshape(-1, LISTS)


_RANKS = _ranks()


def _hint_at(state: MachineState, rules: SlotRules, device: Lane, order: Lane) -> Lane:
    """Where the CPU's hint of an order is kept: once for all devices, or by each."""
    own = jnp.where(rules.device_hints, device, 0)
    return (state.cpu * devices(state.clusters) + own) * HINTS + order


def begin(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """folio_alloc_swap; in 6.12 small folios get slots from the CPU's hand, filled first if it is empty."""
    regs = assign(regs, on, slot=-1, fill=0, at=At.ALLOC_HINT)
    if not slot_cache.present(state.clusters):
        return state, regs
    by_hand = on & (regs.alloc_order == 0)
    c, active = slot_cache.check_active(state.clusters, by_hand)
    empty, c = slot_cache.empty(c, slot_cache.taken(c, state.cpu))
    fills = by_hand & active & empty
    regs = assign(regs, fills, fill=jnp.minimum(slot_cache.BATCH, c.free))
    return replace(state, clusters=c), assign(regs, by_hand & active & ~empty, at=At.ALLOC_DRAW)


def hint(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_alloc_fast: the cluster of the hint, if it is of use. In 6.12 a device comes first."""
    rules, order = params.rules.slots, regs.alloc_order
    found, notes = load1(state.clusters.notes, _hint_at(state, rules, jnp.zeros_like(order), order))
    state = replace(state, clusters=replace(state.clusters, notes=notes))
    regs = assign(regs, on, rank=_PICK, visited=0, at=At.ALLOC_LIST)
    few = on & rules.device_hints & (state.clusters.free < jnp.int32(1) << order)
    regs = assign(regs, few, fill=0, at=regs.back_alloc)
    return _follow(state, regs, found, on & ~rules.device_hints)


def _swap_full(c: Clusters, rules: SlotRules, regs: Registers) -> Flag:
    """vm_swap_full as the allocator sees it: get_swap_pages of 6.12 has taken what it looks for, a whole hand
    or one folio's slots, off the free ones.
    """
    if not slot_cache.present(c):
        return cluster_table.vm_swap_full(c)
    goal = jnp.where(regs.fill > 0, regs.fill, jnp.int32(1) << regs.alloc_order)
    return cluster_table.vm_swap_full(c, jnp.where(rules.device_hints, goal, 0))


def _follow(state: MachineState, regs: Registers, hint: Lane, on: Flag) -> tuple[MachineState, Registers]:
    """cluster_is_usable: to the cluster of a hint, unless it is of no use."""
    cluster = jnp.where(hint > 0, hint >> CLUSTER_SHIFT, 0)
    count, owner, flag, c = cluster_table.state(state.clusters, cluster)
    usable = (hint > 0) & ((flag == NONFULL) | (flag == FRAG))
    usable = usable & ((regs.alloc_order == 0) | (count == 0) | (owner == regs.alloc_order))
    start = hint & (CLUSTER - 1)
    regs = assign(regs, on & usable, cluster=cluster, start=start, hinted=True, at=At.ALLOC_FIND)
    return replace(state, clusters=c), regs


def draw(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next slot of the CPU's hand."""
    if not slot_cache.present(state.clusters):
        return state, regs
    hand = slot_cache.taken(state.clusters, state.cpu)
    c, slot, _ = slot_cache.pop(state.clusters, hand, jnp.ones_like(hand), on)
    return replace(state, clusters=c), assign(regs, on, slot=slot, at=regs.back_alloc)


def _next_device(
    state: MachineState, rules: SlotRules, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next device of swap_avail_head, moved behind its equals; the search ends if there is none.

    At order 0 the other devices are asked where one has nothing, and then discards are waited for. If the
    hand stays empty, one slot is looked for. A device that rotates has a hint of its own.
    """
    c = state.clusters
    number = np.arange(devices(c), dtype=np.int32)[:, None]
    turns, notes = load(c.notes, jnp.full_like(regs.rank, notes_of(devices(c)).turns), devices(c))
    c, priorities = replace(c, notes=notes), layout_of(c, PRIORITY)
    there = (c.left > 0) & ((regs.visited[None] >> number) & 1 == 0)
    there = there & ((regs.alloc_order == 0) | (regs.visited == 0))[None]
    best = jnp.max(jnp.where(there, priorities, np.iinfo(np.int32).min), axis=0)
    equal = there & (priorities == best[None])
    turn = jnp.min(jnp.where(equal, turns, np.iinfo(np.int32).max), axis=0)
    device = jnp.sum(jnp.where(equal & (turns == turn[None]), number, 0), axis=0)
    picked = on & jnp.any(there, axis=0)
    c = take_turn(c, device, picked)
    over = on & ~picked
    waits = over & (regs.alloc_order == 0)
    state, discarded = swaps.discard(replace(state, clusters=c), True, waits)
    ended = over & ~discarded
    regs = assign(regs, ended, at=jnp.where(regs.fill > 0, At.ALLOC_HINT, regs.back_alloc), fill=0)
    regs = assign(regs, over & discarded, visited=0)
    visited = regs.visited | (jnp.int32(1) << device)
    rank = jnp.where(rules.device_hints, _HINTED, _LISTED)
    regs = assign(regs, picked, device=device, visited=visited, rank=rank)
    hint, state = swaps.hint(state, device, regs.alloc_order)
    return _follow(state, regs, hint, picked & swaps.has(state, device, swaps.ROTATIONAL))


def _length(c: Clusters, head: Lane, on: Flag) -> tuple[Lane, Clusters]:
    """How many clusters are on a list."""

    def more(carry: tuple[Clusters, Lane, Lane]) -> Flag:
        return on & (carry[1] != head)

    def turn(carry: tuple[Clusters, Lane, Lane]) -> tuple[Clusters, Lane, Lane]:
        c, at, size = carry
        following, next = load1(c.next, at)
        active = surely(more(carry))
        return replace(c, next=next), jnp.where(active, following, at), size + active

    first, next = load1(c.next, head)
    c, _, size = repeat(more, turn, (replace(c, next=next), first, jnp.zeros_like(head)))
    return size, c


def next_list(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """cluster_alloc_swap_entry: the first cluster of the next list that has one.

    In 6.12 a nonfull or frag cluster goes to the tail of frag before it is scanned, and frag is gone through
    once, but for clusters that this search put there.
    """
    rules, order = params.rules.slots, regs.alloc_order
    state, regs = _next_device(state, rules, regs, on & (regs.rank == _PICK))
    asked = on & (regs.at == At.ALLOC_LIST) & (regs.rank > _PICK)
    hint_at = _hint_at(state, rules, regs.device, order)
    kept, notes = load1(state.clusters.notes, hint_at)
    c = replace(state.clusters, notes=notes)
    begins = asked & (regs.rank == _HINTED)
    regs = assign(regs, asked & (regs.rank <= _LISTED), scanned=0, most=-1)
    regs = assign(regs, begins, rank=_LISTED)
    hinted = begins & (kept > 0)
    asked = asked & ~hinted
    regs = assign(
        regs, hinted, cluster=kept >> CLUSTER_SHIFT, start=kept & (CLUSTER - 1), hinted=True, at=At.ALLOC_FIND
    )
    row = jnp.where(rules.nonfull_first, 1, 0)
    row = jnp.where(swaps.has(state, regs.device, swaps.DISCARDS), 2, row) * (MAX_ORDER + 1) + order
    ranks = jnp.take(jnp.asarray(_RANKS), row, axis=0, mode="clip").T
    sentinel = sentinels(c, regs.device)
    heads, next = load(c.next, sentinel, LISTS)
    c = replace(c, next=next)
    number = np.arange(LISTS, dtype=np.int32)[:, None]
    full_list = number == FULL_LIST
    turn = jnp.where((heads == sentinel + number) | (ranks < regs.rank[None]), _NEVER, ranks)
    turn = jnp.where(full_list & ~_swap_full(c, rules, regs)[None], _NEVER, turn)
    best = jnp.min(turn, axis=0)
    chosen = turn == best[None]
    head = jnp.max(jnp.where(chosen, heads, -1), axis=0)
    which = jnp.max(jnp.where(chosen, number, -1), axis=0)
    there, full = asked & (best < _NEVER), which == FULL_LIST
    own_frag = there & (best == _OWN_FRAG)
    all_frag = own_frag & rules.scan_all_frag
    size, c = _length(c, sentinel + FRAG_LIST + order, all_frag & (regs.most < 0))
    regs = assign(regs, all_frag & (regs.most < 0), most=size)
    passed = all_frag & (regs.scanned >= regs.most)
    regs = assign(regs, passed, rank=_OWN_FRAG + 1)
    scans = there & ~passed
    in_turn = scans & rules.fill_nonfull & (own_frag | (which == NONFULL_LIST + order)) & (best <= _OWN_FRAG)
    head = jnp.where(scans, head, 0)
    count, owner, flag, c = cluster_table.state(c, head)
    c = cluster_table.set_state(c, head, count, owner, jnp.full_like(flag, FRAG), in_turn)
    c = cluster_table.move(c, head, jnp.full_like(flag, FRAG), owner, in_turn)
    regs = assign(regs, in_turn, scanned=regs.scanned + 1)
    # The device has nothing. In 6.12 its hint is gone; what the hand got from it is enough.
    nothing = asked & ~there
    c = replace(c, notes=store1(c.notes, hint_at, jnp.zeros_like(kept), nothing & rules.device_hints))
    regs = assign(regs, nothing, rank=_PICK)
    if slot_cache.present(c):
        empty, c = slot_cache.empty(c, slot_cache.taken(c, state.cpu))
        regs = assign(regs, nothing & (regs.fill > 0) & ~empty, fill=0, at=At.ALLOC_DRAW)
    once_only = (which == FREE_LIST) | full | (own_frag & ~rules.scan_all_frag)
    once_only = once_only | ((best > _OWN_FRAG) & rules.fill_nonfull)
    regs = assign(
        regs, scans, cluster=head, start=0, turn=0, hinted=False,
        rank=jnp.where(once_only, best + 1, best), at=jnp.where(full, At.FULL_CLUSTER, At.ALLOC_FIND),
        back_full=At.ALLOC_LIST,
    )  # fmt: skip
    return replace(state, clusters=c), regs


def _only_cached(state: MachineState, cluster: Lane) -> tuple[bits.Bits, bits.Bits]:
    """Slots of a cluster that have no count: those with a folio in the swap cache, and all of them."""
    counts, _ = load(sharing.of(state).counts, cluster * CLUSTER, CLUSTER)
    cache, _ = load(sharing.of(state).cache, cluster * CLUSTER, CLUSTER)
    place = np.uint32(1) << np.arange(32, dtype=np.uint32)[None, :, None]

    def packed(members: Flag) -> bits.Bits:
        words = members.reshape(16, 32, -1)
        return jnp.sum(jnp.where(words, place, np.uint32(0)), axis=1, dtype=jnp.uint32)

    return packed((counts == 0) & (cache >= 0)), packed(counts == 0)


def _used(state: MachineState, cluster: Lane) -> tuple[bits.Bits, MachineState]:
    used, c = cluster_table.whole_set(state.clusters, cluster, USED)
    return used, replace(state, clusters=c)


def find(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """alloc_swap_scan_cluster from `start` on: take slots, or drop folios from the swap cache, or give up.

    To 6.12 a slot in a hand, taken and without a count, looks like a cached one.
    """
    rules, order, cluster = params.rules.slots, regs.alloc_order, regs.cluster
    size = jnp.int32(1) << order
    count, owner, flag, c = cluster_table.state(state.clusters, cluster)
    used, state = _used(replace(state, clusters=c), cluster)
    full = on & _swap_full(c, rules, regs)
    device = device_of(c, cluster)
    behind = jnp.minimum(of_device(layout_of(c, BEHIND), device) - cluster * CLUSTER, CLUSTER)

    def looks() -> bits.Bits:
        cached, uncounted = _only_cached(state, cluster)
        header = cluster == of_device(layout_of(c, BASE), device)
        good = bits.span(jnp.where(header, 1, 0), behind)
        return jnp.where(rules.fill_nonfull, uncounted & good, cached)

    dropped = lax.cond(jnp.any(full), looks, lambda: jnp.zeros_like(used))
    (dropped, used), s = lax.optimization_barrier(((bits.only(dropped, full), used), sharing.of(state)))
    state = replace(state, sharing=s)
    fits = count + size <= CLUSTER
    start = jnp.minimum(regs.start, CLUSTER)
    at = bits.from_on(bits.free_blocks(bits.once(used & ~dropped), order), start)
    at = jnp.where(fits, at, CLUSTER)
    free = bits.has(bits.free_blocks(used, order), at)
    taken, reclaims = on & (at < CLUSTER) & free, on & (at < CLUSTER) & ~free
    ends = taken | (on & (at >= CLUSTER))
    owner = jnp.where(taken & (count == 0), order, owner)
    count = jnp.where(taken, count + size, count)
    # Where it goes: 6.18 and later FRAG; 6.12 NONFULL if it was free, else it stays where it is.
    keeps = jnp.where(flag == FREE, NONFULL, flag)
    target = jnp.where(count == CLUSTER, FULL, jnp.where(rules.fill_nonfull, keeps, FRAG))
    again = jnp.where(rules.fill_nonfull, False, ~regs.hinted)
    moves = ends & (count > 0) & (again | (flag != target))
    c = cluster_table.set_state(state.clusters, cluster, count, owner, jnp.where(moves, target, flag), ends)
    c = cluster_table.change(c, cluster, at, at + size, {USED: True}, taken)
    c = cluster_table.move(c, cluster, target, owner, moves)
    follows = taken & (count < CLUSTER) & (at + 2 * size <= behind)
    hint = jnp.where(follows, cluster * CLUSTER + at + size, 0)
    rotates = swaps.has(state, device, swaps.ROTATIONAL)
    state = swaps.set_hint(state, device, order, hint, ends & rotates)
    c = replace(
        c,
        notes=store1(c.notes, _hint_at(state, rules, device, order), hint, ends & ~rotates),
        left=at_device(c.left, device, of_device(c.left, device) - size, taken),
    )
    # The device has become full (6.12): its worker is to run.
    due = taken & full & (of_device(c.left, device) == 0) & rules.device_hints
    regs = assign(regs, due, due=regs.due | (jnp.int32(1) << device))
    slot = cluster * CLUSTER + at
    held = taken & (regs.fill > 0)
    regs = assign(regs, ends, at=At.ALLOC_LIST)
    regs = assign(regs, taken & ~held, slot=slot, at=regs.back_alloc)
    if slot_cache.present(c):
        c = slot_cache.push(c, slot_cache.taken(c, state.cpu), slot, jnp.ones_like(slot), held)
        regs = assign(regs, held, fill=regs.fill - 1, rank=_HINTED)
        regs = assign(regs, held & (regs.fill == 0), at=At.ALLOC_DRAW)
    return replace(state, clusters=c), assign(regs, reclaims, start=at, turn=at, at=At.ALLOC_RECLAIM)


def reclaim(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """cluster_reclaim_range: the folio of slot `turn` of the cluster leaves the swap cache, if it may."""
    size = jnp.int32(1) << regs.alloc_order
    slot = regs.cluster * CLUSTER + regs.turn
    inside = on & (regs.turn < regs.start + size)
    number, cached, state = slot_of(state, slot)
    used, state = _used(state, regs.cluster)
    empty = ~bits.has(used, jnp.minimum(regs.turn, CLUSTER - 1))
    goes = inside & ~empty & (number == 0) & (cached >= 0)
    folio, state = sharing.folio(state, jnp.maximum(cached, 0))
    beyond = regs.turn + jnp.where(goes, folio.size, 1)
    regs = assign(regs, goes | (inside & empty), turn=beyond)
    regs = assign(regs, goes, drop=cached, at=At.DROP, back_drop=At.ALLOC_RECLAIMED)
    # The range is done, or some slot of it stays in use.
    done = on & ~goes & ~(inside & empty)
    count, owner, _, c = cluster_table.state(state.clusters, regs.cluster)
    usable = (count > 0) & ((regs.alloc_order == 0) | (owner == regs.alloc_order))
    free = bits.has(bits.free_blocks(used, regs.alloc_order), jnp.minimum(regs.start, CLUSTER - 1))
    start = jnp.where(free, regs.start, regs.start + size)
    # Its lock was dropped. 6.12 goes on whatever the cluster has become, the others where it is of use still.
    same = params.rules.slots.fill_nonfull
    start = jnp.where(same & (count == 0), 0, jnp.where(same | usable, start, CLUSTER))
    return replace(state, clusters=c), assign(regs, done, start=start, at=At.ALLOC_FIND)


def reclaimed(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Behind the folio that was dropped; where it was not, the range is done."""
    return state, assign(regs, on, turn=jnp.where(regs.dropped, regs.turn, 2 * CLUSTER), at=At.ALLOC_RECLAIM)


def turn_full(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_reclaim_full_clusters: one full cluster's cached slots that nobody counts on are given back."""
    cached, _ = _only_cached(state, regs.cluster)
    ready = bits.from_on(bits.once(cached), jnp.minimum(regs.turn, CLUSTER))
    ready, s = lax.optimization_barrier((ready, sharing.of(state)))
    state = replace(state, sharing=s)
    goes = on & (ready < CLUSTER)
    _, cached, state = slot_of(state, regs.cluster * CLUSTER + jnp.minimum(ready, CLUSTER - 1))
    regs = assign(regs, goes, turn=ready + 1, drop=cached, at=At.DROP, back_drop=At.FULL_CLUSTER)
    done = on & ~goes
    _, owner, flag, c = cluster_table.state(state.clusters, regs.cluster)
    c = cluster_table.move(c, regs.cluster, jnp.full_like(flag, FULL), owner, done & (flag == FULL))
    return replace(state, clusters=c), assign(regs, done, at=regs.back_full)


def reclaim_work(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_reclaim_work of the devices that are due: as many full clusters as the slots in use would fill, at
    least one, until none is left.
    """
    picks = on & (regs.rounds == 0)
    device = jnp.minimum(bits.ctz(regs.due.astype(jnp.uint32)), devices(state.clusters) - 1)
    device = jnp.where(picks, device, regs.device)
    c = state.clusters
    used = of_device(layout_of(c, USABLE) - c.left, device)
    over, starts = picks & (regs.due == 0), picks & (regs.due != 0)
    regs = assign(regs, over, at=regs.back_work)
    rounds = jnp.maximum(used >> CLUSTER_SHIFT, 1)
    regs = assign(regs, starts, device=device, due=regs.due & (regs.due - 1), rounds=rounds)
    head = sentinels(c, device) + FULL_LIST
    cluster, next = load1(c.next, head)
    looks = on & ~over
    regs = assign(regs, looks & (cluster == head), rounds=0)
    regs = assign(
        regs, looks & (cluster != head), cluster=cluster, turn=0, rounds=regs.rounds - 1,
        at=At.FULL_CLUSTER, back_full=At.RECLAIM_WORK,
    )  # fmt: skip
    return replace(state, clusters=replace(c, next=next)), regs
