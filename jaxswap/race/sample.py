"""Every form with every number of CPUs of a config, sampled."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxswap.race.lanes import OCTAVE, Counts, Lanes
from jaxswap.race.sample_config import SampleConfig

LANES = 16_384
"""At a time: enough that NumPy, not Python, is what takes the time. Does not change what is counted."""


@dataclass(frozen=True)
class Sampled:
    """One form with so many CPUs."""

    form: str
    cpus: int
    counts: Counts
    seconds: float


def sample(
    config: SampleConfig, report: Callable[[int, int], None] = lambda done, total: None
) -> list[Sampled]:
    """All of them, in the order of the config. report: called with the CPUs' requests done, and in all."""
    total = sum(config.lanes(cpus) * cpus for cpus in config.cpus) * len(config.forms)
    found, done = [], 0
    for form in config.forms:
        for cpus in config.cpus:
            began = time.perf_counter()
            crowd, lanes = config.of(form, cpus), config.lanes(cpus)
            counts = Counts(crowd.top + 1)
            for first in range(0, lanes, LANES):
                part = np.arange(first, min(first + LANES, lanes))
                counts.add(Lanes(crowd, config.seed, part).run())
                done += len(part) * cpus
                report(done, total)
            found.append(Sampled(form, cpus, counts, time.perf_counter() - began))
    return found


def window_quantile(counts: Counts, order: int, share: float) -> float:
    """Nanoseconds below which that share of the windows of an order lie; NaN if there is none.

    It is the upper edge of a bin, so up to 9 % too long.
    """
    bins = counts.window[order]
    if not bins.sum():
        return float("nan")
    return float(2.0 ** ((int(np.searchsorted(bins.cumsum(), share * bins.sum())) + 1) / OCTAVE))
