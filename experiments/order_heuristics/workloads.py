"""The synthetic workloads of configs/order_heuristics.toml.

    python -m experiments.order_heuristics.workloads [FOLDER]

Nine access patterns to tune on and nine others to judge on: `NAME`, swapped out for the first time;
`NAME-aged`, after a life on the same swap device; `NAME-zero`, with zero-filled pages between the others;
`NAME-cached`, with a prefetcher beside it; `NAME-cgroups`, in two cgroups at once. Processes that fork have
patterns of their own, `NAME-forked` (processes.py).
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.order_heuristics import processes
from jaxswap.workload import parse_workload, write_workload

PAGES = 2048  # 8 MiB
STEPS = 12_000  # operations of a pattern, about

Lines = Iterator[str]
Random = np.random.Generator


def stack(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """A stack that grows and shrinks by random amounts."""
    top = pages // 2
    for _ in range(steps // 12):
        up = int(random.integers(-64, 65))
        step = 1 if up > 0 else -1
        for at in range(top, min(max(top + up, 0), pages - 1), step):
            yield f"{'TOUCH' if step > 0 else 'READ'} {at}"
        top = min(max(top + up, 0), pages - 1)


def uniform(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Pages drawn alike."""
    for at in random.integers(0, pages, steps).tolist():
        yield f"READ {at}" if at % 3 else f"TOUCH {at}"


