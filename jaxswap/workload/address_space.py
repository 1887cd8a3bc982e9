"""The anonymous mappings of a recorded process, and what a system call changes in them.

Two neighbouring mappings are one VMA if their protection, their flags that matter and their advice are
equal: what the kernel does when the new one has not been touched yet (mm/vma.c, vma_merge_new_range; 7.3).
The finer condition, that both have or can share one anon_vma, is not looked at.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace

Change = tuple[str, int, int, str]  # ("MAP" | "UNMAP", first page, end page, advice)


@dataclass(frozen=True)
class Vma:
    """Pages [start, end) of one anonymous mapping. `flags` are the mmap flags that keep neighbours apart."""

    start: int
    end: int
    protection: int
    flags: int
    advice: str


class AddressSpace:
    """Sorted, disjoint VMAs. Each edit returns the MAP and UNMAP operations that tell a replay about it."""

    def __init__(self) -> None:
        self.vmas: list[Vma] = []

    def map(self, new: Vma) -> list[Change]:
        """A fresh mapping; what was there before goes."""
        changes = self.unmap(new.start, new.end)
        return changes + self._replace([*self.vmas, new])

    def unmap(self, start: int, end: int) -> list[Change]:
        """munmap, or a file mapping put over the range."""
        gone, left = [], []
        for vma in self.vmas:
            low, high = max(vma.start, start), min(vma.end, end)
            if low >= high:
                left.append(vma)
                continue
            gone.append(("UNMAP", low, high, ""))
            if vma.start < low:
                left.append(replace(vma, end=low))
            if high < vma.end:
                left.append(replace(vma, start=high))
        if gone:
            self.vmas = left
        return _joined(gone)

    def protect(self, start: int, end: int, protection: int) -> list[Change]:
        """mprotect: the part inside the range gets the protection; VMAs split and merge."""
        return self._edit(start, end, protection=protection)

    def advise(self, start: int, end: int, advice: str) -> list[Change]:
        """madvise(MADV_HUGEPAGE or MADV_NOHUGEPAGE): as protect, for the advice."""
        return self._edit(start, end, advice=advice)

    def grow_down(self, top: int, start: int) -> list[Change]:
        """The main stack, which ends at `top`, reaches down to `start`."""
        vmas = [vma for vma in self.vmas if vma.end != top]
        return self._replace([*vmas, Vma(start, top, 3, STACK, "plain")])

    def inside(self, start: int, end: int) -> list[tuple[int, int]]:
        """The mapped parts of [start, end), neighbours joined."""
        parts = [
            ("", max(v.start, start), min(v.end, end), "")
            for v in self.vmas
            if v.end > start and v.start < end
        ]
        return [(low, high) for _, low, high, _ in _joined(parts)]

    def find(self, page: int) -> Vma | None:
        """The VMA of a page."""
        at = bisect_right(self.vmas, page, key=lambda vma: vma.start) - 1
        return self.vmas[at] if at >= 0 and page < self.vmas[at].end else None

    def _edit(self, start: int, end: int, **change: int | str) -> list[Change]:
        vmas = []
        for vma in self.vmas:
            low, high = max(vma.start, start), min(vma.end, end)
            if low >= high:
                vmas.append(vma)
                continue
            if vma.start < low:
                vmas.append(replace(vma, end=low))
            vmas.append(replace(vma, start=low, end=high, **change))
            if high < vma.end:
                vmas.append(replace(vma, start=high))
        return self._replace(vmas)

    def _replace(self, vmas: list[Vma]) -> list[Change]:
        """Take these VMAs, merge neighbours, and tell which are new."""
        merged: list[Vma] = []
        for vma in sorted(vmas, key=lambda vma: vma.start):
            last = merged[-1] if merged else None
            if last and last.end == vma.start and replace(last, start=vma.start, end=vma.end) == vma:
                merged[-1] = replace(last, end=vma.end)
            else:
                merged.append(vma)
        before = {(vma.start, vma.end, vma.advice) for vma in self.vmas}
        self.vmas = merged
        return [("MAP", v.start, v.end, v.advice) for v in merged if (v.start, v.end, v.advice) not in before]


STACK = 0x0100  # MAP_GROWSDOWN


def _joined(changes: list[Change]) -> list[Change]:
    joined: list[Change] = []
    for change in changes:
        if joined and joined[-1][2] == change[1]:
            joined[-1] = (change[0], joined[-1][1], change[2], "")
        else:
            joined.append(change)
    return joined
