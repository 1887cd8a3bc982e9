"""What each order would get at a swap-in fault on a snapshot, by reason, millions of pages in one call.

Rules: mm/memory.c (thp_vma_suitable_orders, thp_swapin_suitable_orders, do_swap_page) and, for the orders
that are left, mm/swap_state.c (swap_cache_alloc_folio) as in jaxswap.swaptable.alloc; 7.2 and 7.3, anonymous
memory on a synchronous device. Every fault is answered as if it were the only one. Page frames are there and
charges succeed: a snapshot of swap says nothing of memory.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.errors import InputError
from jaxswap.policy import Policy
from jaxswap.policy.base import MEMORY_WORDS, MOST_PARAMS, NEAR, near
from jaxswap.policy.describe import describe
from jaxswap.swaptable.alloc import Levels, Requests, alloc_alone, levels_of, passing
from jaxswap.swaptable.entry import FOLIO, MAX_SLOTS, SHADOW, encode, make_table
from jaxswap.swaptable.geometry import ALL_ORDERS, CLUSTER, ORDERS
from jaxswap.swaptable.outcome import REASONS as TABLE_REASONS
from jaxswap.swaptable.outcome import Outcome

REASONS = ("vma_edge", "alignment", "pte_gap", "policy", *TABLE_REASONS)
"""Why an order is not used, in the order of the kernel's tests: the first three by the fault handler before
anything is tried, ``policy`` by the heuristic, the others by the swap cache's allocation."""

SWAPIN_ORDERS = tuple(range(2, 9))
"""Orders that a fault may bring in besides order 0: 16 kB to 1 MiB."""

Mask = UInt32[Array, "n"]


