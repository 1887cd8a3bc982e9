"""The clusters of one swap device, one cluster and one slot at a time: 6.18 and later.

Source of the rules: mm/swapfile.c (cluster_alloc_swap_entry, alloc_swap_scan_cluster, relocate_cluster,
partial_free_cluster, free_cluster, swap_reclaim_full_clusters) of 6.18 to 7.3, a block device.
slots_6_12.py has what was different before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxswap.machine.profile import Profile

CLUSTER = 512
FREE, NONFULL, FRAG, FULL, DISCARD = 1, 2, 3, 4, 5


class Cluster:
    """512 slots. used: not NULL (a bad slot too). counts: swap count. cache: folio in the swap cache. zero:
    zero flag. memcg: the cgroup that is charged. shadow: what eviction left. count: used slots. order: of the
    first allocation. flag: the list it is on.
    """

    def __init__(self) -> None:
        self.used = bytearray(CLUSTER)
        self.counts = [0] * CLUSTER
        self.cache: list = [None] * CLUSTER
        self.zero = [False] * CLUSTER
        self.memcg: list = [None] * CLUSTER
        self.shadow: list[tuple] = [(0, False)] * CLUSTER
        self.count = self.order = 0
        self.flag = FREE


@dataclass(frozen=True)
class Device:
    """A swap device as swapon sees it. slots: its header included. priority: None if none is given. discard:
    emptied clusters are discarded (swapon --discard=pages).
    """

    slots: int
    priority: int | None = None
    synchronous: bool = True
    rotational: bool = False
    discard: bool = False


class SwapDevice:
    """A swap device of `nslots` slots; slot 0 (the header) and slots past the end are bad.

    last_end: where scans of the last cluster end, the end of the device or of the cluster.
    reclaim(cluster, i) drops the folio of a cached slot from the swap cache if no slot of it is in use and
    says how many slots that gave back; full() says whether swap is more than half full. Both come from the
    owner. reclaim_due: the worker that looks through the full clusters is to run (6.12).
    """

    def __init__(self, profile: Profile, device: Device, priority: int) -> None:
        self.profile, self.nslots, self.priority = profile, device.slots, priority
        self.synchronous, self.rotational = device.synchronous, device.rotational
        self.discard = device.discard
        nslots = device.slots
        self.last_end = nslots if profile.scans_to_end else -(-nslots // CLUSTER) * CLUSTER
        self.clusters = [Cluster() for _ in range((nslots + CLUSTER - 1) // CLUSTER)]
        self.free_slots = nslots - 1
        self.hints: dict = {}  # order, or (CPU, order) -> next slot, where the device keeps them itself
        self.lists: dict[tuple[int, int], list[int]] = {(FREE, 0): [], (FULL, 0): [], (DISCARD, 0): []}
        self.reclaim: Callable[[Cluster, int], int] = lambda cluster, i: 0
        self.full: Callable[[], bool] = lambda: False
        self.reclaim_due = False
        for order in range(10):
            self.lists[NONFULL, order] = []
            self.lists[FRAG, order] = []
        for bad in [0, *range(nslots, len(self.clusters) * CLUSTER)]:
            self.clusters[bad // CLUSTER].used[bad % CLUSTER] = 1
            self.clusters[bad // CLUSTER].count += 1
        for index in self.order_at_swapon():
            cluster = self.clusters[index]
            cluster.flag = NONFULL if cluster.count else FREE
            self.lists[self._key(cluster)].append(index)

    def order_at_swapon(self) -> list[int]:
        """Ascending; by columns, clusters 0, 32, 64, .. then 1, 33, 65, .., where there are 32."""
        columns = self.profile.columns
        return sorted(range(len(self.clusters)), key=lambda index: (index % columns, index // columns))

    def at(self, offset: int) -> tuple[Cluster, int]:
        return self.clusters[offset // CLUSTER], offset % CLUSTER

    def count(self, offset: int) -> int:
        cluster, i = self.at(offset)
        return cluster.counts[i]

    def cached(self, offset: int):
        cluster, i = self.at(offset)
        return cluster.cache[i]

    # Lists

    def _key(self, cluster: Cluster) -> tuple[int, int]:
        return (cluster.flag, cluster.order if cluster.flag in (NONFULL, FRAG) else 0)

    def _move(self, index: int, flag: int, rotate: bool = False) -> None:
        """To the tail of the list of `flag`; one that carries the flag stays where it is, unless `rotate`."""
        cluster = self.clusters[index]
        if cluster.flag == flag and not rotate:
            return
        if cluster.flag:
            self.lists[self._key(cluster)].remove(index)
        cluster.flag = flag
        self.lists[self._key(cluster)].append(index)

    def _take(self, flag: int, order: int) -> int | None:
        """Isolate the head of a list: the cluster leaves it while it is scanned."""
        queue = self.lists[flag, order]
        if not queue:
            return None
        index = queue.pop(0)
        self.clusters[index].flag = 0
        return index

    # Allocation: every scan says (found slot or None, next slot to look at or 0)

    def usable(self, offset: int, order: int) -> bool:
        """cluster_is_usable: a free cluster has no table, a full one no room."""
        cluster = self.clusters[offset // CLUSTER]
        return cluster.flag in (NONFULL, FRAG) and (
            order == 0 or cluster.count == 0 or cluster.order == order
        )

    def alloc(self, order: int) -> tuple[int | None, int | None]:
        """cluster_alloc_swap_entry, without hints. The next slot is None if there was no cluster to scan."""
        after = None
        for flag, stolen, tries in self._passes(order):
            if flag == FULL:
                self.reclaim_full()
                continue
            while tries and (index := self._take(flag, stolen)) is not None:
                tries -= 1
                found, after = self.scan(index, 0, order)
                if found is not None:
                    return found, after
        return None, after

    def _passes(self, order: int):
        """(list, its order, how many clusters of it) in the order they are tried; FULL: reclaim from one."""
        if self.discard:
            yield FREE, 0, 1
        if order < 9:
            yield NONFULL, order, len(self.clusters)
        if not self.discard:
            yield FREE, 0, 1
        if self.full():
            yield FULL, 0, 1
        if order < 9:
            yield FRAG, order, 1
        if order == 0:
            for stolen in range(1, 10):
                yield FRAG, stolen, len(self.clusters)
                yield NONFULL, stolen, len(self.clusters)

    def scan(self, index: int, start: int, order: int) -> tuple[int | None, int]:
        """alloc_swap_scan_cluster, then relocate_cluster."""
        cluster = self.clusters[index]
        found, after = self._find(index, start, order)
        if found is not None:
            if cluster.count == 0:
                cluster.order = order
            after = self._fill(index, found, order)
        if cluster.count:
            self._move(index, FULL if cluster.count == CLUSTER else FRAG)
        return (None, 0) if found is None else (index * CLUSTER + found, after)

    def _fill(self, index: int, found: int, order: int) -> int:
        """Take the slots; the next slot to look at, 0 if there is none."""
        cluster, size = self.clusters[index], 1 << order
        cluster.used[found : found + size] = b"\1" * size
        cluster.count += size
        self.free_slots -= size
        end = min(CLUSTER, self.last_end - index * CLUSTER)
        if cluster.count < CLUSTER and found + 2 * size <= end:
            return index * CLUSTER + found + size
        return 0

    def _find(self, index: int, start: int, order: int) -> tuple[int | None, int]:
        cluster, size = self.clusters[index], 1 << order
        if cluster.count + size > CLUSTER:
            return None, 0
        free = bytes(size)
        position = start
        while position + size <= CLUSTER:
            if cluster.used[position : position + size] == free:
                return position, 0
            if self.full() and self._only_cached(index, position, size):
                self._reclaim_range(cluster, position, size)
                if not self._still_usable(index, order):
                    return None, 0
                if cluster.count == 0:
                    return 0, 0
                if cluster.used[position : position + size] == free:
                    return position, 0
            position += size
        return None, 0

    def _still_usable(self, index: int, order: int) -> bool:
        """After its lock was dropped. A cluster that became empty lost its table."""
        cluster = self.clusters[index]
        return cluster.count > 0 and cluster.flag <= FRAG and (order == 0 or cluster.order == order)

    def _only_cached(self, index: int, position: int, size: int) -> bool:
        """No slot of the range has a count, and none is bad."""
        cluster = self.clusters[index]
        return all(
            not cluster.used[i] or (cluster.cache[i] is not None and not cluster.counts[i])
            for i in range(position, position + size)
        )

    def _reclaim_range(self, cluster: Cluster, position: int, size: int) -> None:
        i = position
        while i < position + size:
            if cluster.counts[i]:
                return
            if not cluster.used[i]:
                i += 1
                continue
            freed = self.reclaim(cluster, i)
            if not freed:
                return
            i += freed

    def reclaim_full(self) -> None:
        """swap_reclaim_full_clusters: give back one full cluster's cached slots that nobody counts on."""
        index = self._take(FULL, 0)
        if index is None:
            return
        cluster = self.clusters[index]
        for i in range(CLUSTER):
            if cluster.cache[i] is not None and not cluster.counts[i]:
                self.reclaim(cluster, i)
        if not cluster.flag:
            self._move(index, FULL if cluster.count == CLUSTER else FRAG)

    def reclaim_work(self) -> None:
        """swap_reclaim_work, if due: as many full clusters as the slots in use would fill, at least one."""
        if self.reclaim_due:
            self.reclaim_due = False
            for _ in range(max((self.nslots - 1 - self.free_slots) // CLUSTER, 1)):
                self.reclaim_full()

    # Giving back

    def free(self, offset: int, size: int) -> None:
        """Free `size` slots from `offset`, all in one cluster (__swap_cluster_free_entries)."""
        index, first = divmod(offset, CLUSTER)
        cluster = self.clusters[index]
        for i in range(first, first + size):
            assert cluster.used[i] and not cluster.counts[i], f"slot {index * CLUSTER + i} is not to be freed"
            cluster.used[i], cluster.cache[i], cluster.zero[i] = 0, None, False
        cluster.count -= size
        self.free_slots += size
        if cluster.count:
            self._move(index, NONFULL)
        else:
            self._move(index, DISCARD if self.discard else FREE)
            cluster.order = 0

    def discard_pending(self) -> bool:
        """swap_do_scheduled_discard: emptied clusters become free ones. Whether there were any."""
        waiting = list(self.lists[DISCARD, 0])
        for index in waiting:
            self._move(index, FREE)
        return bool(waiting)
