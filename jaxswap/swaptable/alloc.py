"""Allocation of folios in the swap cache for a batch of requests, with order fallback.

Rules: mm/swap_state.c, Linux 7.2 / 7.3, ``__swap_cache_alloc`` (one order: check, frame, check again with
memcg ids, insert, charge) and ``swap_cache_alloc_folio`` (from the highest order of the mask down; -EBUSY and
-ENOMEM step down, -EEXIST and -ENOENT end it, order 0 is the last). The result of a batch is that of its
requests one after the other.

How it is done side by side. Within a batch slots only ever enter the cache; counts, zero flags, memcg ids and
bad slots stay. So nearly everything a request meets is known beforehand from the table, as one reach (orders
from 0 up that pass) for every kind of conflict. The one thing that depends on the requests before it is how
many orders around its target are still free of folios of this batch. Requests to different clusters cannot
affect each other, so every cluster has its queue and all queues advance in lock step, longest first, each
step over the clusters that still have requests.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int8, Int32, UInt8, UInt16, UInt32

from jaxswap.errors import InputError
from jaxswap.swaptable.check import checked_integers
from jaxswap.swaptable.entry import COUNT_SHIFT, FLAG_BITS, FOLIO, SHADOW, VALUE_MAX, VALUE_SHIFT, SwapTable
from jaxswap.swaptable.geometry import (
    ALL_ORDERS,
    CLUSTER,
    CLUSTER_SHIFT,
    EBUSY,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    MAX_ORDER,
    ORDERS,
    WORDS,
    highest_order,
)
from jaxswap.swaptable.planes import any_in_block, mixed_ids, mixed_zero, planes_of, reach

REASONS = ("no_table", "bad", "cached", "count", "zero", "memcg", "frame", "charge")
"""Why an order was not used. The first five are found by the first check, before anything is allocated;
``memcg`` by the second check and ``charge`` after it, both at the cost of a folio thrown away."""

_KINDS = ("bad", "cached", "count", "zero", "memcg")
_WIDE, _NARROW = 2048, 32
"""Clusters a step advances together: while many queues are left, and for the tail of a few long ones."""
_EVENTS = 256
"""Failed charges looked up together."""


class Requests(NamedTuple):
    """One swap-in each, in index order. Made by :func:`make_requests`."""

    slots: UInt32[Array, "n"]
    orders: UInt32[Array, "n"]
    frames: UInt32[Array, "n"]
    charges: UInt32[Array, "n"]
    folios: UInt32[Array, "n"]


class Outcome(NamedTuple):
    """What became of every request. Masks have bit ``o`` for order ``o``; three are packed in a word of
    ``masks``.

    An order can be refused for several reasons at once, all reported: each test of the check counts if any
    slot of the block fails it (a bad slot fails only ``bad``; a target refused for itself reports that reason
    alone).
    """

    errno: Int32[Array, "n"]
    """0, or the error of the last order tried: -ENOENT, -ENOMEM, -EBUSY, -EEXIST; -EINVAL for a bad mask."""
    order: Int8[Array, "n"]
    """Order of the folio now in the cache, -1 if none."""
    masks: tuple[UInt32[Array, "n"], UInt32[Array, "n"], UInt32[Array, "n"]]

    def _mask(self, number: int) -> UInt16[Array, "n"]:
        word, place = divmod(number, 3)
        return ((self.masks[word] >> (10 * place)) & ALL_ORDERS).astype(jnp.uint16)

    def refused(self, reason: str) -> UInt16[Array, "n"]:
        """Orders refused for one of :data:`REASONS`."""
        return self._mask(REASONS.index(reason))

    @property
    def stepped(self) -> UInt16[Array, "n"]:
        """Orders given up and counted as swpin_fallback (order 0 is never counted)."""
        return self._mask(len(REASONS))

    @property
    def first_check(self) -> UInt16[Array, "n"]:
        """Orders refused by the check before the allocation."""
        no_table, bad, cached, count, zero = (self.refused(reason) for reason in REASONS[:5])
        return no_table | bad | cached | count | zero

    @property
    def second_check(self) -> UInt16[Array, "n"]:
        """Orders refused by the check after the allocation."""
        return self.refused("memcg")

    @property
    def thrown(self) -> UInt8[Array, "n"]:
        """Folios allocated and given back."""
        return lax.population_count(self.refused("memcg") | self.refused("charge")).astype(jnp.uint8)


class Queues(NamedTuple):
    """Requests of a batch in the order the lock step takes them: step after step, in a step longest queue
    first.
    """

    cluster: Int32[Array, "clusters"]
    """Cluster of each queue, longest queue first."""
    width: Int32[Array, "n+1"]
    """Queues longer than k, for step k."""
    start: Int32[Array, "n+1"]
    """Place of the first request of step k."""
    place: Int32[Array, "n"]
    """Place of each request."""
    request: Int32[Array, "n"]
    """Request at each place."""


def _stable_order(keys: np.ndarray, bound: int) -> np.ndarray:
    """Stable argsort; 16-bit digits because numpy sorts those by counting."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    if bound > 1 << 16:
        order = order[np.argsort((keys >> 16)[order].astype(np.uint16), kind="stable")]
    return order


