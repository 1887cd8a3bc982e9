"""The plain C machine of the bench: compiled on the spot, fed with a workload, read back.

The C sources (csrc/machine.c and its headers) hold the machine of policy ``kernel``, one page and one folio
at a time; jaxswap's replay is measured against it, and tests hold both to the same results.
"""

from __future__ import annotations

import functools
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt32

from jaxswap.errors import InputError
from jaxswap.machine.vmas import Vmas
from jaxswap.workload import Kind, Workload

FLAGS = ("-std=c11", "-O3", "-march=native")
_MAGIC = 0x314D534A
_MOST = 1 << 30
_ADVICE = {"plain": 0, "huge": 1, "nohuge": 2}
_BLOCKS = (Kind.DUMP, Kind.FOLIOS, Kind.STATS)


class CLane(NamedTuple):
    """One lane: masks of orders (bits 2 to 8) for any region and for MADV_HUGEPAGE ones, limit, device size.

    limit_pages counts 4 KiB pages (None: no limit), swap_slots the slots of the device, its header included.
    """

    always: int
    madvise: int
    limit_pages: int | None
    swap_slots: int

    def argument(self) -> str:
        if not 2 <= self.swap_slots < _MOST:
            raise ValueError(f"swap_slots is {self.swap_slots}; it must be 2..{_MOST - 1}")
        if self.limit_pages is not None and self.limit_pages < 1:
            raise ValueError(f"limit_pages is {self.limit_pages}; it must be at least 1")
        return f"{self.always},{self.madvise},{self.limit_pages or 0},{self.swap_slots}"


class CResult(NamedTuple):
    """One replay: its blocks, the counters of the whole run, and whether the OOM killer ended it."""

    blocks: list[tuple[str, str, Any]]
    counters: dict[str, int]
    oom: bool


@dataclass(frozen=True)
class Timing:
    """Times of one measurement: ``ns[r]`` nanoseconds for repeat r, in which every lane ran once on one core.

    operations: the workload's operations, ranges cut at 2 MiB blocks and VMA borders; accesses: its page
    accesses.
    """

    ns: list[int]
    lanes: int
    operations: int
    accesses: int

    @property
    def median(self) -> float:
        """Nanoseconds of the median repeat."""
        return statistics.median(self.ns)

    @property
    def per_operation(self) -> float:
        """Nanoseconds a lane-operation, of the median repeat."""
        return self.median / max(self.lanes * self.operations, 1)

    @property
    def per_access(self) -> float:
        """Nanoseconds a lane and page access, of the median repeat."""
        return self.median / max(self.lanes * self.accesses, 1)


def _compiler() -> str | None:
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def available() -> bool:
    """Whether a C compiler is there: $CC, cc, gcc or clang."""
    return _compiler() is not None


