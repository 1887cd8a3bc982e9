"""Slot words: round trips, wraps, and tables a user can get wrong."""

from __future__ import annotations

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.swaptable.entry import decode, encode, make_table
from jaxswap.swaptable.geometry import SIZE_NAMES, highest_order, next_order, size_order
from tests.reference import swap_cache as reference


def test_words_equal_the_twin_both_ways():
    kinds = ("free", "shadow", "folio", "bad")
    for kind in range(4):
        for count in (0, 1, 14, 15):
            for zero in (False, True):
                for value in (0, 1, (1 << 25) - 1, 1 << 25):
                    word = int(encode(kind, count, zero, value))
                    slot = reference.Slot(kinds[kind], count, zero, value)
                    assert word == reference.word_from_slot(slot)
                    back = reference.slot_from_word(word)
                    assert [back.count, back.zero, back.value] == [
                        int(f) for f in decode(np.uint32(word))[1:]
                    ]


def test_wide_counts_saturate_and_wide_values_wrap():
    fields = decode(encode(1, 4000, True, (1 << 25) + 7))
    assert (int(fields.count), bool(fields.zero), int(fields.value)) == (15, True, 7)


def test_slots_beyond_the_end_are_bad_and_free_clusters_have_no_table():
    words = np.zeros(1000, np.uint32)
    table = make_table(words)
    assert table.words.shape == (2, 512)
    assert np.asarray(table.words)[1, 488:].tolist() == [3] * 24
    assert np.asarray(table.has_table).tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(512, np.int64),), "words: need dtype uint32, got int64"),
        (
            (np.zeros((2, 100), np.uint32),),
            r"words: need shape \[slots\] or \[clusters, 512\], got \[2, 100\]",
        ),
        ((np.zeros(0, np.uint32),), "words: need 1 to 2"),
        ((np.full(512, 4, np.uint32),), "words: slot 0 holds 0x00000004, no slot word"),
        ((np.ones(512, np.uint32),), "words: slot 0 holds 0x00000001, no slot word"),
        ((np.zeros(512, np.uint32), np.zeros(511, np.uint16)), "memcg: has 511 slots, words has 512"),
        ((np.zeros(512, np.uint32), np.zeros(512, np.int32)), "memcg: need dtype uint16"),
        ((np.zeros(512, np.uint32), None, np.zeros(2, bool)), r"has_table: need bool \[1\], got bool \[2\]"),
        ((np.full(512, 3, np.uint32), None, np.zeros(1, bool)), "has_table: cluster 0 has slots in use"),
    ],
)
def test_bad_tables_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_table(*arguments)


def test_order_masks():
    for mask in range(1024):
        assert int(highest_order(mask)) == mask.bit_length() - 1
    mask, order = next_order(np.uint32(0b10010), 4)
    assert (int(mask), int(order)) == (0b10, 1)
    assert [size_order(name) for name in SIZE_NAMES] == list(range(10))
    with pytest.raises(ValueError, match="'4MB' is no folio size"):
        size_order("4MB")
