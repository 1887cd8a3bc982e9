"""The multi-gen LRU of a cgroup: generations, aging by page-table walks, eviction, refaults.

Source: mm/vmscan.c (try_to_shrink_lruvec and what it calls), mm/workingset.c (lru_gen_eviction,
lru_gen_refault), mm/swap.c (folio_add_lru, folio_activate), include/linux/mm_inline.h (lru_gen_folio_seq);
7.3. A cgroup without file pages, on one node with one zone, everything enabled (lru_gen/enabled is 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import deferred, lru, reclaim
from .cgroup import Cgroup
from .folio import BLOCK, Folio, Process

if TYPE_CHECKING:
    from .machine import Machine

MIN_GENS, MAX_GENS = 2, 4  # MIN_NR_GENS, MAX_NR_GENS
TIERS = 4  # MAX_NR_TIERS
MAX_REFS = 3  # LRU_REFS_MASK
BATCH = 64  # MIN_LRU_BATCH
ANON, FILE = 0, 1
PTES_A_LINE = 8  # of a cache line, suitable_to_scan


class Generations:
    """struct lru_gen_folio and lru_gen_mm_state.

    A generation is a sequence number, youngest max_seq, oldest min_seq (of anon and of file pages). A walk of
    page tables changes a folio's generation but leaves it on its list; eviction moves it later. nr: pages on
    the lists. walked: sequence number of the last walk. filters: blocks worth a walk, by sequence number
    modulo 2 (Bloom filters, here exact); None before the first. walking: this pass has walked (mm_walk).
    known: processes that were walked once; used: those that ran since their last walk. The others are by
    tier, in pages: refaulted, evicted and protected since the oldest generation began, and the averages
    before.
    """

    def __init__(self, sentinel, batches: lru.Batches):
        self.sentinel, self.batches = sentinel, batches
        self.max_seq, self.min_seq = MIN_GENS + 1, [0, 0]
        self.heads = {}
        for seq in range(MAX_GENS):
            self._new_list(seq)
        self.nr = 0
        self.walked = MIN_GENS
        self.filters: list[set[tuple[int, int]] | None] = [None, None]
        self.walking = False
        self.known: set[int] = set()
        self.used: set[int] = set()
        self.refaulted, self.evicted, self.protected = [0] * TIERS, [0] * TIERS, [0] * TIERS
        self.average_refaulted, self.average_total = [0] * TIERS, [0] * TIERS

    def _new_list(self, seq: int) -> None:
        head = self.heads[seq] = self.sentinel(-1, 0)
        head.prev = head.next = head

    def tail(self, seq: int) -> Folio | None:
        head = self.heads[seq]
        return None if head.prev is head else head.prev

    def forget(self, number: int, exits: bool = False) -> None:
        """lru_gen_del_mm: the process leaves the cgroup. Of one that exits the filters name nothing any more
        (in the kernel they go on to name page tables that are gone).
        """
        self.known.discard(number)
        self.used.discard(number)
        if exits:
            for named in self.filters:
                if named is not None:
                    named.difference_update([one for one in named if one[0] == number])

    # Lists

    def add_new(self, folio: Folio) -> None:
        """folio_add_lru in a page fault."""
        if folio.workingset:
            folio.active = True
        elif not folio.referenced:
            mark_accessed(folio)
        self.batches.add_new(folio)

    def place(self, folio: Folio) -> int:
        """lru_gen_folio_seq: the generation a folio is added to."""
        if folio.active:
            age = MIN_GENS - folio.workingset
        elif folio.place is None:
            age = MIN_GENS
        else:
            age = MAX_GENS - (folio.workingset or folio.referenced)
        return max(self.max_seq - age + 1, self.min_seq[ANON])

    def add(self, folio: Folio) -> None:
        """lru_gen_add_folio."""
        folio.gen = self.place(folio)
        folio.active = False
        self.insert_after(self.heads[folio.gen], folio)

    def insert_after(self, place: Folio, folio: Folio) -> None:
        """On the tail side of `place`."""
        self._link(place, folio)
        self.nr += folio.nr

    def remove(self, folio: Folio) -> None:
        """lru_gen_del_folio."""
        if folio.waits and folio in self.batches.waiting:
            self.batches.drain()
        self._unlink(folio)
        self.nr -= folio.nr

    @staticmethod
    def _link(place: Folio, folio: Folio) -> None:
        folio.prev, folio.next = place, place.next
        place.next.prev = folio
        place.next = folio

    @staticmethod
    def _unlink(folio: Folio) -> None:
        folio.prev.next, folio.next.prev = folio.next, folio.prev
        folio.prev = folio.next = None

    def move(self, folio: Folio, seq: int, tail: bool = False) -> None:
        """list_move, list_move_tail."""
        self._unlink(folio)
        self._link(self.heads[seq].prev if tail else self.heads[seq], folio)


# Flags of a folio


def refs_of(folio: Folio) -> int:
    """folio_lru_refs."""
    return folio.refs + 1 if folio.referenced else 0


def tier_of(refs: int, workingset: bool) -> int:
    """lru_tier_from_refs."""
    return TIERS - 1 if workingset else max(refs - 1, 0).bit_length()


def mark_accessed(folio: Folio) -> None:
    """lru_gen_inc_refs."""
    if not folio.referenced:
        folio.referenced, folio.refs = True, 0
    elif folio.refs == MAX_REFS:
        folio.workingset = True
    else:
        folio.refs += 1


def set_refs(folio: Folio) -> bool:
    """lru_gen_set_refs: one more access through a page table. Whether the folio is to be promoted."""
    if not folio.referenced and not folio.workingset:
        folio.referenced, folio.refs = True, 0
        return False
    if refs_of(folio) > 1:
        folio.referenced, folio.refs, folio.workingset = False, 0, True
    else:
        mark_accessed(folio)
    return True


def update_gen(lists: Generations, folio: Folio) -> None:
    """folio_update_gen: young in a walk, for the second time."""
    if folio.referenced or folio.workingset:
        folio.referenced, folio.refs, folio.workingset = False, 0, True
        folio.gen = lists.max_seq
    else:
        folio.referenced, folio.refs = True, 0


# Reclaim


def reclaim_pages(m: Machine, cgroup: Cgroup, target: int) -> int:
    """do_try_to_free_pages from priority 12 down, twice if nothing comes."""
    total = 0
    cgroup.lists.used.update(cgroup.processes)
    for _ in range(2):
        for priority in range(12, -1, -1):
            total += shrink_lruvec(m, cgroup, priority, target - total)
            deferred.shrink_slab(m, cgroup, priority)
            if total >= target:
                break
        if total:
            break
    return total


def drain(m: Machine) -> None:
    """lru_add_drain."""
    m.batches.drain()
    drain_activating(m)


def drain_activating(m: Machine) -> None:
    waiting, m.batches.activating = m.batches.activating, []
    for folio in waiting:
        folio.waits = False
        if folio.prev is None:
            continue
        lists = folio.memcg.lists
        lists.remove(folio)
        folio.active = True
        lists.add(folio)
        m.count(folio.memcg, "pgactivate", folio.nr)


def shrink_lruvec(m: Machine, cgroup: Cgroup, priority: int, target: int) -> int:
    """lru_gen_shrink_lruvec, try_to_shrink_lruvec. Pages reclaimed."""
    lists, total = cgroup.lists, 0
    drain(m)
    lists.walking = False
    if m.swap.left(cgroup) < BATCH or not m.swappiness:
        return 0
    left = lists.nr >> priority
    while left > 0:
        oldest = min(lists.min_seq) + MIN_GENS
        if oldest > lists.max_seq or (priority < 12 and oldest == lists.max_seq):
            age(m, cgroup)
        scanned, done = evict_folios(m, cgroup, min(left, BATCH))
        total += done
        if not scanned or total >= target:
            break
        left -= scanned
    return total


def evict_folios(m: Machine, cgroup: Cgroup, nr: int) -> tuple[int, int]:
    """Pages scanned, pages reclaimed."""
    lists = cgroup.lists
    inc_min_seq_of_empty(lists)
    scanned, isolated = scan_folios(m, cgroup, nr)
    if scanned:
        inc_min_seq_of_empty(lists)
    kept = []
    for folio in isolated:
        if not look_around(m, folio):
            if not (folio.waits and reclaim.unmap_in_vain(m, folio)):
                reclaim.shrink(m, folio)
                continue
        elif set_refs(folio):
            folio.active = True
            m.count(cgroup, "pgactivate", folio.nr)
        kept.append(folio)
    for folio in kept:
        # A folio that was rejected does not go back to the oldest generation.
        if lists.place(folio) == lists.min_seq[ANON]:
            folio.referenced, folio.refs, folio.active = False, 0, True
        lists.add(folio)
    done = m.reclaimed
    m.count(cgroup, "pgsteal", done)
    m.age_at_end = m.cost_at_end = m.reclaimed = 0
    return scanned, done


def scan_folios(m: Machine, cgroup: Cgroup, nr: int) -> tuple[int, list[Folio]]:
    """Pages looked at, and the folios taken off the oldest generation."""
    lists, isolated = cgroup.lists, []
    oldest = lists.min_seq[ANON]
    if lists.max_seq - oldest + 1 == MIN_GENS:
        return 0, []
    tier = highest_unprotected(lists)
    scanned = moved = taken = 0
    while nr and taken < BATCH and (folio := lists.tail(oldest)) is not None:
        nr -= 1
        scanned += folio.nr
        if sort_folio(lists, folio, tier):
            moved += folio.nr
        else:
            if not folio.referenced:
                folio.refs = 0
            lists.remove(folio)
            isolated.append(folio)
            taken += folio.nr
    m.count(cgroup, "pgscan", taken)
    m.count(cgroup, "pgrefill", moved)
    return scanned, isolated


def sort_folio(lists: Generations, folio: Folio, tier: int) -> bool:
    """A folio of another generation, or of a tier that is protected, goes there instead of out."""
    oldest = lists.min_seq[ANON]
    if folio.gen != oldest:
        lists.move(folio, folio.gen)
        return True
    if tier_of(refs_of(folio), folio.workingset) > tier:
        protect(lists, folio)
        lists.move(folio, folio.gen)
        return True
    return False


def protect(lists: Generations, folio: Folio) -> None:
    """folio_inc_gen, and its account."""
    refs = refs_of(folio)
    if refs + folio.workingset != MAX_REFS + 2:
        lists.protected[tier_of(refs, folio.workingset)] += folio.nr
    folio.gen += 1
    folio.referenced, folio.refs = False, 0


def highest_unprotected(lists: Generations) -> int:
    """get_tier_idx, positive_ctrl_err: a tier is protected from where more of it come back than of tier 0."""
    refaulted, total = position(lists, 0)
    for tier in range(1, TIERS):
        back, all_of = position(lists, tier)
        if back >= BATCH and back * (total + BATCH) * 2 > (refaulted + 1) * all_of * 3:
            return tier - 1
    return TIERS - 1


def position(lists: Generations, tier: int) -> tuple[int, int]:
    """read_ctrl_pos."""
    return (
        lists.average_refaulted[tier] + lists.refaulted[tier],
        lists.average_total[tier] + lists.protected[tier] + lists.evicted[tier],
    )


# Generations


def inc_min_seq_of_empty(lists: Generations) -> None:
    """try_to_inc_min_seq: past generations without folios. File pages have none."""
    anon, file = lists.min_seq
    while anon + MIN_GENS <= lists.max_seq and lists.tail(anon) is None:
        anon += 1
    if [anon, file] != lists.min_seq or file + MIN_GENS <= lists.max_seq:
        file = max(file, lists.max_seq - MIN_GENS + 1)
        bound = lists.max_seq - MIN_GENS
        if anon > bound and file < bound:
            anon = bound
        elif file > bound and anon < bound:
            file = bound
    if anon > lists.min_seq[ANON]:
        begin_oldest(lists, anon)
    lists.min_seq[FILE] = max(file, lists.min_seq[FILE])


def begin_oldest(lists: Generations, seq: int) -> None:
    """The oldest generation is now `seq` (reset_ctrl_pos)."""
    for tier in range(TIERS):
        refaulted, total = position(lists, tier)
        lists.average_refaulted[tier], lists.average_total[tier] = refaulted // 2, total // 2
        lists.refaulted[tier] = lists.evicted[tier] = lists.protected[tier] = 0
    for old in range(lists.min_seq[ANON], seq):
        del lists.heads[old]
    lists.min_seq[ANON] = seq


def age(m: Machine, cgroup: Cgroup) -> None:
    """try_to_inc_max_seq: walk the page tables of the processes that ran, then a new generation."""
    lists = cgroup.lists
    seq = lists.max_seq
    if seq <= lists.walked:
        return
    lists.walking = True
    first = True
    for number, process in cgroup.processes.items():
        force = number not in lists.known
        if force or number in lists.used:
            if first:
                lists.filters[(seq + 1) % 2] = set()
            lists.known.add(number)
            lists.used.discard(number)
            walk(m, process, force)
        first = False
    lists.walked = seq
    if seq - lists.min_seq[ANON] + 1 == MAX_GENS:
        oldest = lists.min_seq[ANON]
        while (folio := lists.tail(oldest)) is not None:
            if folio.gen == oldest:
                protect(lists, folio)
            lists.move(folio, folio.gen, tail=True)
        begin_oldest(lists, oldest + 1)
    lists.min_seq[FILE] = max(lists.min_seq[FILE], seq - MAX_GENS + 2)
    lists.max_seq += 1
    lists._new_list(lists.max_seq)


def walk(m: Machine, process: Process, force: bool) -> None:
    """walk_mm: page tables that were used and that the filter names, or all of them."""
    lists, seq = process.cgroup.lists, process.cgroup.lists.max_seq
    here, after = lists.filters[seq % 2], lists.filters[(seq + 1) % 2]
    for block in sorted(process.tables):
        if not force:
            if block not in process.used_tables:
                continue
            process.used_tables.discard(block)
            if here is not None and (process.number, block) not in here:
                continue
        total = young = 0
        for vma in process.vmas:
            start, end = max(vma.start, block * BLOCK), min(vma.end, (block + 1) * BLOCK)
            if start < end:
                total += end - start
                young += clear_young(m, process, start, end)
        if total and young * PTES_A_LINE >= total and after is not None:
            after.add((process.number, block))


def clear_young(m: Machine, process: Process, start: int, end: int) -> int:
    """The young PTEs of a range, cleared; the folios they map are promoted. Folios off the lists and of other
    cgroups stay (get_pfn_folio).
    """
    pages, found, last = process.pages, 0, None
    v = start
    while v < end:
        page = pages[v]
        folio = page.folio
        if not page.young or folio is None or folio.prev is None or folio.memcg is not m.target:
            v += 1
            continue
        stop = v + 1
        if folio.order:
            while stop < end and pages[stop].folio is folio:
                stop += 1
        for q in range(v, stop):
            pages[q].young = False
        found += stop - v
        if folio is not last:
            if last is not None:
                promote(m, last)
            last = folio
        v = stop
    if last is not None:
        promote(m, last)
    return found


def promote(m: Machine, folio: Folio) -> None:
    """walk_update_folio: folio_update_gen in a pass that walks, else folio_activate."""
    lists = folio.memcg.lists
    if lists.walking:
        update_gen(lists, folio)
    elif set_refs(folio) and folio.gen != lists.max_seq and not folio.waits:
        folio.waits = True
        m.batches.activating.append(folio)
        if folio.order or len(m.batches.activating) >= lru.BATCH:
            drain_activating(m)


def look_around(m: Machine, folio: Folio) -> bool:
    """folio_referenced, lru_gen_look_around: whether some PTE is young; then its neighbours are promoted. The
    parent comes before its children, as in the tree of its anon_vma.
    """
    referenced = False
    for number, mapped in sorted(folio.maps.items()):
        process = m.processes[number]
        if process.cgroup is not m.target:
            continue
        pages = process.pages
        v = folio.base
        while v < folio.base + folio.nr:
            if v not in mapped:
                v += 1
                continue
            stop = v
            young = False
            while stop < folio.base + folio.nr and stop in mapped:
                young |= pages[stop].young
                pages[stop].young = False
                stop += 1
            if young:
                referenced = True
                around(m, process, v)
            v = stop
    return referenced


def around(m: Machine, process: Process, v: int) -> None:
    """The window of 64 PTEs in one page table."""
    vma, block = process.vma(v), v // BLOCK
    start, end = max(vma.start, block * BLOCK), min(vma.end, (block + 1) * BLOCK)
    if end - start == 1:
        return
    if end - start > BATCH:
        if v - start < BATCH // 2:
            end = start + BATCH
        elif end - v < BATCH // 2:
            start = end - BATCH
        else:
            start, end = v - BATCH // 2, v + BATCH // 2
    young = 1 + clear_young(m, process, start, end)
    lists = process.cgroup.lists
    filters = lists.filters[lists.max_seq % 2]
    if filters is not None and young * PTES_A_LINE >= end - start:
        filters.add((process.number, block))


# Shadows


def eviction(folio: Folio) -> tuple[int, int, bool]:
    """lru_gen_eviction: the shadow, which is of the folio's own cgroup, whoever reclaims."""
    lists, refs = folio.memcg.lists, refs_of(folio)
    lists.evicted[tier_of(refs, folio.workingset)] += folio.nr
    return lists.min_seq[ANON], max(refs - 1, 0), folio.workingset


def distance_of(cgroup: Cgroup, shadow: tuple[int, int, bool]) -> tuple[int, bool]:
    """Generations since the eviction, and lru_gen_test_recent."""
    distance = abs(cgroup.lists.max_seq - shadow[0])
    return distance, distance < MAX_GENS


def refault(m: Machine, folio: Folio, shadow: tuple[int, int, bool]) -> None:
    """lru_gen_refault."""
    cgroup = folio.memcg
    lists = cgroup.lists
    _, refs, workingset = shadow
    m.count(cgroup, "workingset_refault_anon", folio.nr)
    if not distance_of(cgroup, shadow)[1]:
        return
    lists.refaulted[tier_of(refs + 1, workingset)] += folio.nr
    if workingset:
        folio.workingset = True
        m.count(cgroup, "workingset_activate_anon", folio.nr)
        m.count(cgroup, "workingset_restore_anon", folio.nr)
    else:
        folio.refs = refs