@functools.cache
def _compiled() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """The program, and the folder that goes when the process ends. Not kept: it fits this processor only."""
    compiler = _compiler()
    if compiler is None:
        raise InputError("no C compiler found for the plain C machine; install gcc or clang, or set CC")
    folder = tempfile.TemporaryDirectory(prefix="jaxswap-c-")
    program = Path(folder.name) / "machine"
    with resources.as_file(resources.files("jaxswap.bench") / "csrc") as sources:
        command = [compiler, *FLAGS, "-o", str(program), str(sources / "machine.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        folder.cleanup()
        why = next((line for line in done.stderr.splitlines() if "error" in line), "it printed no error")
        raise InputError(f"{compiler} cannot compile the plain C machine: {why}")
    return program, folder


def _prepare(workload: Workload) -> tuple[UInt32[np.ndarray, "ops 5"], bytes]:
    """Operations as the C program reads them, and the labels of its blocks."""
    vmas, labels = Vmas(), bytearray()
    if workload.starts_mapped:
        vmas.map(0, workload.npages, workload.advice)
    words: list[int] = []
    columns = (column.tolist() for column in (workload.kind, workload.v, workload.n))
    for i, (kind, v, n) in enumerate(zip(*columns, strict=True)):
        if kind <= Kind.WILLNEED or kind == Kind.UNMAP:
            pieces = list(vmas.cut(v, v + n))
            code = Kind.DONTNEED if kind == Kind.UNMAP else kind
            for place, start, end in pieces:
                vma = vmas.live[place]
                words += (code | _ADVICE[vma.advice] << 16, start, end, vma.start, vma.end)
            if kind in (Kind.TOUCH, Kind.ZERO):
                vmas.write(place for place, _, _ in pieces)
            if kind == Kind.UNMAP:
                vmas.unmap(v, v + n)
        elif kind == Kind.MAP:
            vmas.map(v, v + n, workload.text[i])
        elif kind in (Kind.MADVHUGE, Kind.MADVNOHUGE):
            vmas.advise(v, v + n, "huge" if kind == Kind.MADVHUGE else "nohuge")
        elif kind in _BLOCKS:
            label = workload.text.get(i, "").encode("utf-8", "surrogateescape")
            words += (kind, len(labels), len(label), 0, 0)
            labels += label
    return np.array(words, np.uint32).reshape(-1, 5), bytes(labels)


class CMachine:
    """The C machine. Raises InputError if it cannot be compiled."""

    def __init__(self) -> None:
        self.program, self._folder = _compiled()

    def run(
        self, workload: Workload, always: int, madvise: int, limit_pages: int | None, swap_slots: int
    ) -> CResult:
        """Replay a workload on one lane; arguments as the fields of CLane."""
        lane = CLane(always, madvise, limit_pages, swap_slots).argument()
        with _file(workload) as (path, _):
            return _parse(self._call("show", path, lane))

    def blocks(
        self, workload: Workload, always: int, madvise: int, limit_pages: int | None, swap_slots: int
    ) -> list[tuple[str, str, Any]]:
        """The blocks a replay prints, in order, each (kind, label, content).

        DUMP: (state, start, length, type, offset) for each run; FOLIOS: (what, start, length); STATS: the
        non-zero counters by jaxswap's flat names.
        """
        return self.run(workload, always, madvise, limit_pages, swap_slots).blocks

    def counters(
        self, workload: Workload, always: int, madvise: int, limit_pages: int | None, swap_slots: int
    ) -> dict[str, int]:
        """Non-zero counters of the whole run; pages in memory at its end are judged as if they left then."""
        return self.run(workload, always, madvise, limit_pages, swap_slots).counters

    def measure(
        self, workload: Workload, lanes: Sequence[CLane | tuple[int, int, int | None, int]], repeats: int
    ) -> Timing:
        """Time replays of all lanes, one after the other on one core, each from a fresh state.

        Parsing the workload, setting up the state and printing are outside the timed part.
        """
        if not lanes or repeats < 1:
            raise ValueError("measure needs at least one lane and one repeat")
        arguments = [CLane(*lane).argument() for lane in lanes]
        with _file(workload) as (path, operations):
            printed = self._call("time", path, str(repeats), *arguments)
        ns = [int(line.split()[1]) for line in printed.splitlines() if line.startswith("ns ")]
        return Timing(ns, len(arguments), operations, workload.accesses)

    def time(
        self, workload: Workload, lanes: Sequence[CLane | tuple[int, int, int | None, int]], repeats: int
    ) -> list[int]:
        """Nanoseconds of each repeat, all lanes of one repeat together."""
        return self.measure(workload, lanes, repeats).ns

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([str(self.program), *arguments], capture_output=True, check=False)
        if done.returncode:
            why = done.stderr.decode("utf-8", "replace").strip() or f"exit status {done.returncode}"
            raise RuntimeError(f"the C machine failed: {why}")
        return done.stdout.decode("utf-8", "surrogateescape")


class _file:
    """The workload in the form the C program reads, in a file that lives as long as the context."""

    def __init__(self, workload: Workload) -> None:
        if workload.npages >= _MOST:
            raise ValueError(f"{workload.name}: the C machine takes fewer than {_MOST} pages")
        self.operations, self.labels = _prepare(workload)
        self.npages = workload.npages

    def __enter__(self) -> tuple[str, int]:
        self.folder = tempfile.TemporaryDirectory(prefix="jaxswap-c-")
        path = os.path.join(self.folder.name, "workload")
        head = np.array([_MAGIC, self.npages, len(self.operations), len(self.labels)], np.uint32)
        with open(path, "wb") as file:
            file.write(head.tobytes() + self.operations.tobytes() + self.labels)
        shown = np.isin(self.operations[:, 0], np.array(_BLOCKS))
        return path, int(np.count_nonzero(~shown))

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def _parse(printed: str) -> CResult:
    lines = iter(printed.split("\n"))
    blocks: list[tuple[str, str, Any]] = []
    for text in lines:
        what, _, label = text.partition(" ")
        if what == "DUMP":
            blocks.append((what, label, [_dump_run(words) for words in _rows(lines, "ENDDUMP")]))
        elif what == "FOLIOS":
            content = [(kind, int(v), int(n)) for kind, v, n in _rows(lines, "ENDFOLIOS")]
            blocks.append((what, label, content))
        elif what == "STATS":
            blocks.append((what, label, _stats(lines)))
        elif what == "END":
            return CResult(blocks, _stats(lines), label == "oom")
    raise RuntimeError("the C machine printed no END")


def _rows(lines: Iterator[str], end: str) -> Iterator[list[str]]:
    for text in lines:
        if text.startswith(end):
            return
        yield text.split()


def _dump_run(words: list[str]) -> tuple[str, int, int, int, int]:
    offset = int(words[4]) if words[0] == "S" else 0
    return (words[0], int(words[1]), int(words[2]), 0, offset)


def _stats(lines: Iterator[str]) -> dict[str, int]:
    counters = {}
    for group, *pairs in _rows(lines, "ENDSTATS"):
        prefix = "" if group == "vmstat:" else f"{group[:-1]}/"
        for name, _, value in (pair.partition("=") for pair in pairs):
            counters[prefix + name] = int(value)
    return counters
