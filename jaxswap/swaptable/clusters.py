"""The swap slot allocator: clusters of 512 slots, their lists, the per-CPU hint of each order.

Source of the rules: mm/swapfile.c of 7.2 / 7.3 (folio_alloc_swap, swap_alloc_fast, cluster_alloc_swap_entry,
alloc_swap_scan_cluster, relocate_cluster, partial_free_cluster, free_cluster): one CPU and one
synchronous block device without discard. Every array has a trailing lane axis L.
"""

import itertools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.swaptable import bits
from jaxswap.swaptable.geometry import CLUSTER, CLUSTER_SHIFT, MAX_ORDER
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, store1, when

Lane = Int32[Array, " L"]

# The words of one cluster: three bit planes, then count, order and flag.
USED, CACHED, ZERO, COUNT, ORDER, FLAG, STRIDE = 0, 16, 32, 48, 49, 50, 64
FREE, NONFULL, FRAG, FULL = 1, 2, 3, 4

# Lists: free, full, nonfull[0..9], frag[0..9]; their sentinels follow the clusters in the link tables.
LISTS = 32
_FREE, _FULL, _NONFULL, _FRAG = 0, 1, 2, 12
_NEVER = 99


def _ranks() -> np.ndarray:
    """In which turn the slow path of an order takes from each list."""
    ranks = np.full((MAX_ORDER + 1, LISTS), _NEVER, np.int32)
    for order in range(MAX_ORDER + 1):
        ranks[order, _FREE] = 2
        if order < MAX_ORDER:
            ranks[order, _NONFULL + order] = 1
            ranks[order, _FRAG + order] = 3
    for stolen in range(1, MAX_ORDER + 1):
        ranks[0, _FRAG + stolen] = 2 + 2 * stolen
        ranks[0, _NONFULL + stolen] = 3 + 2 * stolen
    return ranks


_RANKS = _ranks()
_LAST_RANK = int(_RANKS[_RANKS < _NEVER].max())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clusters:
    """The clusters of one swap device.

    words: STRIDE words a cluster: used (not NULL, bad slots included), cached (PFN) and zero-flag planes,
    count, order, flag. next, prev: list links by cluster number; sentinels from `lists` on.
    hints: next slot of each order, 0 for none. free: slots that are NULL. lists: number of the first
    sentinel.
    """

    words: UInt32[Array, "words L"]
    next: Int32[Array, "links L"]
    prev: Int32[Array, "links L"]
    hints: Int32[Array, "hints L"]
    free: Lane
    lists: Int32[Array, ""]


def capacity(clusters: Clusters) -> int:
    """Clusters the arrays have room for."""
    return clusters.next.shape[0] - SPARE - LISTS


