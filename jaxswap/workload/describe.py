"""What a workload is like: size, share of writes, mappings, and misses at half its footprint."""

from dataclasses import dataclass

import numpy as np

from jaxswap.workload.over_time import lru_misses, pages_of
from jaxswap.workload.text import Kind, Workload


@dataclass(frozen=True)
class Description:
    """Numbers of one workload.

    footprint is the number of different pages accessed, those of processes apart; writes the part of the
    accesses that are TOUCH or ZERO; vmas the most VMAs at one time (pieces made by UNMAP, not by advice);
    misses what a 4 KiB LRU memory of half the footprint misses per 1,000 accesses, first touches not counted.
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
    most = _most_vmas(workload)
    footprint = len(np.unique(pages_of(workload)[0]))
    accesses = workload.accesses
    misses = lru_misses(workload, max(footprint // 2, 1)) * 1000 / max(accesses, 1)
    kinds = (Kind.TOUCH, Kind.ZERO)
    written = int(workload.n[np.isin(workload.kind, kinds)].sum(dtype=np.int64))
    size = (workload.npages, footprint, len(workload), accesses)
    return Description(*size, written / max(accesses, 1), most, misses)


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
