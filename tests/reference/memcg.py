"""Memory cgroups: charges, and reclaim under their limits by the classic two-list LRU.

Source: mm/memcontrol.c (try_charge_memcg, reclaim_high), include/linux/huge_mm.h and mm/huge_memory.c
(vma_thp_gfp_mask), mm/vmscan.c (do_try_to_free_pages, prepare_scan_control, shrink_lruvec, get_scan_count),
mm/workingset.c (workingset_refault) of 7.2 and 7.3, mm/swap.c (lru_note_cost) of 7.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import deferred, mglru, reclaim
from .cgroup import Cgroup
from .folio import Folio, Page, Vma

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
    """workingset_eviction: the shadow of a folio that goes, and the cgroup that reclaims. MADV_PAGEOUT acts
    for none, which is taken for the root.
    """
    if m.lru == "mglru":
        return mglru.eviction(folio)
    evictor = m.target or m.root
    shadow = (evictor.age & 0x7FFF_FFFF, folio.workingset, evictor)
    age_nonresident(m, evictor, folio.nr)
    return shadow


def age_nonresident(m: Machine, cgroup: Cgroup, nr: int) -> None:
    """workingset_age_nonresident: with a cgroup its parent ages."""
    cgroup.age += nr
    if cgroup is not m.root:
        m.root.age += nr


def refault(m: Machine, folio: Folio, shadow: tuple) -> None:
    """workingset_refault, workingset_test_recent."""
    if m.lru == "mglru":
        mglru.refault(m, folio, shadow)
        return
    cgroup = folio.memcg
    workingset = shadow[1]
    m.count(cgroup, "workingset_refault_anon", folio.nr)
    if not distance_of(m, shadow)[1]:
        return
    folio.active = True
    age_nonresident(m, cgroup, folio.nr)
    cgroup.activations += folio.nr
    m.count(cgroup, "workingset_activate_anon", folio.nr)
    if workingset:
        folio.workingset = True
        m.count(cgroup, "workingset_restore_anon", folio.nr)
        note_cost(m, cgroup, BATCH * folio.nr)


def distance_of(m: Machine, shadow: tuple) -> tuple[int, bool]:
    """Refault distance, and workingset_test_recent; of the classic LRU."""
    age, _, evictor = shadow
    distance = (evictor.age - age) & 0x7FFF_FFFF
    return distance, distance <= (m.active_at_flush(evictor) if m.swap.left(evictor) else 0)


def refault_distance(m: Machine, page: Page) -> tuple[int, bool]:
    """The same of the slot of a swapped page, whichever the LRU."""
    cluster, i = m.swap.devices[page.device].at(page.slot)
    if m.lru == "mglru":
        return mglru.distance_of(cluster.memcg[i], cluster.shadow[i])
    return distance_of(m, cluster.shadow[i])


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


def charge(m: Machine, cgroup: Cgroup, nr: int, order: int = 0, gfp: Gfp = GFP_KERNEL) -> bool:
    """try_charge_memcg. False: refused. A small one has called the OOM killer, which ends the machine (oom),
    and has then tried as often again (passed_oom).
    """
    batch, drained, retries = max(STOCK, nr), False, RETRIES
    if not gfp.allow_spinning:
        batch = nr
    limit = cgroup.limits.limit if cgroup.limits.limit is not None else 1 << 30
    while True:
        if cgroup.stock >= nr:
            cgroup.stock -= nr
            cgroup.usage += nr
            return True
        for take in (batch, nr):
            if cgroup.current + take <= limit:
                cgroup.usage += nr
                cgroup.stock += take - nr
                note_over_high(m, cgroup, take, gfp)
                return True
        batch = nr
        m.count(cgroup, "memcg_max", gfp.direct_reclaim or m.profile.counts_all_max)
        if not gfp.direct_reclaim:
            return False
        progress = reclaim_pages(m, cgroup, max(nr, BATCH))
        if limit - cgroup.current >= nr:
            continue
        if not drained:
            drain_all_stock(m, cgroup)
            drained = True
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


def drain_all_stock(m: Machine, cgroup: Cgroup) -> None:
    """What the CPU has in stock goes back, of all cgroups if this one has any (drain_local_memcg_stock)."""
    if cgroup.stock:
        for other in m.cgroups.values():
            other.stock = 0


def uncharge_table(cgroup: Cgroup) -> None:
    """obj_cgroup_uncharge_pages, refill_stock: a page of the kernel's goes to the stock; all of that goes
    back where it is too much.
    """
    cgroup.usage -= 1
    cgroup.stock = 0 if cgroup.stock >= STOCK else cgroup.stock + 1


def charge_objects(m: Machine, cgroup: Cgroup) -> None:
    """obj_cgroup_charge: the first accounted object takes KERNEL_PAGES, enough for later ones."""
    if not cgroup.has_objects:
        cgroup.has_objects = charge(m, cgroup, KERNEL_PAGES)


def note_over_high(m: Machine, cgroup: Cgroup, nr: int, gfp: Gfp) -> None:
    """The end of try_charge_memcg: nr pages were charged beyond memory.high. They are worked off on the way
    back to user mode, or here where they are many.
    """
    if cgroup.limits.high is not None and cgroup.current > cgroup.limits.high:
        m.over_high += nr
        if m.over_high > STOCK and gfp.direct_reclaim:
            handle_over_high(m, m.running.cgroup)


def handle_over_high(m: Machine, cgroup: Cgroup) -> None:
    """mem_cgroup_handle_over_high of a process in this cgroup, whichever it has charged; without the sleep at
    its end, where reclaim finds nothing more.
    """
    nr, m.over_high = m.over_high, 0
    if not nr or m.oom:
        return
    target, retries = nr, RETRIES
    while True:
        done = reclaim_high(m, cgroup, target)
        if high_delay(cgroup, nr) <= HZ // 100 or not (done or retries):
            return
        retries -= not done
        target = BATCH


def reclaim_high(m: Machine, cgroup: Cgroup, nr: int) -> int:
    """Pages reclaimed."""
    if cgroup.limits.high is None or cgroup.current <= cgroup.limits.high:
        return 0
    m.count(cgroup, "memcg_high", 1)
    return reclaim_pages(m, cgroup, max(nr, BATCH))


def high_delay(cgroup: Cgroup, nr: int) -> int:
    """calculate_high_delay: jiffies to sleep, by how far memory.high is exceeded. They are not modelled as
    time, but reclaim goes on while they are more than 10 ms.
    """
    high = cgroup.limits.high
    if high is None:
        return 0
    excess = max(cgroup.current - high, 0)
    overage = (excess << DELAY_PRECISION) // max(high, 1)
    return (overage * overage * HZ >> DELAY_PRECISION >> DELAY_SCALING) * nr // STOCK


def note_cost(m: Machine, cgroup: Cgroup, cost: int) -> None:
    """lru_note_cost; in 7.3 the statistics pgrotate, pgreclaim_pageout and workingset_restore."""
    if m.profile.samples_cost:
        cgroup.counted_cost += cost
        return
    cgroup.anon_cost += cost
    if cgroup.anon_cost > cgroup.flushed_total // 4:
        cgroup.anon_cost //= 2


def sample_cost(cgroup: Cgroup) -> None:
    """prepare_scan_control of 7.3: adds what was flushed since it was last called."""
    cgroup.anon_cost += cgroup.flushed_cost
    cgroup.flushed_cost = 0
    while cgroup.anon_cost > cgroup.flushed_total // 4:
        cgroup.anon_cost //= 2


def reclaim_pages(m: Machine, cgroup: Cgroup, target: int) -> int:
    """try_to_free_mem_cgroup_pages: pages reclaimed, of the lists of one cgroup."""
    m.target = cgroup
    done = (mglru.reclaim_pages if m.lru == "mglru" else do_try_to_free_pages)(m, cgroup, target)
    m.target = None
    return done


def do_try_to_free_pages(m: Machine, cgroup: Cgroup, target: int) -> int:
    """From priority 12 down."""
    total, skipped = 0, False
    for attempt in range(3):
        if attempt == 2 and not skipped:
            break
        for priority in range(12, -1, -1):
            done, skip = shrink_lruvec(m, cgroup, priority, target, force=attempt == 2)
            deferred.shrink_slab(m, cgroup, priority)
            total += done
            skipped |= skip
            if total >= target:
                break
        cgroup.refaults_seen = cgroup.flushed_activations
        if total:
            break
    return total


def shrink_lruvec(m: Machine, c: Cgroup, priority: int, target: int, force: bool) -> tuple[int, bool]:
    inactive, active = c.lists.inactive_nr, c.lists.active_nr
    if m.flush == 0:
        m.flush_statistics(c)
    if m.profile.samples_cost:
        sample_cost(c)
    # prepare_scan_control: by the numbers of the last flush, while the lists are scanned by their own.
    low = c.flushed_total - c.flushed_active < c.flushed_active
    deactivate = force or low or c.flushed_activations != c.refaults_seen
    nr = [scan_count(m, c, size, priority) for size in (inactive, active)]
    done, skipped = 0, False
    while nr[0]:
        batch = min(nr[0], BATCH)
        nr[0] -= batch
        done += shrink_inactive_list(m, c, batch)
        if nr[1]:
            batch = min(nr[1], BATCH)
            nr[1] -= batch
            if deactivate:
                shrink_active_list(m, c, batch)
            else:
                skipped = True
        if done >= target:
            break
    if low:
        shrink_active_list(m, c, BATCH)
    return done, skipped


def scan_count(m: Machine, cgroup: Cgroup, size: int, priority: int) -> int:
    """get_scan_count, calculate_pressure_balance: pages of an anonymous list of this size to scan."""
    if not m.swap.left(cgroup) or not m.swappiness:
        return 0
    if not priority:
        return size
    cost = cgroup.anon_cost
    anon = m.swappiness * (3 * cost + 1) // (2 * cost + 1)
    file = (MAX_SWAPPINESS - m.swappiness) * (3 * cost + 1) // (cost + 1)
    return (size >> priority) * anon // (anon + file)


def shrink_inactive_list(m: Machine, cgroup: Cgroup, nr: int) -> int:
    lists = cgroup.lists
    m.batches.drain()
    batch: list[Folio] = []
    scanned = 0
    while scanned < nr and (folio := lists.inactive_tail()) is not None:
        lists.remove(folio)
        batch.append(folio)
        scanned += folio.nr
    m.count(cgroup, "pgscan", scanned)
    for folio in batch:
        references = references_of(m, folio)
        referenced, folio.referenced = folio.referenced, references > 0
        if references and (referenced or references > 1):
            reclaim.activate(m, folio)
        elif references:
            lists.add(folio)
        else:
            reclaim.shrink(m, folio)
    done = m.reclaimed
    m.count(cgroup, "pgsteal", done)
    if batch:
        note_cost(m, cgroup, m.cost_at_end + scanned - done)
    age_nonresident(m, cgroup, m.age_at_end)
    m.age_at_end = m.cost_at_end = m.reclaimed = 0
    return done


def references_of(m: Machine, folio: Folio) -> int:
    """folio_referenced: processes with a young page of the folio; clears the young bits. What processes of
    other cgroups map is not looked at (invalid_folio_referenced_vma). (The kernel counts VMAs: a folio that
    lies across the edge of two counts twice there.)
    """
    references = 0
    for number, mapped in folio.maps.items():
        process = m.processes[number]
        if process.cgroup is not m.target:
            continue
        young = [q for q in mapped if process.pages[q].young]
        references += bool(young)
        for q in young:
            process.pages[q].young = False
    return references


def shrink_active_list(m: Machine, cgroup: Cgroup, nr: int) -> None:
    lists = cgroup.lists
    m.batches.drain()
    scanned = 0
    batch = []
    while scanned < nr and (folio := lists.active_tail()) is not None:
        lists.remove(folio)
        batch.append(folio)
        scanned += folio.nr
    for folio in batch:
        references_of(m, folio)
        folio.active, folio.workingset = False, True
        lists.add(folio)
        m.count(cgroup, "pgdeactivate", folio.nr)
    m.count(cgroup, "pgrefill", scanned)
