"""Shares of -EEXIST and -ENOENT of both checks: those recorded on real kernels against those sampled.

    python -m experiments.race_window.shares

Two step times are fitted on one recording of 64 kB folios, in the phases in which two threads, one a CPU,
come for one range at once; what is sampled with them is held against the same phases of every other
recording of its kind (earlier or later boots, as their README says). Each recording is fitted in turn. The
shares hang on ratios of times only, so the unit is the time it takes to read a folio of 64 kB.
"""

import gzip
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from experiments.real_kernel.threads import Phase, read_threads
from jaxswap.race.draws import STEP_OF, Time
from jaxswap.race.lanes import ERRORS, Counts, Crowd, Lanes
from jaxswap.swaptable.forms import FORMS
from jaxswap.swaptable.geometry import EEXIST, ENOENT

DATA = Path("tests/data/recordings")
PHASES = ("same 2", "near 2")
"""Two threads, one a CPU, at one range: what a lane is."""
LANES = 20_000
UNIT = 300_000.0
"""Nanoseconds of a unit; no share depends on it but for rounding."""
STARTS = 2.0 ** np.arange(-10, -1.9, 0.5)
SIGMAS = np.arange(0.5, 2.55, 0.2)
_GRID_LANES = 5_000


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

    def __add__(self, other: "Shares") -> "Shares":
        return Shares(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


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
        "read": Time("lognormal", UNIT / 16, 0.5, growth=1.0),
        "start": Time("exponential", UNIT * start),
    }
    slots, no_fails = 1 << order, (0.0,) * (order + 1)
    return Crowd(FORMS["merged"], 2, 1 | slots, slots, slots, 1.0, 0.0, 0.0, no_fails, 0.0, times)


def sample_shares(order: int, start: float, sigma: float, lanes: int = LANES, seed: int = 1) -> Shares:
    """What the lanes of a crowd give."""
    return sampled_shares(Lanes(crowd(order, start, sigma), seed, np.arange(lanes)).run())


Fit = tuple[float, float]
"""Start and sigma."""


def grid() -> dict[Fit, Shares]:
    """What 64 kB gives under every start and sigma of the grid."""
    every = [(float(start), float(sigma)) for start in STARTS for sigma in SIGMAS]
    return {one: sample_shares(4, *one, lanes=_GRID_LANES) for one in every}


def fit(recorded: Shares, sampled: dict[Fit, Shares]) -> Fit:
    """Under which of the sampled the recorded numbers of -EEXIST, -ENOENT and all else are likeliest."""

    def parts(shares: Shares) -> np.ndarray:
        return np.array([shares.eexist, shares.enoent, shares.checks - shares.eexist - shares.enoent])

    def likelihood(one: Fit) -> float:
        found = parts(sampled[one]) + 0.5
        return float((parts(recorded) * np.log(found / found.sum())).sum())

    return max(sampled, key=likelihood)


def within(shares: Shares, others: list[Shares]) -> tuple[bool, ...]:
    """Which of the three lie between the least and the most of others."""
    spread = zip(*(other.three for other in others), strict=True)
    return tuple(min(of) <= one <= max(of) for one, of in zip(shares.three, spread, strict=True))


def recordings(folder: Path = DATA) -> dict[tuple[str, str], list[Phase]]:
    """By kernel and name, those of kernels whose checks are traced."""
    found = {}
    for path in sorted(folder.glob("*/threads/*.txt.gz")):
        phases = read_threads(gzip.decompress(path.read_bytes()).decode())
        if any(phase.checks for phase in phases):
            found[path.parent.parent.name, path.name.removesuffix(".txt.gz")] = phases
    return found


def of_phases(phases: list[Phase]) -> list[Shares]:
    """Those of :data:`PHASES`."""
    return [recorded_shares(phase) for phase in phases if phase.name in PHASES]


def earlier(name: str) -> bool:
    """Whether a recording of that name is of the earlier boots, where both CPUs ran nearly all the time."""
    return "earlier" in name


def alike(
    every: dict[tuple[str, str], list[Phase]], size: str, early: bool
) -> dict[tuple[str, str], list[Shares]]:
    """Of recordings of that size (``64kB``), the earlier or the later."""
    return {
        (kernel, name): of_phases(phases)
        for (kernel, name), phases in every.items()
        if name.startswith(size) and earlier(name) == early
    }


def main() -> int:
    """Prints what was recorded, and what is sampled with the times fitted on each recording of 64 kB."""
    every = recordings()
    print("| kernel | recording | phase | checks | -EEXIST % | -ENOENT % | failed second checks a folio % |")
    print("|---|---|---|---|---|---|---|")
    for (kernel, name), phases in every.items():
        for phase_name, shares in zip(PHASES, of_phases(phases), strict=True):
            print(f"| {kernel} | {name} | {phase_name} | {shares.checks:,} | {_percent(shares)} |")
    sampled = grid()
    print("\n| fitted on | start | sigma | size | -EEXIST % | -ENOENT % | failed second checks a folio % |")
    print("|---|---|---|---|---|---|---|")
    for early in (True, False):
        for one, its in alike(every, "64kB", early).items():
            start, sigma = fit(sum(its[1:], its[0]), sampled)
            for size, order in (("64kB", 4), ("16-128kB", 5)):
                others = [
                    shares
                    for name, found in alike(every, size, early).items()
                    if name != one
                    for shares in found
                ]
                found = sample_shares(order, start, sigma)
                inside = within(found, others)
                cells = [
                    f"{100 * share:.2f}{'' if yes else ' (outside)'}"
                    for share, yes in zip(found.three, inside, strict=True)
                ]
                print(
                    f"| {' '.join(one)} | {start:.4f} | {sigma:.1f} | {4 << order} kB | {' | '.join(cells)} |"
                )
    return 0


def _percent(shares: Shares) -> str:
    return " | ".join(f"{100 * share:.2f}" for share in shares.three)


if __name__ == "__main__":
    sys.exit(main())
