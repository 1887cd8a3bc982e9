"""The deferred split list: folios that lost pages and were not met by reclaim are split when memory is short.

Source: mm/shrinker.c (shrink_slab_memcg, do_shrink_slab), mm/huge_memory.c (deferred_split_count,
deferred_split_scan), 7.3. Whole 2 MiB folios, which the kernel lists too and lets go when it comes by, are
not on this list.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from . import reclaim
from .cgroup import Cgroup

if TYPE_CHECKING:
    from .machine import Machine

SHRINK_BATCH = 128
SEEKS = 2  # DEFAULT_SEEKS


def shrink_slab(m: Machine, cgroup: Cgroup, priority: int) -> None:
    """After each pass of reclaim over a cgroup's lists. What becomes free does not count as reclaimed."""
    freeable = len(cgroup.deferred)
    if not freeable:
        return
    delta = (freeable >> priority) * 4 // SEEKS
    left = min((cgroup.nr_deferred >> priority) + delta, 2 * freeable)
    scanned = 0
    while left >= min(SHRINK_BATCH, freeable) and cgroup.deferred:
        batch = min(SHRINK_BATCH, left)
        for folio in list(islice(cgroup.deferred, batch)):
            reclaim.split_on_lru(m, folio)
        scanned += batch
        left -= batch
    cgroup.nr_deferred = min(max(cgroup.nr_deferred + delta - scanned, 0), 2 * freeable)
