"""The state of a machine and, apart from it, its parameters. Every array has a trailing lane axis L.

What is known of a page are bits: a row holds the PLANES words of 32 pages, one bit a page, side by side, so
that a fault reads and writes one row. A folio needs no number: its base is a page of it rounded down to its
order. On the LRU lists a folio is known by its lowest mapped page.
"""

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.machine import counters
from jaxswap.machine.rules import Rules
from jaxswap.machine.settings import Settings, start
from jaxswap.policy import Policy
from jaxswap.swaptable.clusters import Clusters
from jaxswap.swaptable.lanes import SPARE

if TYPE_CHECKING:
    from jaxswap.machine.cgroups import Cgroups
    from jaxswap.machine.faultlog import FaultLog
    from jaxswap.machine.frames import PageFrames
    from jaxswap.machine.shared.state import Sharing

Lane = Int32[Array, " L"]
Flag = Bool[Array, " L"]
Mask = UInt32[Array, " L"]


class Plane(enum.IntEnum):
    """Words of a row; those that an access changes come first.

    PRESENT: anonymous page mapped. YOUNG: accessed since the last look. TOUCHED: accessed by the program
    since it arrived. NONZERO: content. QUIET, QUIET_WRITE: a read, a write of the page changes nothing (it is
    in the TLB, or follows from the others: accessed before, or the zero page; for a write, with content).
    ZEROPAGE: shared zero page mapped. SWAPPED: a swap PTE. NEXT: swapped, and its slot is the one behind the
    slot of the page before. CAMEBACK, LARGE: arrived by swap-in, in a large folio. O0..O3: order of the
    folio. REFERENCED, ACTIVE, WORKINGSET: flags of the folio, on every page of it. PARTIAL: the folio has
    lost pages. INCACHE: swapped, with a folio in the swap cache. No mapped folio is in the swap cache: where
    one can be, `machine.shared` is.

    Of the multi-gen LRU, in which no folio is ACTIVE: GEN0, GEN1: generation modulo 4; REFS0, REFS1: accesses
    beyond the first; ISOLATED, of a page with a folio: it is off the lists; UNWRITTEN, of a page in the swap
    cache only: the folio's content is nowhere else.
    """

    PRESENT = 0
    YOUNG = 1
    TOUCHED = 2
    NONZERO = 3
    QUIET = 4
    QUIET_WRITE = 5
    ZEROPAGE = 6
    SWAPPED = 7
    NEXT = 8
    CAMEBACK = 9
    LARGE = 10
    O0 = 11
    O1 = 12
    O2 = 13
    O3 = 14
    REFERENCED = 15
    ACTIVE = 16
    WORKINGSET = 17
    PARTIAL = 18
    INCACHE = 19
    GEN0 = ACTIVE
    GEN1 = 20
    REFS0 = 21
    REFS1 = 22
    ISOLATED = ZEROPAGE
    UNWRITTEN = YOUNG


PLANES = 24  # words of a row; the last is spare
ORDER = (Plane.O0, Plane.O1, Plane.O2, Plane.O3)

NO_LIMIT = 1 << 30
MEMCG_CHARGE_BATCH = 64
KERNEL_PAGES = 1  # of the first object that is charged, a VMA: it takes a page for those to follow too
LEAST_PAGES, LEAST_CLUSTERS = 16384, 64  # smaller machines share one compiled program
LISTS = 6  # sentinels of lists behind the pages in the LRU link tables
POLICY_WORDS = 8


