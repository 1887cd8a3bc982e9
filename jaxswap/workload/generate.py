"""Generated accesses: INIT, SEQ, UNI, ZIPF, HOT, STRIDE expanded to the exact pages and kinds they stand for.

Each operation starts a fresh splitmix64 stream at its seed. One draw r per access: it is a write iff
(r & 1023) < W; the page comes from x = r >> 10. Work is done in pieces of a million draws, so
only the result grows with the count.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Bool, Int64, UInt64

INCREMENT = 0x9E3779B97F4A7C15
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB
RANK_SCRAMBLE = 0x9E3779B1  # odd, so rank * this mod a power of two is a permutation
ZIPF_ENTRIES = 16384
MOST_ACCESSES = 20_000_000  # of one generated operation; more is a mistake in the file
_PIECE = 1 << 20

# operation -> names of its numbers, in file order
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "INIT": (),
    "SEQ": ("from", "n", "passes", "W", "seed"),
    "UNI": ("from", "n", "count", "W", "seed"),
    "ZIPF": ("count", "W", "seed", "L"),
    "HOT": ("from", "n", "H", "count", "W", "seed"),
    "STRIDE": ("step", "count", "W", "seed"),
}

Pages = Int64[np.ndarray, "n"]
Writes = Bool[np.ndarray, "n"]


def splitmix64(seed: int, first: int, count: int) -> UInt64[np.ndarray, "count"]:
    """Draws first .. first+count-1 (0-based) of the splitmix64 stream that starts at state `seed`."""
    k = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    z = k * np.uint64(INCREMENT) + np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return z ^ (z >> np.uint64(31))


@cache
def zipf_sums() -> UInt64[np.ndarray, "16384"]:
    """Running sums of floor(2^40 (i+1)^-0.99), i = 0 .. 16383."""
    return np.cumsum([int(2**40 * (i + 1) ** -0.99) for i in range(ZIPF_ENTRIES)], dtype=np.uint64)


def check_arguments(operation: str, values: dict[str, int], npages: int) -> str | None:
    """What is wrong with a generated operation's numbers in a region of `npages` pages, or None."""
    at, n = values.get("from"), values.get("n")
    if n is not None and n < 1:
        return f"{operation}: n must be at least 1"
    if at is not None and n is not None and at + n > npages:
        return f"{operation}: pages {at}..{at + n - 1} reach past REGION's {npages} pages"
    for name, high in (("W", 1024), ("H", 1024), ("L", 1), ("seed", 2**64 - 1)):
        if values.get(name, 0) > high:
            return f"{operation}: {name} is {values[name]}; it must be 0..{high}"
    if operation == "ZIPF" and npages > ZIPF_ENTRIES:
        return f"ZIPF needs a REGION of at most {ZIPF_ENTRIES} pages; this one has {npages}"
    if operation == "ZIPF" and values["L"] == 0 and npages & (npages - 1):
        return f"ZIPF with L=0 needs a REGION of a power of two pages; this one has {npages} (or use L=1)"
    accesses = values.get("count", 0) if operation != "SEQ" else values["passes"] * values["n"]
    if accesses > MOST_ACCESSES:
        return f"{operation}: {accesses} accesses in one operation; split it (at most {MOST_ACCESSES} each)"
    return None


def expand(operation: str, values: dict[str, int], npages: int) -> tuple[Pages, Writes]:
    """The pages and the write flags of one generated operation, access by access. Numbers must have passed
    check_arguments."""
    if operation == "INIT":
        return np.arange(npages, dtype=np.int64), np.ones(npages, bool)
    page_of = _page_rule(operation, values, npages)
    count = values["passes"] * values["n"] if operation == "SEQ" else values["count"]
    pages, writes = np.empty(count, np.int64), np.empty(count, bool)
    for first in range(0, count, _PIECE):
        stop = min(first + _PIECE, count)
        r = splitmix64(values["seed"], first, stop - first)
        writes[first:stop] = (r & np.uint64(1023)) < np.uint64(values["W"])
        pages[first:stop] = page_of(r >> np.uint64(10), np.arange(first, stop, dtype=np.int64))
    return pages, writes


def _page_rule(
    operation: str, values: dict[str, int], npages: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function (x, index of the access) -> page."""
    start, n, np64 = values.get("from", 0), np.uint64(values.get("n", 1)), np.uint64(npages)

    def seq(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        return start + k % values["n"]

    def uni(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        return start + (x % n).astype(np.int64)

    def zipf(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        sums = zipf_sums()[:npages]
        rank = np.searchsorted(sums, x % sums[-1], side="right").astype(np.uint64)
        return rank if values["L"] else (rank * np.uint64(RANK_SCRAMBLE)) & (np64 - np.uint64(1))

    def hot(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        y = x >> np.uint64(10)
        in_hot = (x & np.uint64(1023)) < np.uint64(values["H"])
        return np.where(in_hot, np.uint64(start) + y % n, y % np64)

    def stride(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        return k * values["step"] % npages

    return {"SEQ": seq, "UNI": uni, "ZIPF": zipf, "HOT": hot, "STRIDE": stride}[operation]


def merge_runs(pages: Pages, writes: Writes) -> tuple[Pages, Int64[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """Accesses -> (first page, length, write) of maximal runs of one kind over ascending neighbours.

    The order of accesses is kept exactly."""
    if not len(pages):
        return pages, pages.copy(), writes
    starts = np.flatnonzero(np.r_[True, (np.diff(pages) != 1) | (writes[1:] != writes[:-1])])
    return pages[starts], np.diff(np.r_[starts, len(pages)]), writes[starts]
