"""Reading ahead from devices that are not synchronous, and MADV_WILLNEED: order 0, through the swap cache.

Source: mm/swap_state.c (swap_vma_readahead, swap_cluster_readahead, __swapin_nr_pages, swap_update_readahead,
read_swap_cache_async), mm/madvise.c (swapin_walk_pmd_entry); 6.12 to 7.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import swapin
from .folio import BLOCK, Folio, Process, Vma

if TYPE_CHECKING:
    from .machine import Machine

# Pages and their slots, each looked up when its turn comes: what was read before may have made room.
Places = Iterator[tuple[int, tuple[int, int]]]
CEILING = 5  # SWAP_RA_ORDER_CEILING
MOST_HITS = 63
FIRST_HITS = 4


def window(previous: int | None, at: int, hits: int, most: int, last: int) -> int:
    """__swapin_nr_pages: pages to read. previous: where the last fault was. last: the last window."""
    pages = hits + 2
    if pages == 2:
        if previous is None or abs(at - previous) != 1:
            pages = 1
    else:
        pages = max(4, 1 << (pages - 1).bit_length())
    return max(min(pages, most), last // 2)


def by_vma(m: Machine) -> bool:
    """swap_use_vma_readahead: switched on, and no rotational swap device."""
    return m.vma_readahead and not any(device.rotational for device in m.swap.devices)


def note_hit(m: Machine, vma: Vma, v: int, folio: Folio) -> None:
    """swap_update_readahead: a fault found the folio in the swap cache."""
    if folio.order:
        return
    ahead, folio.readahead = folio.readahead, False
    if by_vma(m):
        _, last, hits = vma.readahead or (v, 0, FIRST_HITS)
        vma.readahead = (v, last, min(hits + ahead, MOST_HITS))
    if ahead:
        m.n["swap_ra_hit"] += 1
        if not by_vma(m):
            m.readahead_hits += 1


def swap_in(m: Machine, process: Process, v: int, vma: Vma) -> Folio | None:
    """swapin_readahead: read the page and, ahead, some around it."""
    page = process.pages[v]
    places = vma_window(m, process, v, vma) if by_vma(m) else cluster_window(m, page.device, page.slot)
    target = (page.device, page.slot)
    for base, place in places:
        folio = read_async(m, base, place)
        if folio is not None and place != target:
            folio.readahead = True
            m.n["swap_ra"] += 1
    read_async(m, v, target)
    return m.swap.devices[page.device].cached(page.slot)


def vma_window(m: Machine, process: Process, v: int, vma: Vma) -> Places:
    """swap_vma_ra_win: the swapped pages around page v, in its VMA and 2 MiB block."""
    most = 1 << min(m.page_cluster, CEILING)
    if most == 1:
        return
    previous, last, hits = vma.readahead or (None, 0, FIRST_HITS)
    size = window(previous, v, hits, most, last)
    vma.readahead = (v, size, 0)
    if size == 1:
        return
    if previous is not None and v == previous + 1:
        start = v
    elif previous is not None and previous == v + 1:
        start = v - size + 1
    else:
        start = v - (size - 1) // 2
    block = v // BLOCK * BLOCK
    end = min(start + size, vma.end, block + BLOCK)
    start = max(start, vma.start, block)
    for q in range(start, end):
        page = process.pages[q]
        if page.state == "swapped":
            yield q, (page.device, page.slot)


def cluster_window(m: Machine, number: int, slot: int) -> Places:
    """swap_cluster_readahead: the slots around this one. State of the machine, not of a VMA."""
    most = 1 << m.page_cluster
    if most == 1:
        return
    hits, m.readahead_hits = m.readahead_hits, 0
    size = window(m.readahead_offset, slot, hits, most, m.readahead_last)
    if not hits:
        m.readahead_offset = slot
    m.readahead_last = size
    if size == 1:
        return
    device = m.swap.devices[number]
    first = max(slot & ~(size - 1), 1)
    last = min(slot | (size - 1), device.nslots - 1)
    for at in range(first, last + 1):
        if device.count(at):
            yield m.page_of(number, at), (number, at)


def read_async(m: Machine, base: int, place: tuple[int, int]) -> Folio | None:
    """__read_swap_cache_async and the read: the new folio, None where the slot is cached or unused."""
    device = m.swap.devices[place[0]]
    if device.cached(place[1]) is not None or not device.count(place[1]):
        return None
    frame = m.small_folio(m.swap.memcg(place))
    return None if frame is None else swapin.read(m, base, 0, place, place, frame=frame)


def will_need(m: Machine, process: Process, v: int) -> None:
    """MADV_WILLNEED of one page. The kernel drains the batch of new folios once, at the end of the call."""
    page = process.pages[v]
    if page.state == "swapped" and read_async(m, v, (page.device, page.slot)):
        m.drain()
