"""The memory cgroup: charges, and reclaim under its limits by the classic two-list LRU.

Source: mm/memcontrol.c (try_charge_memcg, reclaim_high), include/linux/huge_mm.h and mm/huge_memory.c
(vma_thp_gfp_mask), mm/vmscan.c (do_try_to_free_pages, shrink_lruvec, get_scan_count),
mm/workingset.c (workingset_refault), mm/swap.c (lru_note_cost); 7.2 and 7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import mglru, reclaim
from .folio import Folio, Vma

if TYPE_CHECKING:
    from .machine import Machine

BATCH = 32  # SWAP_CLUSTER_MAX
STOCK = 64  # MEMCG_CHARGE_BATCH
KERNEL_PAGES = 1  # of the first accounted object, here a VMA: it takes a page for itself and those to follow
COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER
RETRIES = 16  # MAX_RECLAIM_RETRIES
MAX_SWAPPINESS = 200
HZ = 250  # of Debian's kernels
DELAY_PRECISION, DELAY_SCALING = 20, 14  # MEMCG_DELAY_PRECISION_SHIFT, MEMCG_DELAY_SCALING_SHIFT


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
    if distance > (m.flushed_active if m.swap.left else 0):
        return
    folio.active = True
    m.age += folio.nr
    m.activations += folio.nr
    m.n["workingset_activate_anon"] += folio.nr
    if shadow[1]:
        folio.workingset = True
        m.n["workingset_restore_anon"] += folio.nr
        note_cost(m, BATCH * folio.nr)


class Gfp(NamedTuple):
    """What a charge may do: reclaim (__GFP_DIRECT_RECLAIM), wake kswapd (__GFP_KSWAPD_RECLAIM), reclaim again
    (not __GFP_NORETRY).
    """

    direct_reclaim: bool = True
    kswapd_reclaim: bool = True
    retry: bool = True

    @property
    def allow_spinning(self) -> bool:
        """gfpflags_allow_spinning."""
        return self.direct_reclaim or self.kswapd_reclaim


GFP_KERNEL = Gfp()


def vma_thp_gfp_mask(m: Machine, vma: Vma) -> Gfp:
    """Of a large folio: by transparent_hugepage/defrag and the advice of its VMA."""
    advised = vma.advice == "huge"
    direct = m.defrag == "always" or (m.defrag in ("defer+madvise", "madvise") and advised)
    kswapd = m.defrag == "defer" or (m.defrag == "defer+madvise" and not advised)
    return Gfp(direct, kswapd, retry=m.defrag != "always" or advised)


def charge(m: Machine, nr: int, order: int = 0, gfp: Gfp = GFP_KERNEL) -> bool:
    """try_charge_memcg. False: refused. A small one has called the OOM killer, which ends the machine (oom),
    and has then tried as often again (passed_oom).
    """
    batch, drained, retries = max(STOCK, nr), False, RETRIES
    if not gfp.allow_spinning:
        batch = nr
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
                note_over_high(m, take, gfp)
                return True
        batch = nr
        m.n["memcg_max"] += 1
        if not gfp.direct_reclaim:
            return False
        progress = reclaim_pages(m, max(nr, BATCH))
        if limit - m.usage - m.stock >= nr:
            continue
        if not drained:
            m.stock, drained = 0, True
            continue
        if not gfp.retry:
            return False
        if progress and nr <= 8:
            continue
        if retries:
            retries -= 1
            continue
        if order > COSTLY_ORDER or m.oom:
            return False
        m.oom, retries = True, RETRIES


def note_over_high(m: Machine, nr: int, gfp: Gfp) -> None:
    """The end of try_charge_memcg: nr pages were charged beyond memory.high. They are worked off on the way
    back to user mode, or here where they are many.
    """
    if m.high is not None and m.usage + m.stock > m.high:
        m.over_high += nr
        if m.over_high > STOCK and gfp.direct_reclaim:
            handle_over_high(m)


def handle_over_high(m: Machine) -> None:
    """mem_cgroup_handle_over_high, without the sleep that ends it where reclaim finds nothing more."""
    nr, m.over_high = m.over_high, 0
    if not nr or m.oom:
        return
    target, retries = nr, RETRIES
    while True:
        done = reclaim_high(m, target)
        if high_delay(m, nr) <= HZ // 100 or not (done or retries):
            return
        retries -= not done
        target = BATCH


def reclaim_high(m: Machine, nr: int) -> int:
    """Pages reclaimed."""
    assert m.high is not None
    if m.usage + m.stock <= m.high:
        return 0
    m.n["memcg_high"] += 1
    return reclaim_pages(m, max(nr, BATCH))


def high_delay(m: Machine, nr: int) -> int:
    """calculate_high_delay: jiffies to sleep, by how far memory.high is exceeded. They are not modelled as
    time, but reclaim goes on while they are more than 10 ms.
    """
    assert m.high is not None
    excess = max(m.usage + m.stock - m.high, 0)
    overage = (excess << DELAY_PRECISION) // max(m.high, 1)
    return (overage * overage * HZ >> DELAY_PRECISION >> DELAY_SCALING) * nr // STOCK


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
    nr = [scan_count(m, size, priority) for size in (inactive, active)]
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


def scan_count(m: Machine, size: int, priority: int) -> int:
    """get_scan_count, calculate_pressure_balance: pages of an anonymous list of this size to scan."""
    if not m.swap.left or not m.swappiness:
        return 0
    if not priority:
        return size
    cost = m.anon_cost
    anon = m.swappiness * (3 * cost + 1) // (2 * cost + 1)
    file = (MAX_SWAPPINESS - m.swappiness) * (3 * cost + 1) // (cost + 1)
    return (size >> priority) * anon // (anon + file)


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
    m.n["pgrefill"] += scanned
