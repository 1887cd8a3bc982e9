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
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, store1, surely, when

Lane = Int32[Array, " L"]
Mask = UInt32[Array, " L"]
Flag = Bool[Array, " L"]

# A cluster's words: for every 32 slots a row of three sets of slots, then count, order and flag.
USED, CACHED, ZERO, ROW = 0, 1, 2, 4
COUNT, ORDER, FLAG, STRIDE = 64, 65, 66, 68
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


_ALL = np.uint32(0xFFFF_FFFF)
_MULTIPLES = np.array([0xFFFF_FFFF // ((1 << (1 << order)) - 1) for order in range(6)], np.uint32)
_RANKS = _ranks()
_LAST_RANK = int(_RANKS[_RANKS < _NEVER].max())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clusters:
    """The clusters of one swap device.

    words: STRIDE words a cluster: sets of used (not NULL, bad slots included), cached (PFN) and zero-flag
    slots, count, order, flag. next, prev: list links by cluster number; sentinels from `lists` on.
    hints: next slot of each order, 0 for none. free: slots that are NULL. total: slots that are not bad.
    lists: number of the first sentinel.
    """

    words: UInt32[Array, "words L"]
    next: Int32[Array, "links L"]
    prev: Int32[Array, "links L"]
    hints: Int32[Array, "hints L"]
    free: Lane
    total: Lane
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
    words[:count, USED : 16 * ROW : ROW] = used
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
        total=jnp.full((lanes,), nslots - 1, jnp.int32),
        lists=jnp.int32(room),
    )


def _move(c: Clusters, cluster: Lane, flag: Lane, order: Lane, on: Flag) -> Clusters:
    """Take a cluster off its list and put it at the tail of the list of `flag` (and `order`)."""

    def move(c: Clusters) -> Clusters:
        sure = surely(on)
        before, prev = load1(c.prev, cluster)
        after, next = load1(c.next, cluster)
        next = store1(next, before, after, sure)
        prev = store1(prev, after, before, sure)
        number = jnp.where(flag == NONFULL, _NONFULL + order, _FRAG + order)
        number = jnp.where(flag == FREE, _FREE, jnp.where(flag == FULL, _FULL, number))
        head = c.lists + number
        tail, prev = load1(prev, head)
        next = store1(store1(next, tail, cluster, sure), cluster, head, sure)
        prev = store1(store1(prev, cluster, tail, sure), head, cluster, sure)
        return replace(c, next=next, prev=prev)

    return when(on, move, c)


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
        used, _ = _set(c, cluster, USED)
        return bits.from_on(bits.free_blocks(used, order), start)

    large = on & (order > 5)
    found = jnp.where(large, lax.cond(jnp.any(large), wide, lambda: nowhere), found)
    (found, free), words = lax.optimization_barrier(((found, free), c.words))
    return found, free, replace(c, words=words)


def _set(c: Clusters, cluster: Lane, which: int) -> tuple[bits.Bits, Clusters]:
    """USED, CACHED or ZERO of a whole cluster."""
    words, table = load(c.words, cluster * STRIDE, 16 * ROW)
    return words.reshape(16, ROW, -1)[:, which], replace(c, words=table)


def alloc(c: Clusters, order: Lane, want: Lane, on: Flag) -> tuple[Clusters, Lane, Lane]:
    """folio_alloc_swap: the first slot of 2^order consecutive free ones in one cluster, or -1.

    At order 0 up to `want` consecutive slots are taken at once, as many calls in a row would take them.
    Returns (clusters, first slot, folios that got their slots).
    """
    size = jnp.int32(1) << order
    hint, hints = load1(c.hints, order)
    c = replace(c, hints=hints)

    def looking(carry: tuple) -> Flag:
        return carry[4]

    def scan(carry: tuple) -> tuple:
        c, rank, found, got, active = carry
        active = surely(active)
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
        cluster = bits.once(jnp.where(hinted, hint >> CLUSTER_SHIFT, jnp.where(best < _NEVER, head, 0)))
        count, owner, flag, c = _state(replace(c, next=next), cluster)
        usable = (hint > 0) & ((flag == NONFULL) | (flag == FRAG)) & ((order == 0) | (owner == order))
        chosen = bits.once(active & jnp.where(hinted, usable, best < _NEVER))
        start = jnp.where(hinted & (count > 0), hint & (CLUSTER - 1), 0)
        position, free, c = _find(c, cluster, start, order, chosen & (count + size <= CLUSTER))
        taken = bits.once(chosen & (position < CLUSTER))
        run = bits.ctz(~(free >> (position & 31).astype(jnp.uint32)))
        folios = bits.once(jnp.where(taken, jnp.where(order == 0, jnp.minimum(run, want), 1), 0))
        slots = bits.once(folios << order)
        owner = jnp.where(taken & (count == 0), order, owner)
        count = bits.once(count + slots)
        target = jnp.where(count == CLUSTER, FULL, FRAG)
        move = chosen & (~hinted | (flag != target))
        c = _set_state(c, cluster, count, owner, jnp.where(move, target, flag), chosen)
        c = _change(c, cluster, position, position + slots, {USED: True}, taken)
        c = _move(c, cluster, target, owner, move)
        end = position + slots
        hints = store1(
            c.hints,
            order,
            jnp.where(taken & (count < CLUSTER) & (end + size <= CLUSTER), cluster * CLUSTER + end, 0),
            chosen,
        )
        c = replace(c, hints=hints, free=c.free - slots)
        found = jnp.where(taken, cluster * CLUSTER + position, found)
        one_only = (best == 2) | (best == 3)
        rank = jnp.where(hinted, 1, jnp.where(one_only, best + 1, best))
        active = active & ~taken & (hinted | (best <= _LAST_RANK))
        return c, rank, found, jnp.where(taken, folios, got), active

    zero = jnp.zeros_like(order)
    c, _, found, got, _ = repeat(looking, scan, (c, zero, zero - 1, zero, on))
    return c, found, got


def _state(c: Clusters, cluster: Lane) -> tuple[Lane, Lane, Lane, Clusters]:
    """Count, order and flag of a cluster."""
    found, words = [], c.words
    for word in (COUNT, ORDER, FLAG):
        value, words = load1(words, cluster * STRIDE + word)
        found.append(value.astype(jnp.int32))
    return (*found, replace(c, words=words))


def _set_state(c: Clusters, cluster: Lane, count: Lane, order: Lane, flag: Lane, on: Flag) -> Clusters:
    words = c.words
    for word, value in ((COUNT, count), (ORDER, order), (FLAG, flag)):
        words = store1(words, cluster * STRIDE + word, value, on)
    return replace(c, words=words)


def _change(
    c: Clusters, cluster: Lane, start: Lane, end: Lane, values: dict[int, Flag | bool], on: Flag
) -> Clusters:
    """The slots from `start` to `end` - 1 of a cluster put into, or taken out of, some of its sets."""

    def turn(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        words, at = carry
        active = surely(on & (at < end))
        row = cluster * STRIDE + (at >> 5) * ROW
        old, words = load(words, row, ROW)
        last = jnp.minimum(end - (at & -32), 32)
        below = jnp.where(last >= 32, _ALL, (jnp.uint32(1) << (last & 31).astype(jnp.uint32)) - np.uint32(1))
        members = bits.once(below & (_ALL << (at & 31).astype(jnp.uint32)))
        new = old
        for which, value in values.items():
            changed = jnp.where(jnp.asarray(value), old | members[None], old & ~members[None])
            new = jnp.where(np.arange(ROW)[:, None] == which, changed, new)
        return store(words, row, new, active), (at & -32) + 32

    words, _ = repeat(lambda carry: on & (carry[1] < end), turn, (c.words, start))
    return replace(c, words=words)


def put(c: Clusters, slot: Lane, size: Lane, on: Flag) -> Clusters:
    """Free `size` slots from `slot`, all in one cluster (__swap_cluster_free_entries)."""
    cluster, start = slot >> CLUSTER_SHIFT, slot & (CLUSTER - 1)
    count, owner, flag, c = _state(c, cluster)
    count = bits.once(count - size)
    target = jnp.where(count > 0, NONFULL, FREE)
    owner = jnp.where(count > 0, owner, 0)
    c = _set_state(c, cluster, count, owner, target, on)
    c = _change(c, cluster, start, start + size, {USED: False, CACHED: False, ZERO: False}, on)
    c = _move(c, cluster, target, owner, on & (flag != target))
    return replace(c, free=jnp.where(on, c.free + size, c.free))


def flags(c: Clusters, slot: Lane) -> tuple[Mask, Mask, Clusters]:
    """Which of the 32 slots around each lane's slot are cached, and which carry the zero flag."""
    at = (slot >> CLUSTER_SHIFT) * STRIDE + ((slot >> 5) & 15) * ROW + CACHED
    words, table = load(c.words, at, 2)
    return words[0], words[1], replace(c, words=table)


def all_flags(c: Clusters, slot: Lane) -> tuple[bits.Bits, bits.Bits]:
    """The same of the whole cluster that holds each lane's slot."""
    cluster = slot >> CLUSTER_SHIFT
    return _set(c, cluster, CACHED)[0], _set(c, cluster, ZERO)[0]


def set_plane(c: Clusters, plane: int, slot: Lane, size: Lane, value: Flag, on: Flag) -> Clusters:
    """Set or clear CACHED or ZERO for `size` slots from `slot`, all in one cluster."""
    start = slot & (CLUSTER - 1)
    return _change(c, slot >> CLUSTER_SHIFT, start, start + size, {plane: value}, on)
