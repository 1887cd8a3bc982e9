"""The workload text form: meaning of each line, what is refused and how, round trips."""

import gzip
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.workload import (
    Kind,
    Workload,
    format_workload,
    is_held_out,
    parse_workload,
    read_workload,
    recorded,
    recorded_names,
    write_workload,
)
from jaxswap.workload.text import Coverage

EVERY = """\
# program demo
# command demo --fast  twice
#
# empty
REGION 4096 huge   # the region
# after 1
TOUCH 3
FILL 4 2
READ 3 # again
READN 3 3

ZERO 0 1
DONTNEED 4 1
PAGEOUT 0 4096
COLD 1 2
WILLNEED 1 2
MADVHUGE 0 512
MADVNOHUGE 512 512
SET /sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled always
UNMAP 1024 512
MAP 1024 256 nohuge
DUMP here
FOLIOS here
STATS
ECHO  some text # with a mark
"""

FORKED = """\
REGION 4096 plain
FILL 0 4
FORK 3
@1 p3 READ 2   # on another CPU
p3 FILL 2 2
@2 DUMP a
p3 FORK 15
p15 ECHO  p3 was here
p3 EXIT
@0 p0 READ 1
"""


def test_processes_and_cpus() -> None:
    w = parse_workload(FORKED)
    rows = list(zip(w.kind.tolist(), w.v.tolist(), w.process.tolist(), w.cpu.tolist(), strict=True))
    assert rows == [
        (Kind.TOUCH, 0, 0, 0),
        (Kind.FORK, 3, 0, 0),
        (Kind.READ, 2, 3, 1),
        (Kind.TOUCH, 2, 3, 0),
        (Kind.DUMP, 0, 0, 2),
        (Kind.FORK, 15, 3, 0),
        (Kind.ECHO, 0, 15, 0),
        (Kind.EXIT, 0, 3, 0),
        (Kind.READ, 1, 0, 0),
    ]
    assert w.text == {4: "a", 6: "p3 was here"} and w.accesses == 4 + 1 + 2 + 1
    assert [w.process.dtype, w.cpu.dtype] == [np.uint8, np.uint8]
    text = format_workload(w)
    assert "@1 p3 READ 2\np3 FILL 2 2\n@2 DUMP a\np3 FORK 15\n" in text
    assert equal(parse_workload(text), w) and format_workload(parse_workload(text)) == text


def test_cgroups() -> None:
    text = REGION + "CGROUP web\nFORK 1\n@1 p1 CGROUP a-1\np1 TOUCH 3\nCGROUP web\n"
    w = parse_workload(text)
    assert w.cgroups == ("web", "a-1") and w.text == {0: "web", 2: "a-1", 4: "web"}
    rows = list(zip(w.kind.tolist(), w.process.tolist(), w.cpu.tolist(), strict=True))
    assert rows[:3] == [(Kind.CGROUP, 0, 0), (Kind.FORK, 0, 0), (Kind.CGROUP, 1, 1)]
    assert format_workload(w) == text and parse_workload(FORKED).cgroups == ()


def test_mappings_belong_to_processes() -> None:
    parse_workload(REGION + "FORK 1\np1 UNMAP 0 8\nREAD 3\np1 READ 9\np1 MAP 0 4 plain\np1 READ 3\n")
    with pytest.raises(InputError, match=r"w:4: READ: page 3 not wholly inside mapped ranges"):
        parse_workload(REGION + "FORK 1\np1 UNMAP 0 8\np1 READ 3\n", "w")


def test_every_operation() -> None:
    w = parse_workload(EVERY, name="demo")
    rows = list(zip(w.kind.tolist(), w.v.tolist(), w.n.tolist(), w.line.tolist(), strict=True))
    assert rows == [
        (Kind.TOUCH, 3, 1, 7),
        (Kind.TOUCH, 4, 2, 8),
        (Kind.READ, 3, 1, 9),
        (Kind.READ, 3, 3, 10),
        (Kind.ZERO, 0, 1, 12),
        (Kind.DONTNEED, 4, 1, 13),
        (Kind.PAGEOUT, 0, 4096, 14),
        (Kind.COLD, 1, 2, 15),
        (Kind.WILLNEED, 1, 2, 16),
        (Kind.MADVHUGE, 0, 512, 17),
        (Kind.MADVNOHUGE, 512, 512, 18),
        (Kind.SET, 0, 0, 19),
        (Kind.UNMAP, 1024, 512, 20),
        (Kind.MAP, 1024, 256, 21),
        (Kind.DUMP, 0, 0, 22),
        (Kind.FOLIOS, 0, 0, 23),
        (Kind.STATS, 0, 0, 24),
        (Kind.ECHO, 0, 0, 25),
    ]
    assert w.text == {
        11: "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled always",
        13: "nohuge",
        14: "here",
        15: "here",
        16: "",
        17: "some text # with a mark",
    }
    assert w.meta == {"program": "demo", "command": "demo --fast  twice", "empty": ""}
    assert (w.npages, w.advice, w.name, w.path, w.starts_mapped) == (4096, "huge", "demo", "", True)
    assert w.accesses == 1 + 2 + 1 + 3 + 1
    assert [w.kind.dtype, w.v.dtype, w.n.dtype, w.line.dtype] == [np.uint8, np.int32, np.int32, np.int32]


