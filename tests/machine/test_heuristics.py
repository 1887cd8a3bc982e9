"""Heuristics that look further see in the JAX machine what they do in the plain one; others pay nothing."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.machine import Lane, replay_lanes
from jaxswap.machine.heuristic import of_lanes, remembers
from jaxswap.machine.replay import Replay
from jaxswap.policy import POLICIES
from jaxswap.policy.describe import foresees, looks_further, splits
from jaxswap.workload import parse_workload
from tests.machine.shared_states import places
from tests.machine.test_against_reference import NEAR, check, random_lane, reference_of, run_reference
from tests.machine.test_cgroups import NAMES, limits_for
from tests.machine.test_processes import check as check_processes
from tests.machine.workloads import random_forks, random_text

FAR = [name for name, rule in POLICIES.items() if looks_further(rule) and not foresees(rule)]


def far_lane(rng: random.Random, limited: bool) -> Lane:
    """Values of parameters that decide something in a small machine."""
    lane = random_lane(rng, limited, FAR)
    given = dict(lane.policy_params)
    if lane.policy == "density":
        given |= {"least": rng.randint(0, 3), "log2": rng.randint(0, 5)}
    if lane.policy == "refault":
        given["log2"] = rng.choice([0, 0, rng.randint(1, 12)])
    if lane.policy == "zswap_rfc":
        given |= {"young": rng.randint(0, 2), "fill": rng.choice([64, rng.randint(0, 64)])}
    if lane.policy == "linear":
        given = {name: rng.randint(-4, 4) for name in given} | {"bias": rng.randint(0, 8)}
    return dataclasses.replace(lane, policy_params=given)


@pytest.mark.parametrize("lru", ["classic", "mglru"])
@pytest.mark.parametrize("seed", range(24))
def test_equals_the_reference(lru: str, seed: int) -> None:
    lane = dataclasses.replace(far_lane(random.Random(seed), seed % 4 > 0 or lru == "mglru"), lru=lru)
    check(parse_workload(random_text(seed, 150, mapped=seed % 3 == 0)), lane)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_equals_the_reference_of_several_processes(seed: int) -> None:
    rng = random.Random(seed)
    lane = dataclasses.replace(far_lane(rng, False), swap=rng.choice([250, 400, 2600]) * 4096)
    lane = dataclasses.replace(lane, limits=limits_for(seed, NAMES[:2]))
    check_processes(random_forks(seed, 120, places=True, cgroups=NAMES[:2]), lane, "7.3")


def test_the_cgroup_that_is_charged_decides_what_there_is_room_for() -> None:
    """At swap-in the one that paid for the slot, whoever faults; at first touch the process's."""
    lines = ["REGION 1024 plain", "FORK 2", "FORK 3", "CGROUP a", "FILL 0 64", "PAGEOUT 0 64"]
    lines += ["FILL 512 100", "FORK 1", "p1 CGROUP b", *(f"p1 READ {page}" for page in range(0, 64, 16))]
    text = "\n".join([*lines, "p1 FILL 256 64"]) + "\n"
    for looks, fails, refuses in ((0, 4, 0), (1, 0, 4)):
        lane = Lane("16 32 64", "ask", {"charge": looks}, limits={"a": 130 * 4096})
        check_processes(text, lane, "7.3")
        workload = parse_workload(text)
        machine = reference_of(workload, lane)
        run_reference(workload, machine)
        assert machine.n["64kB/swpin_fallback_charge"] == fails
        assert machine.n["refused/swapin/policy/64kB"] == refuses
        # What the other cgroup touches first is had whole either way.
        assert machine.n["64kB/anon_fault_alloc"] == 15


def noted(text: str, lane: Lane) -> tuple[list[int], Counter[int]]:
    """The words of the blocks in the JAX machine, and those in the other."""
    workload = parse_workload(text)
    replay = Replay(workload, [lane], devices=1)
    replay.advance(0, replay.compiled.ops)
    machine = reference_of(workload, lane)
    run_reference(workload, machine)
    words = replay.lane_state().noted
    assert words is not None
    return np.asarray(words)[:, 0].tolist(), machine.policy_blocks


