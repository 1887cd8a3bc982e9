"""A workload compiled for replay: what every lane does, worked out once on the host.

Runs of single accesses become one STREAM operation over an access table. Operations on ranges are cut at 2
MiB blocks and VMA borders. Each operation carries its VMA, so a machine keeps none.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Int64, UInt32

from jaxswap.errors import InputError
from jaxswap.machine.fault import HUGE, NOHUGE, PLAIN
from jaxswap.machine.settings import CLUSTER, number
from jaxswap.machine.vmas import Vmas
from jaxswap.swaptable.clusters import CPUS
from jaxswap.workload import Kind, Workload

if TYPE_CHECKING:
    from jaxswap.machine.future import Future

# Kinds of compiled operations.
STREAM, TOUCH, READ, ZERO, WILLNEED, DONTNEED, UNMAP, PAGEOUT, COLD, SET, SPLIT, DROP = range(12)
FORK, FORK_TABLE, EXIT = range(12, 15)  # of a block, with several processes; the child + 1 is the end
WINDOW_COPY = 15  # the readahead state of a VMA, from `start` to `vma`
WORKER = 16  # the kernel's workers run: discards
FLUSH = 17  # the statistics are flushed, as somebody reads them
JOIN = 18  # the process goes to a cgroup, `end` - 1
OBJECTS = 19  # its cgroup is charged for its first accounted object
RETURN = 20  # WILLNEED is over: back to user mode
KINDS = 21
STREAM_ACCESSES = 4096  # most accesses of one STREAM
MOST_SINGLE = (1 << 31) - (1 << 20)  # single accesses: places in the access table are int32
# Shorter programs are filled up to these, so that most share one compiled machine.
LEAST_OPERATIONS, LEAST_ACCESSES = 4096, 1 << 18
SHORT_RUN = 3  # runs up to this length are single accesses of a stream
WINDOW = 32  # accesses looked at together; the access table ends in as many fillers

_KINDS = {
    Kind.TOUCH: TOUCH,
    Kind.READ: READ,
    Kind.ZERO: ZERO,
    Kind.WILLNEED: WILLNEED,
    Kind.DONTNEED: DONTNEED,
    Kind.UNMAP: UNMAP,
    Kind.PAGEOUT: PAGEOUT,
    Kind.COLD: COLD,
}
_CHANGES = (Kind.MAP, Kind.UNMAP, Kind.MADVHUGE, Kind.MADVNOHUGE)  # of the VMAs
_ADVICE = {"plain": PLAIN, "huge": HUGE, "nohuge": NOHUGE}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Program:
    """The same for all lanes, so without a lane axis.

    kind, block, start, end: an operation each; a STREAM has its accesses start .. end - 1 of the access
    table. vma: VMA of an operation on a range. A SET has the number of its file in `block`, the value in
    `vma`. accesses: page << 1 | write. access_vma: VMA of each access. vma_start, vma_end (pages of the
    region), vma_advice: of each VMA there ever was; vma_window: number of its readahead state. first_vma,
    vmas: at each operation the first of the process's VMAs, and how many it has. cpu: that runs each
    operation, None where the machine has but one. before: page accesses before each operation, future: when
    each page will be accessed; None where nobody asks.
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
    first_vma: Int32[Array, " ops"]
    vmas: Int32[Array, " ops"]
    cpu: Int32[Array, " ops"] | None = None
    before: Int32[Array, " ops"] | None = None
    future: "Future | None" = None


