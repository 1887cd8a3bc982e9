"""Pressure cells: which recordings are boots of one, what they counted, and the bounds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxswap.described import free_of, machine_of, of_recording
from jaxswap.errors import InputError, NotModelled
from jaxswap.machine import Lane
from jaxswap.machine.replay import OneReplay
from jaxswap.pressure import (
    Cell,
    Count,
    bounds,
    cell_of,
    clocked,
    compare_cell,
    counters_of,
    distinct,
    shown_of,
)
from jaxswap.validate import cells, of_boots, pairs
from jaxswap.workload import Recording, parse_workload, write_recording

HEADER = {"kernel": "7.3.4", "mthp": "64", "swap": "zram 8M", "lru": "classic", "memory.max": "1M"}
WORKLOAD = "REGION 512 plain\nINIT\nSTATS init\nUNI 0 512 1000 307 5\nSTATS end\n"


def stats(label: str, major: int, large: int, **memory: int) -> tuple[str, str, dict[str, Any]]:
    """A STATS block with some major faults and swap-ins of 64 kB."""
    groups = {
        "64kB": {"swpin": large, "swpout_fallback": large // 10},
        "vmstat": {"pgmajfault": major + 7},
        "memory.events": {"max": 9},
        "memory.stat": {"pgmajfault": major, **memory},
    }
    return ("STATS", label, groups)


def boot(
    major: int = 1000, large: int = 50, path: str = "uni-classic-64-boot1.txt", **header: str
) -> Recording:
    """A boot whose program had 3 large swap-ins before the workload."""
    blocks = [stats("start", 2, 3), stats("init", 0, 3), stats("end", major, large + 3, pgscan=70)]
    return Recording(path, HEADER | header, blocks)


def cell(*boots: Recording, name: str = "uni-classic-64") -> Cell:
    return cell_of(name, Path("uni.t"), boots)


def replayed(major: int, large: int, labels: Sequence[str] = ("init", "end"), oom: bool = False) -> OneReplay:
    """A replay that ended with these counts."""
    blocks = [stats(label, major, large, pgscan=90) for label in labels]
    return OneReplay(parse_workload(WORKLOAD), Lane(), "7.3", blocks, {}, oom)


def test_counters_are_those_of_the_workload() -> None:
    """By size without what was counted before it; of memory.stat, not of vmstat."""
    found = counters_of(boot(1000, 50))
    assert (found["64kB/swpin"], found["pgmajfault"], found["pswpin"]) == (50, 1000, 0)
    without = replace(boot(), blocks=boot().blocks[1:])
    assert counters_of(without)["64kB/swpin"] == 53
    shown = shown_of(boot(1000, 50))
    assert (shown["pgscan"], shown["memcg_max"], shown["64kB/swpout_fallback"]) == (70, 9, 5)
    assert not shown.keys() & found.keys()


@pytest.mark.parametrize(
    ("name", "lru", "counter", "stale", "share"),
    [
        ("seq-classic-none", "classic", "pgmajfault", False, 0.005),
        ("seqP-classic-64", "classic", "64kB/swpin", True, 0.005),
        ("uni-classic-64", "classic", "64kB/anon_fault_fallback", False, 0.005),
        ("uni-classic-64", "classic", "64kB/anon_fault_fallback_charge", False, 0.005),
        ("uni-classic-64", "classic", "64kB/swpin_fallback", False, 0.05),
        ("uni-classic-64", "classic", "pswpout", True, 0.02),
        ("uni-mglru-64", "mglru", "pswpout", False, 0.10),
        ("seq-mglru-64", "mglru", "64kB/anon_fault_fallback", False, 0.10),
    ],
)
def test_bounds(name: str, lru: str, counter: str, stale: bool, share: float) -> None:
    least, most = bounds(cell(boot(lru=lru), name=name), counter, 10_000, 10_100, stale)
    assert (least, most) == pytest.approx((10_000 * (1 - share), 10_100 * (1 + share)))


def test_small_counts_may_differ_by_ten() -> None:
    seq = cell(boot(), name="seq-classic-64")
    assert bounds(seq, "64kB/swpin", 0, 0) == (-10, 10)
    assert bounds(seq, "64kB/swpin", 150, 199) == (140, 209)
    assert bounds(seq, "64kB/swpin", 150, 200) == pytest.approx((149.25, 201))


def test_multi_gen_cells_that_scatter_are_held_to_twice_their_spread() -> None:
    scattered = cell(boot(900, lru="mglru"), boot(1000, lru="mglru"), boot(1000, lru="mglru"))
    assert scattered.spread == pytest.approx(0.1)
    assert bounds(scattered, "pswpout", 1000, 1000) == pytest.approx((800, 1200))
    near = cell(boot(990, lru="mglru"), boot(1000, lru="mglru"))
    assert bounds(near, "pswpout", 1000, 1000) == pytest.approx((900, 1100))


def test_a_count_within_the_range_is_not_strained() -> None:
    count = Count("pgmajfault", (1010,), (1000, 1020), (950, 1071))
    assert count.inside and count.strain == 0 and count.range == "1000..1020" and count.middle == 1010
    assert replace(count, replays=(975,)).strain == pytest.approx(0.5)
    outside = replace(count, replays=(1122,))
    assert not outside.inside and outside.strain == pytest.approx(2)
    assert replace(count, bounds=None, replays=(5,)).inside
    assert Count("64kB/swpin", (10,), (0,), (-10, 10)).off(10) == pytest.approx(0.05)


def test_a_header_need_not_say_what_is_so_by_default() -> None:
    silent = boot(path="uni-classic-64-boot2.txt")
    said = boot(swappiness="60", defrag="madvise")
    assert "swappiness" not in silent.header and len(cell(said, silent).boots) == 2


def test_killed_boots_are_left_out() -> None:
    dead = replace(boot(5, path="uni-classic-64-boot2.txt"), killed="CHILD DIED memory cgroup out of memory")
    found = cell(boot(1000), dead)
    assert [one.path for one in found.boots] == ["uni-classic-64-boot1.txt"]
    assert found.killed == (dead,) and found.compared == found.boots
    assert cell(dead).boots == () and cell(dead).compared == (dead,) and cell(dead).header == dead.header


def test_a_cell_held_against_a_replay() -> None:
    found = compare_cell(cell(boot(1000, 500), boot(1020, 510)), [replayed(1060, 520)])
    assert found.inside and not found.outside
    counts = {count.name: count for count in found.counts}
    assert list(counts) == ["pgmajfault", "64kB/swpin", "pgscan", "memcg_max", "64kB/swpout_fallback"]
    assert (counts["pgmajfault"].ours, counts["64kB/swpin"].ours, counts["pgscan"].ours) == (1060, 520, 90)
    bound = {name: count.bounds is not None for name, count in counts.items()}
    assert bound == {name: name in ("pgmajfault", "64kB/swpin") for name in counts}
    assert found.worst is counts["pgmajfault"]


def test_the_median_of_the_replays_that_lived_counts() -> None:
    ones = [replayed(faults, 500) for faults in (1300, 990, 1010, 1030)] + [
        replayed(0, 0, ["init"], oom=True)
    ]
    found = compare_cell(cell(boot(1000, 500), boot(1020, 500)), ones)
    assert found.inside and not found.oom and (found.replays, found.killed) == (5, 1)
    count = found.counts[0]
    assert (count.name, count.ours, count.range_of_replays) == ("pgmajfault", 1010, "990..1300")


def test_replays_go_at_the_pace_of_the_boots() -> None:
    """1000 faults in 20 s and in 10 s: 75 a second, statistics flushed every 150, in eight phases."""
    slow, fast = (replace(boot(1000), seconds=seconds) for seconds in (20.0, 10.0))
    for one in (slow, fast):
        one.stats()[-1][1]["memory.stat"]["pgfault"] = 1000
    lanes = clocked(cell(slow, fast), Lane("64", limit=1 << 20))
    assert [lane.phase for lane in lanes] == [0, 18, 37, 56, 75, 93, 112, 131]
    assert {(lane.flush, lane.switch, lane.mthp) for lane in lanes} == {(150, 15, "64")}
    assert not clocked(cell(slow, boot(1000)), Lane())
    assert not clocked(cell(slow, fast), Lane(limit=1 << 20, lru="mglru"))


def test_one_counter_outside_is_a_cell_outside() -> None:
    found = compare_cell(cell(boot(1000, 500)), [replayed(1000, 526)])
    assert found.outside and not found.inside and found.worst is not None
    assert found.worst.name == "64kB/swpin"


def test_a_replay_that_is_killed_is_outside() -> None:
    found = compare_cell(cell(boot()), [replayed(0, 0, ["init"], oom=True)])
    assert found.outside and not found.inside and found.worst is None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            lambda: cell(boot(), boot(path="b.txt", swap="zram 9M")),
            "b.txt: header swap is 'zram 9M', of uni-",
        ),
        (lambda: cell(boot(), replace(boot(path="b.txt"), blocks=[])), "b.txt: has no STATS; add STATS end"),
        (
            lambda: cell(boot(), replace(boot(path="b.txt"), blocks=[stats("p1", 1, 1)])),
            "b.txt: has other STATS than uni-classic-64-boot1.txt",
        ),
        (
            lambda: compare_cell(cell(boot()), [replayed(1, 1, ["init"])]),
            "boot1.txt: has STATS init end, the workload init; is it the same workload?",
        ),
    ],
    ids=["machine", "no-stats", "other-stats", "other-workload"],
)
def test_what_is_no_cell(broken: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")) as error:
        broken()
    assert "\n" not in str(error.value)


def test_copies_of_a_cell_count_once() -> None:
    copy = cell(boot(path="elsewhere/uni-classic-64-boot1.txt"))
    other = cell(boot(999), boot(path="b.txt"))
    found = distinct([cell(boot()), copy, other, cell(boot(), name="uni-classic")])
    assert [one.name for one in found] == ["uni-classic-64", "uni-classic-64", "uni-classic"]
    assert found[0] is not copy and found[1] is other


def test_cells_of_a_folder(tmp_path: Path) -> None:
    """Boots under a limit, and what has no page map in pressure/; the rest goes by page maps."""

    def put(name: str, header: dict[str, str], blocks: list) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_recording(tmp_path / name, header, blocks, 3)

    page_map = ("DUMP", "end", [("P", 0, 512, 0, 0)])
    free = {key: text for key, text in HEADER.items() if key != "memory.max"}
    put("7.3.4/pressure/uni-classic-64-boot1.txt", HEADER, [*boot().blocks, page_map])
    put("7.3.4/pressure/uni-classic-64-boot2.txt.gz", HEADER, boot().blocks)
    put("7.3.4/other-classic-boot1.txt", HEADER, boot().blocks)
    put("7.3.4/pressure/readahead-virtio.txt", free, boot().blocks)
    put("7.3.4/pressure/maps.txt", free, [page_map])
    put("7.3.4/free-boot1.txt", free, boot().blocks)
    for name in ("pressure/uni", "other", "readahead", "maps", "free-boot1"):
        path = tmp_path / "workloads" / f"{name}.t"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(WORKLOAD)
    found = {one.name: one for one in cells(tmp_path)}
    assert {name: len(one.boots) for name, one in found.items()} == {
        "other-classic": 1,
        "uni-classic-64": 2,
        "readahead-virtio": 1,
    }
    assert found["uni-classic-64"].workload == tmp_path / "workloads" / "pressure" / "uni.t"
    assert found["readahead-virtio"].workload == tmp_path / "workloads" / "readahead.t"
    assert [path.name for _, path in pairs(tmp_path)] == ["free-boot1.txt", "maps.txt"]
    # a folder further down finds the same workloads
    assert {one.name for one in cells(tmp_path / "7.3.4" / "pressure")} == {
        "uni-classic-64",
        "readahead-virtio",
    }
    (tmp_path / "workloads" / "other.t").unlink()
    with pytest.raises(InputError, match=r"other-classic-boot1\.txt: no workload other\.t or other\.t\.gz"):
        cells(tmp_path)


def in_pieces(blocks: int) -> Recording:
    """A boot that began with as many free blocks of 64 kB."""
    one = boot(fragment="8M")
    zones = {
        "buddyinfo-DMA32": {"4kB": 900, "64kB": blocks},
        "zoneinfo-DMA32": {"free": 900 + 16 * blocks, "min": 100, "reserve": 0},
    }
    label, groups = one.blocks[0][1], one.blocks[0][2] | zones
    return replace(one, blocks=[("STATS", label, groups), *one.blocks[1:]])


def test_each_boot_begins_with_the_blocks_it_had() -> None:
    boots = [in_pieces(5), in_pieces(7), in_pieces(5)]
    lane, _ = machine_of(of_recording(boots[0]))
    assert lane.frames is not None and lane.frames.free == free_of(boots[0])
    lanes = of_boots(cell(*boots), lane)
    assert [one.frames.free[4] for one in lanes if one.frames] == [5, 7]
    assert {replace(one, frames=None).limit for one in lanes} == {1 << 20}
    # other blocks than the boots' were asked for, or none is said
    other = replace(lane, frames=replace(lane.frames, free=(1, 2)))
    assert of_boots(cell(*boots), other) == [other]
    assert of_boots(cell(boot()), Lane()) == [Lane()]


def test_what_is_free_is_said_before_the_workload() -> None:
    late = in_pieces(5)
    late = replace(late, blocks=[boot().blocks[0], *late.blocks])
    assert free_of(late) == () == free_of(boot(fragment="8M"))
    with pytest.raises(NotModelled, match="header fragment: no STATS start says what is free"):
        machine_of(of_recording(boot(fragment="8M")))


def test_a_zone_is_taken_from_that_has_a_block_of_the_smallest_size() -> None:
    one = in_pieces(5)
    zone = {"zoneinfo-DMA32": {"free": 110, "min": 100, "reserve": 0}}
    low = replace(one, blocks=[("STATS", "start", one.before() | zone), *one.blocks[1:]])
    for mthp, there in (("64", False), ("16 64", True), ("16m 64", True), ("-", True)):
        assert bool(free_of(replace(low, header=low.header | {"mthp": mthp}))) == there


@pytest.mark.parametrize("size", ["0", "1", "65"])
def test_a_size_that_is_none_is_said_where_memory_is_in_pieces(size: str) -> None:
    one = in_pieces(5)
    broken = replace(one, header=one.header | {"mthp": size})
    with pytest.raises(InputError, match=f"header mthp: '{size}' is not a set of mTHP sizes"):
        machine_of(of_recording(broken))
