"""cache_alloc equals its plain-Python twin, request after request; every errno and reason is reached."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.swaptable import alloc
from jaxswap.swaptable.alloc import (
    alloc_alone,
    alloc_queued,
    cache_alloc,
    levels_of,
    make_queues,
    make_requests,
)
from jaxswap.swaptable.entry import SwapTable, encode, make_table
from jaxswap.swaptable.outcome import REASONS, Outcome
from tests.reference import swap_cache as reference
from tests.swaptable.tables import CLUSTERS, compilations, random_table

SLOTS = CLUSTERS * 512
N = 300
ALL = (1 << 10) - 1


def random_requests(seed: int, n: int = N, slots: int = SLOTS) -> dict[str, np.ndarray]:
    """Spread over the table, over one cluster, or over a few neighbours; masks from single bits to all."""
    rng = np.random.default_rng([seed, 2])
    style = rng.integers(0, 3)
    if style == 0:
        at = rng.integers(0, slots, n)
    elif style == 1:
        at = int(rng.integers(0, slots // 512)) * 512 + rng.integers(0, 512, n)
    else:
        at = rng.integers(0, slots, 12)[rng.integers(0, 12, n)] ^ rng.integers(0, 8, n)
    masks = np.array(
        [1, ALL, ALL & ~2, 0b10100, 0b10000, 0b11101, 1 << 9, 0, 1 << 10, 0xFFFF_FFFF], np.uint32
    )
    orders = rng.choice(masks, n, p=[0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.04, 0.02, 0.02, 0.02])
    orders = np.where(rng.random(n) < 0.3, rng.integers(1, 1024, n), orders)
    likely = rng.choice([0.0, 0.2, 0.6])

    def had():
        some = rng.integers(0, 1024, n)
        return np.where(rng.random(n) < likely, some, ALL)

    return {
        "slots": at.astype(np.uint32),
        "orders": orders.astype(np.uint32),
        "frames": had().astype(np.uint32),
        "charges": had().astype(np.uint32),
        "folios": rng.integers(0, 1 << 25, n, dtype=np.uint32),
    }


def twin(table: SwapTable, requests: dict[str, np.ndarray]):
    model = reference.table_from_words(
        np.asarray(table.words), np.asarray(table.memcg), np.asarray(table.has_table)
    )
    rows = zip(
        *(requests[key].tolist() for key in ("slots", "orders", "frames", "charges", "folios")), strict=True
    )
    outcomes = reference.swap_cache_alloc_batch(model, [reference.Request(*row) for row in rows])
    words = np.zeros((len(model.clusters), 512), np.uint32)
    for row, cluster in enumerate(model.clusters):
        if cluster.slots is not None:
            words[row] = [reference.word_from_slot(slot) for slot in cluster.slots]
    return words, outcomes


def assert_equal(table: SwapTable, requests: dict[str, np.ndarray]) -> Outcome:
    words, expected = twin(table, requests)
    after, outcome = cache_alloc(table, make_requests(table.slots, **requests))
    np.testing.assert_array_equal(outcome.errno, [one.error for one in expected])
    np.testing.assert_array_equal(outcome.order, [one.order for one in expected])
    np.testing.assert_array_equal(outcome.stepped, [one.swpin_fallback for one in expected])
    np.testing.assert_array_equal(outcome.thrown, [one.thrown for one in expected])
    for reason in REASONS:
        np.testing.assert_array_equal(
            outcome.refused(reason), [one.refused.get(reason, 0) for one in expected], err_msg=reason
        )
    np.testing.assert_array_equal(after.words, words)
    np.testing.assert_array_equal(after.memcg, table.memcg)
    return outcome


def test_batches_equal_the_twin_and_reach_every_errno_and_reason():
    errnos, orders, reasons = set(), set(), set()

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def run(seed):
        outcome = assert_equal(random_table(seed), random_requests(seed))
        errnos.update(np.asarray(outcome.errno).tolist())
        orders.update(np.asarray(outcome.order).tolist())
        reasons.update(reason for reason in REASONS if np.asarray(outcome.refused(reason)).any())

    run()
    assert errnos == {0, -2, -12, -16, -17, -22}
    assert orders == set(range(-1, 10))
    assert reasons == set(REASONS)


def test_steps_that_take_several_rounds(monkeypatch):
    """Steps wider than what is taken together, with chains of failed charges in every cluster."""
    monkeypatch.setattr(alloc, "_WIDE", 32)
    monkeypatch.setattr(alloc, "_NARROW", 4)
    monkeypatch.setattr(alloc, "_EVENTS", 8)
    clusters, n = 72, 4000
    rng = np.random.default_rng(3)
    words = np.asarray(
        encode(
            np.ones((clusters, 512)),
            1,
            rng.random((clusters, 512)) < 0.001,
            rng.integers(0, 1 << 25, (clusters, 512)),
        )
    )
    table = make_table(words, np.zeros((clusters, 512), np.uint16))
    slots = np.where(rng.random(n) < 0.05, rng.integers(0, 512, n), rng.integers(0, clusters * 512, n))
    assert_equal(
        table,
        {
            "slots": slots.astype(np.uint32),
            "orders": np.full(n, 0b10101, np.uint32),
            "frames": np.full(n, ALL, np.uint32),
            "charges": np.where(rng.random(n) < 0.5, 0, ALL).astype(np.uint32),
            "folios": np.arange(n, dtype=np.uint32),
        },
    )


def padded(words: np.ndarray, ids=None) -> SwapTable:
    """A cluster at the front of a table of the common shape, so that nothing is compiled for it alone."""
    rest = np.zeros((CLUSTERS - 1) * 512, np.uint32)
    ids = np.zeros(512, np.uint16) if ids is None else ids
    return make_table(np.concatenate([words, rest]), np.concatenate([ids, rest.astype(np.uint16)]))


def padded_requests(**columns: list[int]) -> dict[str, np.ndarray]:
    """These requests, then requests with an empty mask."""
    n = len(columns["slots"])
    columns = {"frames": [ALL] * n, "charges": [ALL] * n, "folios": list(range(77, 77 + n))} | columns
    return {key: np.array(values + [0] * (N - n), np.uint32) for key, values in columns.items()}


def one(words, ids=None, **request: int) -> Outcome:
    return assert_equal(
        padded(words, ids), padded_requests(**{key: [value] for key, value in request.items()})
    )


def shadows() -> np.ndarray:
    return np.array(encode(np.ones(512, np.uint32), 1, False, 3))


def test_a_memcg_mismatch_costs_a_folio_and_a_zero_flag_does_not():
    ids = np.zeros(512, np.uint16)
    ids[40] = 1
    outcome = one(shadows(), ids, slots=33, orders=0b10001)
    assert (int(outcome.order[0]), int(outcome.second_check[0]), int(outcome.thrown[0])) == (0, 0b10000, 1)
    words = shadows()
    words[40] |= 1 << 27
    outcome = one(words, slots=33, orders=0b10001)
    assert (int(outcome.order[0]), int(outcome.refused("zero")[0]), int(outcome.thrown[0])) == (0, 0b10000, 0)
    assert int(outcome.first_check[0]) == 0b10000 and int(outcome.second_check[0]) == 0


def test_without_order_0_the_last_error_comes_out_and_is_counted():
    words = shadows()
    words[40] |= 1 << 27
    outcome = one(words, slots=33, orders=0b10000)
    assert (int(outcome.errno[0]), int(outcome.stepped[0])) == (-16, 0b10000)
    outcome = one(shadows(), slots=33, orders=1, charges=0)
    assert (int(outcome.errno[0]), int(outcome.stepped[0]), int(outcome.thrown[0])) == (-12, 0, 1)


def test_shadows_of_failed_charges_travel_in_index_order():
    """Request 0 spreads the shadow of slot 5, request 1 that of slot 7 (now slot 5's), 2 takes part of it."""
    words = np.asarray(encode(np.ones(512, np.uint32), 1, False, np.arange(512)))
    requests = padded_requests(
        slots=[5, 7, 12, 16],
        orders=[0b1000, 0b10000, 0b100, 0b100000],
        charges=[0, 0, ALL, 0],
        folios=[0, 1, 2, 3],
    )
    table = padded(words)
    assert_equal(table, requests)
    after, _ = cache_alloc(table, make_requests(SLOTS, **requests))
    values = (np.asarray(after.words)[0] >> 2) & 0x1FF_FFFF
    assert values[:12].tolist() == [5] * 12
    assert values[12:16].tolist() == [2] * 4
    assert values[16:20].tolist() == [16, 17, 18, 19]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": np.array([SLOTS])}, f"slots: entry 0 is {SLOTS}, outside 0"),
        ({"slots": jnp.array([0, SLOTS])}, f"slots: entry 1 is {SLOTS}, outside 0"),
        ({"orders": jnp.array([-1])}, "orders: entry 0 is -1, outside 0"),
        ({"slots": np.array([0.0])}, "slots: need an integer dtype"),
        ({"orders": np.array([-1])}, "orders: entry 0 is -1"),
        ({"orders": np.array([1, 1])}, r"orders: need shape \[1\], got \[2\]"),
        ({"folios": np.array([1 << 25])}, "folios: entry 0 is"),
    ],
)
def test_bad_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        make_requests(SLOTS, **({"slots": np.array([0]), "orders": np.array([1])} | change))