@dataclass(frozen=True)
class Compiled:
    """A program, and where in it the workload's labelled operations stand.

    ops: how many operations (the arrays are padded). marks: (operation before which it stands, index in the
    workload) of every DUMP, FOLIOS, STATS and ECHO. lane_operations: operations as the workload counts them,
    single accesses one each. by_page: for the machine of `machine.shared`. processes: how many live at a time
    at most, 1, 2, 4, 8 or 16. cgroups: how many there is room for, the root among them, 1, 2, 4 or 8. room:
    pages each process has room for there; page v of the process at place k is page k * room + v. windows:
    readahead states there is room for. homes: place of each operation's process.
    """

    program: Program
    ops: int
    marks: tuple[tuple[int, int], ...]
    lane_operations: int
    by_page: bool
    processes: int
    cgroups: int
    room: int
    windows: int
    homes: Int32[np.ndarray, " ops"]

    def accesses(self) -> Int64[np.ndarray, " ops"]:
        """How many page accesses each operation is."""
        kind, start, end = (
            np.asarray(x)[: self.ops] for x in (self.program.kind, self.program.start, self.program.end)
        )
        return np.where(np.isin(kind, (STREAM, TOUCH, READ, ZERO)), end - start, 0).astype(np.int64)

    def beginning(self, share: float) -> tuple[int, int]:
        """(operations, accesses) of the shortest beginning with at least this share of all accesses; a range
        may end with any of its 2 MiB blocks.
        """
        accesses = self.accesses().cumsum()
        last = int(np.searchsorted(accesses, share * accesses[-1]))
        return last + 1, int(accesses[last])


class _Space:
    """A process: its first page, its VMAs and their numbers; every change of the VMAs makes new ones.

    rows: of every VMA there ever was, of all processes. split: ends of VMAs inside blocks that are known.
    """

    def __init__(self, base: int, vmas: Vmas, rows: list[tuple[int, int, int, int]]) -> None:
        self.base, self.vmas, self.rows = base, vmas, rows
        self.split: set[int] = set()
        self.renew()

    def renew(self) -> None:
        self.first = len(self.rows)
        self.rows += [
            (vma.start + self.base, vma.end + self.base, _ADVICE[vma.advice], vma.window)
            for vma in self.vmas.live
        ]

    def fork(self, base: int) -> "_Space":
        child = _Space(base, self.vmas.fork(), self.rows)
        child.split = set(self.split)
        return child


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
            elif workload.kind[i] == Kind.EXIT:
                del places[int(workload.process[i])]
        at = i + 1
    return homes, children, 1 << (most - 1).bit_length()


def _settings(workload: Workload) -> dict[int, tuple[int, int]]:
    """What each SET writes. Raises InputError for what no machine has."""
    found = {}
    odd = (workload.kind == Kind.SET) | (workload.cpu >= CPUS)
    for i in np.flatnonzero(odd).tolist():
        where = f"{workload.path or workload.name}:{int(workload.line[i])}"
        if workload.cpu[i] >= CPUS:
            raise InputError(
                f"{where}: @{workload.cpu[i]}: a machine has at most {CPUS} CPUs, @0 to @{CPUS - 1}"
            )
        try:
            found[i] = number(*workload.text[i].split())
        except ValueError as wrong:
            raise InputError(f"{where}: {wrong}") from None
    return found


def is_shared(workload: Workload) -> bool:
    """Whether there are several processes, CPUs or cgroups."""
    return places_of(workload)[2] > 1 or bool(workload.cpu.any()) or bool(workload.cgroups)


