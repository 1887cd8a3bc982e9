"""The JAX machine equals the plain-Python one: every page, list, cluster and counter."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.machine import COUNTERS, Lane
from jaxswap.machine.frames import chance_of
from jaxswap.machine.lane import DEFRAG
from jaxswap.machine.profile import PROFILES
from jaxswap.machine.replay import Replay
from jaxswap.policy import POLICIES
from jaxswap.policy.describe import looks_further, splits
from jaxswap.workload import Workload, parse_workload
from tests.machine.kernels import OLDER
from tests.machine.states import differences, of_machine, of_reference
from tests.machine.workloads import TORN_PAGES, random_text, torn_text
from tests.reference.cgroup import Limits
from tests.reference.frames import Frames
from tests.reference.machine import Machine
from tests.reference.run import Runner
from tests.reference.slots import Device


def reference_of(workload: Workload, lane: Lane, profile: str = "7.3") -> Machine:
    """The reference machine of a lane."""
    always, madvise = lane.masks()
    machine = Machine(
        workload.npages,
        always=always,
        madvise=madvise,
        limit=None if lane.limit is None else lane.limit // 4096,
        high=None if lane.high is None else lane.high // 4096,
        swap_max=None if lane.swap_max is None else lane.swap_max // 4096,
        swappiness=lane.swappiness,
        defrag=lane.defrag,
        flush=lane.flush,
        switch=lane.switch,
        phase=lane.phase,
        lru=lane.lru,
        devices=[Device(d.slots, d.priority, d.synchronous, d.rotational, d.discard) for d in lane.devices],
        zswap=lane.zswap,
        page_cluster=lane.page_cluster,
        cpus=max(lane.cpus, int(workload.cpu.max(initial=0)) + 1),
        policy=lane.policy,
        policy_params=tuple(lane.parameters()),
        profile=PROFILES[profile],
        named={
            name: Limits(lane.limits[name] // 4096 if name in lane.limits else None)
            for name in workload.cgroups
        },
    )
    if lane.frames is not None:
        chance = chance_of(lane.frames)
        machine.frames = Frames(lane.frames.start(), lane.frames.seed, chance, lambda: machine.n)
    return machine


def run_reference(workload: Workload, machine: Machine, start: int = 0, stop: int | None = None) -> None:
    """All operations on the reference machine."""
    runner = Runner(workload, machine)
    for i in range(len(workload) if stop is None else stop):
        runner.step(i)


NEAR = [name for name, rule in POLICIES.items() if not looks_further(rule) and not splits(rule)]
"""Heuristics that share a program; the others are tested in test_heuristics.py."""


def random_lane(rng: random.Random, limited: bool, policies: Sequence[str] = NEAR) -> Lane:
    sizes = [16, 32, 64, 128, 256, 1024, 2048]
    mthp = " ".join(f"{size}{rng.choice(['', '', 'm'])}" for size in sizes if rng.random() < 0.5)
    policy = rng.choice(policies)
    params = {param.name: rng.randint(param.low, min(param.high, 8)) for param in POLICIES[policy].params}
    swap = rng.choice([700, 1100, 1536, 2600, 8000]) * 4096
    lane = Lane(mthp, policy, params, swap=swap)
    if not limited:
        return lane
    return replace(
        lane,
        limit=rng.randint(60, 1400) * 4096,
        swap_max=rng.choice([None, None, rng.randint(0, 1600) * 4096]),
        swappiness=rng.choice([60, 60, rng.randint(0, 200)]),
        defrag=rng.choice(["madvise", "madvise", *DEFRAG]),
        flush=rng.choice([0, 0, 0, None, rng.randint(1, 400)]),
    )


def counters_differ(machine: Machine, values: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Counters that the reference machine, at its end, has otherwise."""
    wanted = machine.final_counters()
    return {name: (wanted[name], value) for name, value in values.items() if wanted[name] != value}


def check(workload: Workload, lane: Lane, profile: str = "7.3") -> None:
    replay = Replay(workload, [lane], profile, devices=1)
    replay.advance(0, replay.compiled.ops)
    machine = reference_of(workload, lane, profile)
    run_reference(workload, machine)
    found = differences(of_reference(machine), of_machine(replay.lane_state(), workload.npages))
    assert not found, found[:4]
    values = dict(zip(COUNTERS, replay.result().counters[0].tolist(), strict=True))
    if machine.oom:
        del values["accesses"]
    wrong = counters_differ(machine, values)
    assert not wrong, wrong


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150), mapped=st.booleans())
@settings(max_examples=60)
def test_equals_the_reference(limited: bool, seed: int, operations: int, mapped: bool) -> None:
    workload = parse_workload(random_text(seed, operations, mapped=mapped))
    check(workload, random_lane(random.Random(seed + 1), limited))


