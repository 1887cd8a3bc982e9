"""Plain-Python twin of the swap slot allocator: one cluster and one slot at a time.

Source of the rules: mm/swapfile.c of 7.2 / 7.3 (swap_alloc_fast, cluster_alloc_swap_entry,
alloc_swap_scan_cluster, relocate_cluster, partial_free_cluster, free_cluster), one CPU, a synchronous
block device without discard.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CLUSTER = 512
FREE, NONFULL, FRAG, FULL = 1, 2, 3, 4


@dataclass
class Cluster:
    """One cluster of 512 slots: `used[i]` is true for a slot that is not NULL, bad slots included."""

    used: list[bool] = field(default_factory=lambda: [False] * CLUSTER)
    cached: list[bool] = field(default_factory=lambda: [False] * CLUSTER)
    zero: list[bool] = field(default_factory=lambda: [False] * CLUSTER)
    count: int = 0
    order: int = 0
    flag: int = FREE


class SwapDevice:
    """A swap device of `nslots` slots; slot 0 (the header) and slots past the end are bad."""

    def __init__(self, nslots: int):
        self.nslots = nslots
        self.clusters = [Cluster() for _ in range((nslots + CLUSTER - 1) // CLUSTER)]
        self.free_slots = nslots - 1
        self.hint = [0] * 10
        self.lists: dict[tuple[int, int], list[int]] = {(FREE, 0): [], (FULL, 0): []}
        for order in range(10):
            self.lists[NONFULL, order] = []
            self.lists[FRAG, order] = []
        for bad in [0, *range(nslots, len(self.clusters) * CLUSTER)]:
            self.clusters[bad // CLUSTER].used[bad % CLUSTER] = True
            self.clusters[bad // CLUSTER].count += 1
        for index, cluster in enumerate(self.clusters):
            cluster.flag = NONFULL if cluster.count else FREE
            self.lists[self._key(cluster)].append(index)

    def _key(self, cluster: Cluster) -> tuple[int, int]:
        return (cluster.flag, cluster.order if cluster.flag in (NONFULL, FRAG) else 0)

    def _move(self, index: int, flag: int) -> None:
        """To the tail of the list of `flag`, unless the cluster carries that flag already."""
        cluster = self.clusters[index]
        if cluster.flag == flag:
            return
        for queue in self.lists.values():
            if index in queue:
                queue.remove(index)
        cluster.flag = flag
        self.lists[self._key(cluster)].append(index)

    def alloc(self, order: int) -> int | None:
        """folio_alloc_swap: first slot of 2^order, or None when the folio has to be split."""
        offset = self.hint[order]
        if offset:
            cluster = self.clusters[offset // CLUSTER]
            usable = cluster.flag in (NONFULL, FRAG) and (
                order == 0 or cluster.count == 0 or cluster.order == order
            )
            if usable:
                found = self._scan(offset // CLUSTER, offset % CLUSTER if cluster.count else 0, order)
                if found is not None:
                    return found
        return self._slow(order)

    def _take(self, flag: int, order: int) -> int | None:
        """Isolate the head of a list: the cluster leaves it while it is scanned."""
        queue = self.lists[flag, order]
        if not queue:
            return None
        index = queue.pop(0)
        self.clusters[index].flag = 0
        return index

    def _slow(self, order: int) -> int | None:
        if order < 9:
            while (index := self._take(NONFULL, order)) is not None:
                if (found := self._scan(index, 0, order)) is not None:
                    return found
        if (index := self._take(FREE, 0)) is not None and (found := self._scan(index, 0, order)) is not None:
            return found
        index = self._take(FRAG, order) if order < 9 else None
        if index is not None and (found := self._scan(index, 0, order)) is not None:
            return found
        if order:
            return None
        for stolen in range(1, 10):
            for flag in (FRAG, NONFULL):
                for _ in range(len(self.lists[flag, stolen])):
                    index = self._take(flag, stolen)
                    if index is not None and (found := self._scan(index, 0, 0)) is not None:
                        return found
        return None

    def _scan(self, index: int, start: int, order: int) -> int | None:
        """alloc_swap_scan_cluster, then relocate_cluster, then the per-CPU hint."""
        cluster, size, found, after = self.clusters[index], 1 << order, None, 0
        if cluster.count + size <= CLUSTER:
            for position in range(start, CLUSTER - size + 1, size):
                if not any(cluster.used[position : position + size]):
                    found = position
                    break
        if found is not None:
            if cluster.count == 0:
                cluster.order = order
            cluster.used[found : found + size] = [True] * size
            cluster.count += size
            self.free_slots -= size
            if cluster.count < CLUSTER and found + 2 * size <= CLUSTER:
                after = index * CLUSTER + found + size
        self._move(index, FULL if cluster.count == CLUSTER else FRAG)
        self.hint[order] = after
        return None if found is None else index * CLUSTER + found

    def put(self, offset: int, size: int) -> None:
        """Free `size` slots from `offset`, all in one cluster (__swap_cluster_free_entries)."""
        index, first = divmod(offset, CLUSTER)
        cluster = self.clusters[index]
        for i in range(first, first + size):
            assert cluster.used[i], f"slot {index * CLUSTER + i} is freed twice"
            cluster.used[i] = cluster.cached[i] = cluster.zero[i] = False
        cluster.count -= size
        self.free_slots += size
        if cluster.count:
            self._move(index, NONFULL)
        else:
            self._move(index, FREE)
            cluster.order = 0
