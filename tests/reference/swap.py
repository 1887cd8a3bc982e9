"""All swap devices together: which one serves a folio, the swap cache, the counts of the slots.

Source: mm/swapfile.c (folio_alloc_swap, swap_alloc_fast, swap_alloc_slow, swap_put_entries_direct,
folio_free_swap, __try_to_reclaim_swap) and mm/memcontrol.c (__mem_cgroup_try_charge_swap,
mem_cgroup_get_nr_swap_pages, mem_cgroup_swap_full) of 6.18 to 7.3; get_swap_pages, free_swap_and_cache_nr,
put_swap_folio of 6.12.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxswap.machine.profile import Profile

from .cgroup import Cgroup
from .folio import Folio
from .slot_cache import SlotCache
from .slots import CLUSTER, Cluster, SwapDevice
from .slots_6_12 import SwapDevice612

Place = tuple[int, int]


class Swap:
    """devices: by type. available: types of the devices with free slots, highest priority first, in turn
    among equals (swap_avail_head). hints: (CPU, order) -> (device, next slot) (percpu_swap_cluster).

    forget(folio) is called for a folio that left the swap cache and that nobody maps; freed(device, slot,
    size) for slots that were given back.
    """

    def __init__(self, profile: Profile, devices: list[SwapDevice], forget: Callable[[Folio], None]):
        self.profile, self.devices, self.forget = profile, devices, forget
        self.freed: Callable[[int, int, int], None] = lambda number, offset, size: None
        self.hints: dict[tuple[int, int], Place] = {}
        self.available: list[int] = []
        for number, device in enumerate(devices):
            self._enlist(number)
            device.full = self.full
            device.reclaim = self._reclaim_slot
        self.total = sum(device.free_slots for device in devices)
        self.slot_cache = SlotCache(self, profile.slot_cache)
        self.promised = 0

    def used(self, cgroup: Cgroup) -> int:
        """memory.swap.current, in slots. What 6.12 has in hand counts too, whoever will get it."""
        return self.total - self.free_slots if self.profile.slot_cache else cgroup.swapped

    def left(self, cgroup: Cgroup) -> int:
        """mem_cgroup_get_nr_swap_pages: slots that the cgroup may still have."""
        limit = cgroup.limits.swap_max
        if limit is None:
            return self.free_slots
        return min(self.free_slots, max(limit - self.used(cgroup), 0))

    def memcg(self, place: Place) -> Cgroup:
        """The cgroup that is charged for a slot (lookup_swap_cgroup_id)."""
        cluster, i = self.devices[place[0]].at(place[1])
        return cluster.memcg[i]

    @property
    def free_slots(self) -> int:
        """nr_swap_pages: slots that a CPU holds in its slot cache are not free."""
        return sum(device.free_slots for device in self.devices)

    def full(self) -> bool:
        """vm_swap_full: less than half is free, without what take_from_devices is looking for."""
        return (self.free_slots - self.promised) * 2 < self.total

    def full_for_cgroup(self, cgroup: Cgroup) -> bool:
        """mem_cgroup_swap_full: or half of what the cgroup may have is taken."""
        limit = cgroup.limits.swap_max
        return self.full() or (limit is not None and self.used(cgroup) * 2 >= limit)

    def _enlist(self, number: int) -> None:
        """plist_add: behind the last of the same priority."""
        priority = self.devices[number].priority
        later = [i for i, other in enumerate(self.available) if self.devices[other].priority < priority]
        self.available.insert(later[0] if later else len(self.available), number)

    def _requeue(self, number: int) -> None:
        self.available.remove(number)
        self._enlist(number)

    # Taking slots

    def alloc(self, folio: Folio, cpu: int) -> bool:
        """folio_alloc_swap: put a folio into the swap cache, over slots of its own. False: there are none, or
        they are too many for the cgroup and go back.
        """
        if self.profile.slot_cache and folio.order == 0:
            place = self.slot_cache.take(cpu)
        elif self.profile.device_hints:
            found = self.take_from_devices(folio.order, cpu, 1)
            place = found[0] if found else None
        else:
            place = self._alloc_fast(folio.order, cpu) or self._alloc_slow(folio.order, cpu)
            if place is None and not folio.order and any(device.discard_pending() for device in self.devices):
                place = self._alloc_slow(0, cpu)
        cgroup = folio.memcg
        if place is None:
            cgroup.swap_events["fail"] += 1
            return False
        self.insert(folio, place)
        cluster, first = self.devices[place[0]].at(place[1])
        cluster.memcg[first : first + folio.nr] = [cgroup] * folio.nr
        cgroup.swapped += folio.nr
        limit = cgroup.limits.swap_max
        if limit is not None and self.used(cgroup) > limit:
            cgroup.swap_events["max"] += 1
            cgroup.swap_events["fail"] += 1
            self.remove(folio, cpu)
            return False
        return True

    def insert(self, folio: Folio, place: Place) -> None:
        """Over slots with or without counts."""
        folio.place = place
        cluster, first = self.devices[place[0]].at(place[1])
        cluster.cache[first : first + folio.nr] = [folio] * folio.nr

    def _alloc_fast(self, order: int, cpu: int) -> Place | None:
        number, offset = self.hints.get((cpu, order), (0, 0))
        device = self.devices[number]
        if not offset or not device.usable(offset, order):
            return None
        found, after = device.scan(offset // CLUSTER, offset % CLUSTER, order)
        self.hints[cpu, order] = (number, after)
        return self._taken(number, found)

    def _alloc_slow(self, order: int, cpu: int) -> Place | None:
        for number in list(self.available):
            self._requeue(number)
            device = self.devices[number]
            if device.rotational:
                found = self._alloc_rotational(device, order)
            else:
                found, after = device.alloc(order)
                if after is not None:
                    self.hints[cpu, order] = (number, after)
            if found is not None or order:
                return self._taken(number, found)
        return None

    @staticmethod
    def _alloc_rotational(device: SwapDevice, order: int) -> int | None:
        """The hint is the device's own (global_cluster)."""
        offset = device.hints.get(order, 0)
        if offset and device.usable(offset, order):
            found, device.hints[order] = device.scan(offset // CLUSTER, offset % CLUSTER, order)
            if found is not None:
                return found
        found, after = device.alloc(order)
        if after is not None:
            device.hints[order] = after
        return found

    def take_from_devices(self, order: int, cpu: int, goal: int) -> list[Place]:
        """get_swap_pages of 6.12: up to `goal` slots, all of one device.

        The whole goal is taken off the free slots (nr_swap_pages) before the first is looked for.
        """
        if self.free_slots < 1 << order:
            return []
        goal = min(goal, self.free_slots >> order)
        for number in list(self.available):
            self._requeue(number)
            device = self.devices[number]
            assert isinstance(device, SwapDevice612)
            found: list[Place] = []
            self.promised = goal << order
            while len(found) < goal and (offset := device.alloc_on(cpu, order)) is not None:
                found.append((number, offset))
                self.promised -= 1 << order
                if not device.free_slots:
                    self.available.remove(number)
                    device.reclaim_due |= self.full()
            self.promised = 0
            if found or order:
                return found
        return []

    def _taken(self, number: int, offset: int | None) -> Place | None:
        if not self.devices[number].free_slots and number in self.available:
            self.available.remove(number)
        return None if offset is None else (number, offset)

    def work(self) -> None:
        """The workers of 6.12 that full devices called for run."""
        for device in self.devices:
            device.reclaim_work()

    def free(self, number: int, offset: int, size: int) -> None:
        """Slots without counts that left the swap cache."""
        device = self.devices[number]
        cluster, first = device.at(offset)
        for i in range(first, first + size):
            if cluster.memcg[i] is not None:
                cluster.memcg[i].swapped -= 1
        cluster.memcg[first : first + size] = [None] * size
        device.free(offset, size)
        self.freed(number, offset, size)
        if number not in self.available:
            self._enlist(number)

    # Counts

    def raise_count(self, place: Place) -> None:
        cluster, i = self.devices[place[0]].at(place[1])
        cluster.counts[i] += 1

    def put(self, number: int, offset: int, size: int, cpu: int) -> None:
        """swap_put_entries_direct: `size` swapped PTEs in a row are gone."""
        device = self.devices[number]
        at, end = offset, offset + size
        while at < end:
            stop = min(end, (at // CLUSTER + 1) * CLUSTER)
            cluster, first = device.at(at)
            batch = range(first, first + stop - at)
            alike = {(cluster.counts[i], cluster.cache[i] is None) for i in batch}
            whole = size > 1 and stop - at == size and alike == {(1, True)}
            gone = []
            for i in batch:
                cluster.counts[i] -= 1
                if not cluster.counts[i] and cluster.cache[i] is None:
                    gone.append(at - first + i)
            self._give_back(number, gone, direct=whole, cpu=cpu)
            at = stop
        at = offset
        while at < end:
            cluster, i = device.at(at)
            folio = cluster.cache[i]
            if folio is None or cluster.counts[i]:
                at += 1
                continue
            if not folio.maps or self.full_for_cgroup(folio.memcg):
                self.free_folio(folio, cpu)
            at = (at // folio.nr + 1) * folio.nr

    def put_mapped(self, number: int, offset: int, size: int) -> None:
        """The PTEs of some slots are mapped again; cached slots stay (folio_put_swap)."""
        cluster, first = self.devices[number].at(offset)
        for i in range(first, first + size):
            cluster.counts[i] -= 1

    def clear(self, number: int, offset: int, size: int, cpu: int) -> None:
        """swapcache_clear of 6.12 and 6.18: slots that were read past the swap cache."""
        cluster, first = self.devices[number].at(offset)
        gone = [offset - first + i for i in range(first, first + size) if not cluster.counts[i]]
        self._give_back(number, gone, direct=False, cpu=cpu)

    def _give_back(self, number: int, slots: list[int], direct: bool, cpu: int) -> None:
        """Slots of one cluster; 6.12 collects all but whole ranges (direct) in the CPU's slot cache."""
        if self.profile.slot_cache and not direct:
            for slot in slots:
                self.slot_cache.give(cpu, (number, slot))
            return
        start = 0
        for i in range(1, len(slots) + 1):
            if i == len(slots) or slots[i] != slots[i - 1] + 1:
                self.free(number, slots[start], i - start)
                start = i

    # Swap cache

    def remove(self, folio: Folio, cpu: int, direct: bool = False) -> None:
        """__swap_cache_del_folio: its slots without a count are given back (6.12: past the slot cache if
        direct).
        """
        assert folio.place is not None
        number, offset = folio.place
        cluster, first = self.devices[number].at(offset)
        cluster.cache[first : first + folio.nr] = [None] * folio.nr
        folio.place = None
        gone = [offset - first + i for i in range(first, first + folio.nr) if not cluster.counts[i]]
        direct = direct or (folio.order > 0 and len(gone) == folio.nr)
        self._give_back(number, gone, direct, cpu)

    def free_folio(self, folio: Folio, cpu: int, direct: bool = False) -> bool:
        """folio_free_swap: out of the swap cache, unless some slot of the folio has a count."""
        if folio.place is None:
            return False
        cluster, first = self.devices[folio.place[0]].at(folio.place[1])
        if any(cluster.counts[first : first + folio.nr]):
            return False
        self.remove(folio, cpu, direct)
        folio.dirty = True
        if not folio.maps:
            self.forget(folio)
        return True

    def _reclaim_slot(self, cluster: Cluster, i: int) -> int:
        """__try_to_reclaim_swap: how many slots it gave back."""
        folio = cluster.cache[i]
        return folio.nr if folio is not None and self.free_folio(folio, 0, direct=True) else 0
