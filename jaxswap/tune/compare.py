"""Is a rule better than the kernel's? A paired comparison over workloads that it was not chosen on.

The machine is deterministic, so the sampling unit is a workload in its initial state, not an access or a
seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

from jaxswap.sweep.objective import AXES

LEVEL = 0.95
RESAMPLES = 10_000
LEAST_UNITS = 8
"""With fewer units nothing is called better."""
SLACK = 1e-9
"""Per 1,000 accesses: what is nearer to nothing comes from the rounding of the division."""


@dataclass(frozen=True)
class Difference:
    """Candidate less reference of one metric, per 1,000 accesses: mean over the units, its interval, and in
    how many units the candidate has more, and fewer."""

    mean: float
    low: float
    high: float
    more: int
    fewer: int


@dataclass(frozen=True)
class Comparison:
    """differences: by metric, those of AXES among them."""

    units: int
    differences: Mapping[str, Difference]

    @property
    def verdict(self) -> str:
        """What the units show.

        "dominates": the whole interval of failed attempts and fallbacks is below zero, and the mean
        differences of major faults and useless pages are at most zero. "dominates, on every unit": and no
        unit has more of any of the three. "trades": that interval is below zero, but one of the two means is
        not. "not shown": the interval reaches zero. "too few units": fewer than LEAST_UNITS.
        """
        failed, *kept = (self.differences[name] for name in AXES)
        if self.units < LEAST_UNITS:
            return "too few units"
        if failed.high >= -SLACK:
            return "not shown"
        if any(one.mean > SLACK for one in kept):
            return "trades"
        return "dominates" if failed.more or any(one.more for one in kept) else "dominates, on every unit"

    @property
    def dominates(self) -> bool:
        return self.verdict.startswith("dominates")


def compare(
    measured: Mapping[str, Float64[np.ndarray, "workloads lanes"]],
    candidate: int,
    reference: int,
    units: Sequence[str],
    seed: int = 0,
) -> Comparison:
    """A candidate held to the reference.

    measured: metrics per 1,000 accesses. units: a name for each workload; workloads of one name (a program
    under several limits) are no independent draws and count as one unit, by their mean.
    """
    names = list(dict.fromkeys(units))
    weights = np.array([[unit == name for unit in units] for name in names], np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    found = {}
    for name, values in measured.items():
        differences = weights @ (values[:, candidate] - values[:, reference])
        low, high = interval(differences, seed)
        more, fewer = int((differences > SLACK).sum()), int((differences < -SLACK).sum())
        found[name] = Difference(float(differences.mean()), low, high, more, fewer)
    return Comparison(len(names), found)


def interval(values: Float64[np.ndarray, " units"], seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of the mean at LEVEL: units drawn with replacement, percentiles of the means.

    The percentiles are taken further out than LEVEL by the ratio of Student's t at n - 1 to the normal, and
    of the two divisors of the variance, for plain percentiles are too narrow for few units (T. Hesterberg,
    "What Teachers Should Know About the Bootstrap", 2015: expanded percentile interval). One unit gives no
    interval: minus to plus infinity.
    """
    count = len(values)
    if count < 2:
        return -np.inf, np.inf
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    out = stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf((1 - LEVEL) / 2, count - 1))
    low, high = np.quantile(values[drawn].mean(axis=1), [out, 1 - out])
    return float(low), float(high)
