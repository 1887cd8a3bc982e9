"""The JAX slot allocator equals the plain-Python one, in all kernels, on one and several devices and CPUs."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.machine.profile import PROFILES
from jaxswap.swaptable.clusters import Device
from tests.swaptable.slot_machine import (
    ROOM,
    Plain,
    fresh,
    of_jax,
    of_plain,
    random_ops,
    run,
)

LENGTH = 256  # operations of a run


def random_devices(rng: random.Random, count: int) -> list[Device]:
    """Ragged ones, tiny ones, whole clusters; priorities given, equal or none."""
    sizes = [2, 3, 17, 100, 511, 512, 513, 700, 1024, 1100, 1536, 2047, 2560]
    devices = [Device(rng.choice(sizes), rng.choice([None, None, 1, 5])) for _ in range(count)]
    assert sum(device.clusters for device in devices) <= ROOM
    return devices


def check(seed: int, name: str, count: int) -> None:
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
        theirs, ours = of_plain(plain), of_jax(c, count)
        for key, value in theirs.items():
            assert value == ours[key], (key, devices, cpus)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
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
