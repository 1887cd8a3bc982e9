"""Allocation of folios in the swap cache for a batch of requests, with order fallback.

Rules: mm/swap_state.c, Linux 7.2 / 7.3, ``__swap_cache_alloc`` (one order: check, frame, check again with
memcg ids, insert, charge) and ``swap_cache_alloc_folio`` (from the highest order of the mask down; -EBUSY and
-ENOMEM step down, -EEXIST and -ENOENT end it, order 0 is the last); other forms of the path are switches of
:class:`jaxswap.swaptable.forms.Form`. The result of a batch is that of its requests one after the other.

How it is done side by side. Within a batch slots only ever enter the cache; counts, zero flags, memcg ids and
bad slots stay. So nearly everything a request meets is known beforehand from the table, as one reach (orders
from 0 up that pass) for every kind of conflict. The one thing that depends on the requests before it is how
many orders around its target are still free of folios of this batch. Requests to different clusters cannot
affect each other, so every cluster has its queue and all queues advance in lock step, longest first, each
step over the clusters that still have requests.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.errors import InputError
from jaxswap.swaptable.check import checked_integers
from jaxswap.swaptable.entry import COUNT_SHIFT, FLAG_BITS, FOLIO, SHADOW, VALUE_MAX, VALUE_SHIFT, SwapTable
from jaxswap.swaptable.forms import MERGED, Form, form_named
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
from jaxswap.swaptable.outcome import BEFOREHAND, EXTRA, REASONS, Outcome
from jaxswap.swaptable.planes import any_in_block, mixed_ids, mixed_zero, planes_of, reach

_KINDS = ("bad", "cached", "count", "zero", "memcg")
_WIDE, _NARROW = 2048, 32
"""Clusters a step advances together: while many queues are left, and for the tail of a few long ones."""
_EVENTS = 256
"""Failed charges looked up together."""
_LIMIT = CLUSTER_SHIFT + MAX_ORDER + 1
"""Where the limit of an add is packed."""


class Requests(NamedTuple):
    """One swap-in each, in index order. Made by :func:`make_requests`."""

    slots: UInt32[Array, "n"]
    orders: UInt32[Array, "n"]
    frames: UInt32[Array, "n"]
    charges: UInt32[Array, "n"]
    folios: UInt32[Array, "n"]


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


def _lock_step(
    packed: UInt32[Array, "places"], queues: Queues, lanes: int, one_add: bool = False
) -> UInt32[Array, "places"]:
    """Per place: orders from 0 up around the target that are free of folios of this batch when its turn
    comes.

    packed: target's slot in its cluster (9 bits), then the mask of orders that would succeed but for such
    folios (10 bits). one_add: only the highest of them is added, and fails at or above an order that follows
    (4 bits).
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
            if one_add:
                able = able & ALL_ORDERS
                able = jnp.where(able & _orders_up(taken >> _LIMIT) != 0, 0, able)
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
    table: SwapTable, requests: Requests, queues: Queues, charge: UInt32[Array, "n"], form: Form
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
    if not form.undo_keeps_shadow:
        value = jnp.zeros_like(value)
    latest = _spread_nodes(heap.reshape(lanes, 2 * CLUSTER))
    return jnp.where(latest != 0, (table.words & FLAG_BITS) | value[latest] | SHADOW, table.words)


class _Target(NamedTuple):
    """What is known of a request's target before the batch: each reach is a count of orders from 0 up that
    pass.
    """

    has_table: Bool[Array, "n"]
    bad: UInt32[Array, "n"]
    cached: UInt32[Array, "n"]
    count: UInt32[Array, "n"]
    zero: UInt32[Array, "n"]
    memcg: UInt32[Array, "n"]


class _Decided(NamedTuple):
    """What became of the requests, before it is packed. Masks of orders, as in :class:`Outcome`."""

    errno: Array
    order: Int32[Array, "n"]
    refused: dict[str, UInt32[Array, "n"]]
    stepped: UInt32[Array, "n"]
    extra: tuple[Bool[Array, "n"] | bool, Bool[Array, "n"] | bool, Bool[Array, "n"] | bool]
    """Never returns; goes on with order -1; the add threw a folio away."""


class Levels(NamedTuple):
    """What a table says beforehand of every slot as a target. Made by :func:`levels_of` for one form; valid
    until the table changes.
    """

    reaches: UInt32[Array, "words"]
    """Orders from 0 up that pass each of the form's ``k`` tests: word ``k w + i`` has test ``i`` for slots
    ``8 w`` to ``8 w + 7``, four bits a slot."""
    has_table: Bool[Array, "clusters"]


