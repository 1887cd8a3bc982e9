"""What each order would get on a snapshot equals a plain-Python twin, fault by fault and reason by reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.landscape.faults import (
    REASONS,
    SWAPIN_ORDERS,
    Answer,
    Snapshot,
    answer,
    each_order,
    make_snapshot,
    unseen,
)
from jaxswap.policy import POLICIES
from jaxswap.policy.base import MOST_PARAMS
from jaxswap.swaptable import outcome
from jaxswap.swaptable.entry import encode
from tests.reference import policies, swap_cache

SLOTS, N = 2048, 48
POLICY_PARAMS = {"kernel": (), "never": (), "cap": (4,), "single": (3,), "lookahead": ()}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compile without optimisation: compiling takes longest here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Memory(NamedTuple):
    """The arguments of make_snapshot."""

    page: np.ndarray
    slot: np.ndarray
    slots: int
    start: np.ndarray
    stop: np.ndarray
    zero: np.ndarray
    cached: np.ndarray


def random_memory(seed: int) -> Memory:
    """Runs of pages in runs of slots, aligned alike or not, with holes, VMA borders and a few odd slots."""
    rng = np.random.default_rng(seed)
    base = int(rng.integers(0, 1 << 30)) * 512
    page, slot = [], []
    at, place = 0, 0
    while place < SLOTS - 600 and at < 4096:
        length = int(rng.choice([1, 3, 16, 64, 256, 512]))
        if rng.random() < 0.7:
            place += (at - place) % (1 << int(rng.integers(0, 10)))
        keep = rng.random(length) >= rng.choice([0.0, 0.0, 0.02, 0.3])
        taken = np.flatnonzero(keep)
        page += (base + at + taken).tolist()
        slot += (place + taken).tolist()
        at += length + int(rng.choice([0, 0, 0, 5, 700]))
        place += length
    pages = np.array(page)
    chosen = np.array(slot) < SLOTS
    pages, slots = pages[chosen], np.array(slot)[chosen]
    borders = np.sort(rng.choice(np.arange(base, base + 6000), 6, replace=False))
    borders = np.concatenate([[base - 5 if base else 0], borders, [base + 9000]])
    vma = np.searchsorted(borders, pages, side="right")
    zero = rng.random(pages.size) < rng.choice([0.0, 0.01, 0.5])
    cached = rng.random(pages.size) < rng.choice([0.0, 0.01, 0.3])
    return Memory(pages, slots, SLOTS, borders[vma - 1], borders[vma], zero, cached)


class Twin:
    """Faults on a memory, step by step, each on the table as it was."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.where = dict(zip(memory.page.tolist(), memory.slot.tolist(), strict=True))
        words = np.zeros(SLOTS, np.uint32)
        words[memory.slot] = np.asarray(encode(np.where(memory.cached, 2, 1), 1, memory.zero))
        self.words = words.reshape(-1, 512)

    def table(self, slot: int) -> swap_cache.Table:
        """A table of the one cluster of a slot, whose entry is then the slot modulo 512."""
        words = self.words[slot // 512][None]
        return swap_cache.table_from_words(words, np.zeros(words.shape, np.uint16), words.any(axis=1))

    def refusal(self, i: int, order: int) -> str | None:
        """The first test of the fault handler that refuses an order for page i."""
        v, size = int(self.memory.page[i]), 1 << order
        base = v - v % size
        if base < self.memory.start[i] or base + size > self.memory.stop[i]:
            return "vma_edge"
        slot = self.where[v]
        if v % size != slot % size:
            return "alignment"
        if any(self.where.get(base + k) != slot - v % size + k for k in range(size)):
            return "pte_gap"
        return None

    def alloc(self, i: int, orders: int) -> swap_cache.Outcome:
        slot = int(self.memory.slot[i])
        return swap_cache.swap_cache_alloc_folio(self.table(slot), swap_cache.Request(slot % 512, orders))

    def fault(self, i: int, sysfs: int, name: str) -> dict[str, Any]:
        refused: dict[str, int] = dict.fromkeys(REASONS, 0)
        candidates = 0
        for order in SWAPIN_ORDERS:
            if sysfs >> order & 1:
                why = self.refusal(i, order)
                if why:
                    refused[why] |= 1 << order
                else:
                    candidates |= 1 << order
        orders = slots = 0
        if candidates:
            place = int(self.memory.slot[i])
            cluster, offset = self.table(place).find(place % 512)
            ok = 0
            for order in SWAPIN_ORDERS:
                if not swap_cache.swap_cache_add_check(cluster, offset, 1 << order, second=False).error:
                    ok |= candidates & 1 << order
            params = POLICY_PARAMS[name]
            seen = policies.Seen(False, candidates, ok)
            orders, _, slots = policies.POLICIES[name].decide(params, [0] * 8, seen)
            orders &= candidates
        refused["policy"] = candidates & ~orders
        outcome = self.alloc(i, orders | 1)
        refused |= outcome.refused
        return {"refused": refused, "errno": outcome.error, "order": outcome.order, "slots": slots}


def asked(snapshot: Snapshot, which: np.ndarray, sysfs: int, name: str) -> Answer:
    params = jnp.array([*POLICY_PARAMS[name], *[0] * MOST_PARAMS][:MOST_PARAMS], jnp.int32)
    faults = snapshot.faults(which)
    return answer(snapshot.levels, faults, jnp.uint32(sysfs), params, policy=POLICIES[name])


def test_answers_equal_the_twin_and_meet_every_reason() -> None:
    met, errnos, orders = set(), set(), set()

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1), st.integers(0, 1023), st.sampled_from(list(POLICY_PARAMS)))
    def run(seed: int, sysfs: int, name: str) -> None:
        memory = random_memory(seed)
        faults = np.random.default_rng(seed).integers(0, memory.page.size, N)
        sysfs = 0x1FC if seed % 3 else sysfs
        found = asked(make_snapshot(*memory), faults, sysfs, name)
        masks = {reason: np.asarray(found.refused(reason)) for reason in REASONS}
        twin = Twin(memory)
        for k, i in enumerate(faults.tolist()):
            wanted = twin.fault(i, sysfs, name)
            mine = {reason: int(mask[k]) for reason, mask in masks.items()}
            assert mine == wanted["refused"], (seed, i)
            assert int(found.outcome.errno[k]) == wanted["errno"]
            assert int(found.outcome.order[k]) == wanted["order"]
            assert int(found.slots[k]) == wanted["slots"]
            met.update(reason for reason, mask in mine.items() if mask)
            errnos.add(wanted["errno"])
            orders.add(wanted["order"])

    run()
    assert met == {"vma_edge", "alignment", "pte_gap", "policy", "cached", "zero"}
    assert errnos == {0, -17} and orders >= {-1, 0, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("seed", range(4))
def test_each_order_alone_is_refused_for_its_first_reason(seed: int) -> None:
    memory = random_memory(seed)
    faults = np.random.default_rng(seed).integers(0, memory.page.size, N)
    snapshot = make_snapshot(*memory)
    counts = np.asarray(each_order(snapshot.levels, snapshot.faults(faults)))
    twin = Twin(memory)
    for row, order in enumerate(SWAPIN_ORDERS):
        wanted: dict[str, int] = dict.fromkeys(("got", *REASONS), 0)
        for i in faults.tolist():
            why = twin.refusal(i, order)
            if not why:
                refused = twin.alloc(i, 1 << order).refused
                why = next((reason for reason in outcome.REASONS if refused.get(reason)), "got")
            wanted[why] += 1
        assert counts[row].tolist() == list(wanted.values()), order


def test_heuristics_that_go_by_what_a_snapshot_does_not_show_are_known() -> None:
    able = [name for name, policy in POLICIES.items() if not unseen(policy)]
    assert able == ["kernel", "never", "cap", "single", "lookahead"]
    assert unseen(POLICIES["backoff"]) == ["memory"]
    assert unseen(POLICIES["headroom"]) == ["headroom"]


FALSE = np.zeros(4, bool)
GOOD = Memory(np.arange(4) + 7, np.arange(4) + 7, 64, np.zeros(4, int), np.full(4, 99), FALSE, FALSE)
BAD = [
    ({"page": np.array([1.0, 2, 3, 4])}, "page: need an integer dtype, got float64"),
    ({"page": np.arange(4)[::-1]}, "page: entry 1 is 2 after 3"),
    ({"page": np.array([1, 2, 2, 3])}, "page: entry 2 is 2 after 2"),
    ({"page": np.array([-1, 2, 3, 4])}, "page: entry 0 is -1, outside 0"),
    ({"slot": np.arange(3)}, r"slot: need shape \[4\], got \[3\]"),
    ({"slot": np.array([1, 2, 3, 64])}, "slot: entry 3 is 64, outside 0 .. 63"),
    ({"slot": np.array([1, 2, 3, 2])}, "slot: 2 is given for two pages"),
    ({"slots": 0}, "slots: 0 is out of range"),
    ({"start": np.full(4, 9)}, "start, stop: entry 0 is 9 to 99, not around page 7"),
    ({"zero": np.zeros(4)}, r"zero: need bool \[4\], got float64 \[4\]"),
    ({name: np.zeros(0, int) for name in ("page", "slot")}, "page: no page is in swap"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message.split(":")[0] for _, message in BAD])
def test_bad_snapshots_are_refused(change: dict[str, Any], message: str) -> None:
    make_snapshot(*GOOD)
    with pytest.raises(InputError, match=f"^{message}"):
        make_snapshot(*GOOD._replace(**change))


def test_only_pages_and_slots_are_needed() -> None:
    """64 kB: all blocks but the first and the last, of which half is not in swap."""
    snapshot = make_snapshot(np.arange(8, 56), np.arange(520, 568), SLOTS)
    found = asked(snapshot, np.arange(N), 1 << 4, "kernel")
    assert np.asarray(found.outcome.order).tolist() == [0] * 8 + [4] * 32 + [0] * 8
    assert np.asarray(found.pte_gap).tolist() == [1 << 4] * 8 + [0] * 32 + [1 << 4] * 8
