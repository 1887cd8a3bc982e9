"""Swap devices other than plain zram, and zswap: the JAX machine equals the plain-Python one and kernels."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.machine import Lane, replay_one
from jaxswap.machine.lane import swap_devices
from jaxswap.machine.program import STREAM, WORKER, compile_workload
from jaxswap.machine.replay import Replay
from jaxswap.machine.settings import PAGE_CLUSTER, VMA_READAHEAD, ZSWAP
from jaxswap.validate import hold
from jaxswap.workload import parse_workload
from tests.machine.test_against_reference import counters_differ, reference_of, run_reference
from tests.machine.test_processes import check, some_lane
from tests.machine.workloads import random_forks
from tests.reference.run import dump

DATA = Path(__file__).parents[1] / "data" / "recordings"
RECORDINGS = (
    *((kernel, f"readahead-{i}") for kernel in ("6.18.15", "7.3.4") for i in range(1, 8)),
    *((kernel, "discard-1") for kernel in ("6.18.15", "7.3.4")),
    *((kernel, "zswap-1") for kernel in ("7.2.12", "7.3.4")),
)
DEVICES = ("virtio", "virtio", "virtio rotational", "zram discard", "virtio discard", "zram")
PARTED = ("virtio", "virtio rotational", "zram", "zram discard")


def with_settings(text: str, rng: random.Random) -> str:
    """A workload in which readahead and zswap are switched now and then."""
    lines = text.splitlines()
    for _ in range(rng.choice([0, 0, 1, 3])):
        file, values = rng.choice(
            [(PAGE_CLUSTER, list("012345")), (VMA_READAHEAD, ["true", "false"]), (ZSWAP, ["Y", "N"])]
        )
        lines.insert(rng.randint(1, len(lines)), f"SET {file} {rng.choice(values)}")
    return "\n".join(lines) + "\n"


def device_lane(seed: int, pages: int, limited: bool) -> Lane:
    """A lane with one device of some kind."""
    rng, lane = random.Random(seed), some_lane(seed, pages, limited)
    kind, *options = rng.choice(DEVICES).split()
    device = dataclasses.replace(
        lane.devices[0], kind=kind, rotational="rotational" in options, discard="discard" in options
    )
    return dataclasses.replace(
        lane, swaps=(device,), page_cluster=rng.choice([3, 3, 0, 1, 2, 4, 5, 6]), zswap=rng.random() < 0.2
    )


def random_case(
    seed: int, operations: int, limited: bool, pages: int = 200, alone: bool = False
) -> tuple[str, Lane]:
    rng = random.Random(seed)
    processes = 0 if alone else rng.choice([0, 4])
    text = random_forks(seed, operations, pages=pages, processes=processes)
    return with_settings(text, rng), device_lane(seed, pages, limited)


@pytest.mark.parametrize("profile", ["6.18", pytest.param("7.0", marks=pytest.mark.slow), "7.3"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 120), limited=st.booleans())
@settings(max_examples=25)
def test_equals_the_reference(profile: str, seed: int, operations: int, limited: bool) -> None:
    check(*random_case(seed, operations, limited), profile)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), limited=st.booleans())
@settings(max_examples=10)
def test_equals_the_reference_with_2_mib(seed: int, limited: bool) -> None:
    text, lane = random_case(seed, 100, limited, pages=1100, alone=True)
    check(text, dataclasses.replace(lane, mthp=" ".join({*lane.mthp.split(), "2048"} - {"2048m"})), "7.3")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_equals_the_reference_on_long_workloads(seed: int) -> None:
    check(*random_case(seed, 600, seed % 2 == 0), ("6.18", "7.2", "7.3")[seed % 3])


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 120))
@settings(max_examples=15)
def test_devices_of_several_kinds(seed: int, operations: int) -> None:
    rng = random.Random(seed)
    text, lane = random_case(seed, operations, False, alone=True)
    swap = ", ".join(
        f"{kind} {rng.choice(['400K', '2M', '3M'])}{rng.choice(['', ' pri 5'])} {options}"
        for kind, _, options in (rng.choice(PARTED).partition(" ") for _ in range(rng.randint(2, 3)))
    )
    lane = dataclasses.replace(lane, swaps=swap_devices(swap))
    profile = rng.choice(["6.18", "7.3"])
    workload = parse_workload(f"{text}DUMP end\n")
    if not lane.special:
        return
    one = replay_one(workload, lane, profile)
    machine = reference_of(workload, lane, profile)
    run_reference(workload, machine)
    assert one.blocks[-1][2] == dump(machine.processes[0])
    wrong = counters_differ(machine, one.counters)
    assert not wrong, wrong


@pytest.mark.parametrize(("kernel", "name"), RECORDINGS)
def test_equals_the_kernel(kernel: str, name: str) -> None:
    held = hold(DATA / "workloads" / f"{name}.t.gz", DATA / kernel / f"{name}.txt.gz")
    assert held.found is not None, held.refused
    assert held.found.equal, str(held.found)
    assert held.found.maps[1] >= 16 and held.found.counters[1] >= 66


# What 7.3.4 counted with page-cluster and vma_ra_enabled: pswpin, pgmajfault, swap_ra, swap_ra_hit after all
# pages in order, after 1024 at random from none, after all again.
COUNTED = {
    (0, "true"): ((0, 0, 0, 0), (887, 887, 0, 0), (4096, 4096, 0, 0)),
    (0, "false"): ((8192, 8192, 0, 0), (9079, 9079, 0, 0), (12288, 12288, 0, 0)),
    (3, "true"): (
        (16384, 12802, 3582, 3582), (17282, 13689, 3593, 3582), (20480, 14336, 6144, 6144),
    ),
    (3, "false"): (
        (24576, 14849, 9727, 9727), (25467, 15736, 9731, 9727), (28672, 16285, 12387, 12387),
    ),
    (5, "true"): (
        (32768, 16418, 16350, 16350), (33733, 17295, 16438, 16360), (36864, 17741, 19123, 19123),
    ),
    (5, "false"): (
        (40960, 17872, 23088, 23088), (41876, 18758, 23118, 23089), (45056, 19026, 26030, 26030),
    ),
}  # fmt: skip


def test_a_disk_equals_the_kernel_in_order_and_at_random() -> None:
    lines = ["REGION 4096 huge", "INIT"]
    out = ["PAGEOUT 0 4096"] * 2
    for cluster, by_vma in COUNTED:
        lines += [f"SET {PAGE_CLUSTER} {cluster}", f"SET {VMA_READAHEAD} {by_vma}", *out]
        lines += ["SEQ 0 4096 1 0 11", "STATS seq", *out, "UNI 0 4096 1024 0 12", "STATS rnd"]
        lines += ["SEQ 0 4096 1 0 13", "STATS fill"]
    workload, lane = parse_workload("\n".join(lines) + "\n"), Lane(swaps=swap_devices("virtio 128M"))
    shown = [block[2]["vmstat"] for block in replay_one(workload, lane).blocks]
    names = ("pswpin", "pgmajfault", "swap_ra", "swap_ra_hit")
    counted = [tuple(group.get(name, 0) for name in names) for group in shown]
    assert counted == [row for rows in COUNTED.values() for row in rows]
    assert shown[-1]["pswpout"] == 4096


@pytest.mark.slow
def test_lanes_side_by_side_come_out_as_one_by_one() -> None:
    text = random_forks(7, 80)
    workload = parse_workload(text)
    swaps = swap_devices("virtio 2800K discard")
    lanes = [
        dataclasses.replace(
            some_lane(seed, 200, True), swap=700 * 4096, swaps=swaps, page_cluster=seed, zswap=seed == 3
        )
        for seed in range(4)
    ]
    together = Replay(workload, lanes, width=4, devices=1)
    together.advance(0, together.compiled.ops)
    apart = Replay(workload, lanes, width=1, devices=1)
    apart.advance(0, apart.compiled.ops)
    assert (together.result().counters == apart.result().counters).all()
    assert len({tuple(row) for row in apart.result().counters.tolist()}) == 4


def test_workers_run_after_every_operation() -> None:
    workload = parse_workload("REGION 64 plain\nTOUCH 1\nREAD 2\nFILL 0 64\nSTATS end\n")
    compiled = compile_workload(workload, by_page=True, worker=True)
    kinds = np.asarray(compiled.program.kind)[: compiled.ops].tolist()
    assert kinds[:4] == [STREAM, WORKER, STREAM, WORKER] and kinds.count(WORKER) == 3


@pytest.mark.parametrize(
    ("text", "lane", "said"),
    [
        ("READ 1", Lane(swaps=swap_devices("virtio 1M")), r"^swap: virtio 1M is not modelled with"),
        ("READ 1", Lane(zswap=True), r"^zswap: on is not modelled with the rules of 6\.12; take 6\.18"),
        (f"SET {ZSWAP} Y", Lane(), r"^some\.t:2: zswap is not modelled with the rules of 6\.12"),
    ],
)
def test_6_12_says_that_it_has_zram_only(text: str, lane: Lane, said: str) -> None:
    with pytest.raises(InputError, match=said):
        replay_one(parse_workload(f"REGION 8 plain\n{text}\n", "some.t"), lane, "6.12")


@pytest.mark.parametrize(
    ("lane", "said"),
    [
        (Lane(page_cluster=32), "page-cluster: 32"),
        (
            Lane(swaps=(dataclasses.replace(Lane().devices[0], kind="tape"),)),
            "'tape' is none of zram, virtio",
        ),
    ],
)
def test_lanes_that_cannot_be(lane: Lane, said: str) -> None:
    with pytest.raises(InputError, match=said):
        lane.check()
