"""Lanes are machines of their own: what one counts depends on no other, whatever the groups or chunks."""

import random
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.machine import COUNTERS, Lane, replay_lanes
from jaxswap.machine.lane import DEFRAG
from jaxswap.machine.replay import Replay, replay_each, replay_one
from jaxswap.policy import POLICIES
from jaxswap.workload import Workload, parse_workload
from tests.machine.workloads import random_text

LANES = 8
SWAP = 4000 * 4096
FIRST = ("clairvoyant", "ask", "split_sparse")
OTHERS = [name for name in POLICIES if name not in FIRST]


def random_lanes(seed: int) -> list[Lane]:
    """Lanes that differ in sizes, heuristic and its parameters, and limit.

    All have one program: the first lane knows the accesses to come, the next looks further, the third splits.
    """
    rng = random.Random(seed)
    lanes = []
    for number in range(LANES):
        sizes = [size for size in (16, 32, 64, 128, 256, 1024, 2048) if rng.random() < 0.5]
        policy = FIRST[number] if number < len(FIRST) else OTHERS[(number + seed) % len(OTHERS)]
        params = {param.name: rng.randint(param.low, min(param.high, 8)) for param in POLICIES[policy].params}
        limit = rng.choice([None, rng.randint(80, 1200) * 4096])
        mthp = " ".join(f"{size}{rng.choice(['', '', 'm'])}" for size in sizes)
        lanes.append(Lane(mthp, policy, params, limit, swap=SWAP))
    return lanes


def workload_of(seed: int) -> Workload:
    return parse_workload(random_text(seed, 110, mapped=seed % 3 == 0), name=f"random-{seed}")


