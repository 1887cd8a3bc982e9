"""Snapshots: words of pagemap by their documented bits, a real process, and files that are none."""

import gzip
import mmap
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxswap.errors import InputError
from jaxswap.report.snapshot import snapshot_text, whole_blocks
from jaxswap.workload import snapshot as module
from jaxswap.workload.snapshot import (
    Snapshot,
    Vma,
    decode,
    parse_maps,
    read_snapshot,
    take_snapshot,
    write_snapshot,
)

DATA = Path(__file__).parent.parent / "data" / "imports"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def word(
    present: int = 0, swapped: int = 0, shared: int = 0, device: int = 0, slot: int = 0, other: int = 0
) -> int:
    """A word as Documentation/admin-guide/mm/pagemap.rst lays it out; other: bits 55 to 58."""
    return present << 63 | swapped << 62 | shared << 61 | other << 55 | (slot << 5 | device if swapped else 0)


def test_each_field_is_where_it_is_documented() -> None:
    rng = random.Random(3)
    rows = []
    for _ in range(2000):
        swapped = rng.random() < 0.5
        rows.append(
            {
                "present": 0 if swapped else rng.randint(0, 1),
                "swapped": int(swapped),
                "shared": rng.randint(0, 1),
                "device": rng.randint(0, 31),
                "slot": rng.choice([0, 1, (1 << 50) - 1, rng.randrange(1 << 50)]),
                "other": rng.randrange(16),
            }
        )
    there, slot, device, shared = decode(np.array([word(**row) for row in rows], np.uint64))
    for i, row in enumerate(rows):
        assert there[i] == bool(row["present"] or row["swapped"]) and shared[i] == bool(row["shared"])
        assert (slot[i], device[i]) == ((row["slot"], row["device"]) if row["swapped"] else (-1, -1))


def test_frame_numbers_are_no_slots() -> None:
    there, slot, device, _ = decode(np.array([word(present=1) | 0x12345], np.uint64))
    assert there.all() and slot[0] == device[0] == -1


def made(pages: dict[int, tuple[int, int]], vmas: tuple[Vma, ...]) -> Snapshot:
    """A snapshot of page -> (device, slot)."""
    page = np.array(sorted(pages), np.int64)
    device, slot = (np.array([pages[int(p)][i] for p in page]) for i in (0, 1))
    vma = np.array(
        [next(i for i, one in enumerate(vmas) if one.start <= p < one.end) for p in page], np.int32
    )
    rest = (slot.astype(np.int64), device.astype(np.int8), vma, np.zeros(len(page), bool), vmas)
    return Snapshot(
        page, *rest, {"pid": "1"}, ("/dev/zram0 partition 1 0 -2",), {"hugepages-64kB/swpin": 3}, {}
    )


VMAS = (Vma(0, 100, "rw-p", ""), Vma(128, 512, "rw-p", "[heap]"))


def test_round_trip(tmp_path: Path) -> None:
    one = made({3: (-1, -1), 4: (0, 7), 130: (1, 1 << 49)}, VMAS)
    write_snapshot(one, tmp_path / "s.parquet")
    again = read_snapshot(tmp_path / "s.parquet")
    for name in ("page", "slot", "device", "vma", "shared"):
        assert np.array_equal(getattr(one, name), getattr(again, name)), name
        assert getattr(one, name).dtype == getattr(again, name).dtype, name
    assert (again.vmas, again.about, again.swaps) == (one.vmas, one.about, one.swaps)
    assert (again.counters, again.settings) == (one.counters, one.settings)


def test_whole_blocks() -> None:
    pages = {v: (0, 64 + v) for v in range(128, 160)}  # two blocks of 16, in order and aligned
    pages |= {v: (0, 1001 + v) for v in range(160, 176)}  # in order, not aligned
    pages |= {v: (1, 512 + (v ^ 1)) for v in range(176, 192)}  # aligned, not in order
    pages |= {v: (0, 2048 + v) for v in range(192, 207)}  # a page short of a block
    one = made(pages, VMAS)
    assert [whole_blocks(one, 0, order) for order in (4, 5, 2)] == [2, 1, 8 + 3]
    assert whole_blocks(one, 1, 4) == 0
    assert "swapped   79 pages" in snapshot_text(one)


