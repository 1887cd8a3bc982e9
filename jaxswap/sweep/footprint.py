"""How much memory a workload wants: the measure that limits and swap sizes are given in."""

import numpy as np

from jaxswap.workload import Kind, Workload

PAGE = 4096


def footprint(workload: Workload) -> int:
    """The most bytes in use at one time: pages accessed and not given back (DONTNEED, UNMAP) since."""
    used = np.zeros(workload.npages, bool)
    now = most = 0
    operations = zip(workload.kind.tolist(), workload.v.tolist(), workload.n.tolist(), strict=True)
    for kind, v, n in operations:
        if kind <= Kind.ZERO:
            if n == 1:
                if not used[v]:
                    used[v] = True
                    now += 1
            else:
                now += n - int(np.count_nonzero(used[v : v + n]))
                used[v : v + n] = True
            most = max(most, now)
        elif kind in (Kind.DONTNEED, Kind.UNMAP):
            now -= int(np.count_nonzero(used[v : v + n]))
            used[v : v + n] = False
    return most * PAGE