def test_requests_of_a_larger_table_are_refused():
    requests = make_requests(5120, np.array([512]), 1)
    with pytest.raises(InputError, match="the table has 512 slots"):
        cache_alloc(random_table(1, clusters=1), requests)
    with pytest.raises(InputError, match="need a SwapTable"):
        cache_alloc(random_table(1), (1, 2))  # pyright: ignore[reportArgumentType]


def test_no_requests_change_nothing():
    table = random_table(5)
    after, outcome = cache_alloc(table, make_requests(table.slots, np.zeros(0, np.uint32), 1))
    np.testing.assert_array_equal(after.words, table.words)
    assert outcome.errno.shape == (0,)


def test_one_compilation_for_all_contents():
    def run(seed):
        cache_alloc(random_table(seed), make_requests(SLOTS, **random_requests(seed)))

    run(0)
    compiled = compilations(alloc_queued)
    for seed in (1, 2, 3):
        run(seed)
    assert compilations(alloc_queued) == compiled


def test_lowers_for_cuda():
    table = random_table(1)
    requests = make_requests(SLOTS, **random_requests(1))
    arguments = (table, requests, make_queues(np.asarray(requests.slots), CLUSTERS))
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments)
    jax.export.export(alloc_queued, platforms=["cuda"])(*shapes)


def test_alone_every_request_meets_the_table_as_it_was():
    """Each as the first request of a batch of its own."""

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def run(seed):
        table, requests = random_table(seed), random_requests(seed)
        outcome = alloc_alone(levels_of(table), make_requests(table.slots, **requests))
        for at in range(0, N, 7):
            _, (expected,) = twin(table, {key: value[at : at + 1] for key, value in requests.items()})
            assert outcome.errno[at] == expected.error and outcome.order[at] == expected.order
            assert outcome.stepped[at] == expected.swpin_fallback
            found = {why: int(outcome.refused(why)[at]) for why in REASONS}
            assert {why: mask for why, mask in found.items() if mask} == expected.refused

    run()
