"""The two winners of a sweep: what sysfs can be set to today, and what would need a kernel patch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.objective import Ranking
from jaxswap.sweep.result import WorkloadResult


@dataclass(frozen=True)
class Winners:
    """Indices of candidates; `heuristic` is None where none ran to its end and did what sysfs cannot."""

    sysfs: int
    heuristic: int | None
    ranking: Ranking


def winners(sweep: Sweep, results: Sequence[WorkloadResult] | None = None) -> Winners:
    """The best-ranked candidate that sysfs can express, and the best-ranked heuristic that it cannot.

    A heuristic under which the machine did exactly what it does under a sysfs setting needs no patch and is
    passed over. (Refusals and what the heuristic read may differ: they change nothing.) So is one that knows
    the accesses to come.
    """
    results = sweep.results if results is None else results
    ranking = sweep.ranking(results)
    did = np.concatenate([result.counters[:, _does(result)] for result in results], axis=1)
    by_sysfs = {row.tobytes() for row, one in zip(did, sweep.candidates, strict=True) if one.sysfs}
    alive = [int(index) for index in ranking.order if np.isfinite(ranking.violation[index])]
    sysfs = next(index for index in alive if sweep.candidates[index].sysfs)
    able = (index for index in alive if not sweep.candidates[index].foresees)
    heuristic = next((index for index in able if did[index].tobytes() not in by_sysfs), None)
    return Winners(sysfs, heuristic, ranking)


def _does(result: WorkloadResult) -> list[int]:
    """Columns of the counters of what the machine did, not of what it declined or looked at."""
    return [index for index, name in enumerate(result.names) if not name.startswith(("refused/", "read_"))]
