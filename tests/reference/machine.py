"""Plain-Python reference machine: one page, one folio, one operation at a time.

Written to be read beside the kernel (7.2 / 7.3, one CPU, a synchronous swap device, the classic
two-list LRU with its statistics flushed at every pass of a reclaim). It is the oracle of
jaxswap.machine: same page maps, same lists, same counters after every operation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .lru import Lists
from .policies import POLICIES
from .slots import CLUSTER, SwapDevice

SWAPPINESS = 60
BATCH = 32  # SWAP_CLUSTER_MAX
STOCK = 64  # MEMCG_CHARGE_BATCH
ORDERS = range(8, 1, -1)


def size_name(order: int) -> str:
    return f"{4 << order}kB"


@dataclass(eq=False)
class Folio:
    """A folio and the pages of it that are mapped (or, in the swap cache only, its one page)."""

    base: int
    order: int
    pages: set[int]
    mapped: bool = True
    active: bool = False
    referenced: bool = False
    workingset: bool = False
    prev: Folio | None = None
    next: Folio | None = None

    @property
    def nr(self) -> int:
        return 1 << self.order


@dataclass
class Page:
    """A page of the region. state: none, zero (shared zero page), present or swapped."""

    state: str = "none"
    folio: Folio | None = None
    slot: int = -1
    shadow: tuple[int, bool] = (0, False)
    nonzero: bool = False  # content
    young: bool = False
    touched: bool = False  # by the program, since it arrived
    swapped_in: bool = False
    large: bool = False  # arrived in a large folio


@dataclass
class Vma:
    start: int
    end: int
    advice: str


@dataclass
class Machine:
    npages: int
    always: int = 0  # masks of orders
    madvise: int = 0
    limit: int | None = None  # pages
    swap: int = 32768  # slots
    policy: str = "kernel"
    policy_params: tuple[int, ...] = ()
    vmas: list[Vma] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = [Page() for _ in range(self.npages)]
        self.device = SwapDevice(self.swap)
        self.lists = Lists(Folio)
        self.n: Counter[str] = Counter()
        self.tables: set[int] = set()  # 2 MiB blocks with a page table
        self.usage = self.stock = 0
        self.age = self.anon_cost = 0
        self.activations = self.refaults_seen = 0  # WORKINGSET_ACTIVATE: now, and at the last reclaim's end
        self.flushed_active = 0
        self.oom = False
        self.policy_memory = [0] * 4

    # Accesses and faults

    def access(self, v: int, write: bool, zero: bool = False) -> None:
        """One access of page v; `zero` overwrites it with zeros."""
        if self.oom:
            return
        self.n["accesses"] += 1
        page = self.pages[v]
        if page.state != "present" and not (page.state == "zero" and not write):
            self._fault(v, write)
            if self.oom:
                return
            self.n["faults"] += 1
            page = self.pages[v]
        if page.state == "present":
            page.young = page.touched = True
            if write:
                page.nonzero = not zero

    def _vma(self, v: int) -> Vma:
        return next(vma for vma in self.vmas if vma.start <= v < vma.end)

    def allowed(self, vma: Vma) -> int:
        """thp_vma_allowable_orders, orders 2 to 8."""
        if vma.advice == "nohuge":
            return 0
        return (self.always | (self.madvise if vma.advice == "huge" else 0)) & 0b1_1111_1100

    def _edges(self, vma: Vma, v: int) -> int:
        """thp_vma_suitable_orders."""
        mask = 0
        for o in ORDERS:
            base = v >> o << o
            if vma.start <= base and base + (1 << o) <= vma.end:
                mask |= 1 << o
        return mask

    def _fault(self, v: int, write: bool) -> None:
        page, vma = self.pages[v], self._vma(v)
        if v >> 9 not in self.tables:
            if not self._charge(1, True):
                return
            self.tables.add(v >> 9)
        if page.state == "none" and not write:
            page.state, page.nonzero = "zero", False
        elif page.state == "none":
            self._first_touch(v, vma)
        elif page.state == "zero":
            if self._charge(1, True):
                self._new_folio(v, 0)
        elif page.folio is not None:  # in the swap cache
            self._map(page.folio, v, 0)
        else:
            self._swap_in(v, vma)

    def _new_folio(self, base: int, order: int) -> None:
        folio = Folio(base, order, set(range(base, base + (1 << order))))
        for q in folio.pages:
            self.pages[q] = Page("present", folio, young=True)
        self.lists.add(folio)

    def _first_touch(self, v: int, vma: Vma) -> None:
        """alloc_anon_folio."""
        allowed = self.allowed(vma)
        edges = allowed & self._edges(vma, v)
        gaps = 0
        for o in ORDERS:
            base = v >> o << o
            if edges >> o & 1 and any(q.state != "none" for q in self.pages[base : base + (1 << o)]):
                gaps |= 1 << o
        mask = self._decide(True, v, edges & ~gaps, 0, None)
        got, charge = 0, 0
        for o in ORDERS:
            if mask >> o & 1:
                if self._charge(1 << o, vma.advice == "huge", o):
                    got = o
                    break
                self.n[f"{size_name(o)}/anon_fault_fallback_charge"] += 1
                self.n[f"{size_name(o)}/anon_fault_fallback"] += 1
                self._throw(o)
                charge |= 1 << o
        alive = (got > 0 or self._charge(1, True)) and not self.oom
        self._learn(True, charge, got)
        reasons = {
            "vma_edge": allowed & ~edges,
            "pte_gap": gaps,
            "policy": edges & ~gaps & ~mask,
            "charge": charge,
        }
        self._refused("touch", reasons, got)
        if not alive:
            return
        if got:
            self.n[f"{size_name(got)}/anon_fault_alloc"] += 1
        self._new_folio(v >> got << got, got)

    def _throw(self, order: int) -> None:
        self.n[f"{size_name(order)}/charge_refused"] += 1
        self.n["thrown_folios"] += 1
        self.n["thrown_pages"] += 1 << order

    def _refused(self, path: str, reasons: dict[str, int], got: int) -> None:
        for reason, mask in reasons.items():
            for o in ORDERS:
                if o > got and mask >> o & 1:
                    self.n[f"refused/{path}/{reason}/{size_name(o)}"] += 1

    def _decide(self, first_touch: bool, v: int, candidates: int, ok: int, slot: int | None) -> int:
        """Ask the heuristic which of the candidate orders to try."""
        if not candidates:
            return 0
        mask, ptes, slots = POLICIES[self.policy].decide(
            self.policy_params, self.policy_memory, first_touch, candidates, ok
        )
        self.n["read_ptes"] += ptes
        self.n["read_slots"] += slots
        return mask & candidates

    def _learn(self, first_touch: bool, failed: int, got: int) -> None:
        POLICIES[self.policy].learn(self.policy_params, self.policy_memory, first_touch, failed, got)

    # Swap-in

    def _cached(self, slot: int) -> bool:
        return self.device.clusters[slot // CLUSTER].cached[slot % CLUSTER]

    def _zero(self, slot: int) -> bool:
        return self.device.clusters[slot // CLUSTER].zero[slot % CLUSTER]

    def _check(self, v: int, order: int) -> str | None:
        """__swap_cache_add_check for one memcg: None, or why the aligned range is -EBUSY."""
        base, target = v >> order << order, self._zero(self.pages[v].slot)
        for q in self.pages[base : base + (1 << order)]:
            if self._cached(q.slot):
                return "cached"
            if self._zero(q.slot) != target:
                return "zero_flag"
        return None

    def _swap_in(self, v: int, vma: Vma) -> None:
        """do_swap_page, thp_swapin_suitable_orders, swap_cache_alloc_folio."""
        slot = self.pages[v].slot
        allowed = self.allowed(vma)
        edges = allowed & self._edges(vma, v)
        aligned = sum(1 << o for o in ORDERS if edges >> o & 1 and (v ^ slot) & ((1 << o) - 1) == 0)
        candidates = 0
        for o in ORDERS:
            base = v >> o << o
            if aligned >> o & 1 and all(
                q.state == "swapped" and q.slot == slot + base + i - v
                for i, q in enumerate(self.pages[base : base + (1 << o)])
            ):
                candidates |= 1 << o
        conflicts = {o: self._check(v, o) for o in ORDERS if candidates >> o & 1}
        ok = sum(1 << o for o, why in conflicts.items() if why is None)
        mask = self._decide(False, v, candidates, ok, slot)
        reasons = {
            "vma_edge": allowed & ~edges,
            "alignment": edges & ~aligned,
            "pte_gap": aligned & ~candidates,
            "policy": candidates & ~mask,
            "zero_flag": 0,
            "cached": 0,
            "charge": 0,
        }
        shadow, got, failed = self.pages[v].shadow, 0, 0
        for o in ORDERS:
            if not mask >> o & 1:
                continue
            if (why := conflicts[o]) is None:
                if self._charge(1 << o, vma.advice == "huge", o):
                    got = o
                    break
                why = "charge"
                self.n[f"{size_name(o)}/swpin_fallback_charge"] += 1
                self._throw(o)
            self.n[f"{size_name(o)}/swpin_fallback"] += 1
            reasons[why] |= 1 << o
            failed |= 1 << o
        alive = (got > 0 or self._charge(1, True)) and not self.oom
        self._learn(False, failed, got)
        self._refused("swapin", reasons, got)
        if not alive:
            return
        folio = self._read(v, got, shadow)
        self.n["pgmajfault"] += 1
        self._map(folio, v, got)

    def _read(self, v: int, order: int, shadow: tuple[int, bool]) -> Folio:
        """The new folio in the swap cache: refault, LRU, read."""
        base = v >> order << order
        folio = Folio(base, order, set(range(base, base + (1 << order))), mapped=False)
        self._refault(folio, shadow)
        self.lists.add(folio)
        if self._zero(self.pages[v].slot):
            self.n["swpin_zero"] += folio.nr
        else:
            self.n["pswpin"] += folio.nr
            if order:
                self.n[f"{size_name(order)}/swpin"] += 1
        for q in folio.pages:
            self.pages[q].folio = folio
            slot = self.pages[q].slot
            self.device.clusters[slot // CLUSTER].cached[slot % CLUSTER] = True
        return folio

    def _map(self, folio: Folio, v: int, order: int) -> None:
        """Map all pages of the folio; a synchronous device's slots are freed at once."""
        self.device.put(self.pages[folio.base].slot, folio.nr)
        folio.mapped = True
        for q in folio.pages:
            nonzero = self.pages[q].nonzero
            self.pages[q] = Page(
                "present", folio, nonzero=nonzero, young=True, swapped_in=True, large=folio.order > 0
            )

    def _refault(self, folio: Folio, shadow: tuple[int, bool]) -> None:
        """workingset_refault, workingset_test_recent."""
        self.n["workingset_refault_anon"] += folio.nr
        distance = (self.age - shadow[0]) & 0x7FFF_FFFF
        if distance > (self.flushed_active if self.device.free_slots else 0):
            return
        folio.active = True
        self.age += folio.nr
        self.activations += folio.nr
        self.n["workingset_activate_anon"] += folio.nr
        if shadow[1]:
            folio.workingset = True
            self.n["workingset_restore_anon"] += folio.nr
            self._note_cost(BATCH * folio.nr)

    # Operations on ranges

    def will_need(self, v: int) -> None:
        """MADV_WILLNEED of one page: read_swap_cache_async."""
        page = self.pages[v]
        if self.oom or page.state != "swapped" or self._cached(page.slot):
            return
        shadow = page.shadow
        if self._charge(1, True):
            self._read(v, 0, shadow)

    def dont_need(self, start: int, end: int) -> None:
        """zap_pte_range: slots are freed in runs of consecutive ones, cut at cluster borders."""
        v = start
        while v < end and not self.oom:
            page = self.pages[v]
            if page.state == "swapped":
                run = v + 1
                while (
                    run < end
                    and run % 512
                    and self.pages[run].state == "swapped"
                    and self.pages[run].slot == page.slot + run - v
                    and self.pages[run].slot % CLUSTER
                ):
                    run += 1
                self.device.put(page.slot, run - v)
                for q in range(v, run):
                    if self.pages[q].folio is not None:  # in the swap cache by MADV_WILLNEED
                        self._free_cached(self.pages[q].folio)
                    self.pages[q] = Page()
                v = run
                continue
            if page.state == "present":
                self._leave(page)
                self._unmap(v)
            self.pages[v] = Page()
            v += 1

    def _unmap(self, v: int) -> None:
        folio = self.pages[v].folio
        assert folio is not None
        folio.pages.discard(v)
        if not folio.pages:
            self.lists.remove(folio)
            self.usage -= folio.nr

    def _free_cached(self, folio: Folio) -> None:
        """Drop a folio that only the swap cache held."""
        self.n["useless_swapin"] += 1
        self.lists.remove(folio)
        self.usage -= 1

    def _leave(self, page: Page) -> None:
        """A page of a folio goes: was it of use?"""
        if not page.touched:
            self.n["useless_swapin" if page.swapped_in else "useless_touch"] += 1
        elif page.swapped_in:
            self.n["needed_pages"] += 1
            self.n["covered_pages"] += page.large

    def page_out(self, start: int, end: int) -> None:
        """MADV_PAGEOUT of a range inside one 2 MiB block and VMA."""
        if self.oom:
            return
        for folio in self._cold_folios(start, end):
            self.lists.remove(folio)
            folio.referenced = False
            folio.workingset |= folio.active
            folio.active = False
            self._shrink(folio)
        self.age_at_end = self.cost_at_end = self.reclaimed = 0

    def cold(self, start: int, end: int) -> None:
        """MADV_COLD of a range inside one 2 MiB block and VMA."""
        if self.oom:
            return
        for folio in self._cold_folios(start, end):
            for q in folio.pages:
                self.pages[q].young = False
            folio.referenced = False
            if folio.active:
                self.lists.remove(folio)
                folio.active, folio.workingset = False, True
                self.lists.add(folio)
                self.n["pgdeactivate"] += folio.nr

    def _cold_folios(self, start: int, end: int) -> list[Folio]:
        """madvise_cold_or_pageout_pte_range: folios wholly inside; others are split first."""
        found = []
        v = start
        while v < end:
            page = self.pages[v]
            if page.state != "present":
                v += 1
                continue
            folio = page.folio
            assert folio is not None
            whole = all(q in folio.pages for q in range(v, v + folio.nr)) and v + folio.nr <= end
            if folio.order and not whole:
                self._split(folio)
                continue
            found.append(folio)
            v += folio.nr
        return found

    # Splitting and swap-out

    def _pieces(self, folio: Folio) -> list[Folio]:
        """Order-0 folios of the mapped pages; sub-pages of zeros become the shared zero page."""
        self.n[f"{size_name(folio.order)}/split"] += 1
        self.usage -= folio.nr
        pieces = []
        for q in sorted(folio.pages):
            page = self.pages[q]
            if page.nonzero:
                piece = Folio(
                    q, 0, {q}, active=folio.active, referenced=folio.referenced, workingset=folio.workingset
                )
                page.folio = piece
                self.usage += 1
                pieces.append(piece)
            else:
                self._leave(page)
                self.pages[q] = Page("zero")
        return pieces

    def _split(self, folio: Folio) -> None:
        """A split on the LRU: the pieces take the folio's place, the first nearest to the tail."""
        before = folio.prev
        self.lists.remove(folio)
        for piece in self._pieces(folio):
            self.lists.insert_after(before, piece)

    def _shrink(self, folio: Folio) -> None:
        """shrink_folio_list for one isolated folio that is to go, and for its pieces."""
        if not folio.mapped:
            self._remove_mapping(folio, self.pages[folio.base].slot)
            self.pages[folio.base].folio = None
            self.n["useless_swapin"] += 1
            return
        pieces: list[Folio] = []
        if folio.order and len(folio.pages) < folio.nr:  # partially mapped: split now
            pieces = self._pieces(folio)
        elif not self._swap_out(folio):
            if folio.order:
                self.n[f"{size_name(folio.order)}/swpout_fallback"] += 1
                pieces = self._pieces(folio)
            else:
                self._activate(folio)
        for piece in [*pieces[:1], *reversed(pieces[1:])]:
            if not self._swap_out(piece):
                self._activate(piece)

    def _activate(self, folio: Folio) -> None:
        folio.active = True
        self.n["pgactivate"] += folio.nr
        self.age_at_end += folio.nr
        self.lists.add(folio)

    def _swap_out(self, folio: Folio) -> bool:
        """folio_alloc_swap, try_to_unmap, swap_writeout, __remove_mapping."""
        slot = self.device.alloc(folio.order)
        if slot is None:
            return False
        zero = not any(self.pages[q].nonzero for q in folio.pages)
        for i, q in enumerate(sorted(folio.pages)):
            page = self.pages[q]
            self._leave(page)
            self.pages[q] = Page("swapped", slot=slot + i, nonzero=page.nonzero)
            self.device.clusters[slot // CLUSTER].zero[(slot + i) % CLUSTER] = zero
        if zero:
            self.n["swpout_zero"] += folio.nr
        else:
            self.n["pswpout"] += folio.nr
            self.cost_at_end += BATCH * folio.nr
            if folio.order:
                self.n[f"{size_name(folio.order)}/swpout"] += 1
        self._remove_mapping(folio, slot)
        return True

    def _remove_mapping(self, folio: Folio, slot: int) -> None:
        shadow = (self.age & 0x7FFF_FFFF, folio.workingset)
        self.age += folio.nr
        self.usage -= folio.nr
        self.reclaimed += folio.nr
        for q in range(folio.base, folio.base + folio.nr):
            self.pages[q].shadow = shadow
        self.device.clusters[slot // CLUSTER].cached[slot % CLUSTER] = False

    reclaimed = age_at_end = cost_at_end = 0

    # The memory cgroup

    def _charge(self, nr: int, may_reclaim: bool, order: int = 0) -> bool:
        """try_charge_memcg. False: refused; at order 0 the OOM killer has ended the machine."""
        batch, drained, retries = max(STOCK, nr), False, 16
        limit = self.limit if self.limit is not None else 1 << 30
        while True:
            if self.stock >= nr:
                self.stock -= nr
                self.usage += nr
                return True
            for take in (batch, nr):
                if self.usage + self.stock + take <= limit:
                    self.usage += nr
                    self.stock += take - nr
                    return True
            batch = nr
            self.n["memcg_max"] += 1
            if not may_reclaim:
                return False
            progress = self._reclaim(max(nr, BATCH))
            if limit - self.usage - self.stock >= nr:
                continue
            if not drained:
                self.stock, drained = 0, True
                continue
            if progress and nr <= 8:
                continue
            if retries:
                retries -= 1
                continue
            if order <= 3:
                self.oom = True
            return False

    # Reclaim

    def _note_cost(self, cost: int) -> None:
        """lru_note_cost; the total is as of the last flush."""
        self.anon_cost += cost
        if self.anon_cost > self.flushed_total // 4:
            self.anon_cost //= 2

    flushed_total = 0

    def _reclaim(self, target: int) -> int:
        """try_to_free_mem_cgroup_pages: do_try_to_free_pages from priority 12 down."""
        total, skipped = 0, False
        for attempt in range(3):
            if attempt == 2 and not skipped:
                break
            for priority in range(12, -1, -1):
                done, skip = self._shrink_lruvec(priority, target, force=attempt == 2)
                total += done
                skipped |= skip
                if total >= target:
                    break
            self.refaults_seen = self.activations
            if total:
                break
        return total

    def _shrink_lruvec(self, priority: int, target: int, force: bool) -> tuple[int, bool]:
        inactive, active = self.lists.inactive_nr, self.lists.active_nr
        # prepare_scan_control: statistics are flushed here
        self.flushed_active, self.flushed_total = active, active + inactive
        low = inactive < active
        deactivate = force or low or self.activations != self.refaults_seen
        cost = self.anon_cost
        anon = SWAPPINESS * (3 * cost + 1) // (2 * cost + 1)
        file = (200 - SWAPPINESS) * (3 * cost + 1) // (cost + 1)
        nr = []
        for size in (inactive, active):
            scan = size >> priority
            if priority:
                scan = scan * anon // (anon + file)
            nr.append(scan if self.device.free_slots else 0)
        done, skipped = 0, False
        while nr[0]:
            batch = min(nr[0], BATCH)
            nr[0] -= batch
            done += self._shrink_inactive_list(batch)
            if nr[1]:
                batch = min(nr[1], BATCH)
                nr[1] -= batch
                if deactivate:
                    self._shrink_active_list(batch)
                else:
                    skipped = True
            if done >= target:
                break
        if low:
            self._shrink_active_list(BATCH)
        return done, skipped

    def _shrink_inactive_list(self, nr: int) -> int:
        batch: list[Folio] = []
        scanned = 0
        while scanned < nr and (folio := self.lists.inactive_tail()) is not None:
            self.lists.remove(folio)
            batch.append(folio)
            scanned += folio.nr
        self.n["pgscan"] += scanned
        for folio in batch:
            references = self._references(folio)
            referenced, folio.referenced = folio.referenced, references > 0
            if references and (referenced or references > 1):
                self._activate(folio)
            elif references:
                self.lists.add(folio)
            else:
                self._shrink(folio)
        done = self.reclaimed
        self.n["pgsteal"] += done
        if batch:
            self._note_cost(self.cost_at_end + scanned - done)
        self.age += self.age_at_end
        self.age_at_end = self.cost_at_end = self.reclaimed = 0
        return done

    def _references(self, folio: Folio) -> int:
        """folio_referenced: runs of mapped pages with a young one; clears the young bits."""
        if not folio.mapped:
            return 0
        references, run_young = 0, False
        for q in range(folio.base, folio.base + folio.nr + 1):
            if q in folio.pages:
                run_young |= self.pages[q].young
                self.pages[q].young = False
            else:
                references += run_young
                run_young = False
        return references

    def _shrink_active_list(self, nr: int) -> None:
        scanned = 0
        batch = []
        while scanned < nr and (folio := self.lists.active_tail()) is not None:
            self.lists.remove(folio)
            batch.append(folio)
            scanned += folio.nr
        for folio in batch:
            self._references(folio)
            folio.active, folio.workingset = False, True
            self.lists.add(folio)
            self.n["pgdeactivate"] += folio.nr

    # The end of a run

    def final_counters(self) -> Counter[str]:
        """The counters, with the pages that are still in memory judged as if they left now."""
        after = Counter(self.n)
        live, self.n = self.n, after
        for page in self.pages:
            if page.state == "present":
                self._leave(page)
            elif page.state == "swapped" and page.folio is not None:
                after["useless_swapin"] += 1
        self.n = live
        return after
