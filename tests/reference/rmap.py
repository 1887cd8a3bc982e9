"""Mapping and unmapping pages, and copy-on-write.

Source: mm/rmap.c (__folio_add_rmap, __folio_remove_rmap), mm/memory.c (do_wp_page, wp_can_reuse_anon_folio,
__wp_can_reuse_large_anon_folio, wp_page_copy), mm/swap_state.c (free_swap_cache); 6.12 to 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import memcg
from .folio import Folio, Page, Process

if TYPE_CHECKING:
    from .machine import Machine


def add(folio: Folio, process: Process, v: int) -> None:
    """One page is mapped here (folio_add_return_large_mapcount)."""
    folio.maps.setdefault(process.number, set()).add(v)
    if process.number in folio.owners:
        folio.owned[folio.owners.index(process.number)] += 1
    elif None in folio.owners:
        at = folio.owners.index(None)
        folio.owners[at], folio.owned[at] = process.number, 1
        if folio.mapcount > 1:
            folio.marked_shared = True


def remove(folio: Folio, process: Process, v: int) -> None:
    """One page is no longer mapped here (folio_sub_return_large_mapcount)."""
    mine = folio.maps[process.number]
    mine.discard(v)
    if not mine:
        del folio.maps[process.number]
    if process.number in folio.owners:
        at = folio.owners.index(process.number)
        folio.owned[at] -= 1
        if not folio.owned[at]:
            folio.owners[at] = None
    if process.number not in folio.owners and folio.mapcount in folio.owned:
        folio.marked_shared = False
    # A folio in the swap cache is not put on the deferred split list.
    if folio.order and folio.maps and folio.place is None and not folio.mapped_by_someone(v):
        folio.partial = True
        folio.memcg.deferred[folio] = None


def maybe_shared(m: Machine, folio: Folio) -> bool:
    """folio_maybe_mapped_shared; before, folio_likely_mapped_shared."""
    mapcount = folio.mapcount
    if folio.order == 0 or mapcount <= 1:
        return mapcount > 1
    if m.profile.remembers_owners:
        return folio.marked_shared
    first = sum(folio.base in pages for pages in folio.maps.values())
    return mapcount > folio.nr or first > 1


def forget_if_unused(m: Machine, folio: Folio) -> None:
    """free_swap_cache, folio_put: nobody maps the folio and no slot of it has a count.

    One that is on no list has gone already, with the last of its slots.
    """
    if folio.maps or folio.prev is None:
        return
    if folio.place is None:
        m.forget(folio)
    else:
        m.swap.free_folio(folio, m.cpu)


def can_reuse(m: Machine, folio: Folio) -> bool:
    """wp_can_reuse_anon_folio: nobody else holds the folio, the swap cache neither."""
    if folio.order and not m.profile.reuse_large:
        return False
    if folio.order and (folio.mapcount <= 1 or maybe_shared(m, folio)):
        return False
    if not folio.order and folio.mapcount > 1:
        return False
    m.swap.free_folio(folio, m.cpu)
    return folio.place is None


def write_protect_fault(m: Machine, process: Process, v: int) -> None:
    """do_wp_page: a write to a page that is present and not exclusive."""
    folio = process.pages[v].folio
    assert folio is not None
    if v >> 9 in process.huge:
        if len(folio.maps) == 1:
            for q in folio.maps[process.number]:
                process.pages[q].exclusive = True
            return
        process.split_huge(v >> 9)
    if can_reuse(m, folio):
        process.pages[v].exclusive = True
        return
    if not memcg.charge(m, process.cgroup, 1) or process.pages[v].folio is not folio:
        return
    process.flush_tlb(v, v + 1)
    m.leave(process.pages[v])
    nonzero = process.pages[v].nonzero
    remove(folio, process, v)
    new_folio(m, process, v, 0)
    process.pages[v].nonzero = nonzero
    forget_if_unused(m, folio)


def new_folio(m: Machine, process: Process, base: int, order: int, frame: int | None = None) -> Folio:
    """A fresh folio, mapped whole and exclusively."""
    folio = Folio(base, order, memcg=process.cgroup)
    if frame is not None:
        m.frames.fill(frame, folio)
    folio.maps[process.number] = set(range(base, base + (1 << order)))
    folio.owners[0], folio.owned[0] = process.number, folio.nr
    for q in range(base, base + (1 << order)):
        process.pages[q] = Page("present", folio, young=True)
    process.cgroup.lists.add_new(folio)
    return folio