def _compared(form: Form) -> tuple[str, ...]:
    """Those of ``_KINDS`` that a form tests."""
    left_out = set() if form.compares_zero else {"zero"}
    if not (form.compares_memcg and form.second_check):
        left_out.add("memcg")
    return tuple(name for name in _KINDS if name not in left_out)


@partial(jax.jit, static_argnames="form")
def levels_of(table: SwapTable, form: Form = MERGED) -> Levels:
    """The tests of a table that no request can change, for :func:`alloc_alone` and :func:`passing`."""
    planes = lax.optimization_barrier(planes_of(table.words, table.memcg, table.has_table))
    kinds = {
        "bad": lambda: any_in_block(planes.bad),
        "cached": lambda: any_in_block(planes.cached),
        "count": lambda: any_in_block(~planes.counted & ~planes.bad),
        "zero": lambda: mixed_zero(planes),
        "memcg": lambda: mixed_ids(planes.id_edge),
    }
    levels = lax.optimization_barrier([reach(kinds[name]()) for name in _compared(form)])
    return Levels(lax.optimization_barrier(jnp.stack(levels, axis=-1)).reshape(-1), table.has_table)


def _targets(levels: Levels, slots: UInt32[Array, "n"], form: Form) -> _Target:
    compared = _compared(form)
    has = levels.has_table[slots >> CLUSTER_SHIFT]
    # one word a request for all that is known of its target beforehand, so that it is gathered and kept once
    known = has.astype(jnp.uint32) << (4 * len(_KINDS))
    for place in range(len(compared)):
        word = levels.reaches.at[(slots >> 3) * len(compared) + place].get(mode="promise_in_bounds")
        known = known | (((word >> ((slots & 7) << 2)) & 15) << (4 * place))
    known = lax.optimization_barrier(known)
    passes = {name: jnp.full_like(known, len(ORDERS)) for name in _KINDS}
    passes |= {name: (known >> (4 * place)) & 15 for place, name in enumerate(compared)}
    return _Target(known >> (4 * len(_KINDS)) != 0, **passes)


def _first_check(target: _Target) -> UInt32[Array, "n"]:
    """Orders from 0 up that pass the check before the allocation, were no folio of the batch in the way."""
    return jnp.minimum(jnp.minimum(target.bad, target.cached), jnp.minimum(target.count, target.zero))


def _free_orders(
    slots: UInt32[Array, "n"],
    able: UInt32[Array, "n"],
    queues: Queues | None,
    clusters: int,
    limit: Array | None,
) -> UInt32[Array, "n"]:
    """:func:`_lock_step` in the order of the requests; all where each is alone. limit: that of one add."""
    if queues is None:
        return jnp.full_like(slots, len(ORDERS))
    packed = (slots & (CLUSTER - 1)) | (able << CLUSTER_SHIFT)
    if limit is not None:
        packed = packed | (limit << _LIMIT)
    packed = lax.optimization_barrier(packed)[queues.request]
    packed = jnp.pad(packed, (0, min(_WIDE, clusters)))
    free = _lock_step(packed, queues, clusters, one_add=limit is not None)
    return lax.optimization_barrier(free[queues.place])


def _offered(requests: Requests, form: Form) -> tuple[UInt32[Array, "n"], Bool[Array, "n"]]:
    """The mask that the loop sees, and whether there is a loop at all."""
    offered = requests.orders
    valid = offered <= ALL_ORDERS if form.thp else jnp.ones_like(offered, bool)
    if form.adds_order_0:
        offered = offered | 1
    else:
        valid = (offered != 0) & valid
    return (offered if form.thp else jnp.ones_like(offered)), valid


def _below(order: Int32[Array, "n"]) -> UInt32[Array, "n"]:
    """Mask of the orders up to ``order``, none for -1."""
    below = (jnp.uint32(1) << (order + 1).astype(jnp.uint32)) - 1
    return jnp.where(order >= 0, below, 0)