REGION = "REGION 64 plain\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("# only a remark\n", 1, "no REGION"),
        ("TOUCH 1\n", 1, "TOUCH before REGION"),
        ("UNI 0 1 1 1 1\n", 1, "UNI before REGION"),
        (REGION + REGION, 2, "a second REGION"),
        ("REGION 64\n", 1, "REGION takes a number of pages and an advice"),
        ("REGION 64 hugee\n", 1, "REGION takes a number of pages and an advice"),
        ("REGION many plain\n", 1, "npages is not a non-negative whole number: many"),
        ("REGION 0 plain\n", 1, "npages is 0; it must be 1"),
        ("REGION 4294967296 plain\n", 1, "npages is 4294967296; it must be 1..2147483647"),
        (REGION + "TUCH 1\n", 2, "unknown operation TUCH; known: CGROUP COLD"),
        (REGION + "touch 1\n", 2, "unknown operation touch; did you mean TOUCH?"),
        (REGION + "TOUCH\n", 2, "TOUCH takes 1 numbers, got 0"),
        (REGION + "TOUCH 1 2\n", 2, "for a range: FILL v n"),
        (REGION + "READ 1 2\n", 2, "for a range: READN v n"),
        (REGION + "FILL 1\n", 2, "FILL takes 2 numbers, got 1: FILL v n"),
        (REGION + "FILL 1 0\n", 2, "n must be at least 1"),
        (REGION + "TOUCH -1\n", 2, "v is not a non-negative whole number: -1"),
        (REGION + "TOUCH 1.5\n", 2, "v is not a non-negative whole number: 1.5"),
        (REGION + "TOUCH 1_0\n", 2, "v is not a non-negative whole number: 1_0"),
        (REGION + "TOUCH 0x10\n", 2, "v is not a non-negative whole number: 0x10"),
        (REGION + "TOUCH 99999999999999999999\n", 2, "v is too large"),
        (REGION + "TOUCH " + "9" * 6000 + "\n", 2, "v is too large"),
        (REGION + "TOUCH 64\n", 2, "page 64 is outside REGION (pages 0..63)"),
        (REGION + "TOUCH 1\nPAGEOUT 60 5\n", 3, "PAGEOUT: page 64 is outside REGION"),
        (REGION + "MAP 0 65 huge\n", 2, "MAP: page 64 is outside REGION"),
        (REGION + "MAP 0 4\n", 2, "MAP takes two numbers and an advice"),
        (REGION + "MAP 0 4 always\n", 2, "MAP takes two numbers and an advice"),
        (REGION + "MAP 0 0 huge\n", 2, "n must be at least 1"),
        (REGION + "MAP 0 4 huge\nTOUCH 4\n", 3, "TOUCH: page 4 not wholly inside mapped ranges"),
        (REGION + "MAP 0 4 huge\nREADN 2 3\n", 3, "READ: pages 2..4 not wholly inside mapped ranges"),
        (REGION + "UNMAP 8 8\nTOUCH 3\nTOUCH 9\n", 4, "TOUCH: page 9 not wholly inside mapped ranges"),
        (REGION + "UNMAP 8 8\nDONTNEED 0 9\n", 3, "DONTNEED: pages 0..8 not wholly"),
        (REGION + "SET /sys/x\n", 2, "SET takes a path and a value"),
        (REGION + "DUMP a b\n", 2, "DUMP takes one label without spaces"),
        (REGION + "SH echo 3 > /proc/x\n", 2, "SH runs a shell command, which is not modelled"),
        (REGION + "TOUCH 1\0\n", 2, "not a text file"),
        (REGION + "ECHO \udcff\n", 2, "not UTF-8"),
        ("\x7fELF\x02\x01\n", 1, "not a workload"),
        ("P 0 12\n", 1, "unknown operation P"),
        (REGION + "pages 4\n", 2, "unknown operation pages"),
        (REGION + "p1 READ 1\n", 2, "READ: process p1 does not exist yet; write FORK 1 first"),
        (REGION + "FORK 1\np1 EXIT\np1 READ 1\n", 4, "READ: process p1 has exited"),
        (REGION + "FORK 1\nFORK 1\n", 3, "FORK: p1 lives; give the child a number of its own"),
        (REGION + "FORK 0\n", 2, "FORK: the child is 0; it must be 1..15"),
        (REGION + "FORK 16\n", 2, "FORK: the child is 16; it must be 1..15"),
        (REGION + "FORK\n", 2, "FORK takes 1 numbers, got 0: FORK child"),
        (REGION + "EXIT\n", 2, "EXIT: p0 lives to the end; write pN EXIT"),
        (REGION + "FORK 1\np1 EXIT 1\n", 3, "EXIT takes 0 numbers, got 1"),
        (REGION + "p16 READ 1\n", 2, "p16 is no process; they are p0..p15"),
        (REGION + "p1x READ 1\n", 2, "p1x is no process"),
        (REGION + "@16 READ 1\n", 2, "@16 is no CPU; they are @0..@15"),
        (REGION + "@ READ 1\n", 2, "@ is no CPU"),
        (REGION + "@1 p0\n", 2, "no operation behind it"),
        ("@1 REGION 64 plain\n", 1, "REGION belongs to all processes"),
        (REGION + "CGROUP\n", 2, "CGROUP: a name is missing; write a small letter and up to 15 of a-z"),
        (REGION + "CGROUP a b\n", 2, "CGROUP: a name is missing"),
        (REGION + "CGROUP ../a\n", 2, "CGROUP: '../a' is no name"),
        (REGION + "p1 CGROUP a\n", 2, "CGROUP: process p1 does not exist yet; write FORK 1 first"),
        (REGION + "".join(f"CGROUP c{i}\n" for i in range(8)), 9, "CGROUP c7: a workload names at most 7"),
    ],
)
def test_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_workload(text, name="dir/w.t")
    said = str(caught.value)
    assert said.startswith(f"dir/w.t:{line}: ") and message in said and "\n" not in said


