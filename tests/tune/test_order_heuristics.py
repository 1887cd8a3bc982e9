"""The workloads of configs/order_heuristics.toml are what their regime says, and the same wherever made."""

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from experiments.order_heuristics import processes, workloads
from jaxswap.config import parse_policy
from jaxswap.frames import free_blocks
from jaxswap.machine import Lane
from jaxswap.sweep import run
from jaxswap.sweep.space import Candidate
from jaxswap.tune.compare import LEAST_UNITS
from jaxswap.tune.config import TuneConfig, load_tune
from jaxswap.workload import Workload, parse_workload, read_recording, read_workload
from tests.machine.test_against_reference import reference_of, run_reference
from tests.machine.test_processes import check
from tests.reference.machine import Machine

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs/order_heuristics"
FAILED = ("*/frame_refused", "thrown_folios", "*/swpin_fallback")


@pytest.fixture(scope="module")
def search() -> TuneConfig:
    return load_tune(ROOT / "configs/order_heuristics.toml")


def machine_of(search: TuneConfig, name: str, rule: str) -> tuple[Workload, Lane]:
    """A workload of the config and its machine."""
    one = next(one for one in search.workloads if one.choice.name == name)
    job = run.job_of(one.setting, one.choice)
    (lane,) = job.lanes([Candidate(search.reference, parse_policy(rule))], one.setting.lane)
    return job.workload, lane


def replayed(search: TuneConfig, name: str, rule: str = "kernel") -> Machine:
    workload, lane = machine_of(search, name, rule)
    machine = reference_of(workload, lane)
    run_reference(workload, machine)
    assert not machine.oom
    return machine


def total(machine: Machine, *patterns: str) -> int:
    return sum(value for name, value in machine.n.items() if any(fnmatchcase(name, one) for one in patterns))


@pytest.mark.parametrize(
    ("name", "some", "none"),
    [
        ("h-lineage-forked", ("refused/swapin/cached/*", "*/charge_refused"), ("*/frame_refused",)),
        ("h-tree-cgroups", ("*/charge_refused", "*/swpout_fallback"), ("*/frame_refused",)),
        ("h-tree-cached", ("refused/swapin/cached/*", "*/charge_refused"), ("*/frame_refused",)),
        ("h-tree-fragmented", ("64kB/frame_refused", "*/charge_refused"), ("32kB/frame_refused",)),
        ("h-tree-huge", ("refused/swapin/cached/*",), ("*/charge_refused", "*/frame_refused")),
        ("h-tree-fragmented-huge", ("64kB/frame_refused",), ("*/charge_refused",)),
    ],
)
def test_a_regime_fails_by_what_it_is_named_after(
    search: TuneConfig, name: str, some: tuple[str, ...], none: tuple[str, ...]
) -> None:
    """And the rule that asks for all of it does not fail there."""
    machine = replayed(search, name)
    assert all(total(machine, pattern) > 0 for pattern in some)
    assert total(machine, *none) == 0 < total(machine, *FAILED)
    assert total(replayed(search, name, "ask:slots=1"), *FAILED) == 0


def test_two_cgroups_are_at_their_limits_on_one_full_device(search: TuneConfig) -> None:
    machine = replayed(search, "h-tree-cgroups")
    assert machine.swap.free_slots < machine.swap.total // 6
    for name, pages in (("web", 512), ("db", 320)):
        cgroup = machine.cgroups[name]
        assert pages - 64 <= cgroup.current <= pages


def test_judged_regimes_have_units_enough_and_patterns_of_their_own(search: TuneConfig) -> None:
    found = {(one.regime, one.real) for one in search.workloads}
    for regime, real in found:
        both = [
            {one.choice.path for one in search.workloads if (one.regime, one.real, one.held_out) == kind}
            for kind in ((regime, real, False), (regime, real, True))
        ]
        assert len(both[1]) >= LEAST_UNITS and not both[0] & both[1]


def test_a_recorded_program_has_a_device_smaller_than_it_is(search: TuneConfig) -> None:
    one = next(one for one in search.workloads if one.choice.name == "h-tsort-full")
    job = run.job_of(one.setting, one.choice)
    assert job.footprint > job.swap > job.footprint - job.limit


@pytest.mark.parametrize(
    "name", ["tree", "runs-aged", "passes-zero", "ring-cached", "ring-cgroups", "fuzzer-forked"]
)
def test_a_workloads_file_is_what_the_module_makes(name: str) -> None:
    made, kept = parse_workload(workloads.text(name)), read_workload(FOLDER / f"{name}.t.gz")
    for column in ("kind", "v", "n", "process", "cpu"):
        np.testing.assert_array_equal(getattr(made, column), getattr(kept, column))
    assert (made.npages, made.advice, made.text) == (kept.npages, kept.advice, kept.text)


def test_every_workload_has_its_file() -> None:
    made = {f"{name}.t.gz" for name in workloads.names()}
    recorded = {f"{name}.t.gz" for name in ("bzip2", "mawk", "perl")}
    assert {path.name for path in FOLDER.glob("*.t.gz")} == made | recorded


def test_the_free_blocks_are_those_of_a_kernel(search: TuneConfig) -> None:
    """All of 64 kB and more; of the smaller ones, which never run out, one of 32."""
    recording = ROOT / "tests/data/recordings/7.3.4/pressure/fragP-mglru-64-whole0-boot1.txt.gz"
    _, start = next(iter(read_recording(recording).stats()))
    found = free_blocks(start, 4)
    _, lane = machine_of(search, "h-ring-fragmented", "kernel")
    assert lane.frames is not None
    assert lane.frames.free == (*(blocks // 32 for blocks in found[:4]), *found[4:])


@pytest.mark.parametrize(
    ("name", "operations"),
    [pytest.param("lookups-forked", 90, marks=pytest.mark.slow), ("ring-cgroups", 400)],
)
def test_processes_under_a_rule_equal_the_reference(name: str, operations: int) -> None:
    """The beginning, replayed by both machines."""
    lines = workloads.text(name).splitlines()[:operations]
    assert any(line.startswith("p2 ") for line in lines)
    limits = {"web": 1 << 20, "db": 600 << 10}
    lane = Lane("16 32 64", "ask", {"slots": 1}, limits=limits, swap=processes.PAGES * 3 * 4096)
    check("\n".join(lines) + "\n", lane, "7.3")
