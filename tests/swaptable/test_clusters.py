"""The JAX slot allocator equals the plain-Python one, in all kernels, on one and several devices and CPUs."""

import random
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.machine.profile import PROFILES
from jaxswap.swaptable import slot_cache
from jaxswap.swaptable.clusters import Device, swapon
from tests.reference.slots import FRAG
from tests.reference.sort import heapsort
from tests.swaptable.slot_machine import (
    ALLOC,
    NOTHING,
    PUT,
    ROOM,
    Op,
    Plain,
    fresh,
    full_sorted,
    of_jax,
    of_plain,
    random_ops,
    run,
)

LENGTH = 256  # operations of a run
by_device = jax.jit(slot_cache.by_device)


def random_devices(rng: random.Random, count: int) -> list[Device]:
    """Ragged ones, tiny ones, whole clusters; priorities given, equal or none."""
    sizes = [2, 3, 17, 100, 511, 512, 513, 700, 1024, 1100, 1536, 2047, 2560]
    devices = [Device(rng.choice(sizes), rng.choice([None, None, 1, 5])) for _ in range(count)]
    assert sum(device.clusters for device in devices) <= ROOM
    return devices


def check(seed: int, name: str, count: int) -> None:
    """Three runs of operations on both, compared in what was found and in all state after each."""
    rng = random.Random(seed)
    profile, cpus = PROFILES[name], rng.choice([1, 1, 2, 8])
    devices = random_devices(rng, count)
    plain = Plain(profile, devices, cpus)
    c, rules = fresh(profile, devices, cpus)
    assert of_plain(plain) == of_jax(c, count)
    for _ in range(3):
        ops, wanted = random_ops(rng, plain, cpus, LENGTH)
        c, found, number = run(c, rules, jnp.asarray(ops, jnp.int32)[:, :, None])
        mine = np.asarray(found)[: int(number[0]), 0].tolist()
        assert mine == wanted, (devices, cpus)
        theirs, ours = full_sorted(of_plain(plain)), full_sorted(of_jax(c, count))
        for key, value in theirs.items():
            assert value == ours[key], (key, devices, cpus)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compile without optimisation: compiling takes longest here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(list(PROFILES)))
def test_one_device(seed: int, name: str) -> None:
    check(seed, name, 1)


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(list(PROFILES)), count=st.integers(2, 3))
def test_several_devices(seed: int, name: str, count: int) -> None:
    check(seed, name, count)


def fill_up(ops: list[Op]) -> list[Op]:
    return ops + [(NOTHING, 0, 0, 0)] * (LENGTH - len(ops))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_lanes_side_by_side_have_their_own_kernels_devices_and_operations(count: int, cached: bool) -> None:
    lanes = []
    names = [name for name, profile in PROFILES.items() if (profile.slot_cache > 0) == cached]
    if cached:
        names *= 4
    for seed, name in enumerate(names):
        rng = random.Random(100 * count + seed)
        devices, cpus = random_devices(rng, count), rng.choice([1, 2])
        plain = Plain(PROFILES[name], devices, cpus)
        ops, wanted = random_ops(rng, plain, cpus, rng.randint(LENGTH // 2, LENGTH))
        lanes.append((plain, fresh(PROFILES[name], devices, cpus), fill_up(ops), wanted))
    start = jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *(lane[1] for lane in lanes))
    ops = jnp.stack([jnp.asarray(lane[2], jnp.int32) for lane in lanes], axis=-1)
    c, found, number = run(*start, ops)
    for i, (plain, _, _, wanted) in enumerate(lanes):
        assert np.asarray(found)[: int(number[i]), i].tolist() == wanted, names[i]
        one = jax.tree.map(lambda x, i=i: x[..., i : i + 1], c)
        theirs, ours = full_sorted(of_plain(plain)), full_sorted(of_jax(one, count))
        for key, value in theirs.items():
            assert value == ours[key], (key, names[i])


def test_a_search_in_vain_turns_all_frag_clusters_in_6_12() -> None:
    """cluster_alloc_swap_entry: all of them, so that they stand as before; the next small folio shows it."""
    profile, devices = PROFILES["6.12"], [Device(2560)]
    plain = Plain(profile, devices, 1)
    ops = [(ALLOC, 0, 7, 1)] * 16
    wanted = [slot for _ in ops for slot in plain.alloc(0, 7, 1)]
    for cluster in (3, 1, 4, 2):
        plain.put(0, cluster * 512, 1, False)
        ops.append((PUT, 0, cluster * 512, 1))
    for order in (7, 7, 0):
        wanted += plain.alloc(0, order, 1)
        ops.append((ALLOC, 0, order, 1))
    assert wanted[16:18] == [-1, -1] and len(plain.swap.devices[0].lists[FRAG, 7]) > 1
    c, found, number = run(*fresh(profile, devices, 1), jnp.asarray(fill_up(ops), jnp.int32)[:, :, None])
    assert np.asarray(found)[: int(number[0]), 0].tolist() == wanted
    assert of_plain(plain) == of_jax(c, 1)


@given(st.lists(st.integers(1, 4607), unique=True, max_size=64))
@settings(max_examples=50)
def test_a_hand_is_sorted_as_the_kernel_sorts(hand: list[int]) -> None:
    """By device, of which there are three, and otherwise in no order but the kernel's."""
    c = swapon([Device(2000), Device(1500), Device(1000)], ROOM, 1, slot_cache=True)
    slots = np.zeros((slot_cache.BATCH, 1), np.int32)
    slots[: len(hand), 0] = hand
    size, on = jnp.array([len(hand)], jnp.int32), jnp.ones(1, bool)
    found = np.asarray(by_device(c, jnp.asarray(slots), size, on))[: len(hand), 0]
    assert found.tolist() == heapsort(hand, lambda slot: (slot >= 2048) + (slot >= 3584))


def test_contents_and_rules_are_values_of_one_program() -> None:
    jitted: Any = run
    before = jitted._cache_size()
    for name in PROFILES:
        check(7, name, 2)
        check(7, name, 3)
    # A kernel with a slot cache is another program.
    assert jitted._cache_size() - before <= 2


def test_devices_there_is_no_room_for_are_refused() -> None:
    for devices, cpus, what in (
        ([Device(512)] * 5, 1, "5 devices"),
        ([Device(512 * ROOM), Device(2)], 1, "more than 16 clusters"),
        ([Device(512)], 9, "cpus: 9"),
    ):
        with pytest.raises(InputError, match=what):
            swapon(devices, ROOM, 1, cpus=cpus)
