"""Random cases: the seed decides everything, and every workload is one that jaxswap reads."""

import re

import pytest

from experiments.real_kernel.generate import KINDS, Case, random_case
from experiments.real_kernel.machine import SIZES, parse_mthp, size_in_bytes
from jaxswap.workload import Kind, parse_workload

SEEDS = range(1, 31)
CASES = [random_case(seed) for seed in SEEDS]
OF_MORE_THAN_ONE_PROCESS_OR_CPU = ("fork", "cpus")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_workload_is_read(case: Case) -> None:
    if case.kind in OF_MORE_THAN_ONE_PROCESS_OR_CPU and not hasattr(Kind, "FORK"):
        pytest.skip("jaxswap's reader knows no processes and CPUs yet")
    workload = parse_workload(case.workload, case.name)
    assert workload.npages == case.pages
    assert len(workload) >= case.operations


def test_the_seed_decides() -> None:
    assert random_case(7) == random_case(7)
    assert random_case(7, ("flags",)) == random_case(7, ("flags",))
    assert len({case.workload for case in CASES}) == len(CASES)


def test_the_seeds_vary_what_they_should() -> None:
    assert {case.kind for case in CASES} == set(KINDS)
    assert max(case.pages for case in CASES) > 29000 and min(case.pages for case in CASES) < 700
    assert max(case.operations for case in CASES) == 12000
    sizes = {int(word.rstrip("m")) for case in CASES for word in case.machine.mthp.split()}
    assert sizes == set(SIZES)
    assert any("m" in case.machine.mthp for case in CASES)
    slots = [size_in_bytes(device.size) // 4096 for case in CASES for device in case.machine.swap]
    assert any(count % 512 for count in slots) and any(count % 512 == 0 for count in slots)
    tight = [c for c in CASES if sum(size_in_bytes(d.size) // 4096 for d in c.machine.swap) < c.pages]
    assert tight, "no device is too small"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_machines_are_in_normal_form(case: Case) -> None:
    assert parse_mthp(case.machine.mthp) == case.machine.mthp
    assert case.machine.cpus == (2 if case.kind == "cpus" else 1)
    assert len(case.machine.swap) == (2 if case.kind == "devices" else 1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_labels_are_unique(case: Case) -> None:
    blocks = re.findall(r"^(?:p\d+ )?((?:DUMP|FOLIOS|STATS) \S+)$", case.workload, re.MULTILINE)
    assert len(blocks) == len(set(blocks))


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "fork"], ids=lambda case: case.name)
def test_only_living_processes_act(case: Case) -> None:
    living = {0}
    for line in case.workload.splitlines():
        prefix = re.match(r"p(\d+) ", line)
        process = int(prefix[1]) if prefix else 0
        assert process in living, line
        words = line.split()[1 if prefix else 0 :]
        if words[0] == "FORK":
            assert int(words[1]) not in living and 1 <= int(words[1]) <= 15
            living.add(int(words[1]))
        elif words[0] == "EXIT":
            living.remove(process)
    assert len(living) <= 5
