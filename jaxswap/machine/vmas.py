"""The VMAs of a workload over time: mappings, cut where the advice changes, merged where it becomes equal.

Source of the rules: mm/vma.c (vma_merge_existing_range, is_mergeable_anon_vma), mm/rmap.c
(__anon_vma_prepare), 6.12 to 7.3.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

BLOCK = 512  # pages of a page table, 2 MiB


@dataclass(frozen=True)
class Vma:
    """Pages start .. end - 1. mapping: number of the MAP it comes from. anon: number of its anon_vma, which
    it gets at its first write fault and its parts share; 0 before. forked: it came with one from a fork.
    window: number of its readahead state.
    """

    start: int
    end: int
    advice: str
    mapping: int
    anon: int = 0
    forked: bool = False
    window: int = 0

    def continues(self, other: "Vma") -> bool:
        """Whether this VMA and the one before it become one."""
        same = (other.end, other.advice, other.mapping) == (self.start, self.advice, self.mapping)
        if self.anon and other.anon:
            return same and self.anon == other.anon
        return same and not self.forked and not other.forked


class Vmas:
    """The VMAs at one moment, in `live`, ascending."""

    def __init__(self) -> None:
        self.live: list[Vma] = []
        self.starts = np.zeros(0, np.int64)
        self.mappings = self.anons = 0
        self.windows = itertools.count()
        self.copies: list[tuple[int, int]] = []

    def _copied(self, vma: Vma) -> Vma:
        """The same VMA with a readahead state of its own."""
        window = next(self.windows)
        self.copies.append((vma.window, window))
        return replace(vma, window=window)

    def take_copies(self) -> list[tuple[int, int]]:
        """Readahead states that became copies of others since the last call: (old, new)."""
        copies, self.copies = self.copies, []
        return copies

    def fork(self) -> "Vmas":
        """Those of a child: each that has an anon_vma gets one of its own."""
        child = Vmas()
        child.mappings, child.anons, child.windows = self.mappings, self.anons, self.windows
        for vma in self.live:
            copy = child._copied(vma)
            if vma.anon:
                child.anons += 1
                copy = replace(copy, anon=child.anons, forked=True)
            child.live.append(copy)
        child.starts = self.starts
        return child

    def _carve(self, start: int, end: int) -> list[Vma]:
        """Cut the VMAs at both borders; take out and return those inside."""
        inside, kept = [], []
        for vma in self.live:
            if vma.end <= start or vma.start >= end:
                kept.append(vma)
                continue
            parts = 0
            for a, b in (
                (vma.start, min(vma.end, start)),
                (max(vma.start, start), min(vma.end, end)),
                (max(vma.start, end), vma.end),
            ):
                if a < b:
                    part = replace(self._copied(vma) if parts else vma, start=a, end=b)
                    (inside if start <= a < end else kept).append(part)
                    parts += 1
        self.live = kept
        return inside

    def _settle(self, added: Iterable[Vma] = ()) -> None:
        merged: list[Vma] = []
        new, added = False, list(added)
        for vma in sorted([*self.live, *added], key=lambda vma: vma.start):
            last, fresh = merged[-1] if merged else None, vma in added
            if last and vma.continues(last):
                # The one that grows keeps its readahead state: the left one, unless only the right was there.
                window = vma.window if new and not fresh else last.window
                merged[-1] = replace(last, end=vma.end, anon=last.anon or vma.anon, window=window)
                new = False
            else:
                merged.append(vma)
                new = fresh
        self.live = merged
        self.starts = np.array([vma.start for vma in merged], np.int64)

    def map(self, start: int, end: int, advice: str) -> None:
        """One VMA. Pages that were mapped before stay: it has grown over them and keeps their anon_vma."""
        anon = next((vma.anon for vma in self._carve(start, end) if vma.anon), 0)
        self.mappings += 1
        self._settle([Vma(start, end, advice, self.mappings, anon, window=next(self.windows))])

    def unmap(self, start: int, end: int) -> None:
        self._carve(start, end)
        self._settle()

    def advise(self, start: int, end: int, advice: str) -> None:
        self._settle([replace(vma, advice=advice) for vma in self._carve(start, end)])

    def borders(self) -> set[int]:
        """Ends of VMAs inside a 2 MiB block."""
        return {at for vma in self.live for at in (vma.start, vma.end) if at % BLOCK}

    def at(self, pages: np.ndarray) -> np.ndarray:
        """For each page the place of its VMA in `live`."""
        return np.searchsorted(self.starts, pages, "right") - 1

    def unwritten(self) -> np.ndarray:
        """For each VMA of `live` whether it has no anon_vma."""
        return np.array([not vma.anon for vma in self.live], bool)

    def write(self, places: Iterable[int]) -> None:
        """VMAs of `live` are written to. Where there is no anon_vma there is no page of its own either, so
        the first write is a fault."""
        for place in places:
            if not self.live[place].anon:
                self.anons += 1
                self.live[place] = replace(self.live[place], anon=self.anons)

    def cut(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(place in `live`, start, end) of the pieces of a range, each in one VMA and one 2 MiB block."""
        first = max(bisect_right(self.live, start, key=lambda vma: vma.start) - 1, 0)
        for place in range(first, len(self.live)):
            vma = self.live[place]
            if vma.start >= end:
                return
            at, stop = max(vma.start, start), min(vma.end, end)
            while at < stop:
                until = min((at // BLOCK + 1) * BLOCK, stop)
                yield place, at, until
                at = until
