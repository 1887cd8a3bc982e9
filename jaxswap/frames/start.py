"""What a user says of a machine's page frames, and the free lists they start with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from jaxswap.errors import InputError

MAX_PAGE_ORDER = 10  # largest order of a free block: 4 MiB
ORDERS = MAX_PAGE_ORDER + 1
FRAME = 4096  # bytes
MOST_FRAMES = 1 << 24
_TOP = 1 << MAX_PAGE_ORDER
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Start:
    """Frames to begin with: which are pinned (in use for ever), and the first frames of the free blocks of
    each order, the head of the list first."""

    pinned: Bool[np.ndarray, " frames"]
    lists: tuple[Int64[np.ndarray, " blocks"], ...]


@dataclass(frozen=True)
class Frames:
    """Page frames of one machine.

    Either size, in bytes, of which `unmovable` percent are in use for ever; or free: blocks of each order
    that are free, as a line of /proc/buddyinfo has them, with as many frames in use around them as keep them
    apart. seed: of where they lie, and of the luck of compactions. compaction: percent of the direct
    compactions that nothing hinders.
    """

    size: int = 0
    unmovable: float = 0.0
    free: tuple[int, ...] = ()
    seed: int = 0
    compaction: float = 0.0

    @property
    def count(self) -> int:
        """Frames there are: whole blocks of the largest order."""
        if not self.free:
            return self.size // FRAME
        apart = sum(blocks << min(order + 1, MAX_PAGE_ORDER) for order, blocks in enumerate(self.free))
        return -(-apart // _TOP) * _TOP

    def check(self) -> None:
        """Raise InputError for frames that cannot be laid out."""
        if self.free and self.size:
            raise InputError("frames: give a size or the free blocks of a buddyinfo line, not both")
        if len(self.free) > ORDERS or any(blocks < 0 for blocks in self.free):
            raise InputError(f"frames: {self.free} are not the free blocks of {ORDERS} orders")
        if self.size % (_TOP * FRAME):
            raise InputError(f"frames: {self.size} bytes are not whole blocks of 4M")
        if not 0 < self.count <= MOST_FRAMES:
            most = MOST_FRAMES * FRAME >> 30
            raise InputError(f"frames: {self.count} frames of 4 KiB; a machine has 4M to {most}G of them")
        for name, percent in (("unmovable", self.unmovable), ("compaction", self.compaction)):
            if not 0 <= percent <= 100:
                raise InputError(f"frames: {name} {percent:g}% is not between 0% and 100%")
        if not 0 <= self.seed < 1 << 32:
            raise InputError(f"frames: seed {self.seed} is not between 0 and {(1 << 32) - 1}")

    def start(self) -> Start:
        """The free lists to begin with."""
        random = np.random.RandomState(self.seed)
        return _given(self, random) if self.free else _aged(self, random)


def _aged(frames: Frames, random: np.random.RandomState) -> Start:
    """Unmovable pages in aligned blocks of 1 to 16 frames, each size the same share, anywhere; all else free.

    Lists are in random order.
    """
    pinned = np.zeros(frames.count, bool)
    goal, taken = round(frames.count * frames.unmovable / 100), 0
    for order in range(4, -1, -1):
        share = goal - taken if order == 0 else goal // 5
        free = np.flatnonzero(~pinned.reshape(-1, 1 << order).any(axis=1))
        blocks = random.permutation(free)[: share >> order]
        pinned.reshape(-1, 1 << order)[blocks] = True
        taken += len(blocks) << order
    left, lists = ~pinned, []
    for order in range(MAX_PAGE_ORDER, -1, -1):
        blocks = np.flatnonzero(left.reshape(-1, 1 << order).all(axis=1))
        left.reshape(-1, 1 << order)[blocks] = False
        lists.append(random.permutation(blocks) << order)
    return Start(pinned, tuple(lists[::-1]))


def _given(frames: Frames, random: np.random.RandomState) -> Start:
    """As many free blocks of each order as given, the largest lowest. Beside each, where its buddy would be,
    are frames in use, so that it stays what it is; which half it is, and the order of the lists, is random.
    """
    pinned, lists, at = np.ones(frames.count, bool), [], 0
    for order in range(len(frames.free) - 1, -1, -1):
        apart = min(order + 1, MAX_PAGE_ORDER)
        first = at + (np.arange(frames.free[order]) << apart)
        at += frames.free[order] << apart
        if apart > order:
            first += random.randint(2, size=len(first)) << order
        pinned[(first[:, None] + np.arange(1 << order)).reshape(-1)] = False
        lists.append(random.permutation(first))
    empty = [np.zeros(0, np.int64)] * (ORDERS - len(lists))
    return Start(pinned, (*lists[::-1], *empty))


_WORDS = re.compile(
    r"(?:(?P<size>\d{1,18})(?P<unit>[KMG])(?:\s+unmovable\s+(?P<unmovable>\d{1,18}(?:\.\d{1,18})?)%)?)?"
    r"(?:\s*\bseed\s+(?P<seed>\d{1,18}))?(?:\s*\bcompaction\s+(?P<compaction>\d{1,18}(?:\.\d{1,18})?)%)?"
)


def parse_frames(text: str, free: Sequence[int] = ()) -> Frames:
    """Frames as in "64M unmovable 30% seed 1 compaction 50%", each word but the size optional; with free
    blocks given, without size and unmovable. Raises InputError for other words."""
    match = _WORDS.fullmatch(text.strip())
    if match is None or (bool(match["size"]) == bool(free)):
        wanted = '"seed 1 compaction 50%"' if free else '"64M unmovable 30% seed 1 compaction 50%"'
        raise InputError(f"{text!r} does not say what page frames there are; write {wanted}")
    return Frames(
        int(match["size"] or 0) * _UNITS.get(match["unit"], 0),
        float(match["unmovable"] or 0),
        tuple(free),
        int(match["seed"] or 0),
        float(match["compaction"] or 0),
    )


def parse_buddyinfo(text: str) -> tuple[int, ...]:
    """Free blocks of each order of a pasted /proc/buddyinfo; those of several zones are added up.

    Raises InputError.
    """
    total = np.zeros(ORDERS, np.int64)
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines:
        match = re.fullmatch(rf"\s*Node\s+\d+,\s+zone\s+\w+((?:\s+\d{{1,12}}){{{ORDERS}}})\s*", line)
        if match is None:
            raise InputError(
                f"{line.strip()!r} is no line of /proc/buddyinfo: Node N, zone NAME, {ORDERS} numbers"
            )
        total += np.array(match[1].split(), np.int64)
    if not total.any():
        raise InputError("no free block in it")
    return tuple(total.tolist())


def frames_text(frames: Frames) -> str:
    """What parse_frames reads; of free blocks, what is said beside them."""
    words = [] if frames.free else [f"{frames.size >> 20}M", f"unmovable {frames.unmovable:g}%"]
    return " ".join([*words, f"seed {frames.seed}", f"compaction {frames.compaction:g}%"])


def buddyinfo_text(free: Sequence[int]) -> str:
    """What parse_buddyinfo reads."""
    padded = [*free, *[0] * (ORDERS - len(free))]
    return "Node 0, zone Normal " + " ".join(map(str, padded))