def test_mapping_rules() -> None:
    # A mapping may be made anew over another, grow, shrink; accesses may span neighbours.
    w = parse_workload(
        REGION
        + "MAP 0 4 huge\nMAP 4 4 plain\nFILL 2 4\nMAP 0 16 plain\nTOUCH 15\nUNMAP 20 4\nUNMAP 2 2\nTOUCH 4\n"
    )
    assert not w.starts_mapped and len(w) == 8
    assert parse_workload(REGION).starts_mapped


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 12)), max_size=30))
def test_coverage(edits: list[tuple[bool, int, int]]) -> None:
    coverage, plain = Coverage(), np.zeros(64, bool)
    for add, v, n in edits:
        (coverage.add if add else coverage.remove)(v, v + n)
        plain[v : v + n] = add
        runs = np.flatnonzero(np.diff(np.r_[False, plain, False]))
        assert (coverage.starts, coverage.ends) == (runs[::2].tolist(), runs[1::2].tolist())
    v, n = np.repeat(np.arange(50), 6), np.tile(np.arange(1, 7), 50)
    want = [not plain[a : a + b].all() for a, b in zip(v.tolist(), n.tolist(), strict=True)]
    assert coverage.outside(v, n).tolist() == want


labels = st.text("abcXYZ019-.,_", min_size=1, max_size=8)
ranges = st.tuples(st.integers(0, 900), st.integers(1, 100))
operations = st.one_of(
    st.builds(lambda word, r: f"{word} {r[0]}", st.sampled_from(["TOUCH", "READ"]), ranges),
    st.builds(
        lambda word, r: f"{word} {r[0]} {r[1]}",
        st.sampled_from(
            ["FILL", "READN", "ZERO", "DONTNEED", "PAGEOUT", "COLD", "WILLNEED", "MADVHUGE", "MADVNOHUGE"]
        ),
        ranges,
    ),
    st.builds(lambda r, a: f"MAP {r[0]} {r[1]} {a}", ranges, st.sampled_from(["huge", "nohuge", "plain"])),
    st.builds(
        lambda word, label: f"{word} {label}", st.sampled_from(["DUMP", "FOLIOS", "STATS", "ECHO"]), labels
    ),
    st.builds(lambda a, b: f"SET /{a} {b}", labels, labels),
)


