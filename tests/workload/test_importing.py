"""Other tools' files: each reader against a plain one, real perf and tracefs text, forms told by content."""

import gzip
import itertools
import json
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.workload import Kind, Workload, format_workload, parse_workload, read_workload, write_workload
from jaxswap.workload import masim as masim_module
from jaxswap.workload.accesses import Accesses, Room, workload_of
from jaxswap.workload.csv_accesses import read_csv
from jaxswap.workload.damo import expand as expand_damo
from jaxswap.workload.damo import read_damo
from jaxswap.workload.generate import splitmix64
from jaxswap.workload.importing import Options, import_workload
from jaxswap.workload.masim import read_masim
from jaxswap.workload.page_faults import read_page_faults
from tests.workload.test_text import equal

DATA = Path(__file__).parent.parent / "data" / "imports"

Step = tuple[int, int, bool]  # process, page, write


def steps(workload: Workload) -> list[Step]:
    """Every access of a workload: process, page in the page space, is it a write."""
    found = []
    rows = (workload.kind, workload.process, workload.v, workload.n)
    for kind, process, v, n in zip(*(row.tolist() for row in rows), strict=True):
        if kind in (Kind.TOUCH, Kind.READ):
            found += [(process, page, kind == Kind.TOUCH) for page in range(v, v + n)]
    return found


def accesses_of(steps: list[Step]) -> Accesses:
    process, page, write = zip(*steps, strict=True)
    return Accesses(np.array(page, np.int64), np.array(write, bool), np.array(process, np.uint8))


far = st.tuples(st.sampled_from([0, 1, 5, 6, 1 << 40]), st.integers(0, 511)).map(lambda t: t[0] * 512 + t[1])
some_steps = st.lists(st.tuples(st.integers(0, 2), far, st.booleans()), min_size=1, max_size=60)


@settings(max_examples=80)
@given(some_steps)
def test_a_workload_is_the_accesses_in_order(raw: list[Step]) -> None:
    names = {process: i for i, process in enumerate(dict.fromkeys(step[0] for step in raw))}
    raw = [(names[process], page, write) for process, page, write in raw]
    workload = workload_of(accesses_of(raw), "x", "x", {}, Room())
    # what is written can be read, so every access is in a VMA of a living process
    assert equal(workload, parse_workload(format_workload(workload)))
    found = steps(workload)
    assert [(one[0], one[2]) for one in found] == [(one[0], one[2]) for one in raw]
    place = dict(zip([step[1] for step in raw], [step[1] for step in found], strict=True))
    for page, there in place.items():
        assert there % 512 == page % 512
        for other, elsewhere in place.items():
            apart = abs(page // 512 - other // 512)
            # blocks keep their order; neighbours stay neighbours, a gap of any length becomes one block
            assert (page < other) == (there < elsewhere)
            assert (abs(there // 512 - elsewhere // 512) == 1) == (apart == 1) or apart == 0


def test_room() -> None:
    raw = [(0, 2 * page, True) for page in range(20)]
    with pytest.raises(InputError, match="x: 21 operations, more than 10"):
        workload_of(accesses_of(raw), "x", "x", {}, Room(10))
    cut = workload_of(accesses_of(raw), "x", "x", {}, Room(10, cut=True))
    assert len(cut) == 10 and steps(cut) == raw[:9] and cut.meta["cut"] == "after 10 operations"
    with pytest.raises(InputError, match="holds no accesses"):
        workload_of(
            Accesses(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.uint8)), "x", "x", {}, Room()
        )
    many = [(process, 1, True) for process in range(17)]
    with pytest.raises(InputError, match="17 processes; a workload has at most 16: give --pid"):
        workload_of(accesses_of(many), "x", "x", {}, Room())


# CSV


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), far, st.booleans()), min_size=1, max_size=40))
def test_csv(rows: list[tuple[int, int, int, bool]]) -> None:
    rng = Random(len(rows))
    lines = ["t,pid,page,write\n", "\n", "# by hand\n"]
    for t, pid, page, write in rows:
        lines.append(f"{t / 4},{pid}, {page if rng.random() < 0.5 else hex(page)},{int(write)}\n")
    read = read_csv([line.encode() for line in lines], "x")
    ordered = sorted(rows, key=lambda row: row[0])
    numbers = {pid: i for i, pid in enumerate(dict.fromkeys(row[1] for row in ordered))}
    assert read.page.tolist() == [row[2] for row in ordered]
    assert read.write.tolist() == [row[3] for row in ordered]
    assert read.process.tolist() == [numbers[row[1]] for row in ordered]
    first = ordered[0][1]
    only = read_csv([line.encode() for line in lines], "x", frozenset([first]))
    assert only.page.tolist() == [row[2] for row in ordered if row[1] == first]


