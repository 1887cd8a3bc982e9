"""What a workload is like: size, share of writes, mappings, and misses at half its footprint."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from jaxswap.workload.text import Kind, Workload


@dataclass(frozen=True)
class Description:
    """Numbers of one workload.

    footprint is the number of different pages accessed; writes the part of the accesses that are TOUCH or
    ZERO; vmas the most VMAs at one time (pieces made by UNMAP, not by advice); misses what a 4 KiB LRU
    memory of half the footprint misses per 1,000 accesses, first touches not counted.
    """

    pages: int
    footprint: int
    operations: int
    accesses: int
    writes: float
    vmas: int
    misses: float


def describe(workload: Workload) -> Description:
    """Count and simulate; about a second for a million accesses."""
    seen: set[int] = set()
    most = _most_vmas(workload)
    for v, n in _ranges(workload):
        seen.update(range(v, v + n))
    accesses = workload.accesses
    misses = lru_misses(workload, max(len(seen) // 2, 1)) * 1000 / max(accesses, 1)
    kinds = (Kind.TOUCH, Kind.ZERO)
    written = int(workload.n[np.isin(workload.kind, kinds)].sum(dtype=np.int64))
    size = (workload.npages, len(seen), len(workload), accesses)
    return Description(*size, written / max(accesses, 1), most, misses)


def lru_misses(workload: Workload, capacity: int) -> int:
    """Accesses to pages that were in memory before, have been pushed out of an LRU memory of `capacity`
    pages since, and were not unmapped or thrown away in between."""
    memory: OrderedDict[int, None] = OrderedDict()
    out: set[int] = set()
    misses = 0
    rows = zip(workload.kind.tolist(), workload.v.tolist(), workload.n.tolist(), strict=True)
    for kind, v, n in rows:
        pages = range(v, v + n)
        if kind <= Kind.ZERO:
            for page in pages:
                if page in memory:
                    memory.move_to_end(page)
                    continue
                if page in out:
                    out.discard(page)
                    misses += 1
                memory[page] = None
                if len(memory) > capacity:
                    out.add(memory.popitem(last=False)[0])
        elif kind in (Kind.UNMAP, Kind.DONTNEED):
            out.difference_update(pages)
            for page in pages:
                memory.pop(page, None)
        elif kind == Kind.PAGEOUT:
            for page in pages:
                if memory.pop(page, 0) is None:
                    out.add(page)
    return misses


def _ranges(workload: Workload) -> list[tuple[int, int]]:
    chosen = workload.kind <= Kind.ZERO
    return list(zip(workload.v[chosen].tolist(), workload.n[chosen].tolist(), strict=True))


def _most_vmas(workload: Workload) -> int:
    vmas = [(0, workload.npages)] if workload.starts_mapped else []
    most = len(vmas)
    for i in np.flatnonzero((workload.kind == Kind.MAP) | (workload.kind == Kind.UNMAP)).tolist():
        v, end = int(workload.v[i]), int(workload.v[i] + workload.n[i])
        cut = [piece for low, high in vmas for piece in ((low, min(high, v)), (max(low, end), high))]
        vmas = [piece for piece in cut if piece[0] < piece[1]]
        if workload.kind[i] == Kind.MAP:
            vmas.append((v, end))
        most = max(most, len(vmas))
    return most