def make_queues(slots, clusters: int) -> Queues:
    """Queues for the target slots of a batch (uint32 [n], in range), on the host."""
    cluster = np.asarray(slots) >> CLUSTER_SHIFT
    n = cluster.size
    length = np.bincount(cluster, minlength=clusters)
    longest_first = _stable_order(length.max(initial=0) - length, n + 1)
    lane = np.empty(clusters, np.int32)
    lane[longest_first] = np.arange(clusters, dtype=np.int32)
    by_cluster = _stable_order(cluster, clusters)
    sorted_cluster = cluster[by_cluster]
    before = np.cumsum(length) - length
    step = np.arange(n, dtype=np.int32) - before.astype(np.int32)[sorted_cluster]
    steps = int(length.max(initial=0))
    width = np.zeros(n + 1, np.int32)
    width[:steps] = clusters - np.cumsum(np.bincount(length, minlength=steps + 1))[:steps]
    start = np.full(n + 1, n, np.int32)
    start[:steps] = np.cumsum(width[:steps]) - width[:steps]
    place_sorted = start[step] + lane[sorted_cluster]
    place = np.empty(n, np.int32)
    place[by_cluster] = place_sorted
    request = np.empty(n, np.int32)
    request[place] = np.arange(n, dtype=np.int32)
    return Queues(*map(jnp.asarray, (longest_first.astype(np.int32), width, start, place, request)))


def make_requests(table_slots: int, slots, orders, frames=None, charges=None, folios=None) -> Requests:
    """Checked requests for a table of ``table_slots`` slots.

    slots: integers [n], the faulting slot. orders: mask of orders offered; an empty mask or one with a bit
    above 9 is allowed and gives -EINVAL, as in the kernel. frames, charges: masks of the orders for which a
    page frame can be had and whose memcg charge succeeds (default: all). folios: folio numbers written to the
    slots, below 2**25 (default: the index of the request, modulo 2**25). Scalars hold for all requests.
    InputError on wrong dtype, shape or range.
    """
    asked = checked_integers("slots", slots, None, table_slots - 1, jnp.uint32)
    n = asked.shape[0]

    def mask(name: str, given) -> Array:
        values = ALL_ORDERS if given is None else given
        if np.ndim(values) == 0:
            values = np.full(n, values)
        return checked_integers(name, values, n, 2**32 - 1, jnp.uint32)

    if folios is None:
        numbers = jnp.arange(n, dtype=jnp.uint32) & VALUE_MAX
    else:
        numbers = checked_integers("folios", folios, n, VALUE_MAX, jnp.uint32)
    return Requests(asked, mask("orders", orders), mask("frames", frames), mask("charges", charges), numbers)


