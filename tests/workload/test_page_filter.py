"""The repeat filters of several sizes, beside a list of pages a size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.workload.page_filter import PageFilters


class Plain:
    """One filter, over a list of pages, the most recent last."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.recent: list[int] = []
        self.written: set[int] = set()

    def passes(self, page: int, write: bool) -> bool:
        new = page not in self.recent
        if new:
            self.written.discard(page)
        else:
            self.recent.remove(page)
        self.recent = [*self.recent, page][-self.entries :]
        passed = new or (write and page not in self.written)
        if write:
            self.written.add(page)
        return passed

    def forget(self, start: int, end: int) -> None:
        self.recent = [page for page in self.recent if not start <= page < end]


keys = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60)
steps = st.lists(keys | st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8)


@given(steps, st.sampled_from([[8], [2, 4], [1, 2, 3, 5, 9], [3, 20], [8, 16, 24, 64]]))
def test_each_is_a_list_of_its_own(steps: list, sizes: list[int]) -> None:
    filters, plain = PageFilters(sizes), [Plain(size) for size in sizes]
    for step in steps:
        if isinstance(step, tuple):
            start, end = step[0], sum(step)
            filters.forget(start, end)
            for one in plain:
                one.forget(start, end)
            continue
        found = filters.passed(np.array([page << 1 | write for page, write in step], np.int64))
        for one, passed in zip(plain, found, strict=True):
            expected = [page << 1 | write for page, write in step if one.passes(page, write)]
            assert passed == expected