@pytest.mark.parametrize("profile", OLDER)
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150), limited=st.booleans())
@settings(max_examples=15)
def test_equals_the_reference_of_every_kernel(
    profile: str, seed: int, operations: int, limited: bool
) -> None:
    text = random_text(seed, operations, mapped=False)
    if not PROFILES[profile].free_after_map:
        # There slots of mapped folios stay in the swap cache, and another machine has them.
        text = "\n".join(line for line in text.splitlines() if not line.startswith("WILLNEED")) + "\n"
    check(parse_workload(text), random_lane(random.Random(seed + 1), limited), profile)


@given(seed=st.integers(0, 2**32), operations=st.integers(1, 300), mapped=st.booleans())
@settings(max_examples=100)
def test_equals_the_reference_with_the_multi_gen_lru(seed: int, operations: int, mapped: bool) -> None:
    workload = parse_workload(random_text(seed, operations, mapped=mapped))
    check(workload, replace(random_lane(random.Random(seed + 1), True), lru="mglru"))


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 300), mapped=st.booleans())
@settings(max_examples=60)
def test_equals_the_reference_with_a_tlb(seed: int, operations: int, mapped: bool) -> None:
    rng = random.Random(seed + 1)
    lane = replace(random_lane(rng, True), switch=rng.choice([1, 7, 40, 300]), phase=rng.randint(0, 400))
    check(parse_workload(random_text(seed, operations, mapped=mapped)), lane)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
def test_equals_the_reference_with_the_multi_gen_lru_on_long_workloads(seed: int) -> None:
    text = random_text(seed, 1200, mapped=seed % 3 == 0)
    check(parse_workload(text), replace(random_lane(random.Random(seed), True), lru="mglru"))


@pytest.mark.slow
@pytest.mark.parametrize("lru", ["classic", "mglru"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 200), mapped=st.booleans())
@settings(max_examples=60)
def test_equals_the_reference_above_memory_high(lru: str, seed: int, operations: int, mapped: bool) -> None:
    rng = random.Random(seed + 1)
    lane = replace(random_lane(rng, True), lru=lru)
    least = max(4 << 10, 4 * max(map(int, lane.mthp.replace("m", "").split()), default=4) << 10)
    lane = replace(lane, high=least + rng.randint(0, 1000) * 4096)
    if rng.random() < 0.5:
        lane = replace(lane, limit=None)
    check(parse_workload(random_text(seed, operations, mapped=mapped)), lane)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
def test_equals_the_reference_on_long_workloads(seed: int) -> None:
    rng = random.Random(seed)
    text = random_text(seed, 1200, mapped=seed % 3 == 0)
    check(parse_workload(text), random_lane(rng, limited=seed % 2 == 0))


@pytest.mark.parametrize("lru", ["classic", "mglru"])
def test_what_willneed_charges_above_memory_high_is_worked_off_at_its_end(lru: str) -> None:
    """On the return to user mode: not after each page as an access does, nor where a 2 MiB block ends."""
    workload = parse_workload(
        "REGION 2048 plain\nFILL 0 2048\nPAGEOUT 0 2048\nWILLNEED 0 1500\nREADN 0 100\n"
    )
    for high in (300, 333, 700):
        check(workload, Lane("", high=high * 4096, lru=lru, swap=8000 * 4096))


@pytest.mark.parametrize("lru", ["classic", "mglru"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_equals_the_reference_where_the_deferred_split_list_is_scanned(lru: str, seed: int) -> None:
    rng = random.Random(seed + 1)
    lane = Lane(
        rng.choice(["16", "16", "32", "16 256"]),
        limit=rng.randint(TORN_PAGES + 10, TORN_PAGES + 200) * 4096,
        swap=rng.choice([64, 700, 8000]) * 4096,
        swappiness=rng.choice([0, 60, 60]),
        flush=rng.choice([0, None]),
        lru=lru,
    )
    check(parse_workload(torn_text(seed)), lane)
