"""The synthetic workloads of configs/order_heuristics.toml.

    python -m experiments.order_heuristics.workloads [FOLDER]

Nine access patterns to tune on and nine others to judge on, in up to three initial states: `NAME`, swapped
out for the first time; `NAME-aged`, after a life on the same swap device; `NAME-zero`, with zero-filled pages
between the others.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxswap.workload import parse_workload, write_workload

PAGES = 2048  # 8 MiB
STEPS = 12_000  # operations of a pattern, about

Lines = Iterator[str]
Random = np.random.Generator


def stack(random: Random) -> Lines:
    """A stack that grows and shrinks by random amounts."""
    top = PAGES // 2
    for _ in range(STEPS // 12):
        up = int(random.integers(-64, 65))
        step = 1 if up > 0 else -1
        for at in range(top, min(max(top + up, 0), PAGES - 1), step):
            yield f"{'TOUCH' if step > 0 else 'READ'} {at}"
        top = min(max(top + up, 0), PAGES - 1)


def uniform(random: Random) -> Lines:
    """Pages drawn alike."""
    for at in random.integers(0, PAGES, STEPS).tolist():
        yield f"READ {at}" if at % 3 else f"TOUCH {at}"


def skewed(random: Random) -> Lines:
    """Pages drawn by a power law over scattered places."""
    places = random.permutation(PAGES)
    for rank in np.minimum(random.pareto(0.8, STEPS) * 8, PAGES - 1).astype(int).tolist():
        yield f"TOUCH {places[rank]}"


def scan_and_hot(random: Random) -> Lines:
    """Slow scans in order, most accesses in a hot quarter."""
    for step in range(STEPS // 4):
        yield f"READ {step % PAGES}"
        for at in random.integers(0, PAGES // 4, 3).tolist():
            yield f"TOUCH {at}"


def strided(random: Random) -> Lines:
    """Columns of a matrix of rows of 37 pages."""
    for step in range(STEPS):
        yield f"READ {step * 37 % PAGES}"


def phases(random: Random) -> Lines:
    """Parts of 300 pages, one after the other, each jumped about in, then walked."""
    for start in random.integers(0, PAGES - 300, 12).tolist():
        for at in random.integers(0, 300, 700).tolist():
            yield f"TOUCH {start + at}"
        yield f"READN {start} 300"


def runs(random: Random) -> Lines:
    """Runs of 1 to 24 pages at random places."""
    for at, n in zip(
        random.integers(0, PAGES - 24, STEPS // 8), random.integers(1, 25, STEPS // 8), strict=True
    ):
        yield f"READN {at} {n}"


def records(random: Random) -> Lines:
    """Records of three pages, read whole, a few of them most often."""
    count = PAGES // 3
    for key in (count * random.beta(0.4, 1.6, STEPS // 3)).astype(int).tolist():
        yield f"READN {3 * min(key, count - 1)} 3"


def pool(random: Random) -> Lines:
    """A pool of blocks of 32 pages, given back and filled again."""
    for step, block in enumerate(random.integers(0, PAGES // 32, STEPS // 30).tolist()):
        yield f"DONTNEED {32 * block} 32"
        yield f"FILL {32 * block} {int(random.integers(8, 33))}"
        for at in random.integers(0, PAGES, 16).tolist():
            yield f"TOUCH {at}" if step % 2 else f"READ {at}"


def passes(random: Random) -> Lines:
    """Passes over everything, forth and back."""
    for step in range(STEPS // PAGES):
        yield from [f"READN 0 {PAGES}"] if step % 2 else (f"READ {at}" for at in range(PAGES - 1, -1, -1))


def ring(random: Random) -> Lines:
    """A ring buffer: written ahead, read 900 pages behind."""
    for step in range(STEPS // 2):
        yield f"TOUCH {step % PAGES}"
        yield f"READ {(step - 900) % PAGES}"


def tree(random: Random) -> Lines:
    """Look-ups in a search tree of 2,047 nodes, a page each, children in order of depth."""
    for _ in range(STEPS // 11):
        node = 1
        while node < PAGES:
            yield f"READ {node}"
            node = 2 * node + int(random.random() < 0.35)


def heap_sort(random: Random) -> Lines:
    """Sift-down in a heap of 2,047 pages, which shrinks."""
    for last in range(PAGES - 1, PAGES - STEPS // 14, -1):
        yield f"TOUCH {last}"
        node = 1
        while node <= last:
            yield f"TOUCH {node}"
            node = 2 * node + int(random.random() < 0.5)


def stencil(random: Random) -> Lines:
    """Sweeps over a grid of rows of 64 pages: above, here, below."""
    for at in [at for _ in range(STEPS // (3 * PAGES) + 1) for at in range(64, PAGES - 64)]:
        yield f"READ {at - 64}"
        yield f"READ {at + 64}"
        yield f"TOUCH {at}"


def collector(random: Random) -> Lines:
    """A copying collector: objects marked in random order, the living copied to the other half in order,
    the first given back."""
    half, old = PAGES // 2, 0
    for _ in range(STEPS // 2600):
        for at in random.integers(0, half, 1400).tolist():
            yield f"READ {old + at}"
        for to, at in enumerate(np.sort(random.choice(half, half * 2 // 3, replace=False)).tolist()):
            yield f"READ {old + at}"
            yield f"TOUCH {half - old + to}"
        yield f"DONTNEED {old} {half}"
        old = half - old
        yield f"FILL {old + half * 2 // 3} {half - half * 2 // 3}"


def walk(random: Random) -> Lines:
    """A random walk with steps of up to 20 pages, and long jumps now and then."""
    at = PAGES // 2
    for _ in range(STEPS):
        far = random.random() < 0.02
        at = (int(random.integers(0, PAGES)) if far else at + int(random.integers(-20, 21))) % PAGES
        yield f"TOUCH {at}"


def log_merge(random: Random) -> Lines:
    """Four sorted runs of 512 pages merged, again and again."""
    for _ in range(STEPS // PAGES):
        at = [0, 0, 0, 0]
        while any(place < 512 for place in at):
            run = int(random.choice([i for i, place in enumerate(at) if place < 512]))
            yield f"READ {512 * run + at[run]}"
            at[run] += 1


def shifting(random: Random) -> Lines:
    """A working set of 600 pages that moves on by a page every eight accesses."""
    for step in range(STEPS):
        yield f"TOUCH {(step // 8 + int(random.integers(0, 600))) % PAGES}"


TRAIN: tuple[Callable[[Random], Lines], ...] = (
    stack, uniform, skewed, scan_and_hot, strided, phases, runs, records, pool,
)  # fmt: skip
HELD_OUT: tuple[Callable[[Random], Lines], ...] = (
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


def text(name: str) -> str:
    """The workload's text by its name: PATTERN, PATTERN-aged or PATTERN-zero."""
    pattern, _, state = name.partition("-")
    patterns = {one.__name__: one for one in (*TRAIN, *HELD_OUT)}
    random = np.random.default_rng(list(name.encode()))
    before = {"": iter(()), "aged": aged(random), "zero": zeros(random)}[state]
    lines = [f"REGION {PAGES} plain", f"FILL 0 {PAGES}", *before, *patterns[pattern](random)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "configs/order_heuristics")
    for pattern in (*TRAIN, *HELD_OUT):
        for state in ("", "-aged", "-zero"):
            name = pattern.__name__ + state
            write_workload(parse_workload(text(name)), folder / f"{name}.t.gz")


if __name__ == "__main__":
    main()