class Defrag(enum.IntEnum):
    """What transparent_hugepage/defrag can be."""

    ALWAYS = 0
    DEFER = 1
    DEFER_MADVISE = 2
    MADVISE = 3
    NEVER = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MachineParams:
    """What a machine is: constant during a replay, one value a lane.

    always, madvise: masks of the orders enabled in sysfs at the start. limit: memory.max in pages. high:
    memory.high; None if no lane has one. withheld: slots of swap that memory.swap.max keeps from the cgroup.
    swappiness: vm.swappiness. defrag: transparent_hugepage/defrag, a number of Defrag. flush: faults between
    two flushes of the statistics; 0: every reclaim flushes them. policy: which of `heuristics`,
    policy_params: its parameters. rules: of the kernel version. heuristics: those that lanes may have; not an
    array, so that another set of them is another program. limits: memory.max of each cgroup; None where
    there is one. switch: faults between two times that the TLB is emptied; 0: an access is always noticed,
    None: in every lane.
    """

    always: Mask
    madvise: Mask
    limit: Lane
    high: Lane | None
    withheld: Lane
    swappiness: Lane
    defrag: Lane
    flush: Lane
    policy: Lane
    policy_params: Int32[Array, "params L"]
    rules: Rules
    heuristics: tuple[Policy, ...] = field(metadata={"static": True})
    limits: Int32[Array, "cgroups L"] | None = None
    switch: Lane | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Generations:
    """struct lru_gen_folio and lru_gen_mm_state of a machine with the multi-gen LRU.

    max_seq, min_anon, min_file: youngest generation, oldest of anon and of file pages. walked: youngest of
    the last walk of page tables. walking: this pass has walked. known: the process was walked once; ran: it
    ran since its last walk. live: which filters there are (two bits). used: of each block, whether its page
    table was used since the last walk. filters: of each block, which of the two filters name it. tiers: five
    accounts of four tiers, in pages. activating: folios that wait to be activated, `activations` of them.
    """

    max_seq: Lane
    min_anon: Lane
    min_file: Lane
    walked: Lane
    walking: Flag
    known: Flag
    ran: Flag
    live: Mask
    used: Int32[Array, "blocks L"]
    filters: Int32[Array, "blocks L"]
    tiers: Int32[Array, "tiers L"]
    activating: Int32[Array, "batch L"]
    activations: Lane


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MachineState:
    """What a machine has become.

    cpu: that runs the operation under way. rows: PLANES words for every 32 pages. slots, shadows: of each
    swapped page, a shadow being nonresident age << 1 | workingset. tables: blocks with a page table. next,
    prev: LRU links by page. inactive, active: pages on the lists. waiting, waiting_active: small folios, and
    active ones among them, that the kernel has in its batch and not yet on the lists (here they are linked at
    once, which comes to the same order). used: pages charged; stock: pages charged ahead. age:
    nonresident_age. over_high: pages charged beyond memory.high and not worked off. deferred: folios on the
    deferred split list; deferred_first, deferred_last: its ends; nr_deferred: what its shrinker put off.
    anon_cost, refaults_seen, flushed_*: as in lruvec, the last as of the last statistics flush. counted_cost,
    flushed_cost: what is not in anon_cost yet, for it is not flushed or no scan began since. clock: faults
    that began; ended: and that are over; last_flush, last_switch: the clock when the statistics, the TLB were
    last due; all modulo 2^32. settings: what SET may change. n: counters. memory: the heuristic's. oom:
    killed.
    generations: of the multi-gen LRU; None where the LRU is the classic one (then `inactive` and `active` are
    its lists; else `inactive` counts all pages on lists). sharing: of several processes; None where there is
    one.
    frames: None where there is always one. cgroups: None where all processes are in one. noted: what the
    heuristic notes of each 2 MiB block of the region; None where none does. log: of the faults; None where
    nobody asks for it.
    """

    cpu: Lane
    rows: UInt32[Array, "words L"]
    slots: Int32[Array, "pages L"]
    shadows: UInt32[Array, "pages L"]
    tables: Int32[Array, "blocks L"]
    next: Int32[Array, "links L"]
    prev: Int32[Array, "links L"]
    clusters: Clusters
    inactive: Lane
    active: Lane
    waiting: Lane
    waiting_active: Lane
    used: Lane
    stock: Lane
    over_high: Lane
    deferred: Lane
    deferred_first: Lane
    deferred_last: Lane
    nr_deferred: Lane
    age: Lane
    anon_cost: Lane
    counted_cost: Lane
    flushed_cost: Lane
    activations: Lane
    refaults_seen: Lane
    flushed_active: Lane
    flushed_total: Lane
    flushed_activations: Lane
    clock: Lane
    ended: Lane
    last_flush: Lane
    last_switch: Lane
    age_at_end: Lane
    cost_at_end: Lane
    reclaimed: Lane
    settings: Settings
    oom: Flag
    memory: Int32[Array, "policy_words L"]
    n: counters.Counts
    generations: Generations | None = None
    sharing: "Sharing | None" = None
    frames: "PageFrames | None" = None
    cgroups: "Cgroups | None" = None
    noted: Int32[Array, "blocks L"] | None = None
    log: "FaultLog | None" = None


def room(pages: int) -> int:
    """Pages the arrays are made for: a power of two, so that few shapes are compiled."""
    return max(LEAST_PAGES, 1 << (pages - 1).bit_length())


def init(pages: int, swap: Clusters, lanes: int) -> MachineState:
    """A machine with no page mapped, fresh swap devices and the classic LRU; `pages` as given by `room`."""
    links = np.arange(pages + LISTS + SPARE, dtype=np.int32)[:, None].repeat(lanes, axis=1)

    def zero(dtype: DTypeLike = jnp.int32) -> Array:
        return jnp.zeros((lanes,), dtype)

    return MachineState(
        cpu=zero(),
        rows=jnp.zeros((pages // 32 * PLANES + SPARE, lanes), jnp.uint32),
        slots=jnp.zeros((pages + SPARE, lanes), jnp.int32),
        shadows=jnp.zeros((pages + SPARE, lanes), jnp.uint32),
        tables=jnp.zeros((pages // 512 + SPARE, lanes), jnp.int32),
        next=jnp.asarray(links),
        prev=jnp.asarray(links),
        clusters=swap,
        inactive=zero(),
        active=zero(),
        waiting=zero(),
        waiting_active=zero(),
        used=zero() + KERNEL_PAGES,
        stock=zero() + MEMCG_CHARGE_BATCH - KERNEL_PAGES,
        over_high=zero(),
        deferred=zero(),
        deferred_first=zero() - 1,
        deferred_last=zero() - 1,
        nr_deferred=zero(),
        age=zero(),
        anon_cost=zero(),
        counted_cost=zero(),
        flushed_cost=zero(),
        activations=zero(),
        refaults_seen=zero(),
        flushed_active=zero(),
        flushed_total=zero(),
        flushed_activations=zero(),
        clock=zero(),
        ended=zero(),
        last_flush=zero(),
        last_switch=zero(),
        age_at_end=zero(),
        cost_at_end=zero(),
        reclaimed=zero(),
        settings=start(zero(jnp.uint32), zero(jnp.uint32)),
        oom=zero(bool),
        memory=jnp.zeros((POLICY_WORDS, lanes), jnp.int32),
        n=counters.zeros(lanes),
    )


def pages_room(state: MachineState) -> int:
    """Pages the arrays have room for; the LRU sentinels follow them."""
    return state.next.shape[0] - LISTS - SPARE
