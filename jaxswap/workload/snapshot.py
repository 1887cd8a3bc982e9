"""A process's map from pages to swap slots, read from /proc, with its VMAs and the machine's mTHP counters.

The words of /proc/PID/pagemap (fs/proc/task_mmu.c, Documentation/admin-guide/mm/pagemap.rst; 7.3): bit 63
present, bit 62 swapped, bit 61 file page or shared; of a swapped page bits 0-4 the number of the swap device
and bits 5-54 the slot in it. Slots are only shown to a process with CAP_SYS_ADMIN.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int8, Int32, Int64, UInt64

from jaxswap.errors import InputError, reason
from jaxswap.workload.files import open_checked, write_atomic

FORM = 1
PAGE = 4096
_KEY = b"jaxswap-snapshot"
_COLUMNS = {
    "page": pa.int64(),
    "slot": pa.int64(),
    "device": pa.int8(),
    "vma": pa.int32(),
    "shared": pa.bool_(),
}
_PRESENT, _SWAPPED, _SHARED = (np.uint64(1 << bit) for bit in (63, 62, 61))
_DEVICE, _SLOT, _SLOT_SHIFT = np.uint64(0x1F), np.uint64((1 << 50) - 1), np.uint64(5)
_CAP_SYS_ADMIN = 1 << 21
_PIECE = 1 << 20  # words read at a time
_MAPS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ \d+ *(.*)")
_THP = Path("/sys/kernel/mm/transparent_hugepage")


@dataclass(frozen=True)
class Vma:
    """Pages [start, end) of one VMA, its permissions as in /proc/PID/maps ("rw-p") and its name there."""

    start: int
    end: int
    permissions: str
    name: str


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The pages of a process that are present or swapped, ascending.

    page: address / 4096; slot: in the swap device, -1 for a present page; device: number of the swap device,
    as the kernel numbers them, -1 for a present page; vma: index into vmas; shared: a file page or shared
    memory. vmas: all of the process, ascending. about: pid, command, kernel, date. swaps: the lines of
    /proc/swaps. counters: "hugepages-64kB/swpout" and so on -> value, of the whole machine; settings:
    "hugepages-64kB/enabled" -> the mode chosen.
    """

    page: Int64[np.ndarray, "pages"]
    slot: Int64[np.ndarray, "pages"]
    device: Int8[np.ndarray, "pages"]
    vma: Int32[np.ndarray, "pages"]
    shared: Bool[np.ndarray, "pages"]
    vmas: tuple[Vma, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    swaps: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def swapped(self) -> Bool[np.ndarray, "pages"]:
        """Which pages are in swap."""
        return self.device >= 0


def decode(
    words: UInt64[np.ndarray, "pages"],
) -> tuple[
    Bool[np.ndarray, "pages"],
    Int64[np.ndarray, "pages"],
    Int8[np.ndarray, "pages"],
    Bool[np.ndarray, "pages"],
]:
    """Words of pagemap -> (is the page present or swapped, its slot, its device, is it shared).

    Slot and device are -1 but for swapped pages."""
    swapped = (words & _SWAPPED) != 0
    slot = np.where(swapped, ((words >> _SLOT_SHIFT) & _SLOT).astype(np.int64), -1)
    device = np.where(swapped, (words & _DEVICE).astype(np.int8), -1).astype(np.int8)
    return swapped | ((words & _PRESENT) != 0), slot, device, (words & _SHARED) != 0


def parse_maps(text: str) -> tuple[Vma, ...]:
    """The VMAs of /proc/PID/maps, without those above user addresses. Raises InputError for another text."""
    found = []
    for line in text.splitlines():
        match = _MAPS.fullmatch(line.rstrip())
        if not match:
            raise InputError(f"/proc/PID/maps: not a mapping: {line[:60]!r}")
        start, end = int(match[1], 16), int(match[2], 16)
        if end <= 1 << 63:
            found.append(Vma(start // PAGE, end // PAGE, match[3], match[4]))
    return tuple(found)


def take_snapshot(pid: int, proc: Path = Path("/proc")) -> Snapshot:
    """Read a process's pages. It should stand still (kill -STOP), or pages move while they are read.

    Raises InputError without CAP_SYS_ADMIN, which alone sees slots, and for a process that is not there or
    ends meanwhile."""
    folder = proc / str(pid)
    if not folder.is_dir():
        raise InputError(f"{pid}: no such process")
    if not _may_see_slots(proc):
        raise InputError("swap slots are shown only with CAP_SYS_ADMIN; give the command as root (sudo)")
    try:
        vmas = parse_maps((folder / "maps").read_text(errors="backslashreplace"))
        command = (folder / "comm").read_text(errors="backslashreplace").strip()
        with open(folder / "pagemap", "rb", buffering=0) as file:
            columns = [_pages(file.fileno(), index, vma) for index, vma in enumerate(vmas)]
    except (FileNotFoundError, ProcessLookupError):
        raise InputError(f"{pid}: has no memory; it is a kernel thread, or has ended") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{pid}: its memory map cannot be read ({reason(error)}); root is needed") from None
    if not vmas:
        raise InputError(f"{pid}: has no memory; it is a kernel thread, or has ended")
    page, slot, device, vma, shared = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    about = {"pid": str(pid), "command": command, "kernel": platform.release()}
    counters, settings = read_mthp()
    return Snapshot(page, slot, device, vma, shared, vmas, about, _swaps(proc), counters, settings)


def _pages(descriptor: int, index: int, vma: Vma) -> tuple[np.ndarray, ...]:
    """page, slot, device, vma, shared of the present and swapped pages of one VMA."""
    parts = []
    for start in range(vma.start, vma.end, _PIECE):
        count = min(_PIECE, vma.end - start)
        data = os.pread(descriptor, 8 * count, 8 * start)
        words = np.frombuffer(data[: len(data) // 8 * 8], np.uint64)
        there, slot, device, shared = decode(words)
        kept = np.flatnonzero(there)
        parts.append(
            (start + kept, slot[kept], device[kept], np.full(len(kept), index, np.int32), shared[kept])
        )
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _may_see_slots(proc: Path) -> bool:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", (proc / "self" / "status").read_text(), re.MULTILINE)
    return bool(match and int(match[1], 16) & _CAP_SYS_ADMIN)


def _swaps(proc: Path) -> tuple[str, ...]:
    path = proc / "swaps"
    return tuple(path.read_text().splitlines()[1:]) if path.exists() else ()


def read_mthp(thp: Path = _THP) -> tuple[dict[str, int], dict[str, str]]:
    """(counters, settings) of every size under /sys/kernel/mm/transparent_hugepage; nothing on a kernel
    without."""
    counters, settings = {}, {}
    for path in sorted(thp.glob("hugepages-*kB/stats/*")):
        counters[f"{path.parent.parent.name}/{path.name}"] = int(path.read_text())
    for path in sorted([*thp.glob("hugepages-*kB/enabled"), *thp.glob("enabled"), *thp.glob("defrag")]):
        chosen = re.search(r"\[(\w[\w+-]*)\]", path.read_text())
        if chosen:
            settings[str(path.relative_to(thp))] = chosen[1]
    return counters, settings


def write_snapshot(snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
    """Write a Parquet file: a row a page with the columns of Snapshot, the rest as JSON in its metadata."""
    about = {
        "form": FORM,
        "about": dict(snapshot.about),
        "swaps": list(snapshot.swaps),
        "counters": dict(snapshot.counters),
        "settings": dict(snapshot.settings),
        "vmas": [[vma.start, vma.end, vma.permissions, vma.name] for vma in snapshot.vmas],
    }
    columns = [pa.array(getattr(snapshot, name), kind) for name, kind in _COLUMNS.items()]
    table = pa.table(columns, list(_COLUMNS)).replace_schema_metadata({_KEY: json.dumps(about)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    write_atomic(path, sink.getvalue().to_pybytes(), "snapshot")


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Read what write_snapshot wrote. Raises InputError for anything else."""
    name = os.fspath(path)
    with open_checked(path, "snapshot") as file:
        data = file.read()
    try:
        table = pq.read_table(pa.BufferReader(data))
        about = json.loads((table.schema.metadata or {})[_KEY])
        if about["form"] != FORM:
            raise InputError(f"{name}: is a snapshot of form {about['form']}, not {FORM}; take it again")
        columns = [table[column].cast(kind) for column, kind in _COLUMNS.items()]
        if any(column.null_count for column in columns):
            raise ValueError("holes in a column")
        page, slot, device, vma, shared = (column.to_numpy() for column in columns)
        vmas = tuple(
            Vma(int(start), int(end), str(perms), str(title)) for start, end, perms, title in about["vmas"]
        )
        rest = (dict(about["about"]), tuple(about["swaps"]), dict(about["counters"]), dict(about["settings"]))
        _check(page, slot, device, vma, vmas)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        first = str(error).splitlines()[:1]
        raise InputError(
            f"{name}: is no snapshot ({''.join(first)[:80]}); jaxswap snapshot PID writes one"
        ) from None
    return Snapshot(page, slot, device, vma, shared, vmas, *rest)


def _check(
    page: np.ndarray, slot: np.ndarray, device: np.ndarray, vma: np.ndarray, vmas: tuple[Vma, ...]
) -> None:
    """Raise ValueError for rows that contradict each other."""
    if (np.diff(page) <= 0).any():
        raise ValueError("pages are not ascending")
    if len(vma) and (vma.min() < 0 or vma.max() >= len(vmas)):
        raise ValueError("a page belongs to no VMA")
    starts, ends = (np.array([getattr(one, name) for one in vmas], np.int64) for name in ("start", "end"))
    if len(page) and ((page < starts[vma]) | (page >= ends[vma])).any():
        raise ValueError("a page is outside its VMA")
    if ((device < -1) | (device > 31) | ((device < 0) != (slot < 0))).any():
        raise ValueError("a slot without a device")
