"""The benchmark's C loops agree with JAX, and it says so where there is no compiler."""

from __future__ import annotations

import numpy as np
import pytest

from jaxswap.bench import swaptable_bench, timing
from jaxswap.bench.rows import KEYS

TINY = {"slots": (1 << 13, 1 << 14), "at": 1 << 13, "repeats": 1}


@pytest.mark.skipif(timing.c_compiler() is None, reason="no C compiler")
def test_rows_hold_both_c_loops_and_their_ratio(monkeypatch):
    monkeypatch.setattr(swaptable_bench, "QUICK", TINY)
    found = list(swaptable_bench.measure(cores=1, quick=True))
    assert {row["name"] for row in found} == {"add_check/planes", "add_check/words", "cache_alloc"}
    assert {(row["slots"], row["case"]) for row in found} == {
        (1 << 13, "mostly intact"),
        (1 << 14, "mostly intact"),
        (1 << 13, "fragmented"),
    }
    for row in found:
        assert tuple(row) == KEYS
        assert row["time"] > 0 and row["ratio_to_c"] > 0
        assert (row["ratio_to_c"] == 1) == (row["variant"] == "C, slot scan")
        assert row["bytes"] > 12 * row["size"] and row["copy_share"] > 0


def test_without_a_compiler_the_rows_say_so(monkeypatch):
    monkeypatch.setattr(swaptable_bench, "QUICK", TINY)
    monkeypatch.setattr(swaptable_bench, "load_c", lambda source: None)
    found = list(swaptable_bench.measure(cores=1, quick=True))
    assert {row["variant"] for row in found} == {"JAX", "JAX, queues made before", "no C compiler"}
    assert all(row["ratio_to_c"] is None for row in found)


def test_a_result_that_differs_is_an_error():
    with pytest.raises(RuntimeError, match="JAX and C differ, first at 1: 2 and 3"):
        swaptable_bench._equal("x", np.array([1, 2]), np.array([1, 3]))
