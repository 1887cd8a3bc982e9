"""2 MiB folios and sizes set in mid-run: recordings up to their first FORK, random workloads, small cases."""

import random
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.machine import Lane, replay_one
from jaxswap.machine.compare import compare_blocks
from jaxswap.machine.profile import PROFILES
from jaxswap.workload import Kind, Workload, parse_workload, read_recording, read_workload
from tests.machine.test_against_reference import check, random_lane
from tests.machine.workloads import random_text

DATA = Path(__file__).parents[1] / "data" / "recordings"
KERNELS = ["7.3.4", "7.2.12"]
KEPT = replace(PROFILES["7.3"], keep_huge_zero=True, reclaim_tables=False)


def before_fork(workload: Workload) -> Workload:
    """The operations before the first that needs a second process."""
    forks = np.flatnonzero(workload.kind >= Kind.FORK)
    stop = int(forks[0]) if len(forks) else len(workload)
    columns = {name: getattr(workload, name)[:stop] for name in ("kind", "v", "n", "line", "process", "cpu")}
    text = {i: label for i, label in workload.text.items() if i < stop}
    return replace(workload, text=text, **columns)


@pytest.mark.parametrize("name", ["huge-1", "huge-2", "huge-3", "set-1"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_kernel(kernel: str, name: str) -> None:
    workload = before_fork(read_workload(DATA / "workloads" / f"{name}.t.gz"))
    recording = read_recording(DATA / kernel / f"{name}.txt.gz")
    _, size = recording.header["swap"].split()
    lane = Lane(recording.header["mthp"], swap=int(size.removesuffix("M")) << 20)
    replay = replay_one(workload, lane, kernel.rpartition(".")[0])
    shown = replace(recording, blocks=recording.blocks[: len(replay.blocks)])
    found = compare_blocks(replay.blocks, shown)
    assert found.equal, str(found)
    assert found.maps[1] >= 56 and found.folios[1] >= 56
    assert replay.counters["2048kB/swpout"] > 0


def huge_lane(rng: random.Random, limited: bool) -> Lane:
    """A lane with 2 MiB folios, under limits around their size."""
    lane = random_lane(rng, limited)
    sizes = " ".join(word for word in lane.mthp.split() if not word.startswith("2048"))
    limit = rng.randint(400, 2000) * 4096 if limited else None
    return replace(lane, mthp=f"{sizes} 2048{rng.choice(['', 'm'])}", limit=limit)


@pytest.mark.parametrize("profile", ["7.3", "kept"])
@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@given(seed=st.integers(0, 2**32), mapped=st.booleans())
@settings(max_examples=25)
def test_equals_the_reference(limited: bool, profile: str, seed: int, mapped: bool) -> None:
    """`kept`: with a 2 MiB zero page that is split by a write, and page tables that stay."""
    with mock.patch.dict(PROFILES, {"kept": KEPT}):
        workload = parse_workload(random_text(seed, 150, mapped=mapped))
        check(workload, huge_lane(random.Random(seed), limited), profile)


def shown(text: str, limit: int | None = None, swap: int = 64 << 20) -> tuple[list, dict[str, int]]:
    """What FOLIOS shows at the end, and the counters."""
    replay = replay_one(parse_workload(text + "FOLIOS end\n"), Lane("2048", limit=limit, swap=swap))
    return [run[:3] for run in replay.blocks[-1][2]], replay.counters


def test_one_fault_a_block() -> None:
    folios, n = shown("REGION 1024 plain\nFILL 0 1024\n")
    assert folios == [("F", 0, 512), ("F", 512, 512)] and n["faults"] == 2
    assert n["2048kB/anon_fault_alloc"] == 2


def test_a_read_maps_the_zero_page_and_a_write_replaces_it() -> None:
    assert shown("REGION 1024 plain\nREAD 7\nREAD 500\n")[0] == [("F", 0, 512)]
    folios, n = shown("REGION 1024 plain\nREAD 7\nTOUCH 9\n")
    assert folios == [("F", 0, 512)]
    assert (n["faults"], n["useless_touch"]) == (2, 511)


def test_a_part_given_back_leaves_the_rest() -> None:
    text = "REGION 512 plain\nFILL 0 512\nDONTNEED 8 8\n"
    assert shown(text)[0] == [("F", 0, 8), *(("TAIL", v, 1) for v in range(16, 512))]
    assert shown("REGION 512 plain\nREAD 0\nDONTNEED 8 8\n")[0] == [("s", 0, 8), ("s", 16, 496)]


def test_no_table_back_no_second_folio() -> None:
    """A page table that stays keeps 2 MiB folios away; the rule is the kernel version's."""
    text = "REGION 512 plain\nTOUCH 0\nPAGEOUT 0 512\nDONTNEED 0 512\nTOUCH 0\nFOLIOS end\n"
    for rules, folio in ((PROFILES["7.3"], ("F", 0, 512)), (KEPT, ("s", 0, 1))):
        with mock.patch.dict(PROFILES, {"kept": rules}):
            replay = replay_one(parse_workload(text), Lane("2048"), "kept")
        assert [run[:3] for run in replay.blocks[-1][2]] == [folio]


def test_a_folio_without_512_slots_is_split() -> None:
    _, n = shown("REGION 512 plain\nFILL 0 512\nPAGEOUT 0 512\n", swap=512 * 4096)
    assert (n["2048kB/swpout_fallback"], n["2048kB/split"], n["pswpout"]) == (1, 1, 511)


def test_a_refused_charge_falls_back() -> None:
    _, n = shown("REGION 512 plain\nTOUCH 0\n", limit=300 * 4096)
    assert n["2048kB/anon_fault_fallback"] == n["2048kB/anon_fault_fallback_charge"] == 1
    assert n["2048kB/anon_fault_alloc"] == 0 and n["faults"] == 1