def _decide_checked(
    requests: Requests, queues: Queues | None, target: _Target, clusters: int, form: Form
) -> _Decided:
    """Check, frame, check again, insert, charge, order after order (phase IV)."""
    offered, valid = _offered(requests, form)
    has = target.has_table
    target_bad = has & (target.bad == 0)
    no_count = has & (target.count == 0)
    checked = _first_check(target)
    both = jnp.minimum(checked, target.memcg)
    able = offered & requests.frames & requests.charges & ~_orders_up(both)
    able = jnp.where(valid & has, able, 0)

    free = _free_orders(requests.slots, able, queues, clusters, None)

    able = able & ~_orders_up(free)
    order = highest_order(able)
    cached_ok = jnp.minimum(target.cached, free)
    exists = has & ~target_bad & (cached_ok == 0)
    absent = ~has | (no_count & ~exists)
    ends = exists | absent
    top = jnp.uint32(1) << jnp.maximum(highest_order(offered), 0).astype(jnp.uint32)
    failed = jnp.where(ends, top, offered & ~_below(order))
    failed = jnp.where(valid, failed, 0)
    # a target refused for itself is refused before any other slot is read
    read = jnp.where(ends | target_bad, 0, failed)
    passed = read & ~_orders_up(jnp.minimum(checked, free))
    framed = passed & requests.frames
    memcg = framed & _orders_up(target.memcg)
    refused = {
        "no_table": jnp.where(has, 0, failed),
        "bad": jnp.where(target_bad, failed, read & _orders_up(target.bad)),
        "cached": jnp.where(exists, failed, read & _orders_up(cached_ok)),
        "count": jnp.where(absent & has, failed, read & _orders_up(target.count)),
        "zero": read & _orders_up(target.zero),
        "memcg": memcg,
        "frame": passed & ~requests.frames,
        "charge": framed & ~memcg & ~requests.charges,
    }
    lowest = failed & (~failed + 1)
    error = jnp.where((refused["frame"] | refused["charge"]) & lowest != 0, -ENOMEM, -EBUSY)
    error = jnp.where(exists, -EEXIST, jnp.where(absent, -ENOENT, error))
    error = jnp.where(order >= 0, 0, jnp.where(valid, error, -EINVAL))
    stepped = jnp.where(absent if form.counts_eexist else ends, 0, failed & ~jnp.uint32(1))

    spent = valid & (order < 0) & ~ends
    tried_0 = offered & 1 != 0
    never = below_0 = False
    if not form.thp and not form.ends_at_order_0:
        never = spent
    elif not form.ends_at_empty_mask:
        below_0 = spent & ~tried_0 if form.ends_at_order_0 else spent
    return _Decided(error, order, refused, stepped, (never, below_0, False))


def _decide_before_phase4(
    requests: Requests, queues: Queues | None, target: _Target, clusters: int, form: Form
) -> _Decided:
    """Orders taken out by looking, then frame and charge, order after order, then one add."""
    offered, valid = _offered(requests, form)
    has = target.has_table
    # ids of a cluster without table read as 0
    memcg_ok = jnp.where(has, target.memcg, len(ORDERS))
    suits = jnp.minimum(jnp.minimum(target.bad, target.cached), jnp.minimum(target.zero, memcg_ok))
    had = requests.frames & requests.charges
    able = jnp.where(valid & has, offered & had & ~_orders_up(suits), 0)

    free = _free_orders(requests.slots, able, queues, clusters, target.count)

    removed = offered & _orders_up(jnp.minimum(suits, free)) & ~jnp.uint32(1)
    cached_ok = jnp.minimum(target.cached, free)
    left = offered & ~removed
    order = highest_order(left & had)
    failed = left & ~_below(order)
    added = jnp.where(order >= 0, jnp.uint32(1) << jnp.maximum(order, 0).astype(jnp.uint32), 0)
    target_bad = has & (target.bad == 0)
    exists = has & ~target_bad & (cached_ok == 0)
    absent = ~(target_bad | exists) & (~has | (added & _orders_up(target.count) != 0))
    thrown = valid & (order >= 0) & (target_bad | exists | absent)
    by_add = jnp.where(thrown, added, 0)
    refused = {
        "no_table": jnp.where(has, 0, by_add),
        "bad": removed & _orders_up(target.bad) | jnp.where(target_bad, by_add, 0),
        "cached": removed & _orders_up(cached_ok) | jnp.where(exists, by_add, 0),
        "count": jnp.where(absent & has, by_add, 0),
        "zero": removed & _orders_up(target.zero),
        "memcg": removed & _orders_up(memcg_ok),
        "frame": failed & ~requests.frames,
        "charge": failed & requests.frames & ~requests.charges,
    }
    refused = {reason: jnp.where(valid, mask, 0) for reason, mask in refused.items()}
    error = jnp.where(target_bad, -EBUSY, jnp.where(exists, -EEXIST, -ENOENT))
    error = jnp.where(thrown, error, jnp.where(order >= 0, 0, -ENOMEM))
    error = jnp.where(valid, error, -EINVAL)
    stepped = jnp.where(valid, failed & ~jnp.uint32(1), 0)
    order = jnp.where(valid & ~thrown, order, -1)
    return _Decided(error, order, refused, stepped, (False, False, thrown))


