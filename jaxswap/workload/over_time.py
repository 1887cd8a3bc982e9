"""A workload over time: in equal parts of its accesses, its footprint, reuse, density and misses."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from jaxswap.workload.text import Kind, Workload

BLOCK = 16
"""Pages of a block of 64 kB."""


@dataclass(frozen=True)
class OverTime:
    """Arrays with an entry a part, in order; and for the whole run `blocks` and `reuse_of`.

    accesses: of the part; writes: how many of them write; footprint: pages that hold something at its end;
    touched: different pages accessed; fresh: pages accessed that held nothing; missed: accesses that an LRU
    memory of half the workload's footprint misses, fresh ones apart; reuse: median number of accesses since
    the page's last one, over accesses to pages accessed before (nan if none); density: mean number of pages
    touched of the 64 kB blocks touched. blocks[n]: 64 kB blocks of which n pages are ever touched.
    """

    accesses: Int64[np.ndarray, "parts"]
    writes: Int64[np.ndarray, "parts"]
    footprint: Int64[np.ndarray, "parts"]
    touched: Int64[np.ndarray, "parts"]
    fresh: Int64[np.ndarray, "parts"]
    missed: Int64[np.ndarray, "parts"]
    reuse: Float64[np.ndarray, "parts"]
    density: Float64[np.ndarray, "parts"]
    blocks: Int64[np.ndarray, "17"]


def pages_of(workload: Workload) -> tuple[Int64[np.ndarray, "accesses"], Int64[np.ndarray, "accesses"]]:
    """The page of every access in order, and the operation it belongs to. Pages of processes are apart: page
    v of process p is p * npages + v."""
    chosen = np.flatnonzero(workload.kind <= Kind.ZERO)
    n = workload.n[chosen].astype(np.int64)
    operation = np.repeat(chosen, n)
    start = workload.v[chosen] + workload.process[chosen].astype(np.int64) * workload.npages
    within = np.arange(len(operation)) - np.repeat(np.cumsum(n) - n, n)
    return np.repeat(start, n) + within, operation


def over_time(workload: Workload, parts: int) -> OverTime:
    """Count and simulate; a second or two for a million accesses. `parts` is at least 1."""
    page, operation = pages_of(workload)
    total = len(page)
    part = np.arange(total) * parts // max(total, 1)
    fresh, missed, held = _memory(workload, max(len(np.unique(page)) // 2, 1))
    write = workload.kind[operation] != Kind.READ
    ends = np.searchsorted(part, np.arange(parts), side="right")
    density, reuse = np.full(parts, np.nan), np.full(parts, np.nan)
    touched = np.zeros(parts, np.int64)
    since = _since_last(page)
    for index in range(parts):
        inside = slice(ends[index - 1] if index else 0, ends[index])
        pages = np.unique(page[inside])
        touched[index] = len(pages)
        if len(pages):
            density[index] = len(pages) / len(np.unique(pages // BLOCK))
        again = since[inside][since[inside] > 0]
        if len(again):
            reuse[index] = np.median(again)
    _, counts = np.unique(np.unique(page) // BLOCK, return_counts=True)

    def counted(flags: np.ndarray) -> np.ndarray:
        return np.bincount(part[flags], minlength=parts)[:parts]

    return OverTime(
        accesses=np.bincount(part, minlength=parts)[:parts],
        writes=counted(write),
        footprint=held[np.maximum(ends - 1, 0)] if total else np.zeros(parts, np.int64),
        touched=touched,
        fresh=counted(fresh),
        missed=counted(missed),
        reuse=reuse,
        density=density,
        blocks=np.bincount(counts, minlength=BLOCK + 1),
    )


def _since_last(page: np.ndarray) -> np.ndarray:
    """Accesses since the last one to the same page, 0 for the first."""
    order = np.argsort(page, kind="stable")
    same = np.flatnonzero(np.diff(page[order]) == 0)
    since = np.zeros(len(page), np.int64)
    since[order[same + 1]] = order[same + 1] - order[same]
    return since


def _memory(workload: Workload, capacity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fresh, missed, held) an access: it finds a page that holds nothing; one that has been pushed out of an
    LRU memory of `capacity` pages; and how many pages hold something after it.

    UNMAP and DONTNEED empty their pages, PAGEOUT pushes them out. A child has its parent's pages at a FORK;
    they are counted for it when it accesses them.
    """
    memory: OrderedDict[int, None] = OrderedDict()
    out: set[int] = set()
    fresh, missed, held = (np.zeros(workload.accesses, kind) for kind in (bool, bool, np.int64))
    rows = zip(
        *(column.tolist() for column in (workload.kind, workload.v, workload.n, workload.process)),
        strict=True,
    )
    at = 0
    for kind, v, n, process in rows:
        base = process * workload.npages
        pages = range(base + v, base + v + n)
        if kind <= Kind.ZERO:
            for page in pages:
                if page in memory:
                    memory.move_to_end(page)
                else:
                    if page in out:
                        out.discard(page)
                        missed[at] = True
                    else:
                        fresh[at] = True
                    memory[page] = None
                    if len(memory) > capacity:
                        out.add(memory.popitem(last=False)[0])
                held[at] = len(memory) + len(out)
                at += 1
        elif kind in (Kind.UNMAP, Kind.DONTNEED):
            out.difference_update(pages)
            for page in pages:
                memory.pop(page, None)
        elif kind == Kind.PAGEOUT:
            for page in pages:
                if memory.pop(page, 0) is None:
                    out.add(page)
    return fresh, missed, held


def lru_misses(workload: Workload, capacity: int) -> int:
    """Accesses to pages that were in memory before, have been pushed out of an LRU memory of `capacity`
    pages since, and were not unmapped or thrown away in between."""
    return int(_memory(workload, capacity)[1].sum())