def _orders_up(count: Array) -> Array:
    """Mask of the orders at and above ``count`` (0 .. 10)."""
    return (jnp.uint32(ALL_ORDERS) << count) & ALL_ORDERS


def _block_mask(bit: Array, order: Array | int) -> Array:
    """Bits of the aligned block of ``2**order`` (order at most 4) around ``bit`` of a word."""
    size = jnp.uint32(1) << jnp.asarray(order, jnp.uint32)
    return ((jnp.uint32(1) << size) - 1) << (bit & ~(size - 1))


def _reach_in_rows(rows: UInt32[Array, "16 lanes"], slot: UInt32[Array, "lanes"]) -> UInt32[Array, "lanes"]:
    """How many orders from 0 up have no bit in their block around ``slot`` (0 .. 511), lane by lane."""
    word, bit = slot >> 5, slot & 31
    own = jnp.zeros_like(slot)
    used = jnp.zeros_like(slot)
    for number in range(WORDS):
        row = rows[number]
        own = own | jnp.where(word == number, row, 0)
        used = used | jnp.where(row != 0, jnp.uint32(1 << number), 0)
    own, used = lax.optimization_barrier((own, used))
    total = (own == 0).astype(jnp.uint32)
    for order in range(5):
        total = total + ((own & _block_mask(bit, order)) == 0).astype(jnp.uint32)
    for order in range(1, 5):
        total = total + ((used & _block_mask(word, order)) == 0).astype(jnp.uint32)
    return total


def _insert(
    rows: UInt32[Array, "16 lanes"], slot: UInt32[Array, "lanes"], able: UInt32[Array, "lanes"]
) -> UInt32[Array, "16 lanes"]:
    """Set the bits of the block of the highest order of ``able`` around ``slot``; none where ``able`` is
    empty.
    """
    word, bit = slot >> 5, slot & 31
    order = highest_order(jnp.maximum(able, 1)).astype(jnp.uint32)
    bits = jnp.where(order >= 5, jnp.uint32(0xFFFF_FFFF), _block_mask(bit, jnp.minimum(order, 4)))
    touched = jnp.where(able != 0, _block_mask(word, jnp.maximum(order, 5) - 5), 0)
    # without the barrier both would be worked out again for every one of the 16 words
    bits, touched = lax.optimization_barrier((bits, touched))
    in_block = (touched[None, :] >> jnp.arange(WORDS, dtype=jnp.uint32)[:, None]) & 1
    return rows | jnp.where(in_block != 0, bits[None, :], 0)


def _lock_step(packed: UInt32[Array, "places"], queues: Queues, lanes: int) -> UInt32[Array, "places"]:
    """Per place: orders from 0 up around the target that are free of folios of this batch when its turn
    comes.

    packed: target's slot in its cluster (9 bits), then the mask of orders that would succeed but for such
    folios.
    """

    def advance(width: int):
        def body(carry):
            step, first, rows, out = carry
            at = queues.start[step] + first
            taken = lax.dynamic_slice(packed, (at,), (width,))
            block = lax.optimization_barrier(lax.dynamic_slice(rows, (0, first), (WORDS, width)))
            slot = taken & (CLUSTER - 1)
            free = lax.optimization_barrier(_reach_in_rows(block, slot))
            able = (taken >> CLUSTER_SHIFT) & ~_orders_up(free)
            rows = lax.dynamic_update_slice(rows, _insert(block, slot, able), (0, first))
            # past the step's width queues are over, and the next step overwrites what is put out here
            out = lax.dynamic_update_slice(out, free, (at,))
            last = first + width >= queues.width[step]
            return step + last, jnp.where(last, 0, first + width), rows, out

        return body

    narrow = min(_NARROW, lanes)
    wide = min(_WIDE, lanes)
    rows = jnp.zeros((WORDS, lanes + wide), jnp.uint32)
    carry = (jnp.int32(0), jnp.int32(0), rows, jnp.zeros_like(packed))
    carry = lax.while_loop(lambda c: queues.width[c[0]] > 8 * narrow, advance(wide), carry)
    carry = lax.while_loop(lambda c: queues.width[c[0]] > 0, advance(narrow), carry)
    return carry[3]


