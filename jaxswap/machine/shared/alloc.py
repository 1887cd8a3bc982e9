"""Slots for folios where the allocator may take them from the swap cache.

Source of the rules: mm/swapfile.c (swap_alloc_fast, cluster_alloc_swap_entry, alloc_swap_scan_cluster,
cluster_reclaim_range, swap_reclaim_full_clusters, relocate_cluster), 6.18 to 7.3; block devices.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine.shared import devices as swaps
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.slots import slot_of, vm_swap_full
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable import bits, cluster_table
from jaxswap.swaptable.cluster_table import (
    BEHIND,
    FRAG,
    FRAG_LIST,
    FREE_LIST,
    FULL,
    FULL_LIST,
    HINTS,
    LISTS,
    NONFULL,
    NONFULL_LIST,
    PRIORITY,
    USED,
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
from jaxswap.swaptable.lanes import load, load1, store1

_NEVER = 99
_PICK, _TURN = 0, 3  # ranks: choose a device; the list of full clusters


def _ranks() -> np.ndarray:
    """In which turn the slow path of an order looks at each list: [device discards, order, list]."""
    ranks = np.full((2, MAX_ORDER + 1, LISTS), _NEVER, np.int32)
    ranks[:, :, FULL_LIST] = _TURN
    for discards, (free, nonfull) in enumerate(((2, 1), (1, 2))):
        ranks[discards, :, FREE_LIST] = free
        for order in range(MAX_ORDER):
            ranks[discards, order, NONFULL_LIST + order], ranks[discards, order, FRAG_LIST + order] = (
                nonfull,
                4,
            )
    for stolen in range(1, MAX_ORDER + 1):
        ranks[:, 0, FRAG_LIST + stolen] = 3 + 2 * stolen
        ranks[:, 0, NONFULL_LIST + stolen] = 4 + 2 * stolen
    return ranks.reshape(-1, LISTS)


_RANKS = _ranks()


def _hint_at(state: MachineState, order: Lane) -> Lane:
    """Where the CPU's hint of an order is kept: once for all devices."""
    return state.cpu * devices(state.clusters) * HINTS + order


