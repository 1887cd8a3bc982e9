"""Order-0 slots that a CPU of 6.12 takes and gives back 64 at a time (mm/swap_slots.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sort import heapsort

if TYPE_CHECKING:
    from .swap import Place, Swap

ACTIVATE, DEACTIVATE = 5, 2  # times the batch: free slots above which it starts, below which it stops


class SlotCache:
    """taken, given: CPU -> slots in hand. Until one is used it counts as taken on the device.

    active: false until there is plenty, and again once there is little; then all slots go back.
    """

    def __init__(self, swap: Swap, batch: int, cpus: int = 1):
        self.swap, self.batch, self.cpus = swap, batch, cpus
        self.taken: dict[int, list[Place]] = {}
        self.given: dict[int, list[Place]] = {}
        self.active = False

    def take(self, cpu: int) -> Place | None:
        """folio_alloc_swap of an order-0 folio."""
        self._check_active()
        if self.active:
            mine = self.taken.setdefault(cpu, [])
            if not mine:
                mine += self.swap.take_from_devices(0, cpu, self.batch)
            if mine:
                return mine.pop(0)
        found = self.swap.take_from_devices(0, cpu, 1)
        return found[0] if found else None

    def give(self, cpu: int, place: Place) -> None:
        """free_swap_slot: a full hand is given back before the next slot is put into it."""
        if not self.active:
            self.swap.free(*place, 1)
            return
        mine = self.given.setdefault(cpu, [])
        if len(mine) >= self.batch:
            self._flush(mine)
        mine.append(place)

    def _flush(self, mine: list[Place]) -> None:
        """swapcache_free_entries: sorted by device where there are several."""
        several = len(self.swap.devices) > 1
        for place in heapsort(mine, lambda place: place[0]) if several else list(mine):
            self.swap.free(*place, 1)
        mine.clear()

    def _check_active(self) -> None:
        """check_cache_active."""
        free = self.swap.free_slots
        if not self.active:
            self.active = free > self.cpus * ACTIVATE * self.batch
        elif free < self.cpus * DEACTIVATE * self.batch:
            self.active = False
            for cpu in range(self.cpus):
                self._flush(self.taken.get(cpu, []))
                self._flush(self.given.get(cpu, []))