@pytest.mark.parametrize("seed", range(4))
def test_what_is_noted_of_each_block_equals_the_reference(seed: int) -> None:
    lane = dataclasses.replace(random_lane(random.Random(seed), True), mthp="16 64 256", policy="last")
    lane = dataclasses.replace(lane, policy_params={"step": seed % 3, "touch": 1}, limit=600 * 4096)
    ours, theirs = noted(random_text(seed, 150), lane)
    assert {block: word for block, word in enumerate(ours) if word} == {k: v for k, v in theirs.items() if v}
    assert len(set(ours)) > 2


@pytest.mark.slow
def test_processes_share_what_is_noted_of_an_address() -> None:
    text = "REGION 1024 plain\nFORK 1\nFILL 512 64\np1 FILL 600 8\np1 FILL 0 16\n"
    assert len(places(parse_workload(text))) == 2
    ours, theirs = noted(text, Lane("16 64", "last", {"touch": 1}))
    assert ours[:2] == [theirs[0], theirs[1]] and all(ours[:2]) and not any(ours[2:])


def test_every_far_heuristic_decides_otherwise_than_the_kernel_somewhere() -> None:
    lines = ["REGION 2048 plain", "FILL 0 2048"]
    pages = np.random.default_rng(1).integers(0, 2048, 2500)
    text = "\n".join([*lines, *(f"TOUCH {page}" for page in pages)]) + "\n"
    chosen = {
        "headroom": {"shift": 3},
        "zswap_rfc": {"young": 1},
        "linear": {"luck": 1},
        "density": {"least": 5},
    }
    machine = {"mthp": "16 32 64 256", "limit": 900 * 4096, "swap": 3000 * 4096}
    lanes = [Lane(policy=name, policy_params=chosen.get(name, {}), **machine) for name in ("kernel", *FAR)]
    result = replay_lanes(parse_workload(text), lanes)
    rows = {name: tuple(row) for name, row in zip(("kernel", *FAR), result.counters.tolist(), strict=True)}
    assert [name for name in FAR if rows[name] == rows["kernel"]] == []
    assert result.counter("read_ptes")[0] == result.counter("read_slots")[0] == 0
    assert result.counter("read_ptes")[1 + FAR.index("linear")] > 0


@pytest.mark.parametrize("seed", range(16))
def test_who_knows_the_accesses_to_come_equals_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    lane = random_lane(rng, seed % 4 > 0, ["clairvoyant"])
    given = {"log2": rng.choice([3, 8, 12]), "share": rng.choice([0, 25, 60, 100]), "room": seed % 2}
    text = random_text(seed, 150, mapped=seed % 3 == 0)
    check(parse_workload(text), dataclasses.replace(lane, policy_params=given))


def test_who_knows_the_accesses_to_come_wastes_less() -> None:
    lines = ["REGION 2048 plain", "FILL 0 2048"]
    for page in np.random.default_rng(1).integers(0, 128, 300) * 16:
        lines.append(f"READN {page} 16" if page % 3 else f"READ {page}")
    workload = parse_workload("\n".join(lines) + "\n")
    found = {}
    for policy, given in (("kernel", {}), ("clairvoyant", {"log2": 4, "room": 0})):
        machine = reference_of(workload, Lane("16 64", policy, given, limit=900 * 4096, swap=3000 * 4096))
        run_reference(workload, machine)
        found[policy] = machine.final_counters()
    assert found["clairvoyant"]["useless_swapin"] * 4 < found["kernel"]["useless_swapin"]
    assert found["clairvoyant"]["64kB/swpin"] > 30


def test_several_processes_have_nobody_who_knows_the_accesses_to_come() -> None:
    workload = parse_workload("REGION 64 plain\nFORK 1\n")
    with pytest.raises(InputError, match="has none that knows the accesses to come"):
        Replay(workload, [Lane("16", "clairvoyant")])


def test_who_looks_no_further_has_no_part_of_it() -> None:
    """The near heuristics have one program, with neither the words of blocks nor the others' rules."""
    near = tuple(POLICIES[name] for name in NEAR)
    assert of_lanes([POLICIES["kernel"]]) == of_lanes([POLICIES["cap"], POLICIES["kernel"]]) == near
    assert not remembers(near)
    assert of_lanes([POLICIES["density"]]) == tuple(
        rule for rule in POLICIES.values() if not foresees(rule) and not splits(rule)
    )
    assert of_lanes([POLICIES["clairvoyant"]]) == (*near, POLICIES["clairvoyant"])
    assert Replay(parse_workload("REGION 64 plain\n"), [Lane()]).states.noted is None