def equal(a: Workload, b: Workload) -> bool:
    names = ("kind", "v", "n", "process", "cpu")
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return same and (a.npages, a.advice, a.text, a.meta) == (b.npages, b.advice, b.text, b.meta)


@given(st.lists(operations, max_size=40), st.sampled_from(["huge", "nohuge", "plain"]))
def test_round_trip(lines: list[str], advice: str) -> None:
    first = parse_workload("\n".join(["# program x y", f"REGION 1000 {advice}", "TOUCH 1", *lines]))
    text = format_workload(first)
    again = parse_workload(text)
    assert equal(first, again)
    assert format_workload(again) == text


@pytest.mark.parametrize("name", ["w.t", "w.t.gz"])
def test_files(tmp_path: Path, name: str) -> None:
    w = parse_workload(EVERY)
    path = tmp_path / name
    write_workload(w, path)
    read = read_workload(path)
    assert equal(w, read) and read.name == "w" and read.path == str(path)
    before = path.read_bytes()
    write_workload(read, str(path))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]
    assert before.startswith(b"\x1f\x8b") == name.endswith(".gz")


def test_windows_line_ends_and_no_last_newline() -> None:
    assert equal(
        parse_workload("REGION 64 plain\r\nTOUCH 1\r\nDUMP a"), parse_workload(REGION + "TOUCH 1\nDUMP a\n")
    )


def test_bad_files(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            read_workload(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such workload file" in said(tmp_path / "none.t")
    assert "is a directory" in said(tmp_path)
    empty = tmp_path / "empty.t"
    empty.touch()
    assert "is empty" in said(empty)
    packed = gzip.compress(
        (REGION + "".join(f"TOUCH {random.randrange(64)}\n" for _ in range(5000))).encode()
    )
    (tmp_path / "cut.t.gz").write_bytes(packed[: len(packed) // 2])
    assert "ends in the middle" in said(tmp_path / "cut.t.gz")
    damaged = bytearray(packed)
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "damaged.t.gz").write_bytes(damaged)
    said(tmp_path / "damaged.t.gz")
    (tmp_path / "plain.t.gz").write_text(REGION)
    assert "not gzip" in said(tmp_path / "plain.t.gz")
    (tmp_path / "packed.t").write_bytes(packed)  # gzip by content: read as such
    assert len(read_workload(tmp_path / "packed.t")) == 5000
    (tmp_path / "binary.t").write_bytes(os.urandom(20_000))
    said(tmp_path / "binary.t")
    with pytest.raises(InputError, match="is empty"):
        parse_workload("")
    with pytest.raises(InputError, match="cannot be written"):
        write_workload(parse_workload(REGION), tmp_path / "no" / "w.t")


def test_parsing_is_fast() -> None:
    numbers = np.random.default_rng(0).integers(1, 4000, (200_000, 3)).tolist()
    words = ["TOUCH {0}", "READN {0} {1}", "FILL {0} {1}", "READ {0}"]
    text = "REGION 8192 plain\n" + "".join(words[c % 4].format(a, b) + "\n" for a, b, c in numbers)
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        assert len(parse_workload(text)) == 200_000
        best = min(best, time.perf_counter() - start)
    assert best < 0.7


def test_recorded_workloads() -> None:
    assert len(recorded_names()) >= 8
    for name in recorded_names():
        assert recorded(name).stat().st_size < 600_000
        w = read_workload(recorded(name))
        assert 20_000 < len(w) <= 200_000 and not w.starts_mapped
        assert {"program", "command", "valgrind", "accesses", "filter", "recorded"} <= set(w.meta)
        assert {"cut", "ended"}.isdisjoint(w.meta)
        assert Kind.MAP in w.kind and {int(Kind.TOUCH), int(Kind.READ)} <= set(w.kind.tolist())
    with pytest.raises(InputError, match="no recorded workload 'x'; there are: "):
        recorded("x")


def test_half_of_the_recordings_are_held_out() -> None:
    held, others = recorded_names(held_out=True), recorded_names(held_out=False)
    assert sorted(held + others) == recorded_names() and abs(len(held) - len(others)) <= 1
    assert {"sort", "python", "sqlite"} <= set(others)
    assert all(is_held_out(name) == (name in held) for name in recorded_names())