def _spread_nodes(heap: Array) -> Array:
    """For every slot the largest entry of the blocks that hold it: [clusters, 1024] -> [clusters, 512].

    A row is the heap of a cluster's blocks: block ``b`` of order ``o`` is node ``(512 >> o) + b``.
    """
    level = heap[:, 1:2]
    for order in reversed(range(MAX_ORDER)):
        low = CLUSTER >> order
        level = jnp.maximum(heap[:, low : 2 * low], jnp.repeat(level, 2, axis=1))
    return level


def _enter(words: UInt32[Array, "clusters 512"], requests: Requests, order: Int32[Array, "n"]) -> Array:
    """Words after the folios of ``order`` (-1: none) have entered the cache: blocks that do not overlap."""
    size = jnp.maximum(order, 0).astype(jnp.uint32)
    first = jnp.where(order >= 0, (requests.slots >> size) << size, words.size).astype(jnp.int32)
    # the first slot of a block carries word and order (where count and zero flag will be), then fills it
    carried = (size << COUNT_SHIFT) | (requests.folios << VALUE_SHIFT) | FOLIO
    placed = jnp.zeros((words.size,), jnp.uint32).at[first].set(carried, mode="drop").reshape(words.shape)
    level = placed[:, :1]
    for below in reversed(range(MAX_ORDER)):
        right = placed[:, 1 << below :: 2 << below]
        right = jnp.where(level >> COUNT_SHIFT > below, level, right)
        level = lax.optimization_barrier(jnp.stack([level, right], axis=-1).reshape(words.shape[0], -1))
    return jnp.where(level != 0, (words & FLAG_BITS) | (level & ~FLAG_BITS), words)


