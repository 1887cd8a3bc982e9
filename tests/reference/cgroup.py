"""A memory cgroup: what it may have, what it has, its LRU lists and what reclaim remembers of it.

Source: include/linux/memcontrol.h (struct mem_cgroup, mem_cgroup_per_node), mm/memcontrol.c; 7.3. They lie
side by side below the root, which is the cgroup every process starts in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .folio import Folio, Process


class Limits(NamedTuple):
    """Pages of memory.max, memory.high, memory.swap.max; None: max."""

    limit: int | None = None
    high: int | None = None
    swap_max: int | None = None


NO_LIMITS = Limits()


@dataclass(eq=False)
class Cgroup:
    """lists: its lruvec. usage, stock: pages charged and used, and charged ahead by the CPU. has_objects: its
    first accounted object has come. swapped: slots that are charged to it. age, anon_cost: of its lruvec.
    counted_cost, flushed_cost: what the statistics say was paid since, before and after their last flush.
    activations, refaults_seen: WORKINGSET_ACTIVATE now, and at the last reclaim's end. flushed_*: as of the
    last flush. deferred: folios that lost pages, in the order in which they first did (deferred_split_lru);
    nr_deferred: of its shrinker, what it was asked to scan and did not. processes: those in it, in the order
    they came. n: counters of memory.stat and memory.events; swap_events: of memory.swap.events.
    """

    name: str
    limits: Limits
    lists: Any
    usage: int = 0
    stock: int = 0
    has_objects: bool = False
    swapped: int = 0
    age: int = 0
    anon_cost: int = 0
    counted_cost: int = 0
    flushed_cost: int = 0
    activations: int = 0
    refaults_seen: int = 0
    flushed_active: int = 0
    flushed_total: int = 0
    flushed_activations: int = 0
    deferred: dict[Folio, None] = field(default_factory=dict)
    nr_deferred: int = 0
    processes: dict[int, Process] = field(default_factory=dict)
    n: Counter[str] = field(default_factory=Counter)
    swap_events: Counter[str] = field(default_factory=Counter)

    @property
    def current(self) -> int:
        """memory.current, in pages."""
        return self.usage + self.stock
