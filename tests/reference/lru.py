"""The two anonymous LRU lists of a cgroup: doubly linked, sizes in pages, eaten from the tail.

Source: include/linux/mm_inline.h (lruvec_add_folio), mm/swap.c (folio_add_lru, lru_add_drain); 7.2 and 7.3.
"""

from __future__ import annotations

BATCH = 31  # FOLIO_BATCH_SIZE


class Batches:
    """struct cpu_fbatches: folios on their way to the lists of their cgroups, whichever these are.

    waiting: new ones. Small ones wait until BATCH are there, or a large one comes, or the lists are drained.
    Those that wait do not count as on the lists. activating: of the multi-gen LRU.
    """

    def __init__(self):
        self.waiting: list = []
        self.activating: list = []

    def add_new(self, folio) -> None:
        """folio_add_lru."""
        folio.waits = True
        self.waiting.append(folio)
        if folio.order or len(self.waiting) >= BATCH:
            self.drain()

    def drain(self) -> None:
        """lru_add_drain, as far as new folios go."""
        waiting, self.waiting = self.waiting, []
        for folio in waiting:
            folio.waits = False
            folio.memcg.lists.add(folio)


class Lists:
    """A folio is on the list its `active` flag names. New ones go to the head."""

    def __init__(self, sentinel, batches: Batches):
        self.batches = batches
        self.heads = [sentinel(-1, 0), sentinel(-2, 0)]
        for head in self.heads:
            head.prev = head.next = head
        self.heads[1].active = True
        self.inactive_nr = self.active_nr = 0

    def add_new(self, folio) -> None:
        """folio_add_lru."""
        self.batches.add_new(folio)

    def add(self, folio) -> None:
        self.insert_after(self.heads[folio.active], folio)

    def insert_after(self, place, folio) -> None:
        """On the tail side of `place`."""
        folio.prev, folio.next = place, place.next
        place.next.prev = folio
        place.next = folio
        self._count(folio, folio.nr)

    def remove(self, folio) -> None:
        if folio.waits:
            self.batches.drain()
        folio.prev.next, folio.next.prev = folio.next, folio.prev
        folio.prev = folio.next = None
        self._count(folio, -folio.nr)

    def _count(self, folio, nr: int) -> None:
        if folio.active:
            self.active_nr += nr
        else:
            self.inactive_nr += nr

    def inactive_tail(self):
        return self._tail(0)

    def active_tail(self):
        return self._tail(1)

    def _tail(self, active: int):
        tail = self.heads[active].prev
        return None if tail is self.heads[active] else tail

    def order(self, active: int) -> list:
        """Folios from head to tail."""
        found, folio = [], self.heads[active].next
        while folio is not self.heads[active]:
            found.append(folio)
            folio = folio.next
        return found
