"""A workload made of page accesses: where its pages go in the page space, and which mappings it has."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from jaxswap.errors import InputError
from jaxswap.workload.processes import MOST_PROCESSES
from jaxswap.workload.text import Kind, Workload

BLOCK = 512
OPERATIONS = 200_000
"""Most operations of an imported or recorded workload, if nothing else is said."""
MOST_PAGE = 1 << 52
"""Page numbers are below this: addresses of 64 bits."""


@dataclass(frozen=True)
class Accesses:
    """Page accesses in order: the page (address / 4096), whether it is a write, the process (0 ..)."""

    page: Int64[np.ndarray, "accesses"]
    write: Bool[np.ndarray, "accesses"]
    process: UInt8[np.ndarray, "accesses"]


@dataclass(frozen=True)
class Room:
    """How many operations a workload may have; cut: keep the first ones of more, do not refuse them."""

    operations: int = OPERATIONS
    cut: bool = False


def place_blocks(blocks: Int64[np.ndarray, "blocks"]) -> Int64[np.ndarray, "blocks"]:
    """Where each used 2 MiB block (sorted numbers) goes in the page space: neighbours stay neighbours, any
    empty space between two others becomes one empty block."""
    return np.cumsum(np.minimum(np.diff(blocks, prepend=blocks[0]), 2))


def workload_of(
    accesses: Accesses,
    where: str,
    name: str,
    meta: dict[str, str],
    room: Room,
    mappings: list[tuple[int, int]] | None = None,
) -> Workload:
    """The workload of these accesses; `where` names their source in messages.

    mappings: page ranges [start, end) that are one VMA each, for every process. Without, it is not known
    which there were, and each run of neighbouring 2 MiB blocks that a process touches is one VMA of it.
    Processes after the first fork from it before anything is mapped. Raises InputError for no accesses, for
    too many processes, and for more operations than there is room for.
    """
    if not len(accesses.page):
        raise InputError(f"{where}: holds no accesses; nothing can be replayed")
    processes = int(accesses.process.max()) + 1
    if processes > MOST_PROCESSES:
        raise InputError(
            f"{where}: {processes} processes; a workload has at most {MOST_PROCESSES}: give --pid"
        )
    maps = [
        (process, start, end)
        for process in range(processes)
        for start, end in mappings or _mappings(accesses.page[accesses.process == process])
    ]
    blocks = np.unique(np.concatenate([np.arange(s // BLOCK, (e - 1) // BLOCK + 1) for _, s, e in maps]))
    places = place_blocks(blocks)

    def placed(page: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        return places[np.searchsorted(blocks, page // BLOCK)] * BLOCK + page % BLOCK

    page, pages, write, process = _runs(placed(accesses.page), accesses.write, accesses.process)
    forks = processes - 1
    start = placed(np.array([start for _, start, _ in maps], np.int64))
    columns = [
        (np.full(forks, Kind.FORK), np.arange(1, processes), np.zeros(forks), np.zeros(forks)),
        (np.full(len(maps), Kind.MAP), start, [e - s for _, s, e in maps], [p for p, _, _ in maps]),
        (np.where(write, Kind.TOUCH, Kind.READ), page, pages, process),
    ]
    kind, v, n, owner = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    most = room.operations
    if len(kind) > most:
        if not room.cut:
            raise InputError(
                f"{where}: {len(kind)} operations, more than {most}; give a higher --operations, or --cut to "
                "keep the first ones"
            )
        meta = {**meta, "cut": f"after {most} operations"}
    text = dict.fromkeys(range(forks, min(forks + len(maps), most)), "plain")
    kind, v, n, owner = (column[:most] for column in (kind, v, n, owner))
    line = np.arange(2, len(kind) + 2, dtype=np.int32)
    return Workload(
        name,
        "",
        (int(places[-1]) + 1) * BLOCK,
        "plain",
        kind.astype(np.uint8),
        v.astype(np.int32),
        n.astype(np.int32),
        line,
        text,
        meta,
        owner.astype(np.uint8),
        np.zeros(len(kind), np.uint8),
    )


def _mappings(page: Int64[np.ndarray, "accesses"]) -> list[tuple[int, int]]:
    """Runs of neighbouring 2 MiB blocks that hold these pages, as page ranges."""
    blocks = np.unique(page // BLOCK)
    if not len(blocks):
        return []
    first = np.flatnonzero(np.diff(blocks, prepend=-2) > 1)
    last = np.r_[first[1:] - 1, len(blocks) - 1]
    return [(int(a) * BLOCK, (int(b) + 1) * BLOCK) for a, b in zip(blocks[first], blocks[last], strict=True)]


def _runs(
    page: np.ndarray, write: np.ndarray, process: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Accesses -> (first page, pages, write, process) of runs of one kind over ascending neighbours."""
    joins = (np.diff(page) == 1) & (write[1:] == write[:-1]) & (process[1:] == process[:-1])
    first = np.flatnonzero(np.r_[True, ~joins])
    return page[first], np.diff(np.r_[first, len(page)]), write[first], process[first]