class Faults(NamedTuple):
    """Pages that are faulted on. Made by :meth:`Snapshot.faults`.

    slot: of each page. at: the page within its aligned 2 MiB block. Around it, cut to that block: first, end:
    pages with consecutive slots; start, stop: its VMA.
    """

    slot: UInt32[Array, "n"]
    at: Int32[Array, "n"]
    first: Int32[Array, "n"]
    end: Int32[Array, "n"]
    start: Int32[Array, "n"]
    stop: Int32[Array, "n"]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Pages in swap, ascending. Made by :func:`make_snapshot`.

    columns: of every page those of Faults, as numpy. levels: what the swap table says of every slot.
    """

    columns: tuple[np.ndarray, ...]
    levels: Levels

    @property
    def pages(self) -> int:
        """How many are in swap."""
        return self.columns[0].shape[0]

    def faults(self, which: Int32[np.ndarray, "n"]) -> Faults:
        """Faults on some pages, by their number in the snapshot."""
        return Faults(*(jnp.asarray(column[which]) for column in self.columns))


def make_snapshot(
    page: ArrayLike,
    slot: ArrayLike,
    slots: int,
    start: ArrayLike | None = None,
    stop: ArrayLike | None = None,
    zero: ArrayLike | None = None,
    cached: ArrayLike | None = None,
) -> Snapshot:
    """A checked snapshot of one process on one device of `slots` slots.

    page, slot: integers [pages], the page number (address / 4096) of each page in swap, ascending, and its
    slot. start, stop: integers [pages], first page of its VMA and the one behind its last (default: the VMA
    reaches past the 2 MiB block). zero, cached: bool [pages], whether the slot has the zero flag, is in the
    swap cache (default: none). Slots of other processes need not be known: no range that holds one is tried.
    InputError on another dtype or shape, pages that do not ascend, slots out of range or given twice.
    """
    pages = _integers("page", page, None, np.iinfo(np.int64).max)
    count = pages.shape[0]
    if not 1 <= slots <= MAX_SLOTS:
        raise InputError(f"slots: {slots} is out of range; take 1 to {MAX_SLOTS}")
    places = _integers("slot", slot, count, slots - 1)
    if count == 0:
        raise InputError("page: no page is in swap; a snapshot needs at least one")
    if not (np.diff(pages) > 0).all():
        at = int(np.argmin(np.diff(pages) > 0)) + 1
        raise InputError(f"page: entry {at} is {pages[at]} after {pages[at - 1]}; sort pages, each once")
    if np.bincount(places, minlength=slots).max() > 1:
        twice = np.sort(places)
        raise InputError(f"slot: {int(twice[:-1][np.diff(twice) == 0][0])} is given for two pages")
    # of all slots, as another shape is another program
    kinds, zeros = np.zeros(slots, np.uint32), np.zeros(slots, bool)
    kinds[places] = np.where(_flags("cached", cached, count), FOLIO, SHADOW)
    zeros[places] = _flags("zero", zero, count)
    block = pages // CLUSTER * CLUSTER
    begins = np.diff(pages, prepend=-2) != 1
    begins |= np.diff(places, prepend=-2) != 1
    heads = np.flatnonzero(begins)
    lengths = np.diff(heads, append=count)
    first = np.repeat(pages[heads], lengths)
    end = first + np.repeat(lengths, lengths)
    low = block if start is None else _integers("start", start, count, np.iinfo(np.int64).max)
    high = block + CLUSTER if stop is None else _integers("stop", stop, count, np.iinfo(np.int64).max)
    outside = (low > pages) | (high <= pages)
    if outside.any():
        at = int(np.argmax(outside))
        raise InputError(f"start, stop: entry {at} is {low[at]} to {high[at]}, not around page {pages[at]}")

    cut = (np.clip(x - block, 0, CLUSTER).astype(np.int32) for x in (pages, first, end, low, high))
    return Snapshot((places.astype(np.uint32), *cut), levels_of(make_table(encode(kinds, 1, zeros))))


def _integers(name: str, values: ArrayLike, length: int | None, high: int) -> np.ndarray:
    given = np.asarray(values)
    if given.dtype.kind not in "iu":
        raise InputError(f"{name}: need an integer dtype, got {given.dtype}")
    if given.ndim != 1 or (length is not None and given.shape[0] != length):
        need = "[pages]" if length is None else f"[{length}]"
        raise InputError(f"{name}: need shape {need}, got {list(given.shape)}")
    if given.size and (given.min() < 0 or given.max() > high):
        at = int(np.argmax((given < 0) | (given > high)))
        raise InputError(f"{name}: entry {at} is {given[at]}, outside 0 .. {high}")
    return given.astype(np.int64)


def _flags(name: str, values: ArrayLike | None, length: int) -> Bool[np.ndarray, "pages"]:
    if values is None:
        return np.zeros(length, bool)
    given = np.asarray(values)
    if given.dtype != np.bool_ or given.shape != (length,):
        raise InputError(f"{name}: need bool [{length}], got {given.dtype} {list(given.shape)}")
    return given


class Answer(NamedTuple):
    """What became of every fault. Masks have bit ``o`` for order ``o``.

    vma_edge, alignment, pte_gap, policy: orders that sysfs has and the first such test refused. outcome: of
    the orders that were left, and of order 0. ptes, slots: what the heuristic read.
    """

    vma_edge: Mask
    alignment: Mask
    pte_gap: Mask
    policy: Mask
    outcome: Outcome
    ptes: Int32[Array, "n"]
    slots: Int32[Array, "n"]

    def refused(self, reason: str) -> Mask:
        """Orders refused for one of :data:`REASONS`."""
        if reason in self._fields:
            return getattr(self, reason)
        return self.outcome.refused(reason).astype(jnp.uint32)


def _between(at: Int32[Array, "n"], first: Int32[Array, "n"], end: Int32[Array, "n"]) -> Mask:
    """Orders whose aligned block around `at` lies within first .. end - 1."""
    fits = jnp.uint32(0)
    for order in ORDERS:
        low = at >> order << order
        fits = fits | (((low >= first) & (low + (1 << order) <= end)).astype(jnp.uint32) << order)
    return fits


class _Tests(NamedTuple):
    """Orders that passed the tests of the fault handler, one after the other."""

    edges: Mask
    aligned: Mask
    candidates: Mask


def _tests(faults: Faults, sysfs: UInt32[Array, ""]) -> _Tests:
    edges = sysfs & _between(faults.at, faults.start, faults.stop)
    differ = (faults.at ^ faults.slot.astype(jnp.int32)) & (CLUSTER - 1)
    agree = jnp.uint32(0)
    for order in ORDERS:
        agree = agree | ((differ & ((1 << order) - 1) == 0).astype(jnp.uint32) << order)
    aligned = edges & agree
    return _Tests(edges, aligned, aligned & _between(faults.at, faults.first, faults.end))


def _requests(slot: UInt32[Array, "n"], orders: Mask) -> Requests:
    every = jnp.full(slot.shape, ALL_ORDERS, jnp.uint32)
    return Requests(slot, orders, every, every, jnp.zeros_like(slot))


def unseen(policy: Policy) -> list[str]:
    """What a heuristic looks at and a snapshot of the swap table does not show: the faults before ("memory"),
    features that are not near, and folios that leave memory ("swap-out")."""
    about = describe(policy)
    leaves = [] if about.swapout is None else ["swap-out"]
    return [*(name for name in about.features if name not in NEAR), *leaves]


@jax.jit(static_argnames="policy")
def answer(
    levels: Levels,
    faults: Faults,
    sysfs: UInt32[Array, ""],
    params: Int32[Array, "params"],
    *,
    policy: Policy,
) -> Answer:
    """What a heuristic gets at each fault.

    levels, faults: of one snapshot. sysfs: mask of the orders that are enabled; those that a fault may bring
    in count. params: of the heuristic, MOST_PARAMS of them.
    """
    mask = sysfs & np.uint32(sum(1 << order for order in SWAPIN_ORDERS))
    slot = faults.slot
    tests = lax.optimization_barrier(_tests(faults, mask))
    n = slot.shape[0]
    seen = near(
        jnp.zeros(n, bool),
        tests.candidates,
        tests.candidates & passing(levels, slot),
        jnp.full(n, ALL_ORDERS, jnp.uint32),
    )
    given = jnp.broadcast_to(params[:, None], (MOST_PARAMS, n))
    decision = policy.decide(given, jnp.zeros((MEMORY_WORDS, n), jnp.int32), seen)
    asked = tests.candidates != 0
    orders = jnp.where(asked, decision.orders & tests.candidates, 0)
    return Answer(
        vma_edge=mask & ~tests.edges,
        alignment=tests.edges & ~tests.aligned,
        pte_gap=tests.aligned & ~tests.candidates,
        policy=tests.candidates & ~orders,
        outcome=alloc_alone(levels, _requests(slot, orders | 1)),
        ptes=jnp.where(asked, decision.ptes, 0),
        slots=jnp.where(asked, decision.slots, 0),
    )


@jax.jit
def each_order(levels: Levels, faults: Faults) -> Int32[Array, "orders outcomes"]:
    """How many of the faults would get each order if it were the only one enabled, and why not.

    A row for each order of SWAPIN_ORDERS; columns: got, then :data:`REASONS`, the first of the reasons of a
    fault counting. levels, faults: of one snapshot.
    """
    slot = faults.slot

    def row(bit: UInt32[Array, ""]) -> Int32[Array, "outcomes"]:
        tests = _tests(faults, bit)
        outcome = alloc_alone(levels, _requests(slot, jnp.broadcast_to(bit, slot.shape)))
        fails = [bit & ~tests.edges, tests.edges & ~tests.aligned, tests.aligned & ~tests.candidates]
        fails += [jnp.zeros_like(slot), *(outcome.refused(reason) & bit for reason in TABLE_REASONS)]
        left, counts = jnp.ones(slot.shape, bool), []
        for fail in fails:
            counts.append(jnp.sum(left & (fail != 0), dtype=jnp.int32))
            left = left & (fail == 0)
        return jnp.stack([jnp.sum(left, dtype=jnp.int32), *counts])

    return lax.map(row, jnp.asarray([1 << order for order in SWAPIN_ORDERS], jnp.uint32))