def begin(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_alloc_fast: the cluster of the hint, if it is of use."""
    order = regs.alloc_order
    hint, hints = load1(state.clusters.notes, _hint_at(state, order))
    state = replace(state, clusters=replace(state.clusters, notes=hints))
    regs = assign(regs, on, rank=_PICK, visited=0, slot=-1, at=At.ALLOC_LIST)
    return _follow(state, regs, hint, on)


def _follow(state: MachineState, regs: Registers, hint: Lane, on: Flag) -> tuple[MachineState, Registers]:
    """cluster_is_usable: to the cluster of a hint, unless it is of no use."""
    cluster = jnp.where(hint > 0, hint >> CLUSTER_SHIFT, 0)
    count, owner, flag, c = cluster_table.state(state.clusters, cluster)
    usable = (hint > 0) & ((flag == NONFULL) | (flag == FRAG))
    usable = usable & ((regs.alloc_order == 0) | (count == 0) | (owner == regs.alloc_order))
    start = hint & (CLUSTER - 1)
    regs = assign(regs, on & usable, cluster=cluster, start=start, hinted=True, at=At.ALLOC_FIND)
    return replace(state, clusters=c), regs


def _next_device(state: MachineState, regs: Registers, on: Flag) -> tuple[MachineState, Registers]:
    """The next device of swap_avail_head, moved behind its equals; the search ends if there is none.

    At order 0 the other devices are asked where one has nothing, and then discards are waited for. A device
    that rotates has a hint of its own.
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
    regs = assign(regs, over & ~discarded, at=regs.back_alloc)
    regs = assign(regs, over & discarded, visited=0)
    visited = regs.visited | (jnp.int32(1) << device)
    regs = assign(regs, picked, device=device, visited=visited, rank=1)
    hint, state = swaps.hint(state, device, regs.alloc_order)
    return _follow(state, regs, hint, picked & swaps.has(state, device, swaps.ROTATIONAL))


def next_list(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """cluster_alloc_swap_entry: the first cluster of the next list that has one."""
    state, regs = _next_device(state, regs, on & (regs.rank == _PICK))
    asked = on & (regs.at == At.ALLOC_LIST) & (regs.rank > _PICK)
    order, c = regs.alloc_order, state.clusters
    discards = swaps.has(state, regs.device, swaps.DISCARDS)
    row = jnp.where(discards, MAX_ORDER + 1, 0) + order
    ranks = jnp.take(jnp.asarray(_RANKS), row, axis=0, mode="clip").T
    sentinel = sentinels(c, regs.device)
    heads, next = load(c.next, sentinel, LISTS)
    c = replace(c, next=next)
    empty = heads == sentinel + jnp.arange(LISTS, dtype=jnp.int32)[:, None]
    turn = jnp.where(empty | (ranks < regs.rank[None]), _NEVER, ranks)
    turn = jnp.where((ranks == _TURN) & ~vm_swap_full(state)[None], _NEVER, turn)
    best = jnp.min(turn, axis=0)
    head = jnp.max(jnp.where(turn == best[None], heads, -1), axis=0)
    there, full = asked & (best < _NEVER), best == _TURN
    # A free cluster always has room, so there discards change nothing.
    once_only = ((best == 2) & ~discards) | (best == _TURN) | (best == 4)
    regs = assign(regs, asked & ~there, rank=_PICK)
    regs = assign(
        regs, there, cluster=head, start=0, turn=0, hinted=False,
        rank=jnp.where(once_only, best + 1, best), at=jnp.where(full, At.ALLOC_FULL, At.ALLOC_FIND),
    )  # fmt: skip
    return replace(state, clusters=c), regs


def _reclaimable(state: MachineState, cluster: Lane) -> bits.Bits:
    """Cached slots of a cluster that have no count."""
    counts, _ = load(sharing.of(state).counts, cluster * CLUSTER, CLUSTER)
    cache, _ = load(sharing.of(state).cache, cluster * CLUSTER, CLUSTER)
    found = ((counts == 0) & (cache >= 0)).reshape(16, 32, -1)
    place = np.uint32(1) << np.arange(32, dtype=np.uint32)[None, :, None]
    return jnp.sum(jnp.where(found, place, np.uint32(0)), axis=1, dtype=jnp.uint32)


def _used(state: MachineState, cluster: Lane) -> tuple[bits.Bits, MachineState]:
    used, c = cluster_table.whole_set(state.clusters, cluster, USED)
    return used, replace(state, clusters=c)


def find(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """alloc_swap_scan_cluster from `start` on: take slots, or drop folios from the swap cache, or give up."""
    order, cluster = regs.alloc_order, regs.cluster
    size = jnp.int32(1) << order
    count, owner, flag, c = cluster_table.state(state.clusters, cluster)
    used, state = _used(replace(state, clusters=c), cluster)
    full = on & vm_swap_full(state)
    dropped = lax.cond(jnp.any(full), lambda: _reclaimable(state, cluster), lambda: jnp.zeros_like(used))
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
    target = jnp.where(count == CLUSTER, FULL, FRAG)
    moves = ends & (count > 0) & (~regs.hinted | (flag != target))
    c = cluster_table.set_state(state.clusters, cluster, count, owner, jnp.where(moves, target, flag), ends)
    c = cluster_table.change(c, cluster, at, at + size, {USED: True}, taken)
    c = cluster_table.move(c, cluster, target, owner, moves)
    device = device_of(c, cluster)
    limit = jnp.minimum(of_device(layout_of(c, BEHIND), device) - cluster * CLUSTER, CLUSTER)
    follows = taken & (count < CLUSTER) & (at + 2 * size <= limit)
    hint = jnp.where(follows, cluster * CLUSTER + at + size, 0)
    rotates = swaps.has(state, device, swaps.ROTATIONAL)
    state = swaps.set_hint(state, device, order, hint, ends & rotates)
    c = replace(
        c,
        notes=store1(c.notes, _hint_at(state, order), hint, ends & ~rotates),
        left=at_device(c.left, device, of_device(c.left, device) - size, taken),
    )
    regs = assign(regs, ends, at=At.ALLOC_LIST)
    regs = assign(regs, taken, slot=cluster * CLUSTER + at, at=regs.back_alloc)
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
    start = jnp.where(usable, jnp.where(free, regs.start, regs.start + size), CLUSTER)
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
    ready = bits.from_on(bits.once(_reclaimable(state, regs.cluster)), jnp.minimum(regs.turn, CLUSTER))
    ready, s = lax.optimization_barrier((ready, sharing.of(state)))
    state = replace(state, sharing=s)
    goes = on & (ready < CLUSTER)
    _, cached, state = slot_of(state, regs.cluster * CLUSTER + jnp.minimum(ready, CLUSTER - 1))
    regs = assign(regs, goes, turn=ready + 1, drop=cached, at=At.DROP, back_drop=At.ALLOC_FULL)
    done = on & ~goes
    _, owner, flag, c = cluster_table.state(state.clusters, regs.cluster)
    c = cluster_table.move(c, regs.cluster, jnp.full_like(flag, FULL), owner, done & (flag == FULL))
    return replace(state, clusters=c), assign(regs, done, at=At.ALLOC_LIST)
