"""The repeat filter of the lackey importer: a fully associative LRU list of pages, like a first-level TLB.

A key is page << 1 | is it a write. A key passes if its page is not among the `entries` most recently used
pages, or if it writes and no write to the page has passed since it entered the list. Every key, passed or
not, makes its page the most recent. So an access that would miss in a memory of more than `entries` pages
under LRU always passes.
"""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

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


class PageFilters:
    """Filters of several sizes over the same keys, for little more than the smallest costs.

    An LRU list of pages begins with every shorter one, so only what misses in one list can miss in the next,
    and a page comes to the part that a list has beyond the shorter one when that pushes it out.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        """sizes: entries of the lists, ascending."""
        self._entries = sizes[0]
        # page -> has a write passed since it entered the list; oldest first
        self._first: OrderedDict[int, bool] = OrderedDict()
        self._longer = [_Longer(size - shorter) for shorter, size in itertools.pairwise(sizes)]

    def passed(self, key: Keys) -> list[list[int]]:
        """The keys that pass each filter, in order. Equal keys in a row may have been dropped before
        (drop_repeats, collapse)."""
        first, entries, longer = self._first, self._entries, self._longer
        touch, oldest_out = first.move_to_end, first.popitem
        out: list[int] = []
        found = [out, *([] for _ in longer)]
        for page, write in zip((key >> 1).tolist(), (key & 1).tolist(), strict=True):
            try:
                touch(page)
            except KeyError:
                first[page] = bool(write)
                out.append(page << 1 | write)
                pushed = oldest_out(last=False)[0] if len(first) > entries else None
                for level, part in enumerate(longer, 1):
                    known = page in part.pages
                    if known:
                        del part.pages[page]
                    else:
                        part.written[page] = bool(write)
                        found[level].append(page << 1 | write)
                    if pushed is not None:
                        part.pages[pushed] = None
                    if known:
                        if write:
                            self._first_write(page, level, found)
                        break
                    pushed = None
                    if len(part.pages) > part.entries:
                        pushed = part.pages.popitem(last=False)[0]
                        del part.written[pushed]
                continue
            if write and not first[page]:
                first[page] = True
                out.append(page << 1 | 1)
                self._first_write(page, 1, found)
        return found

    def _first_write(self, page: int, level: int, found: list[list[int]]) -> None:
        """A write to a page that is in the list of `level` and all longer ones: it passes where none has."""
        for part, its in zip(self._longer[level - 1 :], found[level:], strict=True):
            # where one has passed one has in every longer list, in which the page has been for longer
            if part.written[page]:
                return
            part.written[page] = True
            its.append(page << 1 | 1)

    def forget(self, start: int, end: int) -> None:
        """Drop pages [start, end): they were unmapped or thrown away, so their next access must pass."""
        for page in [page for page in self._first if start <= page < end]:
            del self._first[page]
        for part in self._longer:
            for page in [page for page in part.written if start <= page < end]:
                del part.written[page]
                part.pages.pop(page, None)


class _Longer:
    """What a list has beyond the next shorter one: `pages`, at most `entries`, oldest first. written: as of
    the first list, for all pages of this one."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.pages: OrderedDict[int, None] = OrderedDict()
        self.written: dict[int, bool] = {}
