"""What a report of a search for heuristics is of: candidates on training and on held-out workloads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from jaxswap.report.provenance import said
from jaxswap.sweep.objective import AXES
from jaxswap.sweep.result import WorkloadResult, measured
from jaxswap.sweep.space import Candidate
from jaxswap.tune.compare import Comparison, compare
from jaxswap.tune.result import Tuned

FORESEES = "knows the future"


@dataclass(frozen=True)
class About:
    """A workload. regime: under which conditions it ran; real: recorded from a program; unit: what it is a
    draw of, the same for one program under several limits."""

    regime: str
    real: bool
    unit: str


@dataclass(frozen=True)
class Evaluated:
    """Candidates on workloads; the first candidate is the reference."""

    candidates: Sequence[Candidate]
    results: Sequence[WorkloadResult]

    def measured(
        self, among: Sequence[int] | None = None
    ) -> dict[str, Float64[np.ndarray, "workloads lanes"]]:
        """Every metric per 1,000 accesses, of all workloads or of those `among`."""
        return measured(self.results if among is None else [self.results[i] for i in among])


@dataclass(frozen=True)
class Search:
    """What a report is of. said: where it comes from. about: of every workload. order: candidates of `train`,
    best first. In held_out the `shown` candidates after the reference are there for orientation; the others
    are the finalists, best on the training workloads first.
    """

    folder: Path
    said: Sequence[str]
    train: Evaluated
    held_out: Evaluated
    order: Int64[np.ndarray, " lanes"]
    shown: int
    about: Mapping[str, About]
    seed: int

    @property
    def winner(self) -> int:
        """The finalist that was best on the training workloads, of held_out. It is chosen by these alone."""
        return 1 + self.shown

    def role(self, candidate: int) -> str:
        """What a candidate of held_out is there for; the reference and those shown are the same of train."""
        if candidate == 0:
            return "kernel's rule"
        if candidate <= self.shown:
            return FORESEES if self.held_out.candidates[candidate].foresees else "shown"
        return f"#{candidate - self.shown}"

    def replayed(self, candidate: int, among: Sequence[int]) -> bool:
        """Whether a candidate of held_out was replayed on all of some workloads; what knows the accesses to
        come is not where there are several processes, CPUs or cgroups."""
        return all(self.held_out.results[i].counter("accesses")[candidate] for i in among)

    def groups(self) -> dict[tuple[str, bool], list[int]]:
        """Workloads of held_out by (regime, real)."""
        found: dict[tuple[str, bool], list[int]] = {}
        for index, result in enumerate(self.held_out.results):
            about = self.about[result.name]
            found.setdefault((about.regime, about.real), []).append(index)
        return found

    def compared(self, candidate: int, among: Sequence[int]) -> Comparison:
        """A candidate of held_out held to the reference over some of its workloads."""
        units = [self.about[self.held_out.results[i].name].unit for i in among]
        measured = self.held_out.measured(among)
        return compare({name: measured[name] for name in AXES}, candidate, 0, units, self.seed)


def group_name(group: tuple[str, bool]) -> str:
    regime, real = group
    return f"{regime}, {'recorded programs' if real else 'synthetic'}"


def search_of(tuned: Tuned) -> Search:
    """What the report of a finished search is of. Workloads of one trace are draws of the same unit."""
    manifest, config = tuned.manifest, tuned.manifest["config"]
    lru = " and ".join(sorted({one["lru"] for one in config["workloads"].values()}))
    own = [f"{name} from {one['file']} {one['sha256'][:12]}" for name, one in config["own_policies"].items()]
    part = [] if config["share"] == 1 else [f"the first {config['share']:.0%} of every workload's accesses"]
    model = (
        f"model {manifest['model']}",
        f"kernel profile {manifest['kernel']}, {lru} LRU",
        f"seed {manifest['seed']}",
        *own,
        *part,
    )
    return Search(
        folder=tuned.folder,
        said=said(model, manifest["versions"], manifest["git"], manifest["device"], manifest["command"]),
        train=Evaluated(tuned.train.candidates, tuned.train.results),
        held_out=Evaluated(tuned.held_out.candidates, tuned.held_out.results),
        order=tuned.ranking().order,
        shown=tuned.shown,
        about={
            name: About(one["regime"], one["real"], one["trace"])
            for name, one in manifest["workloads"].items()
        },
        seed=manifest["seed"],
    )
