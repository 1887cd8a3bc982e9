"""Workloads of several processes: they fork, or live in cgroups of their own."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

PAGES = 1024  # of each process
STEPS = 3000  # operations of a pattern in a cgroup, about
COLD = 192  # pages of the process outside the cgroups, swapped out

Lines = Iterator[str]
Random = np.random.Generator


def _of(process: int, lines: Lines) -> Lines:
    """The same operations by another process."""
    return (f"p{process} {line}" for line in lines)


def _in_turn(random: Random, *each: Lines, most: int = 30) -> Lines:
    """One to `most` operations of each in turn, until all have ended."""
    left = list(each)
    while left:
        for lines in list(left):
            for _ in range(int(random.integers(1, most + 1))):
                line = next(lines, None)
                if line is None:
                    left.remove(lines)
                    break
                yield line


def _calls(random: Random, pages: int, count: int, writes: float) -> Lines:
    """Runs of 1 to 24 pages, some of them written."""
    for at in random.integers(0, pages - 24, count).tolist():
        yield f"{'FILL' if random.random() < writes else 'READN'} {at} {int(random.integers(1, 25))}"


def _skewed(random: Random, count: int) -> Lines:
    """Pages drawn by a power law over scattered places, read or written."""
    places = random.permutation(PAGES)
    for rank in np.minimum(random.pareto(0.7, count) * 8, PAGES - 1).astype(int).tolist():
        yield f"{'TOUCH' if random.random() < 0.5 else 'READ'} {places[rank]}"


def _forks(*children: int) -> Lines:
    return (f"FORK {child}" for child in children)


def _ends(*children: int) -> Lines:
    return (f"p{child} EXIT" for child in children)


def fuzzer(random: Random) -> Lines:
    """One short-lived child after another from the same state, each on a walk of its own."""
    for _ in range(12):
        yield from _forks(1)
        at = int(random.integers(0, PAGES))
        for _ in range(400):
            at = (at + int(random.integers(-12, 13))) % PAGES
            yield f"p1 {'TOUCH' if random.random() < 0.3 else 'READ'} {at}"
        yield from _ends(1)
        yield from _calls(random, PAGES, 8, 0.2)


def shell(random: Random) -> Lines:
    """Commands: a child gives back what it has, as exec does, fills less anew, and ends."""
    for _ in range(12):
        yield from _forks(1)
        yield "p1 READN 0 24"
        yield f"p1 DONTNEED 0 {PAGES}"
        size = int(random.integers(100, 500))
        yield f"p1 FILL 0 {size}"
        yield from _of(1, _calls(random, size, 16, 0.5))
        yield from _in_turn(random, _of(1, _calls(random, size, 8, 0.5)), _skewed(random, 120))
        yield from _ends(1)


def map_reduce(random: Random) -> Lines:
    """Three children each read a third in order and write sums; their parent reads all anew."""
    for _ in range(3):
        yield from _forks(1, 2, 3)

        def third(start: int) -> Lines:
            for step in range(256):
                yield f"READ {start + step}"
                if step % 4 == 0:
                    yield f"TOUCH {768 + step}"

        yield from _in_turn(random, *(_of(child, third(256 * (child - 1))) for child in (1, 2, 3)))
        yield from _ends(1, 2, 3)
        yield f"READN 0 {PAGES}"


def lineage(random: Random) -> Lines:
    """Child, grandchild, great-grandchild: each changes a part and forks the next."""
    for _ in range(2):
        for child in (1, 2, 3):
            yield f"p{child - 1} FORK {child}"
            start = int(random.integers(0, PAGES // 2))
            yield from _of(child, (f"TOUCH {at}" for at in range(start, start + PAGES // 2, 3)))
            yield from _of(child, _calls(random, PAGES, 30, 0.1))
            yield from _of(child - 1, _calls(random, PAGES, 30, 0.1))
        yield from _in_turn(random, *(_of(p, _calls(random, PAGES, 24, 0.3)) for p in range(4)), most=4)
        yield from _ends(3, 2, 1)


def quicksort(random: Random) -> Lines:
    """Parts sorted by children of their own, which halve them from both ends."""

    def sort(start: int, end: int) -> Lines:
        if end - start < 16:
            return
        middle = start + int((end - start) * random.uniform(0.3, 0.7))
        for low, high in zip(range(start, middle), range(end - 1, middle, -1), strict=False):
            yield f"READ {low}"
            yield f"READ {high}"
            if random.random() < 0.5:
                yield f"TOUCH {low}"
                yield f"TOUCH {high}"
        yield from sort(start, middle)
        yield from sort(middle, end)

    yield from _forks(1, 2)
    parts = (0, 340), (340, 680), (680, PAGES)
    yield from _in_turn(random, *(_of(process, sort(*part)) for process, part in enumerate(parts)))
    yield from _ends(1, 2)


def lookups(random: Random) -> Lines:
    """Three children look up nodes of a tree that their parent changes meanwhile."""
    yield from _forks(1, 2, 3)

    def down(writes: float) -> Lines:
        for _ in range(160):
            node = 1
            while node < PAGES:
                last = 2 * node >= PAGES
                yield f"{'TOUCH' if last and random.random() < writes else 'READ'} {node}"
                node = 2 * node + int(random.random() < 0.4)

    yield from _in_turn(random, down(1), *(_of(child, down(0.1)) for child in (1, 2, 3)))
    yield from _ends(1, 2, 3)


def checkpoint(random: Random) -> Lines:
    """Sweeps over a grid of rows of 32 pages; a child reads it backwards meanwhile."""
    for _ in range(2):
        yield from _forks(1)
        sweep = (f"{word} {at + far}" for at in range(32, PAGES - 32)
                 for word, far in (("READ", -32), ("READ", 32), ("TOUCH", 0)))  # fmt: skip
        saved = (f"READ {at}" for at in range(PAGES - 1, -1, -1))
        yield from _in_turn(random, sweep, _of(1, saved))
        yield from _ends(1)


def refcounts(random: Random) -> Lines:
    """Workers of an interpreter: what they only read they write, a few objects most often."""
    yield from _forks(1, 2, 3)
    yield from _in_turn(random, *(_of(child, _skewed(random, 2200)) for child in (1, 2, 3)))
    yield from _ends(1, 2, 3)


def backends(random: Random) -> Lines:
    """Sessions of a database: runs of what all share, sorted in a part of their own that is given back."""
    yield from _forks(1, 2)

    def session() -> Lines:
        for _ in range(40):
            yield from _calls(random, 700, 4, 0.05)
            size = int(random.integers(8, 65))
            at = 704 + int(random.integers(0, 256))
            yield f"FILL {at} {size}"
            yield f"READN {at} {size}"
            yield f"DONTNEED {at} {size}"

    yield from _in_turn(random, _of(1, session()), _of(2, session()), _calls(random, 700, 60, 0.2), most=6)
    yield from _ends(1, 2)


HELD_OUT: tuple[Callable[[Random], Lines], ...] = (
    fuzzer, shell, map_reduce, lineage, quicksort, lookups, checkpoint, refcounts, backends,
)  # fmt: skip
FORKED = {one.__name__: one for one in HELD_OUT}


def forked(name: str, random: Random) -> str:
    """The text of a workload of processes that fork in one cgroup, their parent's memory filled before.

    As many processes and cgroups as in the other workloads here come first and go, so that all of them are
    replayed by one compiled machine.
    """
    before = [*_forks(1, 2, 3), "p1 CGROUP db", *_ends(1, 2, 3), "CGROUP web", f"FILL 0 {PAGES}"]
    return "\n".join([f"REGION {PAGES} plain", *before, *FORKED[name](random)]) + "\n"


def in_cgroups(pattern: Callable[[Random, int, int], Lines], random: Random) -> str:
    """The text of a workload of two processes with one pattern, each in a cgroup; a third one outside them
    is swapped out and looks at its pages now and then."""
    before = ["FORK 1", "FORK 2", "p1 CGROUP web", "p2 CGROUP db", f"FILL 0 {COLD}", f"PAGEOUT 0 {COLD}"]
    fills = [f"p{process} FILL 0 {PAGES}" for process in (1, 2)]
    seeds = random.integers(0, 2**32, 2).tolist()
    each = [pattern(np.random.default_rng(seed), PAGES, STEPS) for seed in seeds]
    looks = (f"READ {at}" for at in random.integers(0, COLD, 40).tolist())

    def lines() -> Lines:
        for at, line in enumerate(_in_turn(random, _of(1, each[0]), _of(2, each[1]))):
            yield line
            if at % 150 == 0:
                yield from itertools.islice(looks, 1)

    return "\n".join([f"REGION {PAGES} plain", *before, *fills, *lines()]) + "\n"
