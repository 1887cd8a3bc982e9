"""The two winners of a sweep: what sysfs can be set to today, and what would need a kernel patch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxswap.sweep.objective import Ranking
from jaxswap.sweep.run import Sweep
from jaxswap.sweep.store import WorkloadResult


@dataclass(frozen=True)
class Winners:
    """Indices of candidates; `heuristic` is None where there was none or the OOM killer ended them all."""

    sysfs: int
    heuristic: int | None
    ranking: Ranking


def winners(sweep: Sweep, results: Sequence[WorkloadResult] | None = None) -> Winners:
    """The best-ranked candidate under the kernel's own rule, and the best-ranked under another heuristic."""
    ranking = sweep.ranking(results)
    alive = [int(index) for index in ranking.order if np.isfinite(ranking.violation[index])]
    sysfs = next(index for index in alive if sweep.candidates[index].sysfs)
    heuristic = next((index for index in alive if not sweep.candidates[index].sysfs), None)
    return Winners(sysfs, heuristic, ranking)