def _charge_shadows(
    table: SwapTable, requests: Requests, queues: Queues, charge: UInt32[Array, "n"]
) -> UInt32[Array, "clusters 512"]:
    """Slot words after the failed charges: the block of each gets the shadow its target had at that moment.

    Of the orders that failed for one request only the largest block matters. Its target's shadow may itself
    come from an earlier request; that one is found by replaying those that failed, then chains are followed
    by pointer doubling.
    """
    n = charge.shape[0]
    lanes = table.clusters
    width = min(_EVENTS, lanes)
    # of the queues only requests whose charge failed stay, step after step as before
    failed = (charge != 0)[queues.request]
    before = jnp.pad(jnp.cumsum(failed.astype(jnp.int32)), (1, 0))
    begin, end = before[queues.start], before[queues.start + queues.width]
    at = jnp.where(failed, before[:-1], n + width)
    number = jnp.zeros((n + width,), jnp.int32).at[at].set(queues.request + 1, mode="drop")
    request = jnp.maximum(number - 1, 0)
    cluster = (requests.slots >> CLUSTER_SHIFT)[request].astype(jnp.int32) * (2 * CLUSTER)
    slot = (requests.slots & (CLUSTER - 1))[request].astype(jnp.int32) + CLUSTER
    order = jnp.maximum(highest_order(charge), 0)[request]
    nowhere = lanes * 2 * CLUSTER

    def latest_at(heap, base, leaf):
        found = heap[base + leaf]
        for level in ORDERS[1:]:
            found = jnp.maximum(found, heap[base + (leaf >> level)])
        return lax.optimization_barrier((heap, found))

    def together(carry):
        step, first, heap, parent = carry
        o, s, c, i = (lax.dynamic_slice(x, (first,), (width,)) for x in (order, slot, cluster, number))
        heap, latest = latest_at(heap, c, s)
        act = jnp.arange(width, dtype=jnp.int32) + first < end[step]
        heap = heap.at[jnp.where(act, c + (s >> o), nowhere)].set(i, mode="drop")
        parent = lax.dynamic_update_slice(parent, latest, (first,))
        last = first + width >= end[step]
        return step + last, jnp.where(last, begin[step + 1], first + width), heap, parent

    def alone(carry):
        first, heap, parent = carry
        o, s, c, i = (lax.dynamic_slice(x, (first,), (1,))[0] for x in (order, slot, cluster, number))
        heap, latest = latest_at(heap, c, s)
        heap = lax.dynamic_update_slice(heap, i[None], (c + (s >> o),))
        return first + 1, heap, lax.dynamic_update_slice(parent, latest[None], (first,))

    start = (jnp.int32(0), jnp.int32(0), jnp.zeros((nowhere,), jnp.int32), jnp.zeros((n + width,), jnp.int32))
    carry = lax.while_loop(lambda c: queues.width[c[0]] > _NARROW, together, start)
    _, heap, parent = lax.while_loop(lambda c: c[0] < before[n], alone, carry[1:])
    parent = parent[jnp.where(charge != 0, before[queues.place], n)] * (charge != 0)
    # request i + 1 at index i + 1, 0 the request that nobody made, its own parent
    source = jnp.pad(parent, (1, 0))
    root = jnp.where(source == 0, jnp.arange(n + 1, dtype=jnp.int32), source)

    def more(root):
        return jnp.any(root[root] != root)

    root = lax.while_loop(more, lambda root: root[root], root)
    flat = table.words.reshape(-1)
    value = jnp.pad(flat[requests.slots] & (VALUE_MAX << VALUE_SHIFT), (1, 0))[root]
    latest = _spread_nodes(heap.reshape(lanes, 2 * CLUSTER))
    return jnp.where(latest != 0, (table.words & FLAG_BITS) | value[latest] | SHADOW, table.words)


