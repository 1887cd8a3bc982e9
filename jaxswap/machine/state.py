"""The state of a machine and, apart from it, its parameters. Every array has a trailing lane axis L.

What is known of a page are bits: a row holds the PLANES words of 32 pages, one bit a page, side by side, so
that a fault reads and writes one row. A folio needs no number: its base is a page of it rounded down to its
order. On the LRU lists a folio is known by its lowest mapped page.
"""

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.machine import counters
from jaxswap.machine.rules import Rules
from jaxswap.machine.settings import Settings, start
from jaxswap.swaptable.clusters import Clusters
from jaxswap.swaptable.lanes import SPARE

if TYPE_CHECKING:
    from jaxswap.machine.frames import PageFrames
    from jaxswap.machine.shared.state import Sharing

Lane = Int32[Array, " L"]
Flag = Bool[Array, " L"]
Mask = UInt32[Array, " L"]


class Plane(enum.IntEnum):
    """Words of a row; those that an access changes come first.

    PRESENT: anonymous page mapped. YOUNG: accessed since the last look. TOUCHED: accessed by the program
    since it arrived. NONZERO: content. QUIET, QUIET_WRITE: a read, a write of the page changes nothing (it
    follows from the others: accessed before, or the zero page; for a write, with content). ZEROPAGE: shared
    zero page mapped. SWAPPED: a swap PTE. NEXT: swapped, and its slot is the one behind the slot of the
    page before. CAMEBACK, LARGE: arrived by swap-in, in a large folio. O0..O3: order of the folio.
    REFERENCED, ACTIVE, WORKINGSET: flags of the folio, on every page of it. PARTIAL: the folio has lost
    pages. INCACHE: swapped, with a folio in the swap cache. No mapped folio is in the swap cache: where one
    can be, `machine.shared` is.
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


PLANES = 24  # words of a row; what is left over is spare
ORDER = (Plane.O0, Plane.O1, Plane.O2, Plane.O3)

NO_LIMIT = 1 << 30
LEAST_PAGES, LEAST_CLUSTERS = 16384, 64  # smaller machines share one compiled program
INACTIVE, ACTIVE_LIST = 0, 1  # sentinels behind the pages in the LRU link tables
POLICY_WORDS = 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MachineParams:
    """What a machine is: constant during a replay, one value a lane.

    always, madvise: masks of the orders enabled in sysfs at the start. limit: memory.max in pages. policy:
    number of the heuristic, policy_params: its parameters. rules: of the kernel version.
    """

    always: Mask
    madvise: Mask
    limit: Lane
    policy: Lane
    policy_params: Int32[Array, "params L"]
    rules: Rules


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MachineState:
    """What a machine has become.

    cpu: that runs the operation under way. rows: PLANES words for every 32 pages. slots, shadows: of each
    swapped page, a shadow being nonresident age << 1 | workingset. tables: blocks with a page table.
    next, prev: LRU links by page. used: pages charged; stock: pages charged ahead. age: nonresident_age.
    anon_cost, refaults_seen, flushed_active, flushed_total: as in lruvec, the last two as of the last
    statistics flush. settings: what SET may change. n: counters. memory: the heuristic's. oom: killed.
    sharing: of several processes; None where there is one. frames: None where there is always one.
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
    used: Lane
    stock: Lane
    age: Lane
    anon_cost: Lane
    activations: Lane
    refaults_seen: Lane
    flushed_active: Lane
    flushed_total: Lane
    age_at_end: Lane
    cost_at_end: Lane
    reclaimed: Lane
    settings: Settings
    oom: Flag
    memory: Int32[Array, "policy_words L"]
    n: counters.Counts
    sharing: "Sharing | None" = None
    frames: "PageFrames | None" = None


def room(pages: int) -> int:
    """Pages the arrays are made for: a power of two, so that few shapes are compiled."""
    return max(LEAST_PAGES, 1 << (pages - 1).bit_length())


def init(pages: int, swap: Clusters, lanes: int) -> MachineState:
    """A machine with no page mapped and fresh swap devices; `pages` as given by `room`."""
    links = np.arange(pages + 2 + SPARE, dtype=np.int32)[:, None].repeat(lanes, axis=1)

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
        used=zero(),
        stock=zero(),
        age=zero(),
        anon_cost=zero(),
        activations=zero(),
        refaults_seen=zero(),
        flushed_active=zero(),
        flushed_total=zero(),
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
    return state.next.shape[0] - 2 - SPARE
