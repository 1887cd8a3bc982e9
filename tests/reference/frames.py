"""The page allocator: free blocks of 2^order frames, split and merged; compaction.

Source: mm/page_alloc.c (__rmqueue_smallest, expand, __free_one_page, buddy_merge_likely,
__alloc_pages_direct_compact), mm/compaction.c (compaction_suitable); 6.12 to 7.3. What is left out:
docs/frames.md.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxswap.frames import Start

    from .folio import Folio

MAX_PAGE_ORDER = 10


def draw(seed: int, number: int) -> int:
    """16 bits for the number-th draw of a seed: the last step of MurmurHash3, twice."""
    return mixed(mixed(seed) + number) >> 16


def mixed(x: int) -> int:
    x &= 0xFFFF_FFFF
    x = (x ^ x >> 16) * 0x85EB_CA6B & 0xFFFF_FFFF
    x = (x ^ x >> 13) * 0xC2B2_AE35 & 0xFFFF_FFFF
    return x ^ x >> 16


class Buddy:
    """free: for each order the first frames of the free blocks, the head of the list first."""

    def __init__(self, start: Start):
        self.count = len(start.pinned)
        self.pinned = {int(f) for f in start.pinned.nonzero()[0]}
        self.free = [OrderedDict.fromkeys(blocks.tolist()) for blocks in start.lists]

    @property
    def free_frames(self) -> int:
        return sum(len(blocks) << order for order, blocks in enumerate(self.free))

    def add(self, frame: int, order: int, tail: bool) -> None:
        self.free[order][frame] = None
        if not tail:
            self.free[order].move_to_end(frame, last=False)

    def take(self, order: int) -> int | None:
        """__rmqueue_smallest, expand: the first of 2^order frames; None: no block is large enough."""
        for high in range(order, MAX_PAGE_ORDER + 1):
            if self.free[high]:
                frame = next(iter(self.free[high]))
                del self.free[high][frame]
                while high > order:
                    high -= 1
                    self.add(frame + (1 << high), high, tail=False)
                return frame
        return None

    def give(self, frame: int, order: int) -> None:
        """__free_one_page."""
        while order < MAX_PAGE_ORDER and frame ^ 1 << order in self.free[order]:
            del self.free[order][frame ^ 1 << order]
            frame &= ~(1 << order)
            order += 1
        # buddy_merge_likely: to the tail, where it may wait for its buddy
        parent = frame & ~(1 << order)
        likely = order < MAX_PAGE_ORDER - 1 and parent ^ 2 << order in self.free[order + 1]
        self.add(frame, order, likely)


class Frames:
    """The frames of a machine. folios: by first frame. chance: of 65,536 compactions, those not hindered."""

    def __init__(self, start: Start, seed: int, chance: int, n: Callable[[], Counter[str]]):
        self.buddy, self.seed, self.chance, self.n = Buddy(start), seed, chance, n
        self.folios: dict[int, Folio] = {}
        self.draws = 0

    @property
    def available(self) -> int:
        """The orders up to that of the largest free block."""
        return sum(1 << order for order in range(MAX_PAGE_ORDER + 1) if any(self.buddy.free[order:]))

    def take(self, order: int, may_compact: bool) -> int | None:
        """__alloc_pages: 2^order frames."""
        frame = self.buddy.take(order)
        if frame is None and order and may_compact:
            frame = self.compact(order)
        return frame

    def give(self, frame: int, order: int) -> None:
        self.buddy.give(frame, order)

    def fill(self, frame: int, folio: Folio) -> None:
        """The folio is in these frames."""
        folio.frame = frame
        self.folios[frame] = folio

    def release(self, folio: Folio) -> None:
        """The folio is gone, and its frames are free."""
        if folio.frame is not None:
            del self.folios[folio.frame]
            self.give(folio.frame, folio.order)
            folio.frame = None

    def split(self, folio: Folio) -> None:
        """The folio becomes pieces, which are to be put in its frames."""
        if folio.frame is not None:
            del self.folios[folio.frame]

    def compact(self, order: int) -> int | None:
        """__alloc_pages_direct_compact: empty blocks of 2^order frames, ascending, until one is empty."""
        if self.buddy.free_frames < 2 << order:
            return None
        n = self.n()
        n["compact_stall"] += 1
        self.draws += 1
        frame = None
        if draw(self.seed, self.draws) < self.chance:
            for first in range(0, self.buddy.count, 1 << order):
                content = self.content(first, order)
                frame = self.empty(first, content) if content is not None else None
                if frame is not None:
                    break
        n["compact_fail" if frame is None else "compact_success"] += 1
        return frame

    def content(self, first: int, order: int) -> list[tuple[int, int, Folio | None]] | None:
        """What is in a block: (frame, order, folio or None) of each part; None where it cannot be emptied.

        It can, if nothing in it is pinned, or as large as the block, or a folio that has lost pages.
        """
        parts, at = [], first
        while at < first + (1 << order):
            folio = self.folios.get(at)
            free = next((o for o, blocks in enumerate(self.buddy.free) if at in blocks), None)
            if folio is not None and folio.order < order and (folio.mapcount or folio.nr) == folio.nr:
                parts.append((at, folio.order, folio))
            elif free is not None:
                parts.append((at, free, None))
            else:
                return None
            at += 1 << parts[-1][1]
        return parts

    def empty(self, first: int, parts: list[tuple[int, int, Folio | None]]) -> int | None:
        """Move folio by folio, ascending, up to one for which there is no room."""
        emptied = [(at, order) for at, order, folio in parts if folio is None]
        for at, order in emptied:
            del self.buddy.free[order][at]
        for at, order, folio in parts:
            if folio is None:
                continue
            frame = self.buddy.take(order)
            if frame is None:
                for part in sorted(emptied):
                    self.give(*part)
                return None
            del self.folios[at]
            self.fill(frame, folio)
            self.n()["pgmigrate_success"] += folio.nr
            emptied.append((at, order))
        return first


class Plenty:
    """Frames that are always there."""

    available = 0x3FF

    def take(self, order: int, may_compact: bool) -> int:
        return 0

    def give(self, frame: int, order: int) -> None:
        pass

    def fill(self, frame: int, folio: Folio) -> None:
        pass

    release = split = lambda self, folio: None
