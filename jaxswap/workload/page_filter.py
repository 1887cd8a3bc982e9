"""The repeat filter of the lackey importer: a fully associative LRU list of pages, like a first-level TLB.

A key is page << 1 | is it a write. A key passes if its page is not among the `entries` most recently used
pages, or if it writes and no write to the page has passed since it entered the list. Every key, passed or
not, makes its page the most recent. So an access that would miss in a memory of more than `entries` pages
under LRU always passes.
"""

from collections import OrderedDict

import numpy as np
from jaxtyping import Int64

SMALLEST = 8  # collapse() repeats periods of up to 4 keys; the list must hold their pages

Keys = Int64[np.ndarray, "keys"]


def drop_repeats(key: Keys) -> tuple[Keys, Int64[np.ndarray, "kept"]]:
    """Drop keys on the page of the key just before, unless a write follows a read: (kept, their indices)."""
    keep = np.empty(len(key), bool)
    keep[:1] = True
    change = key[1:] ^ key[:-1]
    keep[1:] = (change > 1) | ((change == 1) & ((key[1:] & 1) == 1))
    kept = np.flatnonzero(keep)
    return key[kept], kept


def collapse(key: Keys, periods: tuple[int, ...] = (2, 3, 4)) -> Keys:
    """Shorten repetitions of 2, 3 and 4 keys (A B A B A B ...) by whole periods.

    The filter passes the same keys as before, and its list is the same after them: keys that repeat the
    last period hit, and a whole period leaves the order of the pages as it was.
    """
    for period in periods:
        if len(key) <= 2 * period:
            break
        same = np.empty(len(key) - period + 2, np.int8)
        same[0] = same[-1] = 0
        same[1:-1] = key[period:] == key[:-period]
        edges = np.flatnonzero(same[1:] != same[:-1])
        start, length = edges[::2], edges[1::2] - edges[::2]
        dropped = length - length % period
        some = dropped > 0
        if not some.any():
            continue
        start, stop = start[some] + period, start[some] + period + dropped[some]
        # disjoint ranges; where one ends another may start
        step = np.zeros(len(key) + 1, np.int8)
        step[start] += 1
        step[stop] -= 1
        key = key[np.cumsum(step[:-1], dtype=np.int8) == 0]
    return key


class PageFilter:
    """The filter's list and what passed it so far."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self._written: OrderedDict[int, bool] = OrderedDict()  # page -> has a write passed; oldest first

    def passed(self, key: Keys) -> list[int]:
        """The keys that pass, in order. Equal keys in a row may have been dropped before (drop_repeats,
        collapse)."""
        written, entries = self._written, self.entries
        touch, oldest_out = written.move_to_end, written.popitem
        out: list[int] = []
        for page, write in zip((key >> 1).tolist(), (key & 1).tolist(), strict=True):
            try:
                touch(page)
            except KeyError:
                written[page] = bool(write)
                out.append(page << 1 | write)
                if len(written) > entries:
                    oldest_out(last=False)
                continue
            if write and not written[page]:
                written[page] = True
                out.append(page << 1 | 1)
        return out

    def forget(self, start: int, end: int) -> None:
        """Drop pages [start, end): they were unmapped or thrown away, so their next access must pass."""
        for page in [page for page in self._written if start <= page < end]:
            del self._written[page]