def compile_workload(
    workload: Workload,
    by_page: bool = False,
    gathers_calls: bool = True,
    worker: bool = False,
    flushes: bool = False,
) -> Compiled:
    """Compile a workload, for the machine that goes page by page if it forks, if it has several CPUs or
    cgroups or if that is asked for.

    gathers_calls: what becomes of unmapped folios waits for the end of a DONTNEED, else of each VMA in it.
    worker: the kernel's workers run after every operation of the workload, so that each is one of its own.
    flushes: STATS flushes the statistics.
    Raises InputError for an operation that a machine does not have.
    """
    settings = _settings(workload)
    homes, children, processes = places_of(workload)
    numbers = {name: number for number, name in enumerate(workload.cgroups, 1)}
    by_page = by_page or is_shared(workload)
    room = pages_of_process(workload.npages) if by_page else 0
    vmas = Vmas()
    if workload.starts_mapped:
        vmas.map(0, workload.npages, workload.advice)
    rows: list[tuple[int, int, int, int]] = []
    spaces = {0: _Space(0, vmas, rows)}
    ops: list[tuple[int, int, int, int, int]] = []
    marks: list[tuple[int, int]] = []
    chunks: list[np.ndarray] = []
    chunk_vmas: list[np.ndarray] = []
    done = lane_operations = 0
    kinds, firsts, lengths = workload.kind, workload.v.astype(np.int64), workload.n.astype(np.int64)
    single = (kinds <= Kind.READ) & (lengths <= SHORT_RUN)
    if int(lengths[single].sum()) > MOST_SINGLE:
        raise InputError(
            f"{workload.path or workload.name}: more than {MOST_SINGLE} accesses in runs of at most "
            f"{SHORT_RUN} pages; cut it in two"
        )
    owners_of_runs = np.where(single, workload.cpu.astype(np.int32) << 8 | homes + 1, 0)
    cuts = [0, *(np.flatnonzero(np.diff(owners_of_runs) | worker) + 1).tolist(), len(kinds)]
    ends = {a: b for a, b in itertools.pairwise(cuts) if a < b and owners_of_runs[a]}
    cgroup_of, with_objects = {0: 0}, {0}
    cpus: list[int] = []
    layouts: list[tuple[int, int]] = []
    layout = (0, 0)
    i = 0
    while i < len(kinds):
        cpus += [int(workload.cpu[i - 1])] * (len(ops) - len(cpus))
        layouts += [layout] * (len(ops) - len(layouts))
        table = spaces[int(homes[i])]
        vmas, base = table.vmas, table.base
        layout = (table.first, len(vmas.live))
        home = int(homes[i])
        lacks_objects = cgroup_of[home] not in with_objects
        objects = (OBJECTS, base // 512, 0, 1, 0)
        if i in ends:
            stop = ends[i]
            runs, begin = lengths[i:stop], firsts[i:stop]
            offset = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
            pages = np.repeat(begin, runs) + offset
            writes = np.repeat(kinds[i:stop] == Kind.TOUCH, runs)
            chunks.append((pages + base).astype(np.uint32) << np.uint32(1) | writes)
            owner = vmas.at(pages)
            chunk_vmas.append((table.first + owner).astype(np.int32))
            parts = [done, done + len(pages)]
            if lacks_objects and len(made := np.flatnonzero(writes & vmas.unwritten()[owner])):
                parts.insert(1, done + int(made[0]))
                with_objects.add(cgroup_of[home])
            vmas.write(np.unique(owner[writes]).tolist())
            for k, (first, last) in enumerate(itertools.pairwise(parts)):
                ops += [objects] * (k > 0)
                for at in range(first, last, STREAM_ACCESSES):
                    ops.append((STREAM, 0, at, min(at + STREAM_ACCESSES, last), 0))
            if worker:
                ops.append((WORKER, 0, 0, 1, 0))
            done += len(pages)
            lane_operations += len(pages)
            i = stop
            continue
        kind, v, n = Kind(kinds[i]), int(firsts[i]), int(lengths[i])
        if kind in _KINDS:
            pieces = list(vmas.cut(v, v + n))
            turns = [_KINDS[kind]]
            # Page by page a mapped folio may be in the swap cache, and waits for the end of the call.
            if turns[0] in (DONTNEED, UNMAP) and by_page:
                turns.append(DROP)
            calls = [pieces]
            if kind is Kind.DONTNEED and not gathers_calls:
                calls = [list(of_vma) for _, of_vma in itertools.groupby(pieces, lambda piece: piece[0])]
            for call, turn in itertools.product(calls, turns):
                for place, a, b in call:
                    block = a // 512
                    there = block + base // 512
                    writes = kind in (Kind.TOUCH, Kind.ZERO) and not vmas.live[place].anon
                    if writes and cgroup_of[home] not in with_objects:
                        with_objects.add(cgroup_of[home])
                        ops.append(objects)
                    ops.append((turn, there, a - block * 512, b - block * 512, table.first + place))
            if kind is Kind.WILLNEED and not by_page:
                ops.append((RETURN, base // 512, 0, 0, 0))
            lane_operations += len(pieces)
            if kind in (Kind.TOUCH, Kind.ZERO):
                vmas.write(place for place, _, _ in pieces)
        if kind is Kind.MAP:
            vmas.map(v, v + n, workload.text[i])
        elif kind is Kind.UNMAP:
            vmas.unmap(v, v + n)
        elif kind in (Kind.MADVHUGE, Kind.MADVNOHUGE):
            if lacks_objects:
                with_objects.add(cgroup_of[home])
                ops.append(objects)
            vmas.advise(v, v + n, "huge" if kind is Kind.MADVHUGE else "nohuge")
        if kind in _CHANGES:
            table.renew()
            borders = vmas.borders()
            if kind is not Kind.MAP:
                new = {at // 512 + base // 512 for at in borders - table.split}
                ops += [(SPLIT, block, 0, 1, 0) for block in sorted(new)]
            table.split = borders if kind is not Kind.MAP else borders & table.split
        elif kind is Kind.FORK:
            child = int(children[i])
            blocks = range(base // 512, (base + workload.npages + 511) // 512)
            ops += [(turn, block, 0, child + 1, 0) for turn in (FORK, FORK_TABLE) for block in blocks]
            spaces[child] = table.fork(child * room)
            cgroup_of[child] = cgroup_of[home]
            lane_operations += len(blocks)
        elif kind is Kind.CGROUP:
            cgroup_of[home] = numbers[workload.text[i]]
            ops.append((JOIN, base // 512, 0, cgroup_of[home] + 1, 0))
        elif kind is Kind.EXIT:
            # exit_mmap goes VMA by VMA, so that no run of slots goes on in the next one.
            for place, a, b in vmas.cut(0, workload.npages):
                there = (a + base) // 512
                ops.append((DONTNEED, there, a % 512, a % 512 + b - a, table.first + place))
            for turn in (DROP, EXIT):
                for a in range(0, workload.npages, 512):
                    ops.append((turn, (a + base) // 512, 0, min(512, workload.npages - a), 0))
            lane_operations += 1
        elif i in settings and (by_page or settings[i][0] <= CLUSTER):
            file, value = settings[i]
            ops.append((SET, file, 0, 1, value))
        elif kind in (Kind.DUMP, Kind.FOLIOS, Kind.STATS, Kind.ECHO):
            marks.append((len(ops), i))
            if kind is Kind.STATS and flushes:
                ops.append((FLUSH, 0, 0, 1, 0))
        copies = vmas.take_copies() if kind is not Kind.FORK else spaces[int(children[i])].vmas.take_copies()
        if by_page:
            ops += [(WINDOW_COPY, 0, old, old + 1, new) for old, new in copies]
        if worker and kind not in (Kind.DUMP, Kind.FOLIOS, Kind.STATS, Kind.ECHO):
            ops.append((WORKER, 0, 0, 1, 0))
        i += 1

    def padded(values: list | np.ndarray, dtype: type, least: int = LEAST_OPERATIONS, more: int = 0) -> Array:
        data = np.asarray(values, dtype)
        size = max(least, 1 << (len(data) + more - 1).bit_length())
        return jnp.asarray(np.concatenate([data, np.zeros(size - len(data), dtype)]))

    cpus += [int(workload.cpu[-1])] * (len(ops) - len(cpus)) if len(kinds) else []
    columns = np.array(ops, np.int32).reshape(-1, 5)
    layout_rows = np.array(layouts + [layout] * (len(ops) - len(layouts)), np.int32).reshape(-1, 2)
    vma_rows = np.array(rows, np.int32).reshape(-1, 4)
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
        vma_start=padded(vma_rows[:, 0], np.int32),
        vma_end=padded(vma_rows[:, 1], np.int32),
        vma_advice=padded(vma_rows[:, 2], np.int32),
        vma_window=padded(vma_rows[:, 3], np.int32),
        first_vma=padded(layout_rows[:, 0], np.int32),
        vmas=padded(layout_rows[:, 1], np.int32),
        cpu=padded(cpus, np.int32) if by_page else None,
    )
    windows = max(1024, 1 << int(vma_rows[:, 3].max(initial=0)).bit_length())
    return Compiled(
        program,
        len(ops),
        tuple(marks),
        lane_operations,
        by_page,
        processes,
        1 << len(numbers).bit_length(),
        room,
        windows,
        homes,
    )
