"""Several cgroups: the JAX machine equals the plain-Python one state for state; what is refused."""

import dataclasses
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.described import machine_of, of_recording
from jaxswap.errors import InputError
from jaxswap.machine import Lane, replay_one
from jaxswap.machine.replay import Replay
from jaxswap.workload import parse_workload, read_recording, read_workload
from tests.machine.test_processes import check, some_lane
from tests.machine.workloads import TORN_PAGES, random_forks, torn_text

DATA = Path(__file__).parents[1] / "data" / "recordings"
NAMES = ("a", "b", "c")
# Pages 16 to 31 lie in slots 16 to 31, which two cgroups have paid for.
MIXED = "REGION 64 nohuge\nCGROUP a\nFILL 1 23\nCGROUP b\nFILL 24 8\nPAGEOUT 1 31\nMADVHUGE 0 64\nREAD 16\n"


def limits_for(seed: int, names: tuple[str, ...]) -> dict[str, int]:
    """A limit for most of the cgroups."""
    rng = random.Random(seed)
    return {name: rng.randint(40, 300) * 4096 for name in names if rng.random() < 0.8}


def limited(seed: int, names: tuple[str, ...]) -> Lane:
    return dataclasses.replace(some_lane(seed, 200, False), limits=limits_for(seed, names))


@pytest.mark.parametrize("profile", ["7.3", pytest.param("7.2", marks=pytest.mark.slow)])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 120), several=st.integers(2, 3))
@settings(max_examples=20)
def test_equals_the_reference(profile: str, seed: int, operations: int, several: int) -> None:
    names = NAMES[:several]
    text = random_forks(seed, operations, places=True, cgroups=names)
    check(text, limited(seed, names), profile)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_equals_the_reference_on_long_workloads(seed: int) -> None:
    text = random_forks(seed, 600, places=True, cgroups=NAMES)
    check(text, limited(seed, NAMES), "7.3")


@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
@settings(max_examples=6)
def test_equals_the_reference_where_the_deferred_split_lists_are_scanned(seed: int) -> None:
    rng = random.Random(seed)
    region, *torn = torn_text(seed).splitlines()
    lines = [region, "FORK 1", "CGROUP a", "p1 CGROUP b"]
    other = [f"p1 {line}" for line in torn_text(seed + 1).splitlines()[1:]]
    for both in itertools.zip_longest(torn, other):
        lines += [line for line in both if line]
    limits = {name: (TORN_PAGES + rng.randint(10, 200)) * 4096 for name in ("a", "b")}
    lane = Lane("16", swap=rng.choice([700, 8000]) * 4096, swappiness=rng.choice([0, 60]), limits=limits)
    check("\n".join(lines) + "\n", lane, "7.3")


@pytest.mark.slow
def test_slots_of_two_cgroups_do_not_come_back_together() -> None:
    """The second check refuses the range once the folio is there."""
    workload = parse_workload(MIXED)
    replay = Replay(workload, [Lane("32 64")], devices=1)
    replay.advance(0, replay.compiled.ops)
    result = replay.result()
    assert result.counter("refused/swapin/memcg/64kB")[0] == 1
    assert result.counter("64kB/swpin_fallback")[0] == result.counter("thrown_folios")[0] == 1
    assert result.counter("32kB/swpin")[0] == 1 and result.counter("pswpin")[0] == 8


@pytest.mark.slow
def test_memory_of_each_cgroup_equals_the_kernel() -> None:
    """memory.current of both at every STATS."""
    workload = read_workload(DATA / "workloads" / "cgroups-2.t.gz")
    real = read_recording(DATA / "7.3.4" / "cgroups-2.txt.gz")
    lane, profile = machine_of(of_recording(real))
    assert lane.limits == {"a": 4 << 20, "b": 3200 << 10}
    one = replay_one(workload, lane, profile)
    ours = [content for kind, _, content in one.blocks if kind == "STATS"]
    files = [f"{name}/memory.current" for name in workload.cgroups]
    theirs = [{file: groups[file] for file in files} for _, groups in real.stats()]
    assert [{file: groups[file] for file in files} for groups in ours] == theirs


def test_one_cgroup_has_nothing_of_several() -> None:
    replay = Replay(parse_workload("REGION 64 plain\nFORK 1\nFILL 0 64\n"), [Lane(limit=1 << 20)])
    assert replay.states.cgroups is None and replay.params.limits is None


@pytest.mark.parametrize(
    ("lane", "message"),
    [
        (Lane(limit=1 << 20), r"limit: the workload names cgroups \(CGROUP a\), .* write a=32M"),
        (Lane(swap_max=1 << 20), "limit: the workload names cgroups"),
        (Lane(limits={"web": 1 << 20}), "limit: the workload names no cgroup web; it names a, b"),
        (Lane(limits={"a": 100}), "limit of cgroup a: 100 bytes; memory.max is at least one page"),
        (Lane(limits={"a": 1 << 20}, lru="mglru"), "lru: .* several processes, cgroups or CPUs.* classic"),
    ],
)
def test_what_is_refused(lane: Lane, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Replay(parse_workload(MIXED), [lane])


@pytest.mark.parametrize("profile", ["6.12", "7.1"])
def test_older_rules_are_refused(profile: str) -> None:
    """There a change of cgroup ends a run of swap entries, which is not modelled."""
    with pytest.raises(
        InputError, match=rf"^w:2: CGROUP is not modelled with the rules of {profile}; take 7.2"
    ):
        Replay(parse_workload(MIXED, "w"), [Lane()], profile)
