"""A workload compiled for replay: what every lane does, worked out once on the host.

Runs of single accesses become one STREAM operation over an access table. Operations on ranges are cut at 2
MiB blocks and VMA borders. Each operation carries its VMA, so a machine keeps none.
"""

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32

from jaxswap.errors import InputError
from jaxswap.machine.fault import HUGE, NOHUGE, PLAIN
from jaxswap.workload import Kind, Workload

# Kinds of compiled operations.
STREAM, TOUCH, READ, ZERO, WILLNEED, DONTNEED, PAGEOUT, COLD, DROP = range(9)
FORK, FORK_TABLE, EXIT = range(9, 12)  # of a block, with several processes; the child + 1 is the end
WINDOW_COPY = 12  # the readahead state of a VMA, from `block` to `vma`
KINDS = 13
STREAM_ACCESSES = 4096  # most accesses of one STREAM
# Shorter programs are filled up to these, so that most share one compiled machine.
LEAST_OPERATIONS, LEAST_ACCESSES = 4096, 1 << 18
SHORT_RUN = 8  # runs up to this length are single accesses of a stream
WINDOW = 32  # accesses looked at together; the access table ends in as many fillers

_KINDS = {
    Kind.TOUCH: TOUCH,
    Kind.READ: READ,
    Kind.ZERO: ZERO,
    Kind.WILLNEED: WILLNEED,
    Kind.DONTNEED: DONTNEED,
    Kind.UNMAP: DONTNEED,
    Kind.PAGEOUT: PAGEOUT,
    Kind.COLD: COLD,
}
_ADVICE = {"plain": PLAIN, "huge": HUGE, "nohuge": NOHUGE}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Program:
    """The same for all lanes, so without a lane axis.

    kind, block, start, end: an operation each; a STREAM has its accesses start .. end - 1 of the access
    table. vma: VMA of an operation on a range. accesses: page << 1 | write. access_vma: VMA of each access.
    vma_start, vma_end (pages of the region), vma_advice: of each VMA there ever was; vma_window: number of its
    readahead state.
    """

    kind: Int32[Array, " ops"]
    block: Int32[Array, " ops"]
    start: Int32[Array, " ops"]
    end: Int32[Array, " ops"]
    vma: Int32[Array, " ops"]
    accesses: UInt32[Array, " accesses"]
    access_vma: Int32[Array, " accesses"]
    vma_start: Int32[Array, " vmas"]
    vma_end: Int32[Array, " vmas"]
    vma_advice: Int32[Array, " vmas"]
    vma_window: Int32[Array, " vmas"]


@dataclass(frozen=True)
class Compiled:
    """A program, and where in it the workload's labelled operations stand.

    ops: how many operations (the arrays are padded). marks: (operation before which it stands, index in the
    workload) of every DUMP, FOLIOS, STATS and ECHO. lane_operations: operations as the workload counts them,
    single accesses one each. processes: how many live at a time at most. room: pages each has room for; page v
    of place k among them is page k * room + v. homes: place of each operation's process. windows: readahead
    states there is room for.
    """

    program: Program
    ops: int
    marks: tuple[tuple[int, int], ...]
    lane_operations: int
    processes: int = 1
    room: int = 0
    windows: int = 0
    homes: Int32[np.ndarray, " ops"] = field(default_factory=lambda: np.zeros(0, np.int32))