@needs_root
def test_a_real_process(tmp_path: Path) -> None:
    """Of 64 pages of a mapping the even ones are touched: those are there, and no others."""
    code = """
import mmap, sys, ctypes
m = mmap.mmap(-1, 64 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, 64, 2): m[page * 4096] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout
        start = int(process.stdout.readline()) // 4096
        taken = take_snapshot(process.pid)
        process.kill()
    inside = (taken.page >= start) & (taken.page < start + 64)
    # a page may be in swap where this machine has some
    assert (taken.page[inside] - start).tolist() == list(range(0, 64, 2))
    vma = taken.vmas[int(taken.vma[inside][0])]
    assert vma.start <= start and start + 64 <= vma.end and vma.permissions == "rw-p"
    assert not taken.shared[inside].any()
    write_snapshot(taken, tmp_path / "s.parquet")
    assert np.array_equal(read_snapshot(tmp_path / "s.parquet").page, taken.page)


def test_swapped_words_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A /proc with a pagemap of made words: what take_snapshot makes of swapped pages."""
    folder = tmp_path / "77"
    folder.mkdir()
    (folder / "maps").write_text(
        "10000-14000 rw-p 00000000 00:00 0 \n20000-22000 r--p 00001000 fe:00 5    /bin/a b\n"
    )
    (folder / "comm").write_text("a\n")
    words = np.zeros(0x22, np.uint64)
    words[0x10], words[0x12] = word(swapped=1, device=2, slot=9), word(present=1, shared=1)
    words[0x21] = word(swapped=1, slot=(1 << 50) - 1, shared=1)
    (folder / "pagemap").write_bytes(words.tobytes())
    (tmp_path / "swaps").write_text("Filename Type Size Used Priority\n/dev/zram0 partition 8 4 -2\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nCapEff:\t0000000000000000\n")
    with pytest.raises(InputError, match="as root"):
        take_snapshot(77, tmp_path)
    (tmp_path / "self" / "status").write_text("Name:\tx\nCapEff:\t0000000000200000\n")
    monkeypatch.setattr(module, "_PIECE", 3)
    taken = take_snapshot(77, tmp_path)
    assert taken.page.tolist() == [0x10, 0x12, 0x21] and taken.vma.tolist() == [0, 0, 1]
    assert taken.slot.tolist() == [9, -1, (1 << 50) - 1] and taken.device.tolist() == [2, -1, 0]
    assert taken.shared.tolist() == [False, True, True]
    assert taken.vmas[1] == Vma(0x20, 0x22, "r--p", "/bin/a b") and len(taken.swaps) == 1


def real_kernel(folder: Path) -> tuple[Snapshot, int]:
    """What tests/data/imports/pagemap.c left on Linux 7.3.4, and the first page it wrote.

    Of 448 pages written the first 256 were paged out in folios of 64 kB; every fifth of the first 64 was
    written again, which swapped its folio in; then 100 to 119 were thrown away. folder: an empty one.
    """
    text = gzip.decompress((DATA / "pagemap-7.3.4.txt.gz").read_bytes()).decode()
    files = dict(re.findall(r"^FILE /proc/(\S+)\n(.*?)^END$", text, re.MULTILINE | re.DOTALL))
    start, listed = re.findall(r"^WORDS (\w+)\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)[0]
    words = np.array([int(word, 16) for word in listed.split()], np.uint64)
    (folder / "9").mkdir()
    (folder / "9" / "maps").write_text(files["self/maps"])
    (folder / "9" / "comm").write_text(files["self/comm"])
    (folder / "swaps").write_text(files["swaps"])
    (folder / "self").mkdir()
    (folder / "self" / "status").write_text("CapEff:\t000001ffffffffff\n")
    with open(folder / "9" / "pagemap", "wb") as file:  # sparse: the other pages read as none
        file.seek(8 * int(start, 16))
        file.write(words.tobytes())
        file.truncate(8 << 36)
    return take_snapshot(9, folder), int(start, 16)


def test_swapped_pages_of_a_real_kernel(tmp_path: Path) -> None:
    taken, start = real_kernel(tmp_path)
    page = taken.page - start
    thrown_away = set(range(100, 120))
    assert page.tolist() == [p for p in range(448) if p not in thrown_away]
    assert page[taken.swapped].tolist() == [p for p in range(64, 256) if p not in thrown_away]
    assert set(taken.device[taken.swapped].tolist()) == {0}
    used = int(taken.swaps[0].split()[3])  # kB, of /proc/swaps at that moment
    assert 4 * int(taken.swapped.sum()) == used
    # twelve folios of 64 kB, of which two lost pages; each in an aligned block of slots
    assert whole_blocks(taken, 0, 4) == 10
    assert not taken.shared.any() and taken.vmas[int(taken.vma[0])].permissions == "rw-p"


def test_mappings_above_user_addresses_are_left_out() -> None:
    text = "1000-2000 rw-p 00000000 00:00 0\n"
    text += "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n"
    assert parse_maps(text) == (Vma(1, 2, "rw-p", ""),)
    with pytest.raises(InputError, match="not a mapping"):
        parse_maps("nonsense")


def test_files_that_are_no_snapshot(tmp_path: Path) -> None:
    def said(table: pa.Table, pages: dict[str, object] | None = None) -> str:
        for name, values in (pages or {}).items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        pq.write_table(table, tmp_path / "bad.parquet")
        with pytest.raises(InputError) as caught:
            read_snapshot(tmp_path / "bad.parquet")
        return str(caught.value)

    write_snapshot(made({3: (0, 5), 4: (0, 7)}, VMAS), tmp_path / "s.parquet")
    good = pq.read_table(tmp_path / "s.parquet")
    assert "pages are not ascending" in said(good, {"page": [4, 4]})
    assert "outside its VMA" in said(good, {"page": [4, 120]})
    assert "belongs to no VMA" in said(good, {"vma": [0, 9]})
    assert "a slot without a device" in said(good, {"device": [0, -1]})
    assert "is no snapshot" in said(good, {"slot": ["a", "b"]})
    assert "holes in a column" in said(good, {"slot": [1, None]})
    assert "is no snapshot" in said(good.replace_schema_metadata({}))
    (tmp_path / "text").write_text("REGION 1 plain\n")
    with pytest.raises(InputError, match="is no snapshot"):
        read_snapshot(tmp_path / "text")


def test_present_pages_of_a_file_are_shared() -> None:
    if os.geteuid():
        pytest.skip("needs root")
    with open(sys.executable, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
        assert mapped[0] == 0x7F
        taken = take_snapshot(os.getpid())
    names = {vma.name for vma in (taken.vmas[i] for i in set(taken.vma[taken.shared].tolist()))}
    assert any(os.path.realpath(sys.executable) in name for name in names)
