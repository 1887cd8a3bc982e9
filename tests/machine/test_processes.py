"""Several processes: the JAX machine equals the plain-Python one and the kernels."""

import dataclasses
import random
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.machine import COUNTERS, Lane, replay_one
from jaxswap.machine.program import compile_workload, places_of
from jaxswap.machine.replay import Replay
from jaxswap.swaptable.clusters import Device
from jaxswap.validate import hold
from jaxswap.workload import parse_workload
from tests.machine.kernels import OLDER, SLOW_6_12
from tests.machine.shared_states import of_machine, of_reference, places
from tests.machine.states import differences
from tests.machine.test_against_reference import counters_differ, random_lane, reference_of, run_reference
from tests.machine.workloads import random_forks, random_text

DATA = Path(__file__).parents[1] / "data" / "recordings"
KERNELS = ("6.12.95", "6.18.15", "7.0.13", "7.1.13", "7.2.12", "7.3.4")
NAMES = ("fork-1", "fork-2", "fork-3", "rand-fork-1", "rand-fork-2")
PROFILES = ("6.12", "6.18", "7.0", "7.1", "7.2", "7.3")


def check(text: str, lane: Lane, profile: str) -> None:
    """Every page, folio, slot, cluster, list and counter is the same on both machines."""
    workload = parse_workload(text)
    replay = Replay(workload, [lane], profile, devices=1)
    if replay.states.sharing is None:
        return
    replay.advance(0, replay.compiled.ops)
    machine = reference_of(workload, lane, profile)
    run_reference(workload, machine)
    state, place = replay.lane_state(), places(workload)
    assert bool(state.oom[0]) == machine.oom
    if machine.oom:
        # The killer's moment is the same; what a fork under way still charges is not looked at.
        return
    groups = 1 + len(workload.cgroups)
    mine = of_machine(state, workload.npages, sorted(place.values()), len(lane.devices), groups)
    found = differences(of_reference(machine, place), mine)
    assert not found, found[:4]
    wrong = counters_differ(machine, dict(zip(COUNTERS, replay.result().counters[0].tolist(), strict=True)))
    assert not wrong, wrong


