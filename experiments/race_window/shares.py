"""Shares of -EEXIST and -ENOENT of both checks: those recorded on real kernels against those sampled.

    python -m experiments.race_window.shares

Two step times are fitted on one recording of 64 kB folios, in the phases in which two threads, one a CPU,
come for one range at once; what is sampled with them is held against the same phases of every other
recording of its kind (the README of the recordings says which there are). Each recording is fitted in turn.
The shares hang on ratios of times only, so the unit is the time it takes to read a folio of 64 kB.
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
FRAME = 0.4
"""Time to have a frame, of the time to read it. Both grow with the folio: Debian's kernels clear a frame as
they allocate it (init_on_alloc). Seen in traces: 0.3 to 0.6."""
RETRY = 0.12
"""Time of a look-up, of that to read 64 kB. It stands for what passes from -EEXIST to the next check, when
the frame is freed too: 62 and 74 us of about 550 in traces. Both CPUs take it first, which moves nothing."""
NOT_CLEARED = 0.075
"""The same with init_on_alloc=0: between the checks pass 0.19 of the time at 64 kB, 0.17 at 128 kB."""
STARTS = 2.0 ** np.arange(-7, 0)
SIGMAS = np.arange(0.3, 0.77, 0.05)
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


def crowd(order: int, start: float, sigma: float, frame: float = FRAME) -> Crowd:
    """Two CPUs at one range of an order. Fitted: how far apart they start (mean, in units), and how much the
    time to have a frame varies, which stands for all that holds a CPU up between its checks.
    frame: its median, of the time to read."""
    times = {name: Time("lognormal", UNIT / 150, 0.5) for name in STEP_OF} | {
        "look": Time("constant", UNIT * RETRY),
        "frame": Time("lognormal", UNIT * frame / 16, sigma, growth=1.0),
        "read": Time("lognormal", UNIT / 16, 0.5, growth=1.0),
        "start": Time("exponential", UNIT * start),
    }
    slots, no_fails = 1 << order, (0.0,) * (order + 1)
    return Crowd(FORMS["merged"], 2, 1 | slots, slots, slots, 1.0, 0.0, 0.0, no_fails, 0.0, times)


def sample_shares(
    order: int, start: float, sigma: float, lanes: int = LANES, frame: float = FRAME, seed: int = 1
) -> Shares:
    """What the lanes of a crowd give."""
    return sampled_shares(Lanes(crowd(order, start, sigma, frame), seed, np.arange(lanes)).run())


SIZES = {"64kB": 4, "16-128kB": 5}
"""How the name of a recording begins, and the order of its folios."""
HELD = (
    ("earlier", "earlier", FRAME),
    ("first", "first", FRAME),
    ("", "", FRAME),
    ("first", "first-noinit", NOT_CLEARED),
)
"""Kind of the recording that is fitted, kind of those it is held against, and their time to have a frame."""

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


def kind(name: str) -> str:
    """Between the size and the number of the boot in a recording's name: ``earlier``, ``first`` and so on."""
    return name.partition("kB-")[2].rpartition("boot")[0].rstrip("-")


def alike(
    every: dict[tuple[str, str], list[Phase]], size: str, its_kind: str
) -> dict[tuple[str, str], list[Shares]]:
    """Of recordings of that size (``64kB``) and kind."""
    return {
        (kernel, name): of_phases(phases)
        for (kernel, name), phases in every.items()
        if name.startswith(size) and kind(name) == its_kind
    }


def held_out(
    every: dict[tuple[str, str], list[Phase]], one: tuple[str, str], size: str, its_kind: str
) -> list[Shares]:
    """The phases of a size and kind of all recordings but one."""
    return [shares for name, its in alike(every, size, its_kind).items() if name != one for shares in its]


def main() -> int:
    """Prints what was recorded, and what is sampled with the times fitted on each recording of 64 kB."""
    every = recordings()
    print("| kernel | recording | phase | checks | -EEXIST % | -ENOENT % | failed second checks a folio % |")
    print("|---|---|---|---|---|---|---|")
    for (kernel, name), phases in every.items():
        for phase_name, shares in zip(PHASES, of_phases(phases), strict=True):
            print(f"| {kernel} | {name} | {phase_name} | {shares.checks:,} | {_percent(shares)} |")
    sampled = grid()
    print("\n| fitted on | held against | start | sigma | size | -EEXIST % | -ENOENT % | second checks % |")
    print("|---|---|---|---|---|---|---|---|")
    for fitted, held, frame in HELD:
        for one, its in alike(every, "64kB", fitted).items():
            start, sigma = fit(sum(its[1:], its[0]), sampled)
            for size, order in SIZES.items():
                others = held_out(every, one, size, held)
                if not others:
                    continue
                found = sample_shares(order, start, sigma, frame=frame)
                inside = within(found, others)
                cells = [
                    f"{100 * share:.2f}{'' if yes else ' (outside)'}"
                    for share, yes in zip(found.three, inside, strict=True)
                ]
                print(
                    f"| {' '.join(one)} | {held or 'busy'} | {start:.4f} | {sigma:.2f} | {4 << order} kB "
                    f"| {' | '.join(cells)} |"
                )
    return 0


def _percent(shares: Shares) -> str:
    return " | ".join(f"{100 * share:.2f}" for share in shares.three)


if __name__ == "__main__":
    sys.exit(main())
