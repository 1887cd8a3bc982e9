"""cache_alloc equals the plain loop of every form, and reports what a form would do for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.swaptable.alloc import alloc_queued, cache_alloc, make_requests
from jaxswap.swaptable.entry import SwapTable, encode, make_table
from jaxswap.swaptable.forms import FORMS, MERGED, Form
from jaxswap.swaptable.outcome import REASONS, Outcome
from tests.reference import swap_cache as reference
from tests.reference.swap_cache_forms import BELOW_0, LOOPS, NEVER, alloc_batch
from tests.swaptable.tables import compilations, random_table
from tests.swaptable.test_alloc import ALL, random_requests

CLUSTERS, N = 2, 60
SLOTS = CLUSTERS * 512


def twin(name: str, table: SwapTable, requests: dict[str, np.ndarray]):
    arrays = np.asarray(table.words), np.asarray(table.memcg), np.asarray(table.has_table)
    model = reference.table_from_words(*arrays)
    columns = (requests[key].tolist() for key in ("slots", "orders", "frames", "charges", "folios"))
    asked = [reference.Request(*row) for row in zip(*columns, strict=True)]
    outcomes = alloc_batch(name, model, asked)
    words = np.zeros((len(model.clusters), 512), np.uint32)
    for row, cluster in enumerate(model.clusters):
        if cluster.slots is not None:
            words[row] = [reference.word_from_slot(slot) for slot in cluster.slots]
    return words, outcomes


def assert_equal(name: str, table: SwapTable, requests: dict[str, np.ndarray]) -> Outcome:
    words, expected = twin(name, table, requests)
    after, outcome = cache_alloc(table, make_requests(table.slots, **requests), name)
    np.testing.assert_array_equal(outcome.errno, [one.error for one in expected])
    np.testing.assert_array_equal(outcome.order, [one.order for one in expected])
    np.testing.assert_array_equal(outcome.stepped, [one.swpin_fallback for one in expected])
    np.testing.assert_array_equal(outcome.thrown, [one.thrown for one in expected])
    np.testing.assert_array_equal(outcome.never_returns, [one.fate == NEVER for one in expected])
    np.testing.assert_array_equal(outcome.order_below_0, [one.fate == BELOW_0 for one in expected])
    for reason in REASONS:
        np.testing.assert_array_equal(
            outcome.refused(reason), [one.refused.get(reason, 0) for one in expected], err_msg=reason
        )
    np.testing.assert_array_equal(after.words, words)
    return outcome


def test_every_form_has_its_loop():
    assert set(FORMS) == set(LOOPS) | {f"{name}-nothp" for name in LOOPS}
    assert FORMS["merged"] == MERGED == Form()


@pytest.mark.parametrize("name", FORMS)
def test_a_form_equals_its_loop(name):
    errnos, fates, reasons = set(), set(), set()

    @settings(max_examples=24, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def run(seed):
        outcome = assert_equal(name, random_table(seed, CLUSTERS), random_requests(seed, N, SLOTS))
        errnos.update(np.asarray(outcome.errno).tolist())
        fates.update(["never"] * bool(outcome.never_returns.any()))
        fates.update(["-1"] * bool(outcome.order_below_0.any()))
        reasons.update(reason for reason in REASONS if np.asarray(outcome.refused(reason)).any())

    run()
    assert errnos >= {0, -2, -12, -17} and (-22 in errnos) == (name not in ("pre-phase4-nothp", "v3-nothp"))
    assert fates == {"v4-nothp": {"never"}, "v4-squash": {"-1"}}.get(name, set())
    compares = FORMS[name].compares_zero and FORMS[name].thp
    assert ({"zero", "memcg"} <= reasons) == compares and {"frame", "charge", "cached"} <= reasons


def outcome_of(name: str | Form, words=None, ids=None, **request: int) -> Outcome:
    """One request on the first cluster, all shadows; the others have an empty mask and ask slot 600."""
    words = np.asarray(encode(np.ones(512, np.uint32), 1, False, 3)) if words is None else words
    free = np.zeros(512, np.uint32)
    ids = np.zeros(512, np.uint16) if ids is None else ids
    table = make_table(np.concatenate([words, free]), np.concatenate([ids, free.astype(np.uint16)]))
    asked = {"slots": 33, "orders": 1, "frames": ALL, "charges": ALL} | request
    columns = {key: np.full(N, value, np.uint32) for key, value in asked.items()}
    columns["slots"][1:] = 600
    requests = make_requests(SLOTS, folios=np.arange(N, dtype=np.uint32), **columns)
    return cache_alloc(table, requests, name)[1]


def test_v4_without_thp_never_returns_when_no_frame_can_be_had():
    for what in ("frames", "charges"):
        stuck = outcome_of("v4-nothp", orders=0b10001, **{what: 0})
        assert bool(stuck.never_returns[0]) and int(stuck.errno[0]) == -12
        for name in ("v3-nothp", "v4-squash-nothp", "merged-nothp", "v4"):
            fine = outcome_of(name, orders=1, **{what: 0})
            assert not bool(fine.never_returns[0]) and int(fine.errno[0]) == -12


def test_the_squash_goes_on_with_order_minus_1_for_shmems_one_bit():
    wild = outcome_of("v4-squash", orders=0b10000, frames=1)
    assert bool(wild.order_below_0[0]) and int(wild.stepped[0]) == 0b10000
    for name in ("v4", "merged"):
        fine = outcome_of(name, orders=0b10000, frames=1)
        assert not bool(fine.order_below_0[0])
        assert (int(fine.errno[0]), int(fine.order[0])) == (-12, -1)
    forced = outcome_of("v3", orders=0b10000, frames=1)
    assert (int(forced.errno[0]), int(forced.order[0])) == (0, 0)


def test_an_empty_mask_is_einval_from_v4_on_and_order_0_before():
    for name, errno in (("v4", -22), ("v4-squash", -22), ("merged", -22), ("v3", 0), ("pre-phase4", 0)):
        assert int(outcome_of(name, orders=0).errno[0]) == errno, name


def test_before_phase_4_a_conflict_is_silent_and_the_end_of_a_race_costs_a_folio():
    words = np.asarray(encode(np.ones(512, np.uint32), 1, np.arange(512) == 40, 3))
    silent = outcome_of("pre-phase4", words, orders=0b10001)
    assert (int(silent.order[0]), int(silent.stepped[0]), int(silent.thrown[0])) == (0, 0, 0)
    assert int(silent.refused("zero")[0]) == 0b10000
    counted = outcome_of("merged", words, orders=0b10001)
    assert (int(counted.order[0]), int(counted.stepped[0])) == (0, 0b10000)
    ids = (np.arange(512) == 40).astype(np.uint16)
    assert int(outcome_of("pre-phase4", ids=ids, orders=0b10001).thrown[0]) == 0
    assert int(outcome_of("merged", ids=ids, orders=0b10001).thrown[0]) == 1
    cached = np.asarray(encode(np.where(np.arange(512) == 33, 2, 1), 1, False, 3))
    for name, thrown in (("pre-phase4", 1), ("merged", 0)):
        late = outcome_of(name, cached, orders=1)
        assert (int(late.errno[0]), int(late.thrown[0])) == (-17, thrown)


def test_switches_that_no_kernel_has_do_what_they_say():
    cached = np.asarray(encode(np.where(np.arange(512) == 33, 2, 1), 1, False, 3))
    assert int(outcome_of(MERGED, cached, orders=0b10001).stepped[0]) == 0
    counting = replace(MERGED, counts_eexist=True)
    assert int(outcome_of(counting, cached, orders=0b10001).stepped[0]) == 0b10000
    words = np.asarray(encode(np.ones(1024, np.uint32), 1, False, 7))
    requests = make_requests(SLOTS, np.full(N, 33, np.uint32), 0b100, charges=0)
    for keeps, value in ((True, 7), (False, 0)):
        after, _ = cache_alloc(make_table(words), requests, replace(MERGED, undo_keeps_shadow=keeps))
        values = (np.asarray(after.words)[0] >> 2) & 0x1FF_FFFF
        assert values[32:36].tolist() == [value] * 4 and values[36] == 7


def test_a_form_is_compiled_once():
    table, requests = random_table(1, CLUSTERS), make_requests(SLOTS, **random_requests(1, N, SLOTS))
    cache_alloc(table, requests, "merged")
    compiled = compilations(alloc_queued)
    cache_alloc(table, requests, Form())
    cache_alloc(table, requests)
    assert compilations(alloc_queued) == compiled


def test_no_such_form():
    requests = make_requests(SLOTS, np.array([1]), 1)
    with pytest.raises(InputError, match="form: 'v9' is none of pre-phase4, v3, v4, v4-squash, merged"):
        cache_alloc(random_table(1, CLUSTERS), requests, "v9")
