"""add_check equals its plain-Python twin; every error number is reached; bad input is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.swaptable.check import (
    add_check,
    add_check_second,
    check_kept,
    check_second_kept,
    check_second_table,
    check_table,
)
from jaxswap.swaptable.entry import SwapTable, encode, make_table
from jaxswap.swaptable.planes import (
    CheckPlanes,
    any_in_block,
    keep,
    mixed_ids,
    pyramid,
    suits,
    table_planes,
    unpack,
)
from tests.reference import swap_cache as reference
from tests.swaptable.tables import CLUSTERS, compilations, random_table

SLOTS = CLUSTERS * 512
seeds = st.integers(0, 2**32 - 1)


def twin(table: SwapTable) -> reference.Table:
    return reference.table_from_words(
        np.asarray(table.words), np.asarray(table.memcg), np.asarray(table.has_table)
    )


def pairs(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 1])
    return rng.integers(0, SLOTS, n).astype(np.uint32), rng.integers(0, 10, n).astype(np.int32)


@jax.jit
def block_levels(planes):
    return any_in_block(planes.cached), mixed_ids(planes.id_edge)


def bits(plane) -> np.ndarray:
    return np.unpackbits(np.asarray(plane).view(np.uint8), axis=-1, bitorder="little").astype(bool)


def test_every_form_equals_the_twin_and_reaches_every_errno():
    seen = {False: set(), True: set()}
    memcg_only = 0

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(seeds)
    def run(seed):
        nonlocal memcg_only
        table = random_table(seed)
        slots, orders = pairs(seed, 600)
        model, kept = twin(table), keep(table)
        both = []
        for second in (False, True):
            expected = []
            for slot, order in zip(slots, orders, strict=True):
                cluster, offset = model.find(int(slot))
                expected.append(reference.swap_cache_add_check(cluster, offset, 1 << int(order), second))
            errors = np.array([one.error for one in expected])
            np.testing.assert_array_equal(add_check(kept, slots, orders, second), errors)
            np.testing.assert_array_equal(add_check(table, slots, orders, second), errors)
            seen[second] |= set(errors.tolist())
            both.append(errors)
        for given_planes in (None, kept):
            out = add_check_second(table, slots, orders, given_planes)
            np.testing.assert_array_equal(out.errno, both[1])
            np.testing.assert_array_equal(out.shadow, [one.shadow for one in expected])
            np.testing.assert_array_equal(out.memcg, [one.memcg for one in expected])
        memcg_only += int(((both[0] == 0) & (both[1] == -16)).sum())

    run()
    assert seen[False] == seen[True] == {0, -2, -16, -17}
    assert memcg_only > 0


def test_few_pairs_read_only_their_clusters_with_the_same_answers():
    table = random_table(7, clusters=64)
    slots = np.array([0, 511, 512, 20_000, 64 * 512 - 1], np.uint32)
    orders = np.array([3, 9, 0, 4, 2], np.int32)
    for second in (False, True):
        np.testing.assert_array_equal(
            add_check(table, slots, orders, second), add_check(keep(table), slots, orders, second)
        )


def test_worked_example():
    """Order 2 over slots 8..11: counts need not be equal, only at least 1."""

    def errno(target, kind=1, count=1, zero=False, memcg=5, second=False):
        kinds = np.ones(512, np.uint32)
        counts = np.ones(512, np.uint32)
        zeros = np.zeros(512, bool)
        ids = np.full(512, 5, np.uint16)
        kinds[10], counts[10], zeros[10], ids[10] = kind, count, zero, memcg
        table = make_table(np.asarray(encode(kinds, counts, zeros, 1)), ids)
        return int(add_check(keep(table), np.array([target]), np.array([2]), second)[0])

    assert errno(9, kind=2) == -16
    assert errno(10, kind=2) == -17
    assert errno(9, kind=0) == -16
    assert errno(10, kind=0) == -2
    assert errno(9, zero=True) == -16
    assert errno(9, memcg=6) == 0
    assert errno(9, memcg=6, second=True) == -16
    assert errno(9, count=3) == 0
    assert errno(9, kind=3) == errno(10, kind=3) == -16


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seeds)
def test_planes_and_pyramid_equal_a_slot_by_slot_reading(seed):
    table = random_table(seed)
    planes = table_planes(table)
    words, ids = np.asarray(table.words), np.asarray(table.memcg)
    np.testing.assert_array_equal(unpack(planes.cached), words % 4 == 2)
    np.testing.assert_array_equal(bits(planes.bad), words % 4 == 3)
    cached_levels, id_levels = block_levels(planes)
    slots = np.arange(SLOTS)
    for order in range(10):
        blocks = (CLUSTERS, 512 >> order, 1 << order)
        everywhere = np.ones(blocks, bool)
        cached = (words % 4 == 2).reshape(blocks).any(-1, keepdims=True) & everywhere
        np.testing.assert_array_equal(bits(cached_levels[order]).reshape(blocks), cached)
        grouped = ids.reshape(blocks)
        mixed = (grouped != grouped[..., :1]).any(-1, keepdims=True) & everywhere
        np.testing.assert_array_equal(bits(id_levels[order]).reshape(blocks), mixed)
    for second in (False, True):
        for order, (level, spread) in enumerate(
            zip(pyramid(planes, second), suits(planes, second), strict=True)
        ):
            one_a_block = bits(level)[:, : 512 >> order]
            np.testing.assert_array_equal(one_a_block, bits(spread)[:, :: 1 << order])
            errno = np.asarray(add_check(table, slots, np.full(SLOTS, order), second)).reshape(CLUSTERS, 512)
            np.testing.assert_array_equal(one_a_block, errno[:, :: 1 << order] == 0)


@pytest.mark.parametrize(
    ("slots", "orders", "message"),
    [
        ([0, SLOTS], [0, 0], f"slots: entry 1 is {SLOTS}"),
        ([-1], [0], "slots: entry 0 is -1"),
        ([0], [10], "orders: entry 0 is 10"),
        ([0], [-1], "orders: entry 0 is -1"),
        ([0.5], [0], "slots: need an integer dtype"),
        ([0, 1], [0], r"orders: need shape \[2\]"),
        ([[0]], [[0]], r"slots: need shape \[n\]"),
    ],
)
def test_bad_pairs_are_refused(slots, orders, message):
    table = random_table(1)
    for source in (table, keep(table)):
        with pytest.raises(InputError, match=message):
            add_check(source, np.array(slots), np.array(orders))
    with pytest.raises(InputError, match=message):
        add_check(table, jax.numpy.array(slots), jax.numpy.array(orders))


def test_planes_of_another_table_are_refused():
    with pytest.raises(InputError, match="planes of 512 slots"):
        add_check_second(random_table(1), np.array([0]), np.array([0]), keep(random_table(1, clusters=1)))
    with pytest.raises(InputError, match="need a SwapTable or CheckPlanes, got ndarray"):
        add_check(np.zeros(512, np.uint32), np.array([0]), np.array([0]))  # pyright: ignore[reportArgumentType]


def test_the_second_form_needs_a_table():
    with pytest.raises(InputError, match="table: need a SwapTable, got CheckPlanes"):
        add_check_second(keep(random_table(1)), np.array([0]), np.array([0]))  # pyright: ignore[reportArgumentType]


def test_no_pairs():
    assert add_check(keep(random_table(1)), np.zeros(0, np.int32), np.zeros(0, np.int32)).shape == (0,)


def test_kernels_lower_for_cuda():
    def shapes(tree):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)

    table = shapes(random_table(1))
    planes = jax.eval_shape(table_planes, table)
    slots, orders = jax.ShapeDtypeStruct((32,), np.uint32), jax.ShapeDtypeStruct((32,), np.int32)
    kept = jax.ShapeDtypeStruct((CLUSTERS, 64), np.uint32)
    for function, arguments in (
        (check_kept, (kept, slots, orders)),
        (check_table, (table, slots, orders)),
        (check_second_table, (table, slots, orders)),
        (check_second_kept, (table, slots, orders, kept)),
        (keep, (table,)),
        (table_planes, (table,)),
        (suits, (planes,)),
        (pyramid, (planes,)),
    ):
        jax.export.export(function, platforms=["cuda"])(*arguments)


def test_one_compilation_a_shape():
    def run(seed):
        slots, orders = pairs(seed, 100)
        add_check(keep(random_table(seed)), slots, orders)

    run(0)
    compiled = compilations(check_kept)
    for seed in (1, 2, 3):
        run(seed)
    assert compilations(check_kept) == compiled


def test_kept_answers_are_one_pytree():
    leaves, tree = jax.tree.flatten(keep(random_table(1)))
    assert isinstance(jax.tree.unflatten(tree, leaves), CheckPlanes)
    assert [leaf.shape for leaf in leaves] == [(CLUSTERS, 64)] * 2