def some_lane(seed: int, pages: int, limited: bool) -> Lane:
    rng = random.Random(seed)
    lane = random_lane(rng, False)
    # Between 320 and 640 slots 6.12 has slots in hand while swap is more than half full.
    slots = rng.choice([pages * 3 // 4, pages * 3 // 2, pages * 2, pages * 5 // 2, pages * 4, pages * 13])
    limit = rng.randint(60, max(500, pages * 3 // 2)) * 4096 if limited else None
    return dataclasses.replace(lane, swap=slots * 4096, limit=limit)


@pytest.mark.parametrize("profile", [*OLDER, "7.3"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 120), limited=st.booleans())
@settings(max_examples=25)
def test_equals_the_reference(profile: str, seed: int, operations: int, limited: bool) -> None:
    check(random_forks(seed, operations), some_lane(seed, 200, limited), profile)


def several_devices(seed: int, lane: Lane) -> Lane:
    """The lane with its swap cut in two or three devices of some priority."""
    rng = random.Random(seed)
    number = rng.choice([2, 2, 3])
    cuts = [lane.slots // number + rng.randrange(-20, 20) for _ in range(number)]
    swaps = tuple(Device(slots, rng.choice([None, None, 0, 5])) for slots in cuts)
    return dataclasses.replace(lane, swaps=swaps)


@pytest.mark.parametrize("profile", [SLOW_6_12, "6.18", "7.3"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 120), limited=st.booleans())
@settings(max_examples=20)
def test_equals_the_reference_on_cpus_and_devices(
    profile: str, seed: int, operations: int, limited: bool
) -> None:
    text = random_forks(seed, operations, cpus=1 + seed % 3, places=True)
    lane = several_devices(seed, some_lane(seed, 200, limited))
    check(text, dataclasses.replace(lane, cpus=1 + seed % 4), profile)


@pytest.mark.parametrize("profile", [SLOW_6_12, "6.18", "7.3"])
@given(seed=st.integers(0, 2**32), limited=st.booleans())
@settings(max_examples=10)
def test_equals_the_reference_with_2_mib(profile: str, seed: int, limited: bool) -> None:
    lane = some_lane(seed, 1100, limited)
    lane = dataclasses.replace(lane, mthp=" ".join({*lane.mthp.split(), "2048"} - {"2048m"}))
    check(random_forks(seed, 100, pages=1100), lane, profile)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_equals_the_reference_on_long_workloads(seed: int) -> None:
    profile = PROFILES[seed % len(PROFILES)]
    check(random_forks(seed, 600), some_lane(seed, 200, seed % 2 == 0), profile)


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        pytest.param(kernel, name, marks=[pytest.mark.slow] * (name[:4] == "rand" and kernel != "7.3.4"))
        for kernel in KERNELS
        for name in NAMES
    ],
)
def test_equals_the_kernel(kernel: str, name: str) -> None:
    held = hold(DATA / "workloads" / f"{name}.t.gz", DATA / kernel / f"{name}.txt.gz")
    assert held.found is not None, held.refused
    assert held.found.equal, str(held.found)
    assert held.found.maps[1] > 80 and held.found.folios[1] > 80 and held.found.counters[1] > 2000


def test_a_process_alone_is_the_plain_machine() -> None:
    workload = parse_workload("REGION 64 plain\nFILL 0 64\nPAGEOUT 0 64\n")
    assert compile_workload(workload).processes == 1
    assert Replay(workload, [Lane()]).states.sharing is None


@given(seed=st.integers(0, 2**32), operations=st.integers(1, 120), limited=st.booleans())
@settings(max_examples=20)
def test_page_by_page_comes_out_as_row_by_row(seed: int, operations: int, limited: bool) -> None:
    """The two machines are one machine on whatever both can do."""
    workload = parse_workload(random_text(seed, operations, mapped=False) + "DUMP end\nFOLIOS end\n")
    lane = dataclasses.replace(random_lane(random.Random(seed), limited), swap_max=None, flush=0)
    by_row = replay_one(workload, lane)
    with mock.patch("jaxswap.machine.replay.goes_by_page", lambda *_: True):
        assert Replay(workload, [lane]).states.sharing is not None
        by_page = replay_one(workload, lane)
    assert by_page.counters == by_row.counters
    assert by_page.blocks == by_row.blocks


def test_places_are_taken_again() -> None:
    text = "REGION 8 plain\nFORK 3\np3 FORK 5\np3 EXIT\nFORK 3\np5 READ 1\np3 READ 1\n"
    homes, children, processes = places_of(parse_workload(text))
    assert homes.tolist() == [0, 1, 1, 0, 2, 1]
    assert children.tolist() == [1, 2, 0, 1, 0, 0] and processes == 4


@pytest.mark.parametrize("profile", [SLOW_6_12, "7.3"])
def test_lanes_side_by_side_come_out_as_one_by_one(profile: str) -> None:
    workload = parse_workload(random_forks(5, 80, cpus=2, places=True))
    lanes = [dataclasses.replace(some_lane(seed, 200, True), swap=700 * 4096) for seed in range(4)]
    together = Replay(workload, lanes, profile, width=4, devices=1)
    together.advance(0, together.compiled.ops)
    apart = Replay(workload, lanes, profile, width=1, devices=1)
    apart.advance(0, apart.compiled.ops)
    assert (together.result().counters == apart.result().counters).all()
    assert apart.result().counters.any()


def test_an_exit_goes_vma_by_vma() -> None:
    held = hold(DATA / "workloads" / "fork-4.t.gz", DATA / "6.12.95" / "fork-4.txt.gz")
    assert held.found is not None, held.refused
    assert held.found.equal, str(held.found)


@pytest.mark.parametrize("kernel", [pytest.param("6.12.95", marks=pytest.mark.slow), "6.18.15", "7.3.4"])
def test_two_cpus_equal_the_kernel(kernel: str) -> None:
    held = hold(DATA / "workloads" / "cpus-1.t.gz", DATA / kernel / "cpus-1.txt.gz")
    assert held.found is not None, held.refused
    assert held.found.equal, str(held.found)


def test_a_cpu_too_many_is_refused() -> None:
    workload = parse_workload("REGION 8 plain\nREAD 1\n@8 READ 2\n", "some.t")
    with pytest.raises(InputError, match=r"^some\.t:3: @8: a machine has at most 8 CPUs, @0 to @7$"):
        replay_one(workload, Lane())
    with pytest.raises(InputError, match=r"^cpus: 9; a machine has 1 to 8$"):
        Lane(cpus=9).check()
