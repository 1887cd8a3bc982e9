"""Swapping folios out and splitting them.

Source: mm/vmscan.c (shrink_folio_list, __remove_mapping), mm/page_io.c (swap_writeout), mm/huge_memory.c
(__folio_split, remap_page), mm/rmap.c (try_to_unmap_one); 6.12 to 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import memcg
from .folio import BLOCK, TOP_ORDER, Folio, Page, size_name

if TYPE_CHECKING:
    from .machine import Machine

BATCH = 32  # SWAP_CLUSTER_MAX


def pieces_of(m: Machine, folio: Folio) -> list[Folio]:
    """Order-0 folios of all pages. Those mapped with zeros in them give their place to the shared zero page.

    Pieces that nobody maps and that are not in the swap cache are gone, but for the reclaim that made them.
    """
    m.n[f"{size_name(folio.order)}/split"] += 1
    folio.memcg.deferred.pop(folio, None)
    folio.memcg.usage -= folio.nr
    m.frames.split(folio)
    for number in folio.maps:
        if folio.order == TOP_ORDER:
            m.processes[number].split_huge(folio.base // BLOCK)
    pieces = []
    for q in range(folio.base, folio.base + folio.nr):
        owners = [m.processes[number] for number, pages in folio.maps.items() if q in pages]
        if not any(process.pages[q].nonzero for process in owners):
            for process in owners:
                m.leave(process.pages[q])
                process.pages[q] = Page("zero")
            owners = []
        piece = Folio(q, 0, dirty=folio.dirty, active=folio.active, memcg=folio.memcg)
        piece.referenced, piece.workingset = folio.referenced, folio.workingset
        piece.refs, piece.gen = folio.refs, folio.gen
        piece.maps = {process.number: {q} for process in owners}
        if folio.place is not None:
            m.swap.insert(piece, folio.slot(q))
        for process in owners:
            process.pages[q].folio = piece
        folio.memcg.usage += not piece.gone
        if folio.frame is not None:
            m.frames.fill(folio.frame + q - folio.base, piece)
            if piece.gone:
                m.frames.release(piece)
        pieces.append(piece)
    return pieces


def in_turn(m: Machine, pieces: list[Folio]) -> list[Folio]:
    """Pieces as the tail of a list gives them back."""
    return pieces if m.profile.ascending_pieces else [*pieces[:1], *reversed(pieces[1:])]


def split_on_lru(m: Machine, folio: Folio) -> None:
    """A split on the LRU (lru_add_split_folio): the pieces take the folio's place, the first nearest to the
    tail, then from the last down; in 6.12 ascending.

    A piece of a folio in the swap cache that nobody maps or counts on leaves the swap cache, but for the
    first, which the caller holds (free_folio_and_swap_cache).
    """
    before, lists = folio.prev, folio.memcg.lists
    lists.remove(folio)
    for piece in in_turn(m, pieces_of(m, folio)):
        if piece.gone:
            continue
        lists.insert_after(before, piece)
        if not piece.maps and piece.base != folio.base:
            m.swap.free_folio(piece, m.cpu)


def shrink(m: Machine, folio: Folio) -> None:
    """shrink_folio_list for one isolated folio that is to go, and for its pieces; workers run in between.

    The heuristic is asked where the kernel splits folios that lost pages, before folio_alloc_swap (6.12 to
    7.3): what it splits has not failed to get slots, so that MTHP_STAT_SWPOUT_FALLBACK and memory.swap.events
    stay, and MTHP_STAT_SPLIT counts it (__folio_split).
    """
    pieces: list[Folio] = []
    if folio.place is None and folio.order and (folio.partial or not m.leaves_whole(folio)):
        pieces = pieces_of(m, folio)
    elif not swap_out(m, folio):
        if folio.order:
            m.n[f"{size_name(folio.order)}/swpout_fallback"] += 1
            pieces = pieces_of(m, folio)
        else:
            activate(m, folio)
    m.swap.work()
    for piece in in_turn(m, pieces):
        if piece.gone:
            pass_through(m, piece)
        elif not swap_out(m, piece):
            activate(m, piece)
        m.swap.work()


def pass_through(m: Machine, piece: Folio) -> None:
    """A piece that only the reclaim holds: it takes a slot like the others and gives it back unwritten."""
    if m.swap.alloc(piece, m.cpu):
        m.swap.remove(piece, m.cpu)
    else:
        m.count(piece.memcg, "pgactivate", 1)
        m.age_at_end += 1


def activate(m: Machine, folio: Folio) -> None:
    folio.active = True
    m.count(folio.memcg, "pgactivate", folio.nr)
    m.age_at_end += folio.nr
    folio.memcg.lists.add(folio)


def swap_out(m: Machine, folio: Folio) -> bool:
    """folio_alloc_swap, try_to_unmap, swap_writeout, __remove_mapping. False: no slots."""
    if folio.place is None:
        if not m.swap.alloc(folio, m.cpu):
            return False
        folio.dirty = True
    elif not folio.used:
        m.n["useless_swapin"] += folio.nr
    nonzero = unmap(m, folio)
    if folio.dirty:
        if m.swap.free_folio(folio, m.cpu):
            return True
        if write_out(m, folio, nonzero):
            folio.memcg.lists.add(folio)
            return True
    remove_mapping(m, folio)
    return True


def unmap(m: Machine, folio: Folio) -> bool:
    """try_to_unmap: every PTE becomes a swap entry. Whether the folio has content other than zeros."""
    nonzero = False
    for number, mapped in folio.maps.items():
        process = m.processes[number]
        process.split_huge(folio.base // BLOCK)
        process.flush_tlb(folio.base, folio.base + folio.nr)
        for q in sorted(mapped):
            page = process.pages[q]
            m.leave(page)
            device, slot = folio.slot(q)
            m.swap.raise_count((device, slot))
            nonzero |= page.nonzero
            process.pages[q] = Page(
                "swapped", device=device, slot=slot, exclusive=page.exclusive, nonzero=page.nonzero
            )
    if folio.maps:
        folio.nonzero = nonzero
    folio.maps = {}
    folio.owners, folio.owned, folio.marked_shared = [None, None], [0, 0], False
    return folio.nonzero


def unmap_in_vain(m: Machine, folio: Folio) -> bool:
    """shrink_folio_list for a folio that a per-CPU batch holds: pageout leaves it, unmapped, in the swap
    cache. False: there were no slots.
    """
    if folio.place is None:
        if not m.swap.alloc(folio, m.cpu):
            return False
        folio.dirty = True
    unmap(m, folio)
    m.swap.work()
    return True


def write_out(m: Machine, folio: Folio, nonzero: bool) -> bool:
    """swap_writeout: flags for a folio of zeros, else zswap or the device. True: the write is under way."""
    assert folio.place is not None
    number, offset = folio.place
    cluster, first = m.swap.devices[number].at(offset)
    cluster.zero[first : first + folio.nr] = [not nonzero] * folio.nr
    folio.dirty = False
    slots = {(number, offset + i) for i in range(folio.nr)}
    m.zswap_slots -= slots
    if not nonzero:
        m.n["swpout_zero"] += folio.nr
        return False
    if m.zswap:
        m.zswap_slots |= slots
        if folio.order:
            m.n[f"{size_name(folio.order)}/zswpout"] += 1
        return False
    m.count(folio.memcg, "pswpout", folio.nr)
    m.cost_at_end += BATCH * folio.nr
    if folio.order:
        m.n[f"{size_name(folio.order)}/swpout"] += 1
    return not m.swap.devices[number].synchronous


def remove_mapping(m: Machine, folio: Folio) -> None:
    """__remove_mapping: out of the swap cache, a shadow in every slot, the memory freed."""
    assert folio.place is not None
    shadow = memcg.eviction(m, folio)
    folio.memcg.usage -= folio.nr
    m.frames.release(folio)
    m.reclaimed += folio.nr
    cluster, first = m.swap.devices[folio.place[0]].at(folio.place[1])
    cluster.shadow[first : first + folio.nr] = [shadow] * folio.nr
    m.swap.remove(folio, m.cpu)
