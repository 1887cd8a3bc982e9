"""MADV_PAGEOUT and MADV_COLD.

Source: mm/madvise.c (madvise_cold_or_pageout_pte_range); 6.12 to 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import reclaim, rmap
from .folio import Folio, Process

if TYPE_CHECKING:
    from .machine import Machine


def page_out(m: Machine, process: Process, start: int, end: int) -> None:
    """MADV_PAGEOUT of a range inside one 2 MiB block and VMA."""
    for folio in cold_folios(m, process, start, end):
        folio.memcg.lists.remove(folio)
        folio.referenced = False
        folio.workingset |= folio.active
        folio.active = False
        reclaim.shrink(m, folio)
    m.age_at_end = m.cost_at_end = m.reclaimed = 0


def cold(m: Machine, process: Process, start: int, end: int) -> None:
    """MADV_COLD of a range inside one 2 MiB block and VMA."""
    for folio in cold_folios(m, process, start, end):
        lists = folio.memcg.lists
        process.flush_tlb(folio.base, folio.base + folio.nr)
        for q in folio.maps[process.number]:
            process.pages[q].young = False
        folio.referenced = False
        if m.lru == "mglru":
            lists.remove(folio)
            lists.add(folio)
            m.count(folio.memcg, "pgdeactivate", folio.nr)
        elif folio.active:
            lists.remove(folio)
            folio.active, folio.workingset = False, True
            lists.add(folio)
            m.count(folio.memcg, "pgdeactivate", folio.nr)


def cold_folios(m: Machine, process: Process, start: int, end: int) -> list[Folio]:
    """Folios that this range maps whole and nobody else maps; others of this process are split first."""
    m.drain()
    found = []
    pages = process.pages
    v = start
    while v < end:
        folio = pages[v].folio
        if pages[v].state != "present" or folio is None:
            v += 1
            continue
        batch = v + 1
        while batch < min(end, folio.base + folio.nr) and pages[batch].folio is folio:
            batch += 1
        if batch - v < folio.nr:
            if not rmap.maybe_shared(m, folio):
                process.split_huge(v >> 9)
                reclaim.split_on_lru(m, folio)
                continue
        elif folio.mapcount == folio.nr:
            found.append(folio)
        v = batch
    return found
