"""Configurations of masim, a generator of memory accesses: regions, then phases of patterns.

Paragraphs apart by empty lines, # comments. The first has a region a line, `name, bytes` and after it the
path of a file with its first contents, which is not looked at. Each further one is a phase: a name, its time
in ms, then a pattern a line, `region, 1 random | 0 sequential, stride, probability` and after it ro, wo
(the default) or rw.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload.accesses import BLOCK, MOST_PAGE, Accesses
from jaxswap.workload.generate import splitmix64

BATCH = 64
"""Accesses of one pattern before the next is chosen."""
MOST_ACCESSES = 20_000_000
_MODES = ("ro", "wo", "rw")


@dataclass(frozen=True)
class Pattern:
    """Accesses to one region: its number, whether at random, the stride in bytes, the weight, the mode."""

    region: int
    random: bool
    stride: int
    weight: int
    mode: str


@dataclass(frozen=True)
class Phase:
    """Patterns that are mixed for a time in ms."""

    time: int
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True)
class Masim:
    """A configuration; sizes of the regions in bytes."""

    sizes: tuple[int, ...]
    phases: tuple[Phase, ...]


def read_masim(lines: Iterable[bytes], where: str) -> Masim:
    """A configuration. Raises InputError with the line of what is none."""
    paragraphs: list[list[tuple[int, list[str]]]] = [[]]
    for number, raw in enumerate(lines, 1):
        line = raw.decode("utf-8", "backslashreplace").strip()
        if line.startswith("#"):
            continue
        if not line:
            paragraphs.append([])
        else:
            paragraphs[-1].append((number, [word.strip() for word in line.split(",")]))
    regions, *phases = [paragraph for paragraph in paragraphs if paragraph] or [[]]
    names: dict[str, int] = {}
    for number, words in regions:
        if len(words) not in (2, 3) or not words[1].isdigit() or not 0 < int(words[1]) < MOST_PAGE:
            raise InputError(f"{where}:{number}: a region is: NAME, BYTES")
        if words[0] in names:
            raise InputError(f"{where}:{number}: a second region {words[0]}; give it another name")
        names[words[0]] = int(words[1])
    if not phases:
        raise InputError(f"{where}: has no phases; after an empty line write: its name, its ms, its patterns")
    found = tuple(_phase(phase, list(names), where) for phase in phases)
    return Masim(tuple(names.values()), found)


def _phase(lines: list[tuple[int, list[str]]], names: list[str], where: str) -> Phase:
    number = lines[min(1, len(lines) - 1)][0]
    if len(lines) < 3 or len(lines[1][1]) != 1 or not lines[1][1][0].isdigit():
        raise InputError(
            f"{where}:{number}: a phase is a line with its name, one with its ms, then its patterns"
        )
    patterns = []
    for number, words in lines[2:]:
        mode = words[4] if len(words) == 5 else "wo"
        if (
            len(words) not in (4, 5)
            or words[0] not in names
            or words[1] not in ("0", "1")
            or mode not in _MODES
        ):
            known = (
                f"the regions are {', '.join(names)}"
                if words[0] not in names
                else "for example a, 0, 4096, 1, rw"
            )
            raise InputError(
                f"{where}:{number}: a pattern is: REGION, 0|1, STRIDE, PROBABILITY, ro|wo|rw; {known}"
            )
        if not all(word.isdigit() and len(word) < 16 for word in words[2:4]):
            raise InputError(f"{where}:{number}: stride and probability are whole numbers")
        patterns.append(Pattern(names.index(words[0]), words[1] == "1", int(words[2]), int(words[3]), mode))
    if not sum(pattern.weight for pattern in patterns):
        raise InputError(f"{where}:{number}: the probabilities of the phase are all 0")
    return Phase(int(lines[1][1][0]), tuple(patterns))


def mappings(config: Masim) -> list[tuple[int, int]]:
    """Where the regions are: page ranges, each from a 2 MiB border of its own, an empty block between two."""
    ranges, at = [], 0
    for size in config.sizes:
        pages = -(-size // 4096)
        ranges.append((at, at + pages))
        at += (-(-pages // BLOCK) + 1) * BLOCK
    return ranges


def expand(config: Masim, where: str, rate: int, seed: int) -> Accesses:
    """Accesses of the phases: `rate` a millisecond, one after the other, in batches of 64 of one pattern.

    An access is one to a page: of a sequential pattern those that come to another page than the one before,
    which starts at the region's first byte plus the stride and, past the region's end, at its first byte
    again; a pattern goes on where its last batch in the phase stopped. A page of an rw pattern is read, then
    written, which is one access. Draws are of the splitmix64 stream that starts at seed: one a batch, whose
    remainder by the sum of the probabilities chooses the pattern; one an access of a random pattern, whose
    remainder by the region's bytes is the byte. Raises InputError for more than MOST_ACCESSES.
    """
    ranges = mappings(config)
    pages, writes = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    at = total = 0
    for phase in config.phases:
        offsets = [0] * len(phase.patterns)
        weights = np.cumsum([pattern.weight for pattern in phase.patterns])
        left = phase.time * rate
        total += left
        if total > MOST_ACCESSES:
            raise InputError(f"{where}: its phases come to more than {MOST_ACCESSES} accesses; lower --rate")
        while left > 0:
            draw = int(splitmix64(seed, at, 1)[0]) % int(weights[-1])
            at += 1
            chosen = int(np.searchsorted(weights, draw, side="right"))
            pattern = phase.patterns[chosen]
            count, size = min(BATCH, left), config.sizes[pattern.region]
            if pattern.random:
                byte = (splitmix64(seed, at, count) % np.uint64(size)).astype(np.int64)
                at += count
            else:
                byte, offsets[chosen] = _sequence(offsets[chosen], pattern.stride, size, count)
            left -= count
            page = ranges[pattern.region][0] + byte // 4096
            write = np.full(count, pattern.mode != "ro")
            if pattern.mode == "rw":
                page, write = np.repeat(page, 2), np.tile([False, True], count)
            pages.append(page)
            writes.append(write)
    page = np.concatenate(pages)
    return Accesses(page, np.concatenate(writes), np.zeros(len(page), np.uint8))


def _sequence(offset: int, stride: int, size: int, count: int) -> tuple[np.ndarray, int]:
    """The next `count` bytes of a sequential pattern, the first of each page; and the last byte."""
    step = max(stride, 1)
    found = []
    page = offset // 4096
    while len(found) < count:
        # the first byte of the sequence that is beyond this page
        jump = -(-((page + 1) * 4096 - offset) // step)
        offset += jump * step
        if offset >= size:
            offset = 0
        page = offset // 4096
        found.append(offset)
    return np.array(found, np.int64), offset
