"""Shares of -EEXIST and -ENOENT of both checks: those recorded on real kernels against those sampled.

    python -m experiments.race_window.shares

Two step times are fitted on one recorded phase (:data:`FITTED`); every other in which two
threads, one a CPU, come for one range at once is held against what is sampled with them. The shares hang on
ratios of times only, so the unit is the time it takes to read a folio of 64 kB.
"""

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.real_kernel.threads import Phase, read_threads
from jaxswap.race.draws import STEP_OF, Time
from jaxswap.race.lanes import ERRORS, Counts, Crowd, Lanes
from jaxswap.swaptable.forms import FORMS
from jaxswap.swaptable.geometry import EEXIST, ENOENT

DATA = Path("tests/data/recordings")
FITTED = ("7.3.4", "64kB-idle-boot1", "near 2")
"""Kernel, recording and phase the times are fitted on."""
PHASES = ("same 2", "near 2")
"""Two threads, one a CPU, at one range: what a lane is."""
ORDER_0 = 2**-4
LANES = 20_000
UNIT = 300_000.0
"""Nanoseconds of a unit; no share depends on it but for rounding."""
STARTS = 2.0 ** np.arange(-10, 0.1, 0.5)
SIGMAS = np.arange(0.5, 2.55, 0.1)


@dataclass(frozen=True)
class Shares:
    """Of the checks of all range sizes: how many, and how many of them end so."""

    checks: int
    eexist: int
    enoent: int
    second: int
    """Failed second checks: those passed beyond two a folio that got in, as each had passed a first."""
    folios: int

    @property
    def three(self) -> tuple[float, float, float]:
        """-EEXIST and -ENOENT a check, failed second checks a folio."""
        return self.eexist / self.checks, self.enoent / self.checks, self.second / self.folios


def recorded_shares(phase: Phase) -> Shares:
    """Of a phase in which all memory comes in by whole folios."""
    folios = sum(n for name, n in phase.counters.items() if name.endswith("kB swpin"))
    passed = phase.of(0)
    checks = sum(phase.checks.values())
    return Shares(checks, phase.of(-EEXIST), phase.of(-ENOENT), passed - 2 * folios, folios)


def sampled_shares(counts: Counts) -> Shares:
    """Of sampled lanes."""
    by_error = dict(zip(ERRORS, counts.check.sum((0, 2)).tolist(), strict=True))
    second = int(counts.check[1, 1:].sum())
    return Shares(
        sum(by_error.values()), by_error[-EEXIST], by_error[-ENOENT], second, int(counts.inserted.sum())
    )


def crowd(order: int, start: float, sigma: float) -> Crowd:
    """Two CPUs at one range of an order. Fitted: how far apart they start (mean, in units), and how much the
    time to have a frame varies, which stands for all that holds a CPU up between its checks."""
    times = {name: Time("lognormal", UNIT / 150, 0.5) for name in STEP_OF} | {
        "frame": Time("lognormal", UNIT / 15, sigma),
        "read": Time("lognormal", UNIT * ORDER_0, 0.5, growth=1.0),
        "start": Time("exponential", UNIT * start),
    }
    slots, no_fails = 1 << order, (0.0,) * (order + 1)
    return Crowd(FORMS["merged"], 2, 1 | slots, slots, slots, 1.0, 0.0, 0.0, no_fails, 0.0, times)


def sample_shares(order: int, start: float, sigma: float, lanes: int = LANES, seed: int = 1) -> Shares:
    """What the lanes of a crowd give."""
    return sampled_shares(Lanes(crowd(order, start, sigma), seed, np.arange(lanes)).run())


def fit(recorded: Shares, order: int) -> tuple[float, float]:
    """The start and sigma of the grid under which the recorded -EEXIST, -ENOENT and others are likeliest."""

    def likelihood(start: float, sigma: float) -> float:
        found = sample_shares(order, start, sigma, LANES // 4)
        parts = np.array([found.eexist, found.enoent, found.checks - found.eexist - found.enoent])
        seen = np.array([recorded.eexist, recorded.enoent, 0])
        seen[2] = recorded.checks - seen.sum()
        return float((seen * np.log((parts + 0.5) / (parts.sum() + 1.5))).sum())

    grid = [(float(start), float(sigma)) for start in STARTS for sigma in SIGMAS]
    return max(grid, key=lambda one: likelihood(*one))


def recordings(folder: Path = DATA) -> dict[tuple[str, str], list[Phase]]:
    """By kernel and name, those of kernels whose checks are traced."""
    found = {}
    for path in sorted(folder.glob("*/threads/*.txt.gz")):
        phases = read_threads(gzip.decompress(path.read_bytes()).decode())
        if any(phase.checks for phase in phases):
            found[path.parent.parent.name, path.name.removesuffix(".txt.gz")] = phases
    return found


def order_of(phase: Phase) -> int:
    """The order of the largest range checked."""
    return max(pages for _, pages in phase.checks).bit_length() - 1


def main() -> int:
    """Prints the table."""
    every = recordings()
    kernel, name, phase_name = FITTED
    fitted_on = next(phase for phase in every[kernel, name] if phase.name == phase_name)
    start, sigma = fit(recorded_shares(fitted_on), order_of(fitted_on))
    print(f"fitted on {' '.join(FITTED)}: start {start:.5f}, sigma {sigma:.2f}")
    print("| kernel | recording | phase | checks | -EEXIST % | -ENOENT % | failed second checks a folio % |")
    print("|---|---|---|---|---|---|---|")
    for (kernel, name), phases in every.items():
        for phase in phases:
            if phase.name in PHASES:
                shares = recorded_shares(phase)
                print(f"| {kernel} | {name} | {phase.name} | {shares.checks:,} | {_percent(shares)} |")
    for order in (4, 5):
        shares = sample_shares(order, start, sigma)
        print(f"| sampled | {4 << order} kB, seed 1 | | {shares.checks:,} | {_percent(shares)} |")
    return 0


def _percent(shares: Shares) -> str:
    return " | ".join(f"{100 * share:.2f}" for share in shares.three)


if __name__ == "__main__":
    sys.exit(main())