def skewed(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Pages drawn by a power law over scattered places."""
    places = random.permutation(pages)
    for rank in np.minimum(random.pareto(0.8, steps) * 8, pages - 1).astype(int).tolist():
        yield f"TOUCH {places[rank]}"


def scan_and_hot(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Slow scans in order, most accesses in a hot quarter."""
    for step in range(steps // 4):
        yield f"READ {step % pages}"
        for at in random.integers(0, pages // 4, 3).tolist():
            yield f"TOUCH {at}"


def strided(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Columns of a matrix of rows of 37 pages."""
    for step in range(steps):
        yield f"READ {step * 37 % pages}"


def phases(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Parts of 300 pages, one after the other, each jumped about in, then walked."""
    for start in random.integers(0, pages - 300, 12).tolist():
        for at in random.integers(0, 300, 700).tolist():
            yield f"TOUCH {start + at}"
        yield f"READN {start} 300"


def runs(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Runs of 1 to 24 pages at random places."""
    for at, n in zip(
        random.integers(0, pages - 24, steps // 8), random.integers(1, 25, steps // 8), strict=True
    ):
        yield f"READN {at} {n}"


def records(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Records of three pages, read whole, a few of them most often."""
    count = pages // 3
    for key in (count * random.beta(0.4, 1.6, steps // 3)).astype(int).tolist():
        yield f"READN {3 * min(key, count - 1)} 3"


def pool(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """A pool of blocks of 32 pages, given back and filled again."""
    for step, block in enumerate(random.integers(0, pages // 32, steps // 30).tolist()):
        yield f"DONTNEED {32 * block} 32"
        yield f"FILL {32 * block} {int(random.integers(8, 33))}"
        for at in random.integers(0, pages, 16).tolist():
            yield f"TOUCH {at}" if step % 2 else f"READ {at}"


def passes(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Passes over everything, forth and back."""
    for step in range(steps // pages):
        yield from [f"READN 0 {pages}"] if step % 2 else (f"READ {at}" for at in range(pages - 1, -1, -1))


def ring(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """A ring buffer: written ahead, read 900 of 2,048 pages behind."""
    behind = pages * 225 // 512
    for step in range(steps // 2):
        yield f"TOUCH {step % pages}"
        yield f"READ {(step - behind) % pages}"


def tree(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Look-ups in a search tree of 2,047 nodes, a page each, children in order of depth."""
    for _ in range(steps // 11):
        node = 1
        while node < pages:
            yield f"READ {node}"
            node = 2 * node + int(random.random() < 0.35)


def heap_sort(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Sift-down in a heap of 2,047 pages, which shrinks."""
    for last in range(pages - 1, pages - steps // 14, -1):
        yield f"TOUCH {last}"
        node = 1
        while node <= last:
            yield f"TOUCH {node}"
            node = 2 * node + int(random.random() < 0.5)


def stencil(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Sweeps over a grid of rows of 64 pages: above, here, below."""
    for at in [at for _ in range(steps // (3 * pages) + 1) for at in range(64, pages - 64)]:
        yield f"READ {at - 64}"
        yield f"READ {at + 64}"
        yield f"TOUCH {at}"


def collector(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """A copying collector: objects marked in random order, the living copied to the other half in order,
    the first given back."""
    half, old = pages // 2, 0
    for _ in range(steps // 2600):
        for at in random.integers(0, half, 1400).tolist():
            yield f"READ {old + at}"
        for to, at in enumerate(np.sort(random.choice(half, half * 2 // 3, replace=False)).tolist()):
            yield f"READ {old + at}"
            yield f"TOUCH {half - old + to}"
        yield f"DONTNEED {old} {half}"
        old = half - old
        yield f"FILL {old + half * 2 // 3} {half - half * 2 // 3}"


def walk(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """A random walk with steps of up to 20 pages, and long jumps now and then."""
    at = pages // 2
    for _ in range(steps):
        far = random.random() < 0.02
        at = (int(random.integers(0, pages)) if far else at + int(random.integers(-20, 21))) % pages
        yield f"TOUCH {at}"


def log_merge(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """Four sorted runs, a quarter each, merged, again and again."""
    quarter = pages // 4
    for _ in range(steps // pages):
        at = [0, 0, 0, 0]
        while any(place < quarter for place in at):
            run = int(random.choice([i for i, place in enumerate(at) if place < quarter]))
            yield f"READ {quarter * run + at[run]}"
            at[run] += 1


def shifting(random: Random, pages: int = PAGES, steps: int = STEPS) -> Lines:
    """A working set of 600 of 2,048 pages that moves on by a page every eight accesses."""
    size = pages * 75 // 256
    for step in range(steps):
        yield f"TOUCH {(step // 8 + int(random.integers(0, size))) % pages}"


TRAIN: tuple[Callable[..., Lines], ...] = (
    stack, uniform, skewed, scan_and_hot, strided, phases, runs, records, pool,
)  # fmt: skip
HELD_OUT: tuple[Callable[..., Lines], ...] = (
    passes, ring, tree, heap_sort, stencil, collector, walk, log_merge, shifting,
)  # fmt: skip


def aged(random: Random) -> Lines:
    """A life before: parts written, swapped out, read back and given up, in pieces of all sizes."""
    for _ in range(60):
        at, n = int(random.integers(0, PAGES - 256)), int(random.integers(1, 257))
        yield f"FILL {at} {n}"
        yield f"PAGEOUT {at} {n}"
        for page in random.integers(at, at + n, 24).tolist():
            yield f"READ {page}" if page % 2 else f"TOUCH {page}"


def zeros(random: Random) -> Lines:
    """Runs of one to three pages of zeros, a quarter of all pages."""
    for at in random.choice(PAGES - 3, PAGES // 8, replace=False).tolist():
        yield f"ZERO {at} {1 + at % 3}"


def cached(random: Random, pattern: Lines) -> Lines:
    """A prefetcher beside the pattern, which asks for one to four pages near its accesses, in vain or not:
    what it reads stays in the swap cache until it is used."""
    for number, line in enumerate(pattern):
        if number % 8 == 0:
            at = int(line.split()[1]) + int(random.integers(-48, 49))
            yield f"WILLNEED {min(max(at, 0), PAGES - 4)} {int(random.integers(1, 5))}"
        yield line


def text(name: str) -> str:
    """The workload's text by its name: PATTERN, or PATTERN-aged, -zero, -cached, -cgroups, -forked."""
    pattern, _, state = name.partition("-")
    random = np.random.default_rng(list(name.encode()))
    if state == "forked":
        return processes.forked(pattern, random)
    accesses = {one.__name__: one for one in (*TRAIN, *HELD_OUT)}[pattern]
    if state == "cgroups":
        return processes.in_cgroups(accesses, random)
    before = {"aged": aged, "zero": zeros}.get(state, lambda _: iter(()))(random)
    lines = accesses(random)
    if state == "cached":
        lines = cached(random, lines)
    return "\n".join([f"REGION {PAGES} plain", f"FILL 0 {PAGES}", *before, *lines]) + "\n"


def names() -> list[str]:
    """Of all workloads."""
    every = [one.__name__ for one in (*TRAIN, *HELD_OUT)]
    held_out = [one.__name__ for one in HELD_OUT]
    return [
        *(pattern + state for pattern in every for state in ("", "-aged", "-zero")),
        *(f"{pattern}-{state}" for pattern in held_out for state in ("cached", "cgroups")),
        *(f"{pattern}-forked" for pattern in processes.FORKED),
    ]


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "configs/order_heuristics")
    for name in names():
        write_workload(parse_workload(text(name)), folder / f"{name}.t.gz")


if __name__ == "__main__":
    main()
