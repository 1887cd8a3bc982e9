"""Workloads compiled: VMAs over time, page tables given back, settings."""

import re

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.machine import Lane, replay_one
from jaxswap.machine import program as p
from jaxswap.machine.program import compile_workload
from jaxswap.machine.settings import THP
from jaxswap.machine.vmas import Vmas
from jaxswap.workload import parse_workload


def edges(vmas: Vmas) -> list[tuple[int, int]]:
    return [(vma.start, vma.end) for vma in vmas.live]


def mapped(*advised: tuple[int, int, str]) -> Vmas:
    vmas = Vmas()
    vmas.map(0, 1024, "plain")
    for start, end, advice in advised:
        vmas.advise(start, end, advice)
    return vmas


def test_equal_advice_merges_what_was_never_written() -> None:
    vmas = mapped((0, 512, "huge"))
    assert edges(vmas) == [(0, 512), (512, 1024)]
    vmas.advise(512, 1024, "huge")
    assert edges(vmas) == [(0, 1024)]


@pytest.mark.parametrize(("written", "parts"), [((0,), 1), ((1,), 1), ((0, 1), 2)])
def test_two_anon_vmas_stay_apart(written: tuple[int, ...], parts: int) -> None:
    vmas = mapped((0, 512, "huge"))
    vmas.write(written)
    vmas.advise(512, 1024, "huge")
    assert len(vmas.live) == parts


def test_parts_of_a_written_vma_share_its_anon_vma() -> None:
    vmas = mapped()
    vmas.write([0])
    vmas.advise(0, 512, "huge")
    vmas.advise(512, 1024, "huge")
    assert edges(vmas) == [(0, 1024)]


def test_a_mapping_grown_over_pages_keeps_their_anon_vma() -> None:
    vmas = mapped()
    vmas.write([0])
    anon = vmas.live[0].anon
    vmas.map(0, 2048, "plain")
    assert edges(vmas) == [(0, 2048)] and vmas.live[0].anon == anon


def test_reads_give_no_anon_vma() -> None:
    """Two VMAs, one read and one written, become one: a folio may span their old border."""
    text = "REGION 64 plain\nMADVHUGE 0 8\n{}\nTOUCH 30\nMADVHUGE 8 56\nDONTNEED 0 16\nTOUCH 4\nFOLIOS end\n"
    for first, folio in (("READ 3", ("F", 0, 16)), ("TOUCH 3", ("s", 4, 1))):
        replay = replay_one(parse_workload(text.format(first)), Lane("64"))
        assert replay.blocks[-1][2][0][:3] == folio, first


def kinds(text: str) -> list[int]:
    compiled = compile_workload(parse_workload(text))
    return np.asarray(compiled.program.kind)[: compiled.ops].tolist()


def test_a_new_border_inside_a_block_splits_its_mapping_once() -> None:
    advice = "MADVHUGE 100 100\n"
    assert kinds(f"REGION 1024 plain\n{advice}") == [p.SPLIT]
    assert kinds(f"REGION 1024 plain\n{advice}{advice}MADVHUGE 150 400\n") == [p.SPLIT, p.SPLIT]
    assert kinds("REGION 1024 plain\nMADVHUGE 512 512\n") == []


def test_settings_are_operations_that_count_for_nothing() -> None:
    text = f"REGION 64 plain\nSET {THP}enabled never\nSET /sys/module/zswap/parameters/enabled N\nZERO 0 9\n"
    assert kinds(text) == [p.SET, p.ZERO]
    assert compile_workload(parse_workload(text)).lane_operations == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{THP}hugepages-8kB/enabled", "always"),
        (f"{THP}hugepages-64kB/enabled", "sometimes"),
        (f"{THP}enabled", "inherit"),
        (f"{THP}defrag", "never"),
        ("/proc/sys/vm/page-cluster", "32"),
        ("/sys/module/zswap/parameters/enabled", "maybe"),
        ("/sys/kernel/mm/swap/vma_ra_enabled", "1"),
    ],
)
def test_other_settings_are_refused_before_anything_runs(path: str, value: str) -> None:
    with pytest.raises(InputError) as raised:
        compile_workload(parse_workload(f"REGION 64 plain\nTOUCH 1\nSET {path} {value}\n", name="w.t"))
    said = str(raised.value)
    assert said.startswith(f"w.t:3: SET {path} {value}: ") and "\n" not in said
    assert re.search(r"hugepages-SIZEkB/enabled .*page-cluster", said)


def test_inherit_follows_the_global_switch() -> None:
    size = f"{THP}hugepages-64kB/enabled"
    text = f"REGION 128 plain\nMADVHUGE 64 64\nSET {size} inherit\nSET {THP}enabled {{}}\n"
    text += "TOUCH 0\nTOUCH 64\nFOLIOS end\n"
    for mode, plain, huge in (("always", 16, 16), ("madvise", 1, 16), ("never", 1, 1)):
        shown = replay_one(parse_workload(text.format(mode)), Lane("")).blocks[-1][2]
        assert [run[2] for run in shown] == [plain, huge], mode