def _decide(
    requests: Requests, queues: Queues | None, levels: Levels, form: Form
) -> tuple[Outcome, Int32[Array, "n"], UInt32[Array, "n"]]:
    """What became of the requests, the order of each, and the orders whose charge failed and was undone."""
    target = _targets(levels, requests.slots, form)
    decide = _decide_checked if form.checks_under_lock else _decide_before_phase4
    made = decide(requests, queues, target, levels.has_table.shape[0], form)
    masks = [*(made.refused[reason] for reason in REASONS), made.stepped]
    packs = [masks[n] | (masks[n + 1] << 10) | (masks[n + 2] << 20) for n in range(0, 9, 3)]
    packs = [
        pack if given is False else pack | (jnp.asarray(given).astype(jnp.uint32) << EXTRA)
        for pack, given in zip(packs, made.extra, strict=True)
    ]
    charge = masks[REASONS.index("charge")]
    if not form.checks_under_lock:
        packs[2] = packs[2] | jnp.uint32(1 << BEFOREHAND)
        charge = jnp.zeros_like(charge)  # charged before it is added: there is nothing to undo
    outcome = Outcome(
        made.errno.astype(jnp.int32), made.order.astype(jnp.int8), (packs[0], packs[1], packs[2])
    )
    return outcome, made.order, charge


@jax.jit
def passing(levels: Levels, slots: UInt32[Array, "n"]) -> UInt32[Array, "n"]:
    """Mask of the orders 0 to 9 that pass the merged form's check before the allocation now, of each target
    slot.
    """
    target = _targets(levels, slots, MERGED)
    return jnp.where(target.has_table, ALL_ORDERS & ~_orders_up(_first_check(target)), 0)


@partial(jax.jit, static_argnames="form")
def alloc_alone(levels: Levels, requests: Requests, form: Form = MERGED) -> Outcome:
    """The outcome of each request as if it were the only one: none meets a folio of another. Inputs are not
    tested.
    """
    return _decide(requests, None, levels, form)[0]


@partial(jax.jit, static_argnames="form")
def alloc_queued(
    table: SwapTable, requests: Requests, queues: Queues, form: Form = MERGED
) -> tuple[SwapTable, Outcome]:
    """:func:`cache_alloc` with queues made before, for use inside jitted code. Inputs are not tested."""
    outcome, order, charge = _decide(requests, queues, levels_of(table, form), form)
    order, charge = lax.optimization_barrier((order, charge))
    words = table.words
    if requests.slots.shape[0]:
        words = lax.cond(
            jnp.any(charge != 0),
            lambda: _charge_shadows(table, requests, queues, charge, form),
            lambda: table.words,
        )
    return SwapTable(_enter(words, requests, order), table.memcg, table.has_table), outcome


def cache_alloc(table: SwapTable, requests: Requests, form: Form | str = MERGED) -> tuple[SwapTable, Outcome]:
    """The table and outcomes after all requests, as if made one after the other in index order.

    Slots of a folio get its number and keep count and zero flag. After a failed charge the slots of the block
    hold the target's shadow, or an empty one if it had none. form: which version of the path, or its name in
    :data:`jaxswap.swaptable.forms.FORMS`; each is compiled once. InputError if the requests were made for a
    larger table, or there is no such form.
    """
    if not isinstance(table, SwapTable) or not isinstance(requests, Requests):
        raise InputError("cache_alloc: need a SwapTable (make_table) and Requests (make_requests)")
    if isinstance(form, str):
        form = form_named(form)
    n = requests.slots.shape[0]
    host = np.asarray(requests.slots)
    if n and int(host.max()) >= table.slots:
        raise InputError(
            f"slots: entry {int(host.argmax())} is {int(host.max())}, the table has {table.slots} slots"
        )
    return alloc_queued(table, requests, make_queues(host, table.clusters), form)