@pytest.mark.parametrize(
    "line",
    ["1,2,3", "1,2,3,2", "nan,1,2,0", "inf,1,2,0", "1,-2,3,0", "1,2,-3,0", "1,2,0xzz,1", "1,2,3,1,4", "\0"],
)
def test_csv_damaged(line: str) -> None:
    with pytest.raises(InputError, match=r"^x:2: .* is no access; write t,pid,page,write"):
        read_csv([b"1,2,3,1\n", line.encode()], "x")


# perf script, tracefs


def plain_faults(text: str) -> Iterator[tuple[int, int, int]]:
    """(pid, address, error code) of every fault, by splitting words."""
    for line in text.splitlines():
        if "page_fault_user: " in line:
            head, _, event = line.partition("page_fault_user: ")
            words = head.split()
            pid = next(int(word.rpartition("-")[2]) for word in words if word.rpartition("-")[2].isdigit())
            fields = dict(word.split("=") for word in event.split())
            yield pid, int(fields["address"], 16), int(fields["error_code"], 16)


def unpacked(name: str) -> str:
    tool = {".gz": "gzip", ".zst": "zstd"}[Path(name).suffix]
    return subprocess.run([tool, "-dc", DATA / name], capture_output=True, check=True).stdout.decode()


def test_real_perf_script() -> None:
    """tests/data/imports/faults.c recorded by perf 6.1: its own mapping's faults, and no file's."""
    text = unpacked("faults.perf.txt.gz")
    accesses, meta = read_page_faults([line.encode() for line in text.splitlines()], "x")
    assert meta["faults"] == "user faults 197, dropped 15 instruction fetches, 20 in mapped files"
    data = [fault for fault in plain_faults(text) if not fault[2] & 0x10]
    assert len(data) == 197 - 15 and len(accesses.page) == len(data) - 20
    # the large mapping: 96 pages written with a stride of 7, 40 read, 16 written after DONTNEED
    base = min(page for page in accesses.page.tolist() if accesses.page.tolist().count(page) == 2)
    own = [(int(p) - base, bool(w)) for p, w in zip(accesses.page, accesses.write, strict=True)]
    expected = [(i * 7 % 512, True) for i in range(96)] + [(1024 + i, False) for i in range(40)]
    expected += [(2 * i, True) for i in range(16)]
    large = [one for one in own if 0 <= one[0] < 2048]
    assert large[:136] == expected[:136]
    # 16 pages every 8 KiB, of which the first 64 pages had been thrown away
    assert large[136:] == [(2 * i, True) for i in range(16)]


def test_real_tracefs() -> None:
    text = unpacked("faults.trace.txt.zst")
    accesses, meta = read_page_faults([line.encode() for line in text.splitlines()], "x")
    data = [fault for fault in plain_faults(text) if not fault[2] & 0x10]
    assert accesses.page.tolist() == [address >> 12 for _, address, _ in data]
    assert accesses.write.tolist() == [bool(code & 2) for _, _, code in data]
    assert set(accesses.process.tolist()) == {0} and "mapped files" not in meta["faults"]


def test_mappings_replace_each_other() -> None:
    lines = b"""\
 a b 7 [000] 1.0: PERF_RECORD_MMAP2 7/7: [0x10000(0x4000) @ 0 fe:00 5 0]: r--p /lib/x y
 a b 7 [000] 1.1: PERF_RECORD_MMAP2 7/7: [0x11000(0x1000) @ 0x11000 00:00 0 0]: rw-p //anon
 a b 7/8 [000] 1.2: exceptions:page_fault_user: address=0x10008 ip=0x1 error_code=0x4
 a b 7/8 [000] 1.3: exceptions:page_fault_user: address=0x11008 ip=0x1 error_code=0x6
 a b 7 1.4: exceptions:page_fault_user: address=0x12008 ip=0x1 error_code=0x4
 c 9 1.4: exceptions:page_fault_user: address=0x12008 ip=0x1 error_code=0x4
""".splitlines()
    accesses, _ = read_page_faults(lines, "x")
    assert (accesses.page.tolist(), accesses.process.tolist()) == ([0x11, 0x12], [0, 1])
    only, _ = read_page_faults(lines, "x", frozenset([9]))
    assert (only.page.tolist(), only.process.tolist()) == ([0x12], [0])


