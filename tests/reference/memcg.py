"""The memory cgroup: charges, and reclaim under its limit by the classic two-list LRU.

Source: mm/memcontrol.c (try_charge_memcg), mm/vmscan.c (do_try_to_free_pages, shrink_lruvec, get_scan_count),
mm/workingset.c (workingset_refault), mm/swap.c (lru_note_cost); 7.2 and 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import mglru, reclaim
from .folio import Folio

if TYPE_CHECKING:
    from .machine import Machine

SWAPPINESS = 60
BATCH = 32  # SWAP_CLUSTER_MAX
STOCK = 64  # MEMCG_CHARGE_BATCH
KERNEL_PAGES = 1  # of the first accounted object, here a VMA: it takes a page for itself and those to follow


def eviction(m: Machine, folio: Folio) -> tuple:
    """workingset_eviction: the shadow of a folio that goes."""
    if m.lru == "mglru":
        return mglru.eviction(m, folio)
    shadow = (m.age & 0x7FFF_FFFF, folio.workingset)
    m.age += folio.nr
    return shadow


def refault(m: Machine, folio: Folio, shadow: tuple) -> None:
    """workingset_refault, workingset_test_recent."""
    if m.lru == "mglru":
        mglru.refault(m, folio, shadow)
        return
    m.n["workingset_refault_anon"] += folio.nr
    distance = (m.age - shadow[0]) & 0x7FFF_FFFF
    if distance > (m.flushed_active if m.swap.free_slots else 0):
        return
    folio.active = True
    m.age += folio.nr
    m.activations += folio.nr
    m.n["workingset_activate_anon"] += folio.nr
    if shadow[1]:
        folio.workingset = True
        m.n["workingset_restore_anon"] += folio.nr
        note_cost(m, BATCH * folio.nr)


def charge(m: Machine, nr: int, may_reclaim: bool, order: int = 0) -> bool:
    """try_charge_memcg. False: refused; at order 0 the OOM killer has ended the machine."""
    batch, drained, retries = max(STOCK, nr), False, 16
    limit = m.limit if m.limit is not None else 1 << 30
    while True:
        if m.stock >= nr:
            m.stock -= nr
            m.usage += nr
            return True
        for take in (batch, nr):
            if m.usage + m.stock + take <= limit:
                m.usage += nr
                m.stock += take - nr
                return True
        batch = nr
        m.n["memcg_max"] += 1
        if not may_reclaim:
            return False
        progress = reclaim_pages(m, max(nr, BATCH))
        if limit - m.usage - m.stock >= nr:
            continue
        if not drained:
            m.stock, drained = 0, True
            continue
        if progress and nr <= 8:
            continue
        if retries:
            retries -= 1
            continue
        if order <= 3:
            m.oom = True
        return False


def note_cost(m: Machine, cost: int) -> None:
    """lru_note_cost."""
    m.anon_cost += cost
    while m.anon_cost > m.flushed_total // 4:
        m.anon_cost //= 2


def reclaim_pages(m: Machine, target: int) -> int:
    """try_to_free_mem_cgroup_pages: do_try_to_free_pages from priority 12 down."""
    if m.lru == "mglru":
        return mglru.reclaim_pages(m, target)
    total, skipped = 0, False
    for attempt in range(3):
        if attempt == 2 and not skipped:
            break
        for priority in range(12, -1, -1):
            done, skip = shrink_lruvec(m, priority, target, force=attempt == 2)
            total += done
            skipped |= skip
            if total >= target:
                break
        m.refaults_seen = m.flushed_activations
        if total:
            break
    return total


def shrink_lruvec(m: Machine, priority: int, target: int, force: bool) -> tuple[int, bool]:
    inactive, active = m.lists.inactive_nr, m.lists.active_nr
    if m.flush == 0:
        m.flush_statistics()
    # prepare_scan_control: by the numbers of the last flush, while the lists are scanned by their own.
    low = m.flushed_total - m.flushed_active < m.flushed_active
    deactivate = force or low or m.flushed_activations != m.refaults_seen
    cost = m.anon_cost
    anon = SWAPPINESS * (3 * cost + 1) // (2 * cost + 1)
    file = (200 - SWAPPINESS) * (3 * cost + 1) // (cost + 1)
    nr = []
    for size in (inactive, active):
        scan = size >> priority
        if priority:
            scan = scan * anon // (anon + file)
        nr.append(scan if m.swap.free_slots else 0)
    done, skipped = 0, False
    while nr[0]:
        batch = min(nr[0], BATCH)
        nr[0] -= batch
        done += shrink_inactive_list(m, batch)
        if nr[1]:
            batch = min(nr[1], BATCH)
            nr[1] -= batch
            if deactivate:
                shrink_active_list(m, batch)
            else:
                skipped = True
        if done >= target:
            break
    if low:
        shrink_active_list(m, BATCH)
    return done, skipped


def shrink_inactive_list(m: Machine, nr: int) -> int:
    m.lists.drain()
    batch: list[Folio] = []
    scanned = 0
    while scanned < nr and (folio := m.lists.inactive_tail()) is not None:
        m.lists.remove(folio)
        batch.append(folio)
        scanned += folio.nr
    m.n["pgscan"] += scanned
    for folio in batch:
        references = references_of(m, folio)
        referenced, folio.referenced = folio.referenced, references > 0
        if references and (referenced or references > 1):
            reclaim.activate(m, folio)
        elif references:
            m.lists.add(folio)
        else:
            reclaim.shrink(m, folio)
    done = m.reclaimed
    m.n["pgsteal"] += done
    if batch:
        note_cost(m, m.cost_at_end + scanned - done)
    m.age += m.age_at_end
    m.age_at_end = m.cost_at_end = m.reclaimed = 0
    return done


def references_of(m: Machine, folio: Folio) -> int:
    """folio_referenced: runs of mapped pages with a young one; clears the young bits."""
    references, run_young = 0, False
    for number, mapped in folio.maps.items():
        pages = m.processes[number].pages
        for q in range(folio.base, folio.base + folio.nr + 1):
            if q in mapped:
                run_young |= pages[q].young
                pages[q].young = False
            else:
                references += run_young
                run_young = False
    return references


def shrink_active_list(m: Machine, nr: int) -> None:
    m.lists.drain()
    scanned = 0
    batch = []
    while scanned < nr and (folio := m.lists.active_tail()) is not None:
        m.lists.remove(folio)
        batch.append(folio)
        scanned += folio.nr
    for folio in batch:
        references_of(m, folio)
        folio.active, folio.workingset = False, True
        m.lists.add(folio)
        m.n["pgdeactivate"] += folio.nr