@jax.jit
def alloc_queued(table: SwapTable, requests: Requests, queues: Queues) -> tuple[SwapTable, Outcome]:
    """:func:`cache_alloc` with queues made before, for use inside jitted code. Inputs are not tested."""
    slots, offered = requests.slots, requests.orders
    planes = lax.optimization_barrier(planes_of(table.words, table.memcg, table.has_table))
    kinds = {
        "bad": any_in_block(planes.bad),
        "cached": any_in_block(planes.cached),
        "count": any_in_block(~planes.counted & ~planes.bad),
        "zero": mixed_zero(planes),
        "memcg": mixed_ids(planes.id_edge),
    }
    levels = lax.optimization_barrier([reach(kinds[name]) for name in _KINDS])
    has = table.has_table[slots >> CLUSTER_SHIFT]
    # one word a request for all that is known of its target beforehand, so that it is gathered and kept once
    known = has.astype(jnp.uint32) << (4 * len(_KINDS))
    together = lax.optimization_barrier(jnp.stack(levels, axis=-1)).reshape(-1)
    for place in range(len(_KINDS)):
        word = together.at[(slots >> 3) * len(_KINDS) + place].get(mode="promise_in_bounds")
        known = known | (((word >> ((slots & 7) << 2)) & 15) << (4 * place))
    known = lax.optimization_barrier(known)
    has = known >> (4 * len(_KINDS)) != 0
    orders_ok = {name: (known >> (4 * place)) & 15 for place, name in enumerate(_KINDS)}

    valid = (offered != 0) & (offered <= ALL_ORDERS)
    target_bad = has & (orders_ok["bad"] == 0)
    no_count = has & (orders_ok["count"] == 0)
    checked = jnp.minimum(
        jnp.minimum(orders_ok["bad"], orders_ok["cached"]), jnp.minimum(orders_ok["count"], orders_ok["zero"])
    )
    both = jnp.minimum(checked, orders_ok["memcg"])
    able = offered & requests.frames & requests.charges & ~_orders_up(both)
    able = jnp.where(valid & has, able, 0)

    packed = lax.optimization_barrier((slots & (CLUSTER - 1)) | (able << CLUSTER_SHIFT))[queues.request]
    packed = jnp.pad(packed, (0, min(_WIDE, table.clusters)))
    free = lax.optimization_barrier(_lock_step(packed, queues, table.clusters)[queues.place])

    able = able & ~_orders_up(free)
    order = highest_order(able)
    cached_ok = jnp.minimum(orders_ok["cached"], free)
    exists = has & ~target_bad & (cached_ok == 0)
    absent = ~has | (no_count & ~exists)
    ends = exists | absent
    top = jnp.uint32(1) << jnp.maximum(highest_order(offered), 0).astype(jnp.uint32)
    below = (jnp.uint32(1) << (order + 1).astype(jnp.uint32)) - 1
    failed = jnp.where(ends, top, offered & ~jnp.where(order >= 0, below, 0))
    failed = jnp.where(valid, failed, 0)
    # a target refused for itself is refused before any other slot is read
    whole = ~(ends | target_bad)
    read = jnp.where(whole, failed, 0)
    cached = jnp.where(exists, failed, read & _orders_up(cached_ok))
    count = jnp.where(absent & has, failed, read & _orders_up(orders_ok["count"]))
    bad = jnp.where(target_bad, failed, read & _orders_up(orders_ok["bad"]))
    zero = read & _orders_up(orders_ok["zero"])
    passed = read & ~_orders_up(jnp.minimum(checked, free))
    frame = passed & ~requests.frames
    framed = passed & requests.frames
    memcg = framed & _orders_up(orders_ok["memcg"])
    charge = framed & ~memcg & ~requests.charges
    lowest = failed & (~failed + 1)
    error = jnp.where((frame | charge) & lowest != 0, -ENOMEM, -EBUSY)
    error = jnp.where(exists, -EEXIST, jnp.where(absent, -ENOENT, error))
    error = jnp.where(order >= 0, 0, jnp.where(valid, error, -EINVAL))
    stepped = jnp.where(ends, 0, failed & ~jnp.uint32(1))

    masks = [jnp.where(has, 0, failed), bad, cached, count, zero, memcg, frame, charge, stepped]
    packs = [masks[n] | (masks[n + 1] << 10) | (masks[n + 2] << 20) for n in range(0, 9, 3)]
    outcome = Outcome(error.astype(jnp.int32), order.astype(jnp.int8), (packs[0], packs[1], packs[2]))
    order, charge = lax.optimization_barrier((order, charge))
    words = table.words
    if slots.shape[0]:
        words = lax.cond(
            jnp.any(charge != 0),
            lambda: _charge_shadows(table, requests, queues, charge),
            lambda: table.words,
        )
    return SwapTable(_enter(words, requests, order), table.memcg, table.has_table), outcome


def cache_alloc(table: SwapTable, requests: Requests) -> tuple[SwapTable, Outcome]:
    """The table and outcomes after all requests, as if made one after the other in index order.

    Slots of a folio get its number and keep count and zero flag. After a failed charge the slots of the block
    hold the target's shadow, or an empty one if it had none. InputError if the requests were made for a
    larger table.
    """
    if not isinstance(table, SwapTable) or not isinstance(requests, Requests):
        raise InputError("cache_alloc: need a SwapTable (make_table) and Requests (make_requests)")
    n = requests.slots.shape[0]
    host = np.asarray(requests.slots)
    if n and int(host.max()) >= table.slots:
        raise InputError(
            f"slots: entry {int(host.argmax())} is {int(host.max())}, the table has {table.slots} slots"
        )
    return alloc_queued(table, requests, make_queues(host, table.clusters))
