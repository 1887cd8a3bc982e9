"""Giving pages back: MADV_DONTNEED, munmap, exit.

Source: mm/memory.c (zap_pte_range, zap_huge_pmd in mm/huge_memory.c), mm/mmu_gather.c; 6.12 to 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import memcg, rmap
from .folio import BLOCK, Folio, Page, Process
from .swapin import continues

if TYPE_CHECKING:
    from .machine import Machine


class Gathered(dict[int, Folio]):
    """Folios that lost a mapping, in order (struct mmu_gather): what becomes of them waits for the end."""

    def add(self, folio: Folio) -> None:
        self[id(folio)] = folio

    def release(self, m: Machine, ends: dict[int, tuple[int, int]]) -> None:
        """Frames of folios that are gone, in the order of their last pages by the row of 32, then of their
        first pages in that row. ends: the last pages seen of each folio, and the first in its row."""
        for key in sorted(ends, key=lambda key: (ends[key][1] // 32, ends[key][0])):
            if self[key].gone:
                m.frames.release(self[key])

    def finish(self, m: Machine) -> None:
        """tlb_finish_mmu, free_pages_and_swap_cache."""
        if self:
            m.drain()
        for folio in self.values():
            rmap.forget_if_unused(m, folio)
        self.clear()


def zap(m: Machine, process: Process, start: int, end: int, tables: bool, gathered: Gathered) -> None:
    """A range inside one 2 MiB block. Slots go in runs of consecutive ones.

    tables: the page table goes too where the range is the whole block.
    """
    pages, block = process.pages, start // BLOCK
    whole = end - start == BLOCK
    if not whole:
        process.split_huge(block)
    process.flush_tlb(start, end)
    v, ends = start, {}
    while v < end:
        page = pages[v]
        if page.state == "swapped":
            run = v + 1
            while run < end and continues(pages, run, 1, page, v):
                run += 1
            m.swap.put(page.device, page.slot, run - v, m.cpu)
            pages[v:run] = [Page() for _ in range(run - v)]
            v = run
            continue
        if page.state == "present":
            m.leave(page)
            assert page.folio is not None
            rmap.remove(page.folio, process, v)
            gathered.add(page.folio)
            first, last = ends.get(id(page.folio), (v, v))
            ends[id(page.folio)] = (first if last // 32 == v // 32 else v, v)
        if page.state != "none":
            pages[v] = Page()
        v += 1
    gathered.release(m, ends)
    if whole and block in process.huge:
        memcg.uncharge_table(process.huge.pop(block))
    elif whole and tables and block in process.tables:
        memcg.uncharge_table(process.tables.pop(block))