def swapon(nslots: int, room: int, lanes: int) -> Clusters:
    """A fresh device of `nslots` slots in arrays for `room` clusters: slot 0 and slots past the end are bad.

    Clusters go to their lists in ascending order (6.18 and later); one with a bad slot starts on nonfull[0].
    """
    count = -(-nslots // CLUSTER)
    slots = np.ones(count * CLUSTER, bool)
    slots[1:nslots] = False
    used = np.packbits(slots.reshape(count, 16, 32), axis=2, bitorder="little").view(np.uint32)[:, :, 0]
    words = np.zeros((room, STRIDE), np.uint32)
    words[:count, USED : USED + 16] = used
    words[:count, COUNT] = slots.reshape(count, CLUSTER).sum(axis=1)
    words[:count, FLAG] = np.where(words[:count, COUNT] > 0, NONFULL, FREE)
    links = np.tile(np.arange(room + LISTS + SPARE, dtype=np.int32), (2, 1))
    for flag, head in ((FREE, room + _FREE), (NONFULL, room + _NONFULL)):
        chain = [head, *np.flatnonzero(words[:count, FLAG] == flag), head]
        for a, b in itertools.pairwise(chain):
            links[0, a], links[1, b] = b, a
    words = np.concatenate([words.reshape(-1), np.zeros(SPARE, np.uint32)])

    def spread(x: np.ndarray) -> Array:
        return jnp.asarray(np.repeat(x[:, None], lanes, axis=1))

    return Clusters(
        words=spread(words),
        next=spread(links[0]),
        prev=spread(links[1]),
        hints=spread(np.zeros(MAX_ORDER + 1 + SPARE, np.int32)),
        free=jnp.full((lanes,), nslots - 1, jnp.int32),
        lists=jnp.int32(room),
    )


def _move(c: Clusters, cluster: Lane, flag: Lane, order: Lane, on: Bool[Array, " L"]) -> Clusters:
    """Take a cluster off its list and put it at the tail of the list of `flag` (and `order`)."""

    def move(c: Clusters) -> Clusters:
        before, prev = load1(c.prev, cluster)
        after, next = load1(c.next, cluster)
        next = store1(next, before, after, on)
        prev = store1(prev, after, before, on)
        number = jnp.where(flag == NONFULL, _NONFULL + order, _FRAG + order)
        number = jnp.where(flag == FREE, _FREE, jnp.where(flag == FULL, _FULL, number))
        head = c.lists + number
        tail, prev = load1(prev, head)
        next = store1(store1(next, tail, cluster, on), cluster, head, on)
        prev = store1(store1(prev, cluster, tail, on), head, cluster, on)
        return replace(c, next=next, prev=prev)

    return when(on, move, c)


def alloc(c: Clusters, order: Lane, on: Bool[Array, " L"]) -> tuple[Clusters, Lane]:
    """folio_alloc_swap: the first slot of 2^order consecutive free ones in one cluster, or -1."""
    size = jnp.int32(1) << order
    hint, hints = load1(c.hints, order)
    c = replace(c, hints=hints)

    def looking(carry: tuple) -> Bool[Array, " L"]:
        return carry[3]

    def scan(carry: tuple) -> tuple:
        c, rank, found, active = carry
        # A cluster: the hinted one (rank 0), else the head of the first list whose turn it is.
        hinted = rank == 0

        def listed() -> tuple[Lane, Lane]:
            ranks = jnp.take(jnp.asarray(_RANKS), order, axis=0, mode="clip").T
            heads, _ = load(c.next, jnp.broadcast_to(c.lists, order.shape), LISTS)
            empty = heads == c.lists + jnp.arange(LISTS, dtype=jnp.int32)[:, None]
            turn = jnp.where(empty | (ranks < rank[None]), _NEVER, ranks)
            best = jnp.min(turn, axis=0)
            return best, jnp.max(jnp.where(turn == best[None], heads, -1), axis=0)

        none = jnp.full_like(rank, _NEVER)
        best, head = lax.cond(jnp.any(active & ~hinted), listed, lambda: (none, none))
        (best, head), next = lax.optimization_barrier(((best, head), c.next))
        cluster = jnp.where(hinted, hint >> CLUSTER_SHIFT, jnp.where(best < _NEVER, head, 0))
        row, words = load(c.words, cluster * STRIDE, STRIDE)
        used, count = row[USED : USED + 16], row[COUNT].astype(jnp.int32)
        owner, flag = row[ORDER].astype(jnp.int32), row[FLAG].astype(jnp.int32)
        usable = (hint > 0) & ((flag == NONFULL) | (flag == FRAG)) & ((order == 0) | (owner == order))
        chosen = active & jnp.where(hinted, usable, best < _NEVER)
        start = jnp.where(hinted & (count > 0), hint & (CLUSTER - 1), 0)
        blocks = lax.cond(jnp.any(order > 0), lambda: bits.free_blocks(used, order), lambda: ~used)
        position = jnp.where(count + size <= CLUSTER, bits.from_on(blocks, start), CLUSTER)
        taken = chosen & (position < CLUSTER)
        owner = jnp.where(taken & (count == 0), order, owner)
        count = jnp.where(taken, count + size, count)
        target = jnp.where(count == CLUSTER, FULL, FRAG)
        move = chosen & (~hinted | (flag != target))
        used = jnp.where(taken[None], used | bits.span(position, position + size), used)
        tail = jnp.stack([count, owner, jnp.where(move, target, flag)]).astype(jnp.uint32)
        words = store(words, cluster * STRIDE, used, chosen)
        words = store(words, cluster * STRIDE + COUNT, tail, chosen)
        c = _move(replace(c, words=words, next=next), cluster, target, owner, move)
        more = taken & (count < CLUSTER) & (position + 2 * size <= CLUSTER)
        hints = store1(c.hints, order, jnp.where(more, cluster * CLUSTER + position + size, 0), chosen)
        c = replace(c, hints=hints, free=jnp.where(taken, c.free - size, c.free))
        found = jnp.where(taken, cluster * CLUSTER + position, found)
        one_only = (best == 2) | (best == 3)
        rank = jnp.where(hinted, 1, jnp.where(one_only, best + 1, best))
        active = active & ~taken & (hinted | (best <= _LAST_RANK))
        return c, rank, found, active

    nothing = jnp.full_like(order, -1)
    c, _, found, _ = repeat(looking, scan, (c, jnp.zeros_like(order), nothing, on))
    return c, found


def put(c: Clusters, slot: Lane, size: Lane, on: Bool[Array, " L"]) -> Clusters:
    """Free `size` slots from `slot`, all in one cluster (__swap_cluster_free_entries)."""
    cluster, start = slot >> CLUSTER_SHIFT, slot & (CLUSTER - 1)
    row, words = load(c.words, cluster * STRIDE, STRIDE)
    keep = ~bits.span(start, start + size)
    count = row[COUNT].astype(jnp.int32) - size
    flag = row[FLAG].astype(jnp.int32)
    target = jnp.where(count > 0, NONFULL, FREE)
    owner = jnp.where(count > 0, row[ORDER].astype(jnp.int32), 0)
    at = cluster * STRIDE
    for plane in (USED, CACHED, ZERO):
        words = store(words, at + plane, row[plane : plane + 16] & keep, on)
    for word, value in ((COUNT, count), (ORDER, owner), (FLAG, target)):
        words = store1(words, at + word, value, on)
    c = _move(replace(c, words=words), cluster, target, owner, on & (flag != target))
    return replace(c, free=jnp.where(on, c.free + size, c.free))


def planes(c: Clusters, slot: Lane) -> tuple[bits.Bits, bits.Bits, Clusters]:
    """Cached and zero-flag planes of the cluster that holds each lane's slot."""
    row, words = load(c.words, (slot >> CLUSTER_SHIFT) * STRIDE + CACHED, 32)
    return row[:16], row[16:], replace(c, words=words)


def set_plane(
    c: Clusters, plane: int, slot: Lane, size: Lane, value: Bool[Array, " L"], on: Bool[Array, " L"]
) -> Clusters:
    """Set or clear CACHED or ZERO for `size` slots from `slot`, all in one cluster."""
    at = (slot >> CLUSTER_SHIFT) * STRIDE + plane
    row, words = load(c.words, at, 16)
    start = slot & (CLUSTER - 1)
    members = bits.span(start, start + size)
    return replace(c, words=store(words, at, jnp.where(value[None], row | members, row & ~members), on))
