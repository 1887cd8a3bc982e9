"""Plain-Python reference machine: one page, one folio, one operation at a time.

Written to be read beside the kernel (6.12 to 7.3; memory limits by the two LRUs of 7.2 and 7.3). It is the
oracle of jaxswap.machine: same page maps, same lists, same counters after every operation; only it has the
multi-gen LRU, late statistics and the TLB. One file for each subject of the kernel:

    fault.py       first touch, zero pages
    swapin.py      swap-in faults
    readahead.py   swap-in around a page
    rmap.py        mapping, copy-on-write
    fork.py        fork, exit
    madvise.py     MADV_PAGEOUT, MADV_COLD
    zap.py         MADV_DONTNEED, munmap
    swap.py        devices, swap cache, counts
    slots.py       clusters of a device; slots_6_12.py: before
    slot_cache.py  order-0 slots by the batch (6.12)
    frames.py      page frames: the buddy allocator, compaction
    reclaim.py     swap-out, splitting
    cgroup.py      a cgroup
    memcg.py       charges, reclaim under a limit, the classic LRU (lists: lru.py)
    mglru.py       the multi-gen LRU
    pressure.py    recordings under a limit
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxswap.machine.profile import PROFILES, Profile

from . import memcg, mglru
from .cgroup import NO_LIMITS, Cgroup, Limits
from .folio import BLOCK, ORDERS, Folio, Page, Process, Vma, size_name
from .frames import Frames, Plenty
from .future import Future
from .lru import Batches, Lists
from .memcg import KERNEL_PAGES, STOCK
from .mglru import Generations
from .policies import POLICIES, Leaving, Seen
from .slots import FREE, Device, SwapDevice
from .slots_6_12 import SwapDevice612
from .swap import Swap


@dataclass
class Machine:
    """The state of one machine.

    always, madvise, inherit: masks of orders, as sysfs has them; thp: the global switch that `inherit`
    follows. limit, high, swap_max: pages of memory.max, memory.high, memory.swap.max of the cgroup that
    processes start in; named: those of cgroups that the workload names, the other being the root then, which
    has none. swappiness: vm.swappiness. defrag: transparent_hugepage/defrag. lru: classic, or mglru. flush:
    faults between two flushes of the statistics; 0: reclaim flushes those of its cgroup itself and nothing
    else does, None: only STATS does. switch: faults between two switches to another process, which empty the
    TLB; 0: the TLB is not modelled. swap: slots of the one device, where `devices` is empty. zswap: it is on,
    and takes everything. frames: of one process only. n: counters. Then: processes; cgroups; folios on the
    way to the lists; what reclaim and readahead remember; slots whose content zswap has; what the policy
    remembers; whether the OOM killer has ended it all.
    """

    npages: int
    always: int = 0
    madvise: int = 0
    limit: int | None = None  # pages
    high: int | None = None  # pages
    swap_max: int | None = None  # pages
    swappiness: int = 60
    defrag: str = "madvise"
    lru: str = "classic"
    flush: int | None = 0  # faults
    switch: int = 0  # faults
    phase: int = 0  # faults
    swap_slots: int = 32768
    policy: str = "kernel"
    policy_params: tuple[int, ...] = ()
    profile: Profile = PROFILES["7.3"]
    devices: Sequence[Device] = ()
    zswap: bool = False
    page_cluster: int = 3
    cpus: int = 1
    named: Mapping[str, Limits] = field(default_factory=dict)
    inherit: int = 0
    thp: str = "always"
    vma_readahead: bool = True
    n: Counter[str] = field(default_factory=Counter)
    frames: Frames | Plenty = field(default_factory=Plenty)
    cpu: int = 0  # where the operation under way runs

    def __post_init__(self) -> None:
        devices = self.devices or [Device(self.swap_slots)]
        self.swap = Swap(self.profile, self._swapon(devices), self.forget)
        self.swap.slot_cache.cpus = self.cpus
        self.swap.freed = self.slots_freed
        self.batches = Batches()
        self.cgroups: dict[str, Cgroup] = {}
        self.root = self.cgroup("", Limits(self.limit, self.high, self.swap_max))
        self.root.usage, self.root.stock = KERNEL_PAGES, STOCK - KERNEL_PAGES
        self.root.has_objects = True
        for name, limits in self.named.items():
            self.cgroup(name, limits)
        self.target: Cgroup | None = None  # of the reclaim under way (target_mem_cgroup)
        self.running = Process(0, [Page() for _ in range(self.npages)], self.root)
        self.processes = {0: self.running}
        self.root.processes[0] = self.running
        self.over_high = 0  # pages charged beyond memory.high since the last return to user mode
        self.clock = self.phase  # faults
        self.reclaimed = self.age_at_end = self.cost_at_end = 0
        self.readahead_hits, self.readahead_last = 4, 0
        self.readahead_offset: int | None = None
        self.zswap_ever = self.zswap
        self.zswap_slots: set[tuple[int, int]] = set()
        self.anon_vmas = 0
        self.oom = False
        self.policy_memory = [0] * 8
        self.policy_blocks: Counter[int] = Counter()
        self.future: Future | None = None
        self.now = 0  # page accesses so far

    def _swapon(self, devices: Sequence[Device]) -> list[SwapDevice]:
        kind = SwapDevice612 if self.profile.device_hints else SwapDevice
        made, default = [], -1
        for device in devices:
            priority = device.priority
            if priority is None:
                default -= self.profile.stepped_priority
                priority = default
            made.append(kind(self.profile, device, priority))
        return made

    def new_anon_vma(self) -> int:
        self.anon_vmas += 1
        return self.anon_vmas

    def cgroup(self, name: str, limits: Limits = NO_LIMITS) -> Cgroup:
        """The cgroup of this name; one that is not there yet is made."""
        if name not in self.cgroups:
            kind = Generations if self.lru == "mglru" else Lists
            self.cgroups[name] = Cgroup(name, limits, kind(Folio, self.batches))
        return self.cgroups[name]

    def move(self, process: Process, name: str) -> None:
        """A write to cgroup.procs. What was charged stays where it was (memory controller of v2)."""
        old, new = process.cgroup, self.cgroup(name)
        if old is new:
            return
        if self.lru == "mglru":
            old.lists.forget(process.number)
        del old.processes[process.number]
        new.processes[process.number] = process
        process.cgroup = new

    def count(self, cgroup: Cgroup, name: str, nr: int) -> None:
        """A counter of the machine and of a cgroup's memory.stat or memory.events."""
        self.n[name] += nr
        cgroup.n[name] += nr

    def tick(self) -> None:
        """A fault: what the kernel does by the clock."""
        self.clock += 1
        if self.switch and self.clock % self.switch == 0:
            for process in self.processes.values():
                process.tlb.clear()
        if self.flush and self.clock % self.flush == 0:
            self.flush_all_statistics()

    def flush_all_statistics(self) -> None:
        """Of all cgroups, by the worker or at STATS."""
        for cgroup in self.cgroups.values():
            self.flush_statistics(cgroup)

    def flush_statistics(self, cgroup: Cgroup) -> None:
        """mem_cgroup_flush_stats: from now on the classic LRU decides by the numbers of now."""
        if self.lru == "classic":
            cgroup.flushed_active = cgroup.lists.active_nr
            cgroup.flushed_total = cgroup.lists.active_nr + cgroup.lists.inactive_nr
            cgroup.flushed_activations = cgroup.activations
            cgroup.flushed_cost += cgroup.counted_cost
            cgroup.counted_cost = 0

    def active_at_flush(self, cgroup: Cgroup) -> int:
        """NR_ACTIVE_ANON of a cgroup and those below it, as of the last flush."""
        below = self.cgroups.values() if cgroup is self.root else [cgroup]
        return sum(one.flushed_active for one in below)

    def drain(self) -> None:
        """lru_add_drain."""
        if self.lru == "mglru":
            mglru.drain(self)
        else:
            self.batches.drain()

    def forget(self, folio: Folio) -> None:
        """The folio's memory is free. The kernel lets one that waits for the lists go when they are drained;
        here they are drained at once.
        """
        self.drain()
        if not folio.used:
            self.n["useless_swapin"] += folio.nr
        if folio.prev is not None:
            folio.memcg.lists.remove(folio)
        folio.memcg.deferred.pop(folio, None)
        folio.memcg.usage -= folio.nr
        self.frames.release(folio)

    def slots_freed(self, device: int, offset: int, size: int) -> None:
        """zswap_invalidate."""
        if self.zswap_slots:
            self.zswap_slots.difference_update((device, offset + i) for i in range(size))

    def page_of(self, device: int, slot: int) -> int:
        """A page of some process that is in this slot."""
        for process in self.processes.values():
            for v, page in enumerate(process.pages):
                if page.state == "swapped" and (page.device, page.slot) == (device, slot):
                    return v
        raise AssertionError(f"nobody has slot {slot} of device {device}")

    # What the kernel does not count

    def leave(self, page: Page) -> None:
        """A page of a folio goes: was it of use?"""
        if not page.touched:
            self.n["useless_swapin" if page.swapped_in else "useless_touch"] += 1
        elif page.swapped_in:
            self.n["needed_pages"] += 1
            self.n["covered_pages"] += page.large

    def take_frames(self, order: int, may_compact: bool) -> int | None:
        """vma_alloc_folio. None: refused; at order 0 the OOM killer has ended the machine."""
        frame = self.frames.take(order, may_compact)
        self.oom |= frame is None and not order
        return frame

    def small_folio(self, cgroup: Cgroup) -> int | None:
        """The frame of a folio of one page, charged. None: the OOM killer has ended the machine."""
        frame = self.take_frames(0, True)
        return frame if frame is not None and memcg.charge(self, cgroup, 1) else None

    def large_folio(self, order: int, vma: Vma, cgroup: Cgroup) -> tuple[int | None, str]:
        """The frames of a larger one, charged; None, and why: "frame" or "charge"."""
        gfp = memcg.vma_thp_gfp_mask(self, vma)
        frame = self.take_frames(order, gfp.direct_reclaim)
        if frame is None:
            return None, "frame"
        if memcg.charge(self, cgroup, 1 << order, order, gfp):
            return frame, ""
        self.frames.give(frame, order)
        return None, "charge"

    def give_up(self, order: int, why: str) -> None:
        """No folio of this order: there was no frame for it, or it was allocated in vain."""
        if why != "memcg":
            self.n[f"{size_name(order)}/{why}_refused"] += 1
        if why == "frame":
            return
        self.n["thrown_folios"] += 1
        self.n["thrown_pages"] += 1 << order

    def refused(self, path: str, reasons: dict[str, int], got: int) -> None:
        for reason, mask in reasons.items():
            for o in ORDERS:
                if o > got and mask >> o & 1:
                    self.n[f"refused/{path}/{reason}/{size_name(o)}"] += 1

    def count_fallback(self, order: int, name: str) -> None:
        if self.profile.counts_fallback:
            self.n[f"{size_name(order)}/{name}"] += 1

    def decide(
        self, process: Process, v: int, cgroup: Cgroup, first_touch: bool, candidates: int, ok: int
    ) -> int:
        """Ask the heuristic which of the candidate orders to try. cgroup: that will be charged."""
        if not candidates:
            return 0
        seen = self._look(process, v, cgroup, first_touch, candidates, ok)
        mask, ptes, slots = POLICIES[self.policy].decide(self.policy_params, self.policy_memory, seen)
        self.n["read_ptes"] += ptes
        self.n["read_slots"] += slots
        return mask & candidates

    def _look(
        self, process: Process, v: int, cgroup: Cgroup, first_touch: bool, candidates: int, ok: int
    ) -> Seen:
        """What the heuristic may look at."""
        distance, recent = (0, False) if first_touch else memcg.refault_distance(self, process.pages[v])
        limit = 1 << 30 if cgroup.limits.limit is None else cgroup.limits.limit
        gfp = memcg.vma_thp_gfp_mask(self, process.vma(v))
        room = max(cgroup.stock, limit - cgroup.current)
        near = list(enumerate(process.pages[v & -32 : (v & -32) + 32]))
        present = [(i, page) for i, page in near if page.state == "present"]
        return Seen(
            first_touch,
            candidates,
            ok,
            page=v % BLOCK,
            headroom=limit if limit == 1 << 30 else max(limit - cgroup.current, 0),
            fill=self.fill,
            distance=distance,
            recent=recent,
            present=sum(1 << i for i, _ in present),
            swapped=sum(1 << i for i, page in near if page.state == "swapped"),
            young=sum(1 << i for i, page in present if page.young),
            block=self.policy_blocks[v // BLOCK],
            frames=self.frames.available,
            chargeable=0x3FF if gfp.direct_reclaim else sum(1 << o for o in range(10) if 1 << o <= room),
            future=self._foresee(v // BLOCK * BLOCK),
        )

    def _foresee(self, base: int) -> Sequence[int]:
        """Of each page of a block, how many accesses there will be before the next one of it."""
        if self.future is None:
            return ()
        return [self.future.until(page, self.now) for page in range(base, base + BLOCK)]

    @property
    def fill(self) -> int:
        """Slots of all devices in use, in 64ths."""
        return (self.swap.total - self.swap.free_slots) * 64 // self.swap.total

    def leaves_whole(self, folio: Folio) -> bool:
        """Ask the heuristic of a large folio that is to get slots."""
        rule = POLICIES[self.policy]
        if rule.leave_whole is None:
            return True
        members = range(folio.base, folio.base + folio.nr)
        ptes = [(q, self.processes[k].pages[q]) for k, pages in folio.maps.items() for q in pages]
        leaving = Leaving(
            order=folio.order,
            page=folio.base % BLOCK,
            workingset=folio.workingset,
            fill=self.fill,
            cluster=any(device.lists[FREE, 0] for device in self.swap.devices),
            block=self.policy_blocks[folio.base // BLOCK],
            young=sum(page.young for _, page in ptes),
            touched=sum(page.touched for _, page in ptes),
            zeros=len(set(members) - {q for q, page in ptes if page.nonzero}),
        )
        whole, read_ptes, read_pages = rule.leave_whole(self.policy_params, self.policy_memory, leaving)
        self.n["read_ptes"] += read_ptes
        self.n["read_pages"] += read_pages
        return whole

    def learn(self, v: int, first_touch: bool, failed: int, got: int) -> None:
        """Tell the heuristic what came of a fault for which there was an order."""
        rule, params = POLICIES[self.policy], self.policy_params
        rule.learn(params, self.policy_memory, first_touch, failed, got)
        block = self.policy_blocks[v // BLOCK]
        self.policy_blocks[v // BLOCK] = rule.note(params, block, first_touch, failed, got)

    def final_counters(self) -> Counter[str]:
        """The counters, with the pages that are still in memory judged as if they left now."""
        after = Counter(self.n)
        live, self.n = self.n, after
        for process in self.processes.values():
            for page in process.pages:
                if page.state == "present":
                    self.leave(page)
        for device in self.swap.devices:
            for cluster in device.clusters:
                after["useless_swapin"] += sum(
                    folio is not None and not folio.used for folio in cluster.cache
                )
        self.n = live
        return after
