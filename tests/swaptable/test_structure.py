"""What keeps the kernels fast, seen in the compiled text and in how time grows."""

from __future__ import annotations

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxswap.swaptable.alloc import _lock_step, make_queues
from jaxswap.swaptable.check import check_kept
from jaxswap.swaptable.planes import keep
from tests.swaptable.tables import random_table


def best(call, repeats: int = 7) -> float:
    jax.block_until_ready(call())
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        spent.append(time.perf_counter() - start)
    return min(spent)


def lock_step(clusters: int, n: int, spread: int):
    """The compiled loop and its arguments: ``n`` requests over the first ``spread`` clusters."""
    slots = np.random.default_rng(5).integers(0, spread * 512, n).astype(np.uint32)
    packed = jnp.asarray(np.pad((slots & 511) | (0b11101 << 9), (0, min(2048, clusters))).astype(np.uint32))
    queues = make_queues(slots, clusters)
    return jax.jit(partial(_lock_step, lanes=clusters)).lower(packed, queues).compile(), (packed, queues)


def test_the_lock_step_is_native_and_copies_no_table():
    compiled, _ = lock_step(4096, 8192, 4096)
    text = compiled.as_text()
    assert text is not None
    assert "xla_cpu_small_call" in text
    assert " scatter(" not in text and " sort(" not in text
    assert not [line for line in text.splitlines() if " copy(" in line and "[16," in line]


def test_a_step_costs_the_same_in_a_table_of_16_times_the_clusters():
    times = []
    for clusters in (256, 4096):
        compiled, arguments = lock_step(clusters, 8192, 4)
        times.append(best(partial(compiled, *arguments)))
    assert times[1] / times[0] < 4


def test_a_check_costs_the_same_in_a_batch_of_16_times_the_pairs():
    kept = keep(random_table(1, clusters=64)).first
    rng = np.random.default_rng(6)
    times = []
    for n in (1 << 15, 1 << 19):
        slots = jnp.asarray(rng.integers(0, 64 * 512, n).astype(np.uint32))
        orders = jnp.asarray(rng.integers(0, 10, n).astype(np.int32))
        times.append(best(lambda slots=slots, orders=orders: check_kept(kept, slots, orders)))
    assert times[1] / (16 * times[0]) < 4


def test_keeping_planes_grows_with_the_table_and_no_faster():
    times = [best(partial(keep, random_table(1, clusters=clusters))) for clusters in (64, 1024)]
    assert times[1] / times[0] < 4 * 16
