"""A finished search, read from its directory, and the files of one under way.

manifest.json     what was run, on what, with which versions and command
rounds/NN.parquet settings of a round, on the training workloads and their beginnings; 00 is the reference
train.parquet     every setting that was replayed on all of the training workloads, best first
held_out.parquet  the finalists on the held-out workloads
parts/            of a round under way
times.json        what each took: all that equal runs differ in
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxswap.errors import InputError
from jaxswap.sweep import result as one_workload
from jaxswap.sweep.manifest import read_manifest
from jaxswap.sweep.objective import Ranking
from jaxswap.sweep.result import WorkloadResult
from jaxswap.sweep.space import Candidate
from jaxswap.tune.goal import Goal, parse_goal
from jaxswap.tune.table import Evaluated, from_parquet, to_parquet
from jaxswap.workload.files import make_folder, write_atomic

__all__ = [
    "HELD_OUT",
    "TRAIN",
    "About",
    "Tuned",
    "forget_parts",
    "read_kept",
    "read_part",
    "read_tuned",
    "to_parquet",
    "write_part",
]

TRAIN, HELD_OUT = "train.parquet", "held_out.parquet"


@dataclass(frozen=True)
class About:
    """A workload. regime: under which conditions it ran. real: recorded from a program."""

    name: str
    held_out: bool
    regime: str
    real: bool


@dataclass(frozen=True)
class Tuned:
    """A finished search. In both tables the first candidate is the reference and the next `shown` are those
    shown beside; in held_out the others are the finalists, best on the training workloads first.
    """

    folder: Path
    manifest: dict[str, Any]
    goal: Goal
    train: Evaluated
    held_out: Evaluated
    shown: int

    def workload(self, name: str) -> About:
        """What is known of a workload."""
        about = self.manifest["workloads"][name]
        return About(name, about["set"] == "held_out", about["regime"], about["real"])

    @property
    def finalists(self) -> range:
        """Indices of the finalists in held_out."""
        return range(1 + self.shown, len(self.held_out.candidates))

    def ranking(self) -> Ranking:
        """The candidates of the training table, ranked on the training workloads."""
        results = self.train.results
        return self.goal.rank(self.train.measured(), np.stack([one.oom for one in results]), 0)


def read_tuned(folder: Path) -> Tuned:
    """The search in a directory. Raises InputError if it is none, is not finished or has a damaged file."""
    manifest = read_manifest(folder)
    if "tune" not in manifest:
        raise InputError(f"{folder}: holds a sweep, not a search; name a directory of jaxswap tune")
    found = []
    for name in (TRAIN, HELD_OUT):
        path = folder / name
        if not os.path.exists(path):
            raise InputError(
                f"{folder}: is not finished ({name} is missing); "
                f"give its command again: {manifest['command']}"
            )
        found.append(from_parquet(path, manifest["key"]))
    config = manifest["config"]
    goal = parse_goal(config["objective"].split("; "), config["constraints"])
    return Tuned(folder, manifest, goal, *found, shown=manifest["tune"]["shown"])


def read_kept(path: Path, key: str, candidates: Sequence[Candidate]) -> Evaluated | None:
    """A table of these candidates, if it is written."""
    if not os.path.exists(path):
        return None
    found = from_parquet(path, key)
    _check(path, found.candidates, candidates)
    return found


def read_part(path: Path, key: str, candidates: Sequence[Candidate]) -> WorkloadResult | None:
    """What a workload gave for these candidates, if it is kept."""
    if not os.path.exists(path):
        return None
    result, found, _ = one_workload.from_parquet(path, key)
    _check(path, found, candidates)
    return result


def write_part(path: Path, key: str, candidates: Sequence[Candidate], result: WorkloadResult) -> None:
    """Keep what a workload gave until its round is written."""
    make_folder(path.parent, "results")
    write_atomic(path, one_workload.to_parquet(result, candidates, key, None), "result")


def forget_parts(folder: Path) -> None:
    """Remove what is kept of a round that is written."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder / "parts")


def _check(path: Path, found: Sequence[Candidate], wanted: Sequence[Candidate]) -> None:
    if tuple(found) != tuple(wanted):
        raise InputError(
            f"{path}: holds other candidates than this run's; delete it and give the command again"
        )
