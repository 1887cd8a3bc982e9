"""With page frames, too, the JAX machine equals the plain-Python one: free lists, frames and counters."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.frames import Frames
from jaxswap.machine import Lane
from jaxswap.workload import parse_workload
from tests.machine.test_against_reference import check, random_lane
from tests.machine.workloads import random_text


def random_frames(rng: random.Random, compaction: bool = True) -> Frames:
    """Often too few, or too small, blocks for all that random workloads want."""
    chance = rng.choice([0, 50, 100]) if compaction else 0
    seed = rng.randrange(1 << 32)
    if rng.random() < 0.4:
        most = [600, 400, 250, 120, 60, 30, 15, 8, 4, 2, 1]
        free = [rng.randint(0, n) if rng.random() < 0.7 else 0 for n in most]
        free[0] += rng.choice([0, 400, 1200])
        return Frames(free=tuple(free), seed=seed, compaction=chance)
    return Frames(rng.choice([4, 8, 8, 12, 16]) << 20, rng.choice([0, 2, 10, 30]), (), seed, chance)


def framed(rng: random.Random, limited: bool, compaction: bool = True) -> Lane:
    return replace(random_lane(rng, limited), frames=random_frames(rng, compaction))


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150), mapped=st.booleans())
@settings(max_examples=60)
def test_equals_the_reference(limited: bool, seed: int, operations: int, mapped: bool) -> None:
    workload = parse_workload(random_text(seed, operations, mapped=mapped))
    check(workload, framed(random.Random(seed + 1), limited))
