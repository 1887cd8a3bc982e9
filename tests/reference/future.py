"""The accesses to come, in plain Python, for the policy that knows them."""

from __future__ import annotations

from collections import defaultdict

from jaxswap.workload import Kind, Workload

NEVER = 1 << 30
ACCESSES, LEAVES = (Kind.TOUCH, Kind.READ, Kind.ZERO), (Kind.DONTNEED, Kind.UNMAP, Kind.PAGEOUT)


class Future:
    """Of each page: how many accesses there were before each of its own, and before each time that it was
    released or paged out by advice."""

    def __init__(self, workload: Workload):
        self.accessed, self.left = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
        now = 0
        for kind, v, n in zip(workload.kind, workload.v.tolist(), workload.n.tolist(), strict=True):
            for page in range(v, v + n):
                if kind in ACCESSES:
                    self.accessed[page].append(now)
                    now += 1
                elif kind in LEAVES:
                    self.left[page].append(now)

    def until(self, page: int, now: int) -> int:
        """Accesses from access `now` on before one of this page; NEVER if none comes, or it leaves first."""
        access = next((t for t in self.accessed[page] if t >= now), None)
        leaves = next((t for t in self.left[page] if t > now), NEVER)
        return NEVER if access is None or leaves <= access else access - now