def test_faults_damaged() -> None:
    good = b" a 7 [000] 1.2: exceptions:page_fault_user: address=0x10008 ip=0x1 error_code=0x4"
    for line in (
        good[:-16],
        b"page_fault_user: address=0x1 ip=0x1 error_code=0x4",
        good.replace(b"0x10008", b"f" * 20),
    ):
        with pytest.raises(InputError, match=r"^x:2: damaged event"):
            read_page_faults([good, line], "x")
    with pytest.raises(InputError, match=r"^x:2: events were lost"):
        read_page_faults([good, b"CPU:1 [LOST 55 EVENTS]"], "x")


# damo


def region(start: object, end: object, samples: object = None, percent: object = None) -> dict[str, Any]:
    age = {"usec": None, "aggr_intervals": 3}
    return {"start": start, "end": end, "nr_accesses": {"samples": samples, "percent": percent}, "age": age}


def damo_record(*snapshots: tuple[object, list[dict[str, Any]]], intervals: object = None) -> dict[str, Any]:
    made = [
        {"start_time": t, "end_time": t, "regions": regions, "total_bytes": None} for t, regions in snapshots
    ]
    return {
        "kdamond_idx": 0,
        "context_idx": 0,
        "intervals": intervals,
        "scheme_idx": None,
        "target_id": 0,
    } | {"snapshots": made}


def plain_damo(snapshots: list, seed: int) -> list[Step]:
    """The rule in docs/workloads.md, a page at a time."""
    draws = iter(splitmix64(seed, 0, 100_000).tolist())
    found: list[Step] = []
    seen = set()
    for snapshot in snapshots:
        regions = [one for one in snapshot.regions if one.share > 0 and one.end > one.start]
        keyed = [(next(draws), i) for i in range(len(regions))]
        for _, i in sorted(keyed):
            for page in range(regions[i].start, regions[i].end):
                if next(draws) >> 11 < regions[i].share * 2**53:
                    found.append((snapshot.target, page, (snapshot.target, page) not in seen))
                    seen.add((snapshot.target, page))
    return found


@settings(max_examples=30)
@given(st.integers(0, 2**64 - 1), st.data())
def test_damo(seed: int, data: st.DataObject) -> None:
    records = []
    for _ in range(data.draw(st.integers(1, 2))):
        snapshots = []
        for time in range(data.draw(st.integers(1, 3))):
            borders = sorted(data.draw(st.sets(st.integers(0, 60), min_size=2, max_size=6)))
            regions = [
                region(low * 4096, high * 4096, data.draw(st.integers(0, 25)))
                for low, high in itertools.pairwise(borders)
            ]
            snapshots.append((time * 10**9, regions))
        records.append(damo_record(*snapshots, intervals={"sample_us": "5 ms", "aggr_us": "100 ms"}))
    read = read_damo(json.dumps(records).encode(), "x")
    assert [s.time for s in read] == sorted(s.time for s in read)
    accesses = expand_damo(read, "x", seed)
    columns = (accesses.process.tolist(), accesses.page.tolist(), accesses.write.tolist())
    assert list(zip(*columns, strict=True)) == plain_damo(read, seed)


def test_files_that_damo_wrote() -> None:
    """Raw numbers, numbers for people, compressed: the same snapshots."""
    raw, people, packed = (
        read_damo((DATA / name).read_bytes(), name)
        for name in ("damo-raw.json", "damo.json", "damo.json_compressed")
    )
    assert raw == people == packed
    assert [one.time for one in raw] == [1e12 + i * 1e8 for i in range(4)]
    assert [region.share for region in raw[1].regions] == [0.75, 0.05, 0.3]
    assert (raw[0].regions[0].start, raw[0].regions[0].end) == (0x7F0000000, 0x7F0000040)
    first = expand_damo(raw[:1], "x", 0)
    assert set(range(0x7F0000000, 0x7F0000040)) <= set(first.page.tolist())