def differing(ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    return [f"lane {lane} {COUNTERS[column]}" for lane, column in np.argwhere(ours != theirs)[:5]]


@given(seed=st.integers(0, 2**31))
@settings(max_examples=12)
def test_lock_step_equals_one_by_one(seed: int) -> None:
    """Groups of one lane and of four in lock step, over the devices there are."""
    workload, lanes = workload_of(seed), random_lanes(seed)
    alone, together = (replay_lanes(workload, lanes, width=width) for width in (1, 4))
    assert not differing(alone.counters, together.counters)
    assert np.array_equal(alone.oom, together.oom)
    assert alone.counter("pswpout").any()


@pytest.mark.slow
@pytest.mark.parametrize("lru", ["classic", "mglru"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_lock_step_equals_one_by_one_under_every_limit(lru: str, seed: int) -> None:
    rng = random.Random(seed)
    lanes = [
        replace(
            lane,
            lru=lru,
            high=rng.choice([None, rng.randint(2100, 2600) * 4096]),
            swap_max=rng.choice([None, rng.randint(200, 1500) * 4096]),
            swappiness=rng.randint(0, 200),
            defrag=rng.choice(list(DEFRAG)),
            flush=rng.choice([0, None, 50]),
            switch=rng.choice([0, 20]) if lru == "classic" else 0,
            phase=rng.randint(0, 60),
        )
        for lane in random_lanes(seed)
    ]
    lanes[0] = replace(lanes[0], mthp="16 64", limit=900 * 4096, high=600 * 4096)
    alone, together = (replay_lanes(workload_of(seed), lanes, width=width) for width in (1, 4))
    assert not differing(alone.counters, together.counters)
    assert np.array_equal(alone.oom, together.oom)


def test_each_of_several_replays_is_the_one_of_its_lane() -> None:
    """Blocks too; one of them is killed on the way, where its blocks end."""
    text = "REGION 1024 huge\nINIT\nSTATS a\nUNI 0 1024 3000 307 9\nDUMP b\nSTATS b\n"
    workload = parse_workload(text)
    roomy = Lane("64", limit=2 << 20, swap=8 << 20)
    lanes = [roomy, replace(roomy, swap_max=1 << 20), replace(roomy, switch=7, phase=3)]
    each = replay_each(workload, lanes)
    assert [one.oom for one in each] == [False, True, False]
    assert len({str(one.blocks) for one in each}) == 3
    for lane, one in zip(lanes, each, strict=True):
        alone = replay_one(workload, lane)
        assert (one.blocks, one.counters, one.oom) == (alone.blocks, alone.counters, alone.oom)


def test_the_lanes_of_these_tests_differ() -> None:
    """Most heuristics and limits show in the counters: equal results do not come from equal lanes."""
    counters = replay_lanes(workload_of(1), random_lanes(1), width=1).counters
    assert len({tuple(row) for row in counters.tolist()}) >= LANES - 1


@pytest.mark.parametrize("seed", range(4))
def test_a_lane_does_not_depend_on_the_others(seed: int) -> None:
    workload, lanes = workload_of(seed), random_lanes(seed)
    found = replay_lanes(workload, lanes, width=1).counters
    order = random.Random(seed).sample(range(LANES), LANES)
    shuffled = replay_lanes(workload, [lanes[i] for i in order], width=1).counters
    assert not differing(found[order], shuffled)
    strangers = [lanes[0], *random_lanes(seed + 100)[1:]]
    assert not differing(found[:1], replay_lanes(workload, strangers, width=1).counters[:1])


@pytest.mark.parametrize("seed", range(4))
def test_in_lock_step_a_lane_does_not_depend_on_the_others(seed: int) -> None:
    workload, lanes = workload_of(seed), random_lanes(seed)
    found = replay_lanes(workload, lanes, width=4).counters
    order = random.Random(seed).sample(range(LANES), LANES)
    shuffled = replay_lanes(workload, [lanes[i] for i in order], width=4).counters
    assert not differing(found[order], shuffled)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("seed", range(2))
def test_chunks_do_not_matter(seed: int, width: int) -> None:
    """One call for all operations, one for each, and calls of random length."""
    workload, lanes = workload_of(seed + 20), random_lanes(seed + 20)
    whole = replay_lanes(workload, lanes, width=width)
    replay, rng = Replay(workload, lanes, width=width), random.Random(seed)
    at = 0
    while at < replay.compiled.ops:
        stop = min(at + rng.choice([1, 1, 2, 5, 30]), replay.compiled.ops)
        replay.advance(at, stop)
        at = stop
    assert not differing(whole.counters, replay.result().counters)
    assert np.array_equal(whole.oom, replay.oom())


def test_progress_counts_lane_operations_between_chunks() -> None:
    workload, lanes = workload_of(40), random_lanes(40)
    seen: list[tuple[int, int]] = []
    whole = replay_lanes(workload, lanes, width=1)
    with mock.patch("jaxswap.machine.replay.CHUNK", 25), mock.patch("jaxswap.machine.replay.FEW", 1):
        found = replay_lanes(
            workload, lanes, progress=lambda done, total: seen.append((done, total)), width=1
        )
    assert not differing(whole.counters, found.counters)
    done, totals = zip(*seen, strict=True)
    assert len(seen) > 3 and set(totals) == {done[-1]} and done[0] == 0
    assert list(done) == sorted(set(done)) and done[-1] % LANES == 0


def test_few_lanes_fill_the_groups_up() -> None:
    """Five lanes in groups of four over the devices: the fillers are counted nowhere."""
    workload, lanes = workload_of(3), random_lanes(3)
    every = replay_lanes(workload, lanes, width=4).counters
    assert not differing(every[:5], replay_lanes(workload, lanes[:5], width=4).counters)


def test_a_lane_whose_statistics_are_flushed_too_seldom_is_killed_though_swap_is_free() -> None:
    """The kernel's false out-of-memory kill: every folio is active, and by the last flush enough are not."""
    workload = parse_workload("REGION 16384 huge\nINIT\nHOT 0 4096 922 25000 307 401\n")
    stale = Lane("64", limit=32 << 20, swap=256 << 20, flush=1500)
    result = replay_lanes(workload, [stale, replace(stale, flush=0)])
    assert result.oom.tolist() == [True, False]
    swapped = result.counter("pswpout") - result.counter("pswpin")
    assert (swapped > 0).all() and (4 * swapped < stale.slots).all()