class _Rows:
    """Of all processes: every VMA there ever was, how many readahead states, those copied by the last change."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, str, int]] = []  # start, end, advice, window
        self.windows = 0
        self.copies: list[tuple[int, int]] = []

    def window(self, like: int | None = None) -> int:
        """A new readahead state, or a copy of another."""
        self.windows += 1
        if like is not None:
            self.copies.append((like, self.windows - 1))
        return self.windows - 1


class _Vma(NamedTuple):
    start: int
    end: int
    advice: str
    mapping: int
    window: int


class _Vmas:
    """VMAs of a process over time: mappings, cut where the advice changes; every change makes new numbers."""

    def __init__(self, table: _Rows, base: int = 0) -> None:
        self.table = table
        self.base = base  # page 0 of the process
        self.live: list[_Vma] = []
        self.number: list[int] = []
        self.mappings = 0

    def _carve(self, start: int, end: int) -> list[_Vma]:
        inside, kept = [], []
        for vma in self.live:
            parts = []
            for x, y in (
                (vma.start, min(vma.end, start)),
                (max(vma.start, start), min(vma.end, end)),
                (max(vma.start, end), vma.end),
            ):
                if x < y:
                    # A split copies the readahead state.
                    window = self.table.window(vma.window) if parts else vma.window
                    parts.append(vma._replace(start=x, end=y, window=window))
                    (inside if start <= x < end else kept).append(parts[-1])
        self.live = kept
        return inside

    def _settle(self, fresh: list[_Vma]) -> None:
        """Put VMAs in and merge what has become alike; the VMA that grows keeps its readahead state."""
        merged: list[tuple[_Vma, bool]] = []
        for vma, new in sorted([(v, False) for v in self.live] + [(v, True) for v in fresh]):
            last, last_new = merged[-1] if merged else (None, False)
            if last and (last.end, last.advice, last.mapping) == (vma.start, vma.advice, vma.mapping):
                window = vma.window if last_new and not new else last.window
                merged[-1] = (last._replace(end=vma.end, window=window), False)
            else:
                merged.append((vma, new))
        self.live = [vma for vma, _ in merged]
        rows = self.table.rows
        self.number = list(range(len(rows), len(rows) + len(merged)))
        rows += [(v.start + self.base, v.end + self.base, v.advice, v.window) for v in self.live]
        self.edges = np.array([vma.start for vma in self.live], np.int64)

    def map(self, start: int, end: int, advice: str) -> None:
        self._carve(start, end)
        self.mappings += 1
        self._settle([_Vma(start, end, advice, self.mappings, self.table.window())])

    def unmap(self, start: int, end: int) -> None:
        self._carve(start, end)
        self._settle([])

    def advise(self, start: int, end: int, advice: str) -> None:
        self._settle([vma._replace(advice=advice) for vma in self._carve(start, end)])

    def fork(self, base: int) -> "_Vmas":
        """The same VMAs for a child."""
        child = _Vmas(self.table, base)
        child.mappings = self.mappings
        child.live = [vma._replace(window=self.table.window(vma.window)) for vma in self.live]
        child._settle([])
        return child

    def cut(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """(VMA number, start, end) of the pieces of a range, each in one VMA and one 2 MiB block."""
        pieces = []
        for vma, number in zip(self.live, self.number, strict=True):
            at, stop = max(vma.start, start), min(vma.end, end)
            while at < stop:
                until = min((at // 512 + 1) * 512, stop)
                pieces.append((number, at, until))
                at = until
        return pieces


def pages_of_process(npages: int) -> int:
    """Pages each of several processes has room for: a power of two of at least two blocks."""
    return max(1024, 1 << (npages - 1).bit_length())


def places_of(workload: Workload) -> tuple[Int32[np.ndarray, " ops"], Int32[np.ndarray, " ops"], int]:
    """Place of each operation's process; of each FORK's child; how many places (1, 2, 4, 8 or 16).

    A child gets the lowest free place; a place is free again once its process has exited.
    """
    places, homes, children = {0: 0}, np.zeros(len(workload), np.int32), np.zeros(len(workload), np.int32)
    most, at = 1, 0
    for i in [*np.flatnonzero(workload.kind >= Kind.FORK).tolist(), len(workload)]:
        span = workload.process[at : i + 1]
        homes[at : i + 1] = np.array([places.get(k, 0) for k in range(256)], np.int32)[span]
        if i < len(workload):
            if workload.kind[i] == Kind.FORK:
                free = min(set(range(len(places) + 1)) - set(places.values()))
                places[int(workload.v[i])] = children[i] = free
                most = max(most, free + 1)
            else:
                del places[int(workload.process[i])]
        at = i + 1
    return homes, children, 1 << (most - 1).bit_length()


def compile_workload(workload: Workload) -> Compiled:
    """Compile a workload. Raises InputError for an operation that a machine does not have."""
    homes, children, processes = places_of(workload)
    room = pages_of_process(workload.npages) if processes > 1 else 0
    table = _Rows()
    spaces = {0: _Vmas(table)}
    if workload.starts_mapped:
        spaces[0].map(0, workload.npages, workload.advice)
    ops: list[tuple[int, int, int, int, int]] = []
    marks: list[tuple[int, int]] = []
    chunks: list[np.ndarray] = []
    chunk_vmas: list[np.ndarray] = []
    done = lane_operations = 0
    kinds, firsts, lengths = workload.kind, workload.v.astype(np.int64), workload.n.astype(np.int64)
    # With several processes every mapped folio may be in the swap cache.
    waits = processes > 1 or bool((kinds == Kind.WILLNEED).any())
    single = (kinds <= Kind.READ) & (lengths <= SHORT_RUN)
    keys = np.where(single, homes + 1, 0)
    cuts = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)]
    ends = {a: b for a, b in itertools.pairwise(cuts) if a < b and keys[a]}
    i = 0
    while i < len(kinds):
        home = int(homes[i])
        base, vmas = home * room, spaces[home]
        if i in ends:
            stop = ends[i]
            runs, begin = lengths[i:stop], firsts[i:stop]
            offset = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
            pages = np.repeat(begin, runs) + offset
            writes = np.repeat(kinds[i:stop] == Kind.TOUCH, runs)
            chunks.append((pages + base).astype(np.uint32) << np.uint32(1) | writes)
            owner = np.searchsorted(vmas.edges, pages, "right") - 1
            chunk_vmas.append(np.asarray(vmas.number, np.int32)[owner])
            for at in range(done, done + len(pages), STREAM_ACCESSES):
                ops.append((STREAM, 0, at, min(at + STREAM_ACCESSES, done + len(pages)), 0))
            done += len(pages)
            lane_operations += len(pages)
            i = stop
            continue
        kind, v, n = Kind(kinds[i]), int(firsts[i]), int(lengths[i])
        if kind in _KINDS:
            parts = list(vmas.cut(v, v + n))
            turns = [_KINDS[kind]]
            # Without readahead no folio of the swap cache is mapped, so none waits for the end of the call.
            if _KINDS[kind] == DONTNEED and waits:
                turns.append(DROP)
            for turn in turns:
                for number, a, b in parts:
                    block = a // 512
                    ops.append((turn, block + base // 512, a - block * 512, b - block * 512, number))
            lane_operations += len(parts)
        if kind is Kind.MAP:
            vmas.map(v, v + n, workload.text[i])
        elif kind is Kind.UNMAP:
            vmas.unmap(v, v + n)
        elif kind in (Kind.MADVHUGE, Kind.MADVNOHUGE):
            vmas.advise(v, v + n, "huge" if kind is Kind.MADVHUGE else "nohuge")
        elif kind is Kind.SET:
            where = f"{workload.path or workload.name}:{int(workload.line[i])}"
            raise InputError(f"{where}: SET cannot be replayed; give the setting on the command line instead")
        elif workload.cpu[i]:
            where = f"{workload.path or workload.name}:{int(workload.line[i])}"
            raise InputError(f"{where}: this machine has one CPU; leave @C away")
        elif kind is Kind.FORK:
            child = int(children[i])
            blocks = range(base // 512, (base + workload.npages + 511) // 512)
            ops += [(turn, block, 0, child + 1, 0) for turn in (FORK, FORK_TABLE) for block in blocks]
            spaces[child] = vmas.fork(child * room)
            lane_operations += len(blocks)
        elif kind is Kind.EXIT:
            for turn in (DONTNEED, DROP, EXIT):
                for a in range(0, workload.npages, 512):
                    ops.append((turn, (a + base) // 512, 0, min(512, workload.npages - a), 0))
            lane_operations += 1
        elif kind in (Kind.DUMP, Kind.FOLIOS, Kind.STATS, Kind.ECHO):
            marks.append((len(ops), i))
        # One process reads ahead of nothing.
        if processes > 1:
            ops += [(WINDOW_COPY, 0, old, old + 1, new) for old, new in table.copies]
        table.copies.clear()
        i += 1

    def padded(values: list | np.ndarray, dtype: type, least: int = LEAST_OPERATIONS, more: int = 0) -> Array:
        data = np.asarray(values, dtype)
        size = max(least, 1 << (len(data) + more - 1).bit_length())
        return jnp.asarray(np.concatenate([data, np.zeros(size - len(data), dtype)]))

    columns = np.array(ops, np.int32).reshape(-1, 5)
    rows = table.rows
    accesses = np.concatenate([*chunks, np.zeros(0, np.uint32)])
    owners = np.concatenate([*chunk_vmas, np.zeros(0, np.int32)])
    program = Program(
        kind=padded(columns[:, 0], np.int32),
        block=padded(columns[:, 1], np.int32),
        start=padded(columns[:, 2], np.int32),
        end=padded(columns[:, 3], np.int32),
        vma=padded(columns[:, 4], np.int32),
        accesses=padded(accesses, np.uint32, LEAST_ACCESSES, WINDOW),
        access_vma=padded(owners, np.int32, LEAST_ACCESSES, WINDOW),
        vma_start=padded([row[0] for row in rows], np.int32),
        vma_end=padded([row[1] for row in rows], np.int32),
        vma_advice=padded([_ADVICE[row[2]] for row in rows], np.int32),
        vma_window=padded([row[3] for row in rows], np.int32),
    )
    windows = max(1024, 1 << table.windows.bit_length())
    return Compiled(program, len(ops), tuple(marks), lane_operations, processes, room, windows, homes)