def test_damo_numbers_as_damo_formats_them() -> None:
    """Raw numbers, numbers with commas, sizes, percents; older files with a bare nr_accesses."""
    regions = [
        region("4,096", "12,288", "1"),
        region("16K", "32 KiB", None, "50 %"),
        region(65536, 65537, 20),
    ]
    bare = {"start": 0, "end": 8192, "nr_accesses": 10, "age": 1}
    records = [damo_record(("1690134099856513792", regions)), damo_record(("1 m 2.5 s 3 ms", [bare]))]
    for data in (json.dumps(records).encode(), zlib.compress(json.dumps(records).encode())):
        older, newer = read_damo(data, "x")
        assert [(one.start, one.end, one.share) for one in newer.regions] == [
            (1, 3, 0.05),
            (4, 8, 0.5),
            (16, 17, 1.0),
        ]
        assert (older.time, older.target, older.regions[0].share) == (62.503e9, 1, 0.5)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({}, "no list of damo's records"),
        ([], "no list of damo's records"),
        ([1], "record 0: "),
        ([{}], "record 0: no 'snapshots'"),
        ([damo_record((0, [{"start": 0}]))], "record 0, snapshot 0: no 'end'"),
        ([damo_record((0, [region(0, 4096, "many")]))], "'many' is no number"),
        ([damo_record((0, [region(8192, 4096, 1)]))], "a region from 8192 to 4096"),
        ([damo_record((0, [region(0, True, 1)]))], "True is no number"),
        ([damo_record((0, []), intervals={"sample_us": 0, "aggr_us": 5})], "intervals of 0 and 5 us"),
    ],
)
def test_damo_damaged(records: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_damo(json.dumps(records).encode(), "x")
    assert message in str(caught.value) and str(caught.value).startswith("x: ")


def test_damo_too_much_and_no_json() -> None:
    whole = read_damo(json.dumps([damo_record((0, [region(0, 1 << 45, 1)]))]).encode(), "x")
    with pytest.raises(InputError, match="more than 20000000 pages"):
        expand_damo(whole, "x", 0)
    with pytest.raises(InputError, match="is not JSON"):
        read_damo(b"[{]", "x")
    with pytest.raises(InputError, match="damaged compressed JSON"):
        read_damo(b"\x78\x9c\0\0\0", "x")


# masim

MASIM = """\
#regions
# name, length, initial data file
a, 20000, none
b, 64

# phase 1
first phase
7
a, 0, 64, 3, wo
b, 1, 64, 1, ro

second
# ms
30
a, 1, 4096, 50, rw
a, 0, 9000, 50
"""


def plain_masim(config: masim_module.Masim, rate: int, seed: int) -> list[tuple[int, bool]]:
    """masim's walk a byte at a time, with the rule in docs/workloads.md for what counts as an access."""
    draws = iter(splitmix64(seed, 0, 100_000).tolist())
    ranges = masim_module.mappings(config)
    found: list[tuple[int, bool]] = []
    for phase in config.phases:
        offsets = [0] * len(phase.patterns)
        left = phase.time * rate
        while left:
            draw = next(draws) % sum(pattern.weight for pattern in phase.patterns)
            chosen = 0
            while draw >= phase.patterns[chosen].weight:
                draw -= phase.patterns[chosen].weight
                chosen += 1
            pattern = phase.patterns[chosen]
            size, first = config.sizes[pattern.region], ranges[pattern.region][0]
            for _ in range(min(64, left)):
                left -= 1
                if pattern.random:
                    byte = next(draws) % size
                else:
                    before = byte = offsets[chosen]
                    while True:
                        byte += pattern.stride
                        if byte >= size:
                            byte = 0
                            break
                        if byte // 4096 != before // 4096:
                            break
                    offsets[chosen] = byte
                page = first + byte // 4096
                found += [(page, False)] if pattern.mode != "wo" else []
                found += [(page, True)] if pattern.mode != "ro" else []
    return found


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("rate", [1, 9])
def test_masim(seed: int, rate: int) -> None:
    config = read_masim(MASIM.encode().splitlines(), "x")
    assert config.sizes == (20000, 64) and [phase.time for phase in config.phases] == [7, 30]
    assert masim_module.mappings(config) == [(0, 5), (1024, 1025)]
    made = masim_module.expand(config, "x", rate, seed)
    assert list(zip(made.page.tolist(), made.write.tolist(), strict=True)) == plain_masim(config, rate, seed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a, 20000, none", "a", "x:3: a region is: NAME, BYTES"),
        ("a, 20000, none", "a, 0", "x:3: a region is: NAME, BYTES"),
        ("b, 64", "a, 64", "x:4: a second region a"),
        ("\n7\n", "\nseven\n", "x:8: a phase is a line with its name"),
        (
            "a, 0, 64, 3, wo",
            "c, 0, 64, 3, wo",
            "x:9: a pattern is: REGION, 0|1, STRIDE, PROBABILITY, ro|wo|rw; the regions",
        ),
        ("a, 0, 64, 3, wo", "a, 2, 64, 3, wo", "x:9: a pattern is"),
        ("a, 0, 64, 3, wo", "a, 0, x, 3, wo", "x:9: stride and probability are whole numbers"),
        ("b, 1, 64, 1, ro", "b, 1, 64, 1, wr", "x:10: a pattern is"),
        (MASIM[MASIM.index("\n# phase") :], "", "x: has no phases"),
    ],
)
def test_masim_damaged(old: str, new: str, message: str) -> None:
    assert old in MASIM
    with pytest.raises(InputError) as caught:
        read_masim(MASIM.replace(old, new).encode().splitlines(), "x")
    assert str(caught.value).startswith(message)


