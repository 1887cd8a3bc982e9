"""The clusters of one swap device as in 6.12.

Source: mm/swapfile.c of 6.12 (cluster_alloc_swap_entry, alloc_swap_scan_cluster, cluster_alloc_range,
dec_cluster_info_page, setup_swap_map_and_extents). A cluster stays on its list while it is scanned.
"""

from __future__ import annotations

from .slots import CLUSTER, DISCARD, FRAG, FREE, FULL, NONFULL, SwapDevice


class SwapDevice612(SwapDevice):
    """hints: (CPU, order) -> next slot."""

    def alloc_on(self, cpu: int, order: int) -> int | None:
        """cluster_alloc_swap_entry, with the CPU's own hint on this device."""
        found, self.hints[cpu, order] = self._alloc(self.hints.get((cpu, order), 0), order)
        return found

    def _alloc(self, hint: int, order: int) -> tuple[int | None, int]:
        after = 0
        if hint:
            found, after = self.scan(hint // CLUSTER, hint % CLUSTER, order)
            if found is not None:
                return found, after
        if self.lists[FREE, 0]:
            return self.scan(self.lists[FREE, 0][0], 0, order)
        if self.full():
            self.reclaim_full()
        if order < 9:
            scanned = 0
            while queue := self.lists[NONFULL, order]:
                self._move(queue[0], FRAG)
                found, after = self.scan(self.lists[FRAG, order][-1], 0, order)
                scanned += 1
                if found is not None:
                    return found, after
            frag = self.lists[FRAG, order]
            most = len(frag) if self.profile.scan_all_frag else min(scanned + 1, len(frag))
            while scanned < most:
                index = frag[0]
                self._move(index, FRAG, rotate=True)
                found, after = self.scan(index, 0, order)
                scanned += 1
                if found is not None:
                    return found, after
        if self.discard_pending():
            return self._alloc(0, order)
        if order:
            return None, after
        for stolen in range(1, 10):
            for flag in (FRAG, NONFULL):
                while queue := self.lists[flag, stolen]:
                    found, after = self.scan(queue[0], 0, 0)
                    if found is not None:
                        return found, after
                    break
        return None, after

    def scan(self, index: int, start: int, order: int) -> tuple[int | None, int]:
        """alloc_swap_scan_cluster, cluster_alloc_range."""
        cluster = self.clusters[index]
        if cluster.flag == DISCARD:
            return None, 0
        found, _ = self._find(index, start, order)
        if found is None:
            return None, 0
        if cluster.flag == FREE:
            if order < 9:
                self.lists[FREE, 0].remove(index)
                cluster.order, cluster.flag = order, NONFULL
                self.lists[NONFULL, order].append(index)
            cluster.order = order
        after = self._fill(index, found, order)
        if cluster.count == CLUSTER:
            self._move(index, FULL)
        return index * CLUSTER + found, after

    def _only_cached(self, index: int, position: int, size: int) -> bool:
        """A slot in some CPU's slot cache looks like a cached one here."""
        cluster = self.clusters[index]
        if any(cluster.counts[position : position + size]):
            return False
        first = index * CLUSTER + position
        return first > 0 and first + size <= self.nslots

    def _still_usable(self, index: int, order: int) -> bool:
        return True

    def reclaim_full(self) -> None:
        """swap_reclaim_full_clusters: the head of the list goes to its tail and is looked through."""
        queue = self.lists[FULL, 0]
        if not queue:
            return
        index = queue[0]
        self._move(index, FULL, rotate=True)
        cluster = self.clusters[index]
        for i in range(CLUSTER):
            if cluster.cache[i] is not None and not cluster.counts[i]:
                self.reclaim(cluster, i)
