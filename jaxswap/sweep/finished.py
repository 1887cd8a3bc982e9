"""A finished run, read from its directory: what every report is made of."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from jaxswap.config import PolicyChoice, format_size
from jaxswap.errors import InputError
from jaxswap.sweep.manifest import read_manifest, shard_of
from jaxswap.sweep.objective import AXES, Objective, Ranking, pareto, parse_objective, rank
from jaxswap.sweep.result import WorkloadResult, from_parquet, measured
from jaxswap.sweep.shards import WHOLE
from jaxswap.sweep.space import Candidate
from jaxswap.sweep.store import result_path


@dataclass(frozen=True)
class Sweep:
    """A finished run: its directory, manifest, candidates, which of them is the reference, all results.

    failed: workloads that could not be replayed, and why; they are in no result, table or ranking.
    """

    folder: Path
    manifest: dict[str, Any]
    objective: Objective
    candidates: tuple[Candidate, ...]
    reference: int
    results: tuple[WorkloadResult, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    def measured(
        self, results: Sequence[WorkloadResult] | None = None
    ) -> dict[str, Float64[np.ndarray, "w lanes"]]:
        """Every metric over some workloads (default: all), one row a workload."""
        return measured(self.results if results is None else results)

    def ranking(self, results: Sequence[WorkloadResult] | None = None) -> Ranking:
        """The candidates ranked by the config's objective over some workloads (default: all)."""
        results = self.results if results is None else results
        oom = np.stack([result.oom for result in results])
        return rank(self.measured(results), oom, self.reference, self.objective)

    def front(self, results: Sequence[WorkloadResult] | None = None) -> Bool[np.ndarray, "lanes"]:
        """Which candidates are on the Pareto front of AXES (means over the workloads)."""
        results = self.results if results is None else results
        measured = self.measured(results)
        points = np.stack([measured[name].mean(axis=0) for name in AXES], axis=1)
        points[np.any([result.oom for result in results], axis=0)] = np.inf
        return pareto(points)


def read_sweep(folder: Path, failed: Mapping[str, str] | None = None) -> Sweep:
    """The run in a directory. failed: workloads that need not be there, and why.

    Raises InputError if it is none, is one shard or not finished, has a damaged file, or if the OOM killer
    ended the reference, so that nothing can be compared.
    """
    manifest = read_manifest(folder)
    if "tune" in manifest:
        raise InputError(f"{folder}: holds a search, not a sweep; its report.txt says what was found")
    if shard_of(manifest) != WHOLE:
        raise InputError(
            f"{folder}: is shard {manifest['shard']} of a run; join them: jaxswap merge RUN... --out DIR"
        )
    failed = failed or {}
    found = read_results(folder, manifest, without=failed)
    candidates = found[0][1]
    reference = Candidate(manifest["config"]["reference"], PolicyChoice("kernel"))
    if len(candidates) != manifest["candidates"] or reference not in candidates:
        raise InputError(
            f"{folder}: its results are not those of its manifest; remove it and give its command again: "
            f"{manifest['command']}"
        )
    at = candidates.index(reference)
    for result, _ in found:
        if result.oom[at]:
            raise InputError(
                f"{manifest['config_file']}: workloads.{result.name}.limit: the OOM killer ended the "
                f"reference ({reference}) at {format_size(result.limit)}; raise the limit or the swap size"
            )
    objective = parse_objective(manifest["config"]["objective"])
    return Sweep(folder, manifest, objective, candidates, at, tuple(result for result, _ in found), failed)


def read_results(
    folder: Path, manifest: dict[str, Any], without: Collection[str] = ()
) -> list[tuple[WorkloadResult, tuple[Candidate, ...]]]:
    """(result, candidates) of every workload but some; the candidates of all are the same.

    Raises InputError if a workload is not there yet, is damaged or has other candidates than the first.
    """
    found = []
    for name in manifest["workloads"]:
        if name in without:
            continue
        path = result_path(folder, name)
        if not os.path.exists(path):
            raise InputError(
                f"{folder}: is not finished ({name} is missing); give its command again: "
                f"{manifest['command']}"
            )
        result, candidates, _ = from_parquet(path, manifest["key"])
        if found and candidates != found[0][1]:
            raise InputError(
                f"{path}: holds other candidates than the other workloads; delete it and give the run's "
                f"command again: {manifest['command']}"
            )
        found.append((result, candidates))
    return found
