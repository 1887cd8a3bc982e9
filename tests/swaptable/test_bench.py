"""The benchmark's C loops agree with JAX, and it says so where there is no compiler."""

from __future__ import annotations

import numpy as np
import pytest

from jaxswap.bench import swaptable_bench, timing

TINY = {"slots": 1 << 14, "requests": 1 << 12, "repeats": 1}
KEYS = {"name", "variant", "size", "lanes", "time", "rate", "ratio_to_c", "cores", "device", "compile_time"}


@pytest.mark.skipif(timing.c_compiler() is None, reason="no C compiler")
def test_rows_hold_both_c_loops_and_their_ratio(monkeypatch):
    monkeypatch.setattr(swaptable_bench, "QUICK", TINY)
    found = swaptable_bench.measure(cores=1, quick=True)
    assert {row["name"] for row in found} == {"add_check/planes", "add_check/words", "cache_alloc"}
    assert all(set(row) >= KEYS for row in found)
    for row in found:
        assert row["time"] > 0 and row["ratio_to_c"] > 0
        assert (row["ratio_to_c"] == 1) == (row["variant"] == "C, slot scan")


def test_without_a_compiler_the_rows_say_so(monkeypatch):
    monkeypatch.setattr(swaptable_bench, "QUICK", TINY)
    monkeypatch.setattr(swaptable_bench, "load_c", lambda source: None)
    found = swaptable_bench.measure(cores=1, quick=True)
    assert {row["variant"] for row in found} == {"JAX", "JAX, queues made before", "no C compiler"}
    assert all(row["ratio_to_c"] is None for row in found)


def test_a_result_that_differs_is_an_error():
    with pytest.raises(RuntimeError, match="JAX and C differ, first at 1: 2 and 3"):
        swaptable_bench._equal("x", np.array([1, 2]), np.array([1, 3]))
