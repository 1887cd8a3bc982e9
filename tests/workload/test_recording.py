"""Recordings: what is read, what counts as cut off or altered, and writing them."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.workload import format_recording, read_recording, write_recording

HEADER = """\
# kernel 7.3.4
# workload demo
# mthp 16m 64m
# swap virtio 128M  (a remark in brackets)
# cpus 1  memory 1024M
# memory.max 32M  swappiness 60  defrag madvise
"""
BLOCKS = """\
ECHO some words
DUMP first
P 0 16
S 16 8 t0 512
S 24 8 t0 600
S 32 8 t1 608
N 40 24
ENDDUMP
OP PAGEOUT 0 16 : 0.104 s
FOLIOS first
F 0 4 AR
F 4 4\x20
s 8 4 Ru
TAIL 12 4
ENDFOLIOS
STATS first t=6.015
 64kB: anon_fault_alloc=2 swpin=1
 vmstat: nr_swapcached=0 pswpin=146 odd=-1
 swaps: /dev/zram0                              partition 131068  4216  -1
 memory.current: 33488896
 memory.events:
 memory.stat: anon=5 kernel=6
ENDSTATS acc=1 bad=0
"""
TEXT = HEADER + BLOCKS + "OPS 48 bad=0\n"


def read(tmp_path: Path, text: str):
    path = tmp_path / "r.txt"
    path.write_text(text)
    return read_recording(path)


def test_everything(tmp_path: Path) -> None:
    r = read(tmp_path, TEXT)
    assert r.header == {
        "kernel": "7.3.4",
        "workload": "demo",
        "mthp": "16m 64m",
        "swap": "virtio 128M",
        "cpus": "1",
        "memory": "1024M",
        "memory.max": "32M",
        "swappiness": "60",
        "defrag": "madvise",
    }
    runs = [
        ("P", 0, 16, 0, 0),
        ("S", 16, 8, 0, 512),
        ("S", 24, 8, 0, 600),
        ("S", 32, 8, 1, 608),
        ("N", 40, 24, 0, 0),
    ]
    stats = {
        "t": 6.015,
        "64kB": {"anon_fault_alloc": 2, "swpin": 1},
        "vmstat": {"nr_swapcached": 0, "pswpin": 146, "odd": -1},
        "swaps": ["/dev/zram0                              partition 131068  4216  -1"],
        "memory.current": 33488896,
        "memory.events": {},
        "memory.stat": {"anon": 5, "kernel": 6},
        "end": {"acc": 1, "bad": 0},
    }
    folios = [("F", 0, 4, "AR"), ("F", 4, 4, ""), ("s", 8, 4, "Ru"), ("TAIL", 12, 4, "")]
    assert r.blocks == [
        ("ECHO", "some words", None),
        ("DUMP", "first", runs),
        ("FOLIOS", "first", folios),
        ("STATS", "first", stats),
    ]
    assert (r.npages, r.killed, r.lines) == (64, "", [7, 8, 16, 22])
    assert r.dumps() == [("first", runs)] and r.stats() == [("first", stats)]


def test_pressure_form_and_killed(tmp_path: Path) -> None:
    text = TEXT.replace(" t0 ", " ").replace("S 32 8 t1 608", "S 32 8 700").replace("OPS 48 bad=0", "")
    text += "CHILD DIED status 9 in op UNI 0 1 2 3 4 after 94554 accesses\n"
    text += "STATS died t=1.0\nENDSTATS\nOPSDONE dead\n"
    r = read(tmp_path, text)
    assert r.blocks[1][2][1] == ("S", 16, 8, 0, 512)
    assert r.killed.startswith("CHILD DIED status 9") and r.blocks[-1][:2] == ("STATS", "died")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("OPS 48 bad=0\n", "", "ends without its OPS line; the recording was cut off"),
        ("OPS 48 bad=0\n", "OPS 48 bad=3\n", "read 3 wrong pages"),
        ("OPS 48 bad=0\n", "OPS 48 bad=0\nDUMP x\nENDDUMP\n", "text after the final OPS line"),
        ("OPS 48 bad=0\n", "OPSDONE dead\n", "no CHILD DIED line"),
        ("ENDSTATS acc=1 bad=0\nOPS 48 bad=0\n", "", "r.txt:22: STATS first has no ENDSTATS"),
        ("ENDDUMP\nOP ", "OP ", "DUMP first has no ENDDUMP"),
        ("ENDFOLIOS\n", "", "FOLIOS first has no ENDFOLIOS"),
        ("S 16 8 t0 512\n", "", "the run starts at page 24, not 16"),
        ("S 16 8 t0 512\n", "S 16 9 t0 512\n", "the run starts at page 24, not 25"),
        ("S 24 8 t0 600\n", "S 24 8 t0 520\n", "only continues the one before"),
        ("N 40 24\n", "N 40 20\nN 60 4\n", "only continues the one before"),
        ("S 24 8 t0 600\n", "S 24 8 t0 6OO\n", "not a line of this block"),
        ("s 8 4 Ru\n", "s 6 4 Ru\n", "the run starts at page 6, before 8"),
        ("swpin=1\n", "swpin=one\n", "not a counter: 'swpin=one'"),
        ("OP PAGEOUT", "OB PAGEOUT", "not part of a recording: 'OB PAGEOUT"),
        ("OPS 48", "DUMP second\nN 0 60\nENDDUMP\nOPS 48", "DUMP second has 60 pages, the one before 64"),
        ("ECHO some", "ECHO \0 some", "not a text file"),
    ],
)
def test_altered(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        read(tmp_path, TEXT.replace(old, new, 1))
    assert message in str(caught.value) and str(tmp_path / "r.txt:") in str(caught.value)


@given(st.integers(0, len(TEXT) - 2))
def test_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.txt"
    path.write_text(TEXT[:at])
    if TEXT[at:].strip() == "":
        return
    # inside the last line too: "OPS 48 bad" is a shorter but whole OPS line only from "OPS" on
    if at > TEXT.index("OPS 48"):
        return
    with pytest.raises(InputError):
        read_recording(path)


def test_not_a_recording(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recording file"):
        read_recording(tmp_path / "none")
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path, "")
    with pytest.raises(InputError, match="not part of a recording"):
        read(tmp_path, "REGION 64 plain\nTOUCH 1\n")


def test_write_and_read_back(tmp_path: Path) -> None:
    r = read(tmp_path, TEXT)
    for name in ("out.txt", "out.txt.gz"):
        write_recording(tmp_path / name, r.header, r.blocks, 48)
        again = read_recording(tmp_path / name)
        for block in r.blocks:
            if block[0] == "STATS":
                block[2].pop("t", None)
        assert (again.header, again.blocks) == (r.header, r.blocks)
    assert gzip.decompress((tmp_path / "out.txt.gz").read_bytes()) == (tmp_path / "out.txt").read_bytes()
    assert format_recording({}, [], 1, killed="CHILD DIED x").splitlines() == ["CHILD DIED x", "OPSDONE dead"]