def test_masim_too_long() -> None:
    config = read_masim(MASIM.replace("\n30\n", "\n99999999\n").encode().splitlines(), "x")
    with pytest.raises(InputError, match="more than 20000000 accesses; lower --rate"):
        masim_module.expand(config, "x", 4, 0)


# the form, and files

LACKEY = "==7== Lackey, an example\nSYSCALL[7,1]( 12) sys_brk ( 0x0 ) --> [pre-success] Success(0x4035000) \n"
LACKEY += "I  04001234,3\n L 1fff000000,8\n==7== Exit code: 0\n"
CONTENTS = {
    "lackey": LACKEY,
    "csv": "0.5,1,77,1\n0.6,1,78,0\n",
    "perf": " a 7 [000] 1.2: exceptions:page_fault_user: address=0x10008 ip=0x1 error_code=0x6\n",
    "damo": json.dumps([damo_record((0, [region(0, 4096 * 64, 20)]))]),
    "masim": MASIM,
}


@pytest.mark.parametrize("packing", ["plain", "gz", "zst"])
@pytest.mark.parametrize("form", CONTENTS)
def test_forms_are_told_from_the_content(tmp_path: Path, form: str, packing: str) -> None:
    path = tmp_path / "trace"
    path.write_text(CONTENTS[form])
    if packing == "gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif packing == "zst":
        subprocess.run(["zstd", "-q", path, "-o", tmp_path / "trace.zst"], check=True)
        path = tmp_path / "trace.zst"
    told, given = import_workload(path), import_workload(path, form)
    assert equal(told, given) and told.meta["imported"] == f"{form} {path.name}" and told.name == "trace"
    write_workload(told, tmp_path / "w.parquet")
    assert equal(told, read_workload(tmp_path / "w.parquet"))


def test_options_reach_their_readers(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(MASIM)
    plain = import_workload(tmp_path / "a.cfg")
    assert plain.name == "a" and len(steps(plain)) < len(
        steps(import_workload(tmp_path / "a.cfg", None, Options(rate=8)))
    )
    assert steps(plain) != steps(import_workload(tmp_path / "a.cfg", None, Options(seed=1)))
    (tmp_path / "a.csv").write_text("0,1,5,1\n1,2,6,1\n")
    assert steps(import_workload(tmp_path / "a.csv")) == [(0, 5, True), (1, 6, True)]
    assert steps(import_workload(tmp_path / "a.csv", None, Options(pids=frozenset([2])))) == [(0, 6, True)]
    with pytest.raises(InputError, match="more than 1; give a higher --operations"):
        import_workload(tmp_path / "a.csv", None, Options(Room(1)))


@pytest.mark.parametrize("content", ["hello\n", "\0\1\2" * 50, "{}", "REGION 5 plain\nTOUCH 1\n"])
def test_no_form(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(InputError, match="its form cannot be told from its content"):
        import_workload(tmp_path / "x")
    with pytest.raises(
        InputError, match="--form tape: no such form; there are: lackey, csv, perf, damo, masim"
    ):
        import_workload(tmp_path / "x", "tape")


def test_zst_damaged(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0,1,5,1\n" * 5000)
    subprocess.run(["zstd", "-q", tmp_path / "a", "-o", tmp_path / "a.zst"], check=True)
    data = (tmp_path / "a.zst").read_bytes()
    (tmp_path / "a.zst").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="Truncated"):
        import_workload(tmp_path / "a.zst", "csv")
    (tmp_path / "a.zst").write_text("0,1,5,1\n")
    with pytest.raises(InputError, match=r"ends in \.zst but the content is not zstd"):
        import_workload(tmp_path / "a.zst")
