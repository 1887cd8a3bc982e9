"""Swap-in faults.

Source: mm/memory.c (do_swap_page, thp_swapin_suitable_orders, can_swapin_thp, should_try_to_free_swap),
mm/swap_state.c (swap_cache_alloc_folio, __swap_cache_add_check, swapin_sync); 6.12 to 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import fault as faults
from . import readahead, rmap
from .folio import ORDERS, Folio, Page, Process, Vma, size_name
from .memcg import refault

if TYPE_CHECKING:
    from .machine import Machine


def fault(m: Machine, process: Process, v: int, vma: Vma, write: bool) -> None:
    """do_swap_page. The page may end up present and not exclusive; a write then goes on to copy it."""
    page = process.pages[v]
    device = m.swap.devices[page.device]
    folio = device.cached(page.slot)
    if folio is not None:
        readahead.note_hit(m, vma, v, folio)
    else:
        past_cache = m.profile.bypass and device.count(page.slot) == 1
        if device.synchronous and (past_cache or not m.profile.bypass):
            folio = synchronous(m, process, v, vma, past_cache)
        else:
            folio = readahead.swap_in(m, process, v, vma)
        if folio is None:
            return
        m.count(process.cgroup, "pgmajfault", 1)
    map_folio(m, process, v, vma, folio, write)


def candidates(m: Machine, process: Process, v: int, within: int) -> tuple[int, int]:
    """Orders of `within` whose slots are aligned like their pages, and those whose PTEs continue each other
    too.
    """
    page, pages = process.pages[v], process.pages
    aligned = sum(1 << o for o in ORDERS if within >> o & 1 and (v ^ page.slot) & ((1 << o) - 1) == 0)
    fitting = 0
    for o in ORDERS:
        base = v >> o << o
        if aligned >> o & 1 and continues(pages, base, 1 << o, page, v):
            fitting |= 1 << o
    return aligned, fitting


def continues(pages: list[Page], base: int, nr: int, page: Page, v: int) -> bool:
    """swap_pte_batch: swap entries of one device in consecutive slots with the same exclusive bit."""
    slot = page.slot + base - v
    return all(
        q.state == "swapped"
        and q.slot == slot + i
        and q.device == page.device
        and q.exclusive == page.exclusive
        for i, q in enumerate(pages[base : base + nr])
    )


def conflict(m: Machine, page: Page, order: int) -> str | None:
    """__swap_cache_add_check: None, or why the aligned range is -EBUSY. What belongs to several cgroups shows
    only in the second check, when the folio is there.
    """
    cluster, i = m.swap.devices[page.device].at(page.slot)
    first = i >> order << order
    for at in range(first, first + (1 << order)):
        if cluster.cache[at] is not None:
            return "cached"
        if cluster.zero[at] != cluster.zero[i]:
            return "zero_flag"
    owners = set(map(id, cluster.memcg[first : first + (1 << order)]))
    return "memcg" if len(owners) > 1 else None


def synchronous(m: Machine, process: Process, v: int, vma: Vma, past_cache: bool) -> Folio | None:
    """Read from a synchronous device, as large as may be. None: there was no memory."""
    page = process.pages[v]
    permitted = 0 if m.zswap_ever else faults.allowed(m, vma)
    within = permitted & faults.edges(vma, v)
    aligned, fitting = candidates(m, process, v, within)
    conflicts = {o: conflict(m, page, o) for o in ORDERS if fitting >> o & 1}
    ok = sum(1 << o for o, why in conflicts.items() if why is None)
    reasons: dict[str, int] = {"zero_flag": 0, "cached": 0, "memcg": 0, "frame": 0, "charge": 0}
    if m.profile.filtered:
        for o, why in conflicts.items():
            if why is not None:
                reasons[why] |= 1 << o
        offered = ok
    else:
        offered = fitting
    memcg = m.swap.memcg((page.device, page.slot))
    mask = m.decide(process, v, memcg, False, offered, ok)
    reasons |= {
        "vma_edge": permitted & ~within,
        "alignment": within & ~aligned,
        "pte_gap": aligned & ~fitting,
        "policy": offered & ~mask,
    }
    got = failed = 0
    frame = None
    for o in ORDERS:
        if not mask >> o & 1:
            continue
        if (why := conflicts[o]) is None:
            frame, why = m.large_folio(o, vma, memcg)
            if frame is not None:
                got = o
                break
            if why == "charge":
                m.count_fallback(o, "swpin_fallback_charge")
            m.give_up(o, why)
        elif why == "memcg":
            m.give_up(o, why)
        m.count_fallback(o, "swpin_fallback")
        reasons[why] |= 1 << o
        failed |= 1 << o
    if frame is None:
        frame = m.small_folio(memcg)
    if permitted:
        m.learn(v, False, failed, got)
    m.refused("swapin", reasons, got)
    if frame is None or m.oom:
        return None
    base = v >> got << got
    return read(
        m, base, got, (page.device, page.slot - v + base), (page.device, page.slot), past_cache, frame
    )


def read(
    m: Machine,
    base: int,
    order: int,
    place: tuple[int, int],
    target: tuple[int, int],
    past_cache: bool = False,
    frame: int | None = None,
) -> Folio:
    """A new folio with the content of its slots: refault, LRU, read; cached unless `past_cache`."""
    cluster, i = m.swap.devices[target[0]].at(target[1])
    folio = Folio(base, order, dirty=False, used=False, memcg=cluster.memcg[i])
    if frame is not None:
        m.frames.fill(frame, folio)
    folio.nonzero = not cluster.zero[i]
    refault(m, folio, cluster.shadow[i])
    if not past_cache:
        m.swap.insert(folio, place)
    folio.memcg.lists.add_new(folio)
    if cluster.zero[i]:
        m.n["swpin_zero"] += folio.nr
    elif target in m.zswap_slots:
        m.zswap_slots.discard(target)
        folio.dirty = True
    else:
        m.count(folio.memcg, "pswpin", folio.nr)
        if order and m.profile.counts_swpin:
            m.n[f"{size_name(order)}/swpin"] += 1
    if past_cache:
        folio.dirty = True
    return folio


def map_folio(m: Machine, process: Process, v: int, vma: Vma, folio: Folio, write: bool) -> None:
    """Map all pages of the folio where all of them are swapped here, else page v; then let slots go."""
    pages, page = process.pages, process.pages[v]
    base, nr = folio.base, folio.nr
    if nr > 1 and not (faults.inside(vma, v, folio.order) and continues(pages, base, nr, page, v)):
        base, nr = v, 1
    past_cache = folio.place is None
    if write and not past_cache:
        m.drain()
    number, slot = page.device, page.slot + base - v
    m.swap.put_mapped(number, slot, nr)
    exclusive = page.exclusive or past_cache
    alone = not folio.maps
    folio.used = True
    for q in range(base, base + nr):
        rmap.add(folio, process, q)
    if not m.profile.free_after_map:
        if past_cache:
            m.swap.clear(number, slot, nr, m.cpu)
        elif m.swap.full_for_cgroup(folio.memcg) or (write and alone):
            m.swap.free_folio(folio, m.cpu)
        exclusive = exclusive or (folio.place is None and alone)
    for q in range(base, base + nr):
        nonzero, large = pages[q].nonzero, folio.order > 0
        pages[q] = Page("present", folio, young=True, swapped_in=True, large=large)
        pages[q].exclusive, pages[q].nonzero = exclusive, nonzero
    if m.profile.free_after_map:
        synchronous_device = m.swap.devices[number].synchronous
        if synchronous_device or m.swap.full_for_cgroup(folio.memcg) or (write and not exclusive and alone):
            m.swap.free_folio(folio, m.cpu)
