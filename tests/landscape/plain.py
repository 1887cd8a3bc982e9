"""Plain-Python twin of jaxswap.landscape.ageing, and the same life as a workload for any machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaxswap.landscape.ageing import WHOLE
from jaxswap.machine.profile import Profile
from jaxswap.swaptable.swapon import Device
from tests.swaptable.slot_machine import Plain

THP = "/sys/kernel/mm/transparent_hugepage"
Step = tuple[int, int, int]


class Memory:
    """Pages of one program and the device they are swapped to. slot: of each page, None if not in swap."""

    def __init__(self, profile: Profile, slots: int, block: int, zero: list[bool], wanted: int) -> None:
        self.plain = Plain(profile, [Device(slots)], 1)
        self.block, self.zero, self.wanted = 1 << block, zero, wanted
        self.slot: list[int | None] = [None] * len(zero)
        self.flag = [False] * len(zero)
        self.used = self.written = self.splits = 0

    def step(self, block: int, order: int, page: int) -> None:
        pages = range(block * self.block, (block + 1) * self.block)
        swapped = [v for v in pages if self.slot[v] is not None]
        if self.used < self.wanted:
            self.swap_out([v for v in pages if self.slot[v] is None], 0 if swapped else order)
        else:
            self.free(swapped if page == WHOLE else [v for v in swapped if v == pages[page]])

    def swap_out(self, pages: list[int], order: int) -> None:
        for first in range(0, len(pages), 1 << order):
            folio = pages[first : first + (1 << order)]
            (slot,) = self.plain.alloc(0, order, 1)
            if slot >= 0:
                flag = all(self.zero[v] for v in folio)
                self.take(folio, slot, flag)
                continue
            self.splits += order > 0
            for v in [folio[0], *reversed(folio[1:])] if order else []:
                (slot,) = self.plain.alloc(0, 0, 1)
                if slot >= 0 and self.zero[v]:
                    self.plain.put(0, slot, 1, False)
                elif slot >= 0:
                    self.take([v], slot, False)

    def take(self, folio: list[int], slot: int, flag: bool) -> None:
        for i, v in enumerate(folio):
            self.slot[v], self.flag[v] = slot + i, flag
        self.used += len(folio)
        self.written += len(folio)

    def free(self, pages: list[int]) -> None:
        for v in pages:
            slot = self.slot[v]
            assert slot is not None
            self.plain.put(0, slot, 1, True)
            self.slot[v], self.flag[v] = None, False
        self.used -= len(pages)

    def places(self) -> list[int]:
        """As Ageing.places."""
        return [
            -1 if slot is None else 2 * slot + flag for slot, flag in zip(self.slot, self.flag, strict=True)
        ]

    def age(self, steps: Iterable[Step], goal: int) -> Iterator[Step]:
        """Take steps until `goal` slots have been taken in all; yields each before it is done."""
        for step in steps:
            if self.written >= goal:
                return
            yield step
            self.step(*step)


def workload(memory: Memory, steps: Iterable[Step], goal: int) -> str:
    """The steps as a workload, while the memory takes them."""
    lines = [f"REGION {len(memory.zero)} plain"]
    size = memory.block
    enabled = 0

    def enable(order: int) -> None:
        nonlocal enabled
        for one, value in ((enabled, "never"), (order, "always")):
            if one and enabled != order:
                lines.append(f"SET {THP}/hugepages-{4 << one}kB/enabled {value}")
        enabled = order

    def write(pages: Iterable[int]) -> None:
        lines.extend(f"{'ZERO' if memory.zero[v] else 'FILL'} {v} 1" for v in pages)

    for block, order, page in memory.age(steps, goal):
        base = block * size
        pages = range(base, base + size)
        present = [v for v in pages if memory.slot[v] is None]
        if memory.used >= memory.wanted:
            lines.append(f"DONTNEED {base} {size}" if page == WHOLE else f"DONTNEED {base + page} 1")
        elif len(present) == size:
            enable(order)
            lines.append(f"DONTNEED {base} {size}")
            write(pages)
            lines.append(f"PAGEOUT {base} {size}")
        elif present:
            enable(0)
            write(present)
            lines.append(f"PAGEOUT {base} {size}")
    return "\n".join([*lines, "DUMP end"]) + "\n"
