"""Rows of the bench: their keys, the share of the copy bandwidth, the processes they come from."""

import pytest

from jaxswap.bench.rows import KEYS, row, rows_of
from jaxswap.bench.timing import copy_bandwidth


def test_a_row_has_all_keys_and_its_share_of_the_bandwidth() -> None:
    made = row(name="a", bytes=600, time=2.0, copy_bandwidth=1200.0)
    assert tuple(made) == KEYS
    assert (made["copy_share"], made["lanes"]) == (0.25, None)
    assert row(name="a", bytes=600, time=2.0)["copy_share"] is None


def test_a_key_that_no_row_has_is_refused() -> None:
    with pytest.raises(TypeError, match="no such key of a row: colour"):
        row(name="a", colour="red")


def test_a_process_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)swaptable_bench none failed:.*ValueError"):
        list(rows_of("jaxswap.bench.swaptable_bench", "none"))


def test_the_device_copies() -> None:
    assert 1e8 < copy_bandwidth(mebibytes=16, repeats=2) < 1e13
