"""The run of a sweep: every candidate on every workload, stored as it goes, resumed where it stopped."""

import datetime
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

import jaxswap
from jaxswap.config import Config, WorkloadChoice, format_size
from jaxswap.errors import InputError
from jaxswap.machine import COUNTERS, model_version, replay_lanes
from jaxswap.origin import commit, device, versions
from jaxswap.sweep.footprint import footprint
from jaxswap.sweep.objective import AXES, Ranking, pareto, rank
from jaxswap.sweep.progress import progress
from jaxswap.sweep.space import Candidate, candidates
from jaxswap.sweep.store import Store, WorkloadResult, digest, open_store
from jaxswap.workload import Workload, read_workload

RUNS = Path("runs")
"""Where run directories are made when neither the config nor the command names one."""


@dataclass(frozen=True)
class Sweep:
    """A finished run: its directory, manifest, candidates, which of them is the reference, all results."""

    folder: Path
    manifest: dict[str, Any]
    config: Config
    candidates: tuple[Candidate, ...]
    reference: int
    results: tuple[WorkloadResult, ...]

    def measured(
        self, results: Sequence[WorkloadResult] | None = None
    ) -> dict[str, Float64[np.ndarray, "w lanes"]]:
        """Every metric over some workloads (default: all), one row a workload."""
        rows = [result.metrics for result in (self.results if results is None else results)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def ranking(self, results: Sequence[WorkloadResult] | None = None) -> Ranking:
        """The candidates ranked by the config's objective over some workloads (default: all)."""
        results = self.results if results is None else results
        oom = np.stack([result.oom for result in results])
        return rank(self.measured(results), oom, self.reference, self.config.objective)

    def front(self, results: Sequence[WorkloadResult] | None = None) -> Bool[np.ndarray, "lanes"]:
        """Which candidates are on the Pareto front of AXES (means over the workloads)."""
        results = self.results if results is None else results
        measured = self.measured(results)
        points = np.stack([measured[name].mean(axis=0) for name in AXES], axis=1)
        points[np.any([result.oom for result in results], axis=0)] = np.inf
        return pareto(points)


@dataclass(frozen=True)
class _Job:
    choice: WorkloadChoice
    workload: Workload
    footprint: int
    limit: int
    swap: int


def run_sweep(config: Config, command: Sequence[str]) -> Sweep:
    """Run a sweep, or the part of it that its directory does not hold yet.

    Raises InputError before anything is replayed if a workload cannot run under its limit, and after it if
    the OOM killer ended the reference.
    """
    jobs = [_job(config, choice) for choice in config.workloads]
    lanes, reference = candidates(config)
    key = run_key(config)
    folder = config.out or RUNS / f"{config.name}-{key[:8]}"
    with open_store(folder, key) as store:
        manifest = _manifest(config, command, jobs, len(lanes))
        store.write_manifest(manifest)
        results = []
        for index, job in enumerate(jobs):
            found = store.read_result(job.choice.name, COUNTERS)
            results.append(found or _replay(config, job, lanes, store, f"{index + 1}/{len(jobs)}"))
        manifest |= {
            "finished": _now(),
            "seconds": {result.name: round(result.seconds, 2) for result in results},
        }
        store.write_manifest(manifest)
    for result in results:
        if result.oom[reference]:
            raise InputError(
                f"{config.path}: workloads.{result.name}.limit: the OOM killer ended the reference "
                f"({lanes[reference]}) at {format_size(result.limit)}; raise the limit or the swap size"
            )
    return Sweep(folder, manifest, config, tuple(lanes), reference, tuple(results))


def run_key(config: Config) -> str:
    """What makes two runs the same: config, the workloads' bytes, library versions and the model's code."""
    package = Path(jaxswap.__file__).parent
    code = [
        path.read_bytes()
        for room in ("frames", "machine", "policy", "swaptable", "sweep", "workload")
        for path in sorted((package / room).glob("*.py"))
    ]
    traces = [choice.path.read_bytes() for choice in config.workloads]
    return digest(json.dumps(config.as_dict()).encode(), json.dumps(versions()).encode(), *traces, *code)


def _job(config: Config, choice: WorkloadChoice) -> _Job:
    workload = read_workload(choice.path)
    if not workload.accesses:
        raise InputError(f"{choice.path}: has no access; a sweep needs TOUCH, READ or ZERO operations")
    size = footprint(workload)
    limit, swap = choice.limit.of(size), config.swap_of(size)
    where = f"{config.path}: workloads.{choice.name}.limit: {choice.limit}"
    if limit >= size:
        raise InputError(
            f"{where} holds the whole footprint ({format_size(size)}), so nothing is swapped; lower it"
        )
    if limit < 4 * max(config.sizes) << 10:
        raise InputError(
            f"{where} of {format_size(size)} cannot hold four folios of {max(config.sizes)} kB; raise it"
        )
    if limit + swap < size:
        raise InputError(
            f"{config.path}: machine.swap: {format_size(swap)} and the limit of {format_size(limit)} "
            f'cannot hold the footprint of {choice.name} ({format_size(size)}); write "auto" or raise it'
        )
    return _Job(choice, workload, size, limit, swap)


def _replay(
    config: Config, job: _Job, lanes: Sequence[Candidate], store: Store, position: str
) -> WorkloadResult:
    with progress(job.choice.name, position) as report:
        start = time.monotonic()
        replayed = replay_lanes(
            job.workload,
            [candidate.lane(config.lane, job.limit, job.swap) for candidate in lanes],
            profile=config.kernel,
            progress=report,
        )
        seconds = time.monotonic() - start
    result = WorkloadResult(
        name=job.choice.name,
        accesses=job.workload.accesses,
        operations=len(job.workload),
        footprint=job.footprint,
        limit=job.limit,
        swap=job.swap,
        seconds=seconds,
        names=COUNTERS,
        counters=np.asarray(replayed.counters, np.int64),
        oom=np.asarray(replayed.oom, bool),
    )
    store.write_result(result, lanes)
    return result


def _manifest(config: Config, command: Sequence[str], jobs: Sequence[_Job], lanes: int) -> dict[str, Any]:
    return {
        "command": shlex.join(command),
        "model": model_version(config.kernel),
        "kernel": config.kernel,
        "seed": config.seed,
        "device": device(),
        "versions": versions(),
        "git": commit(),
        "config": config.as_dict(),
        "config_file": str(config.path),
        "candidates": lanes,
        "workloads": {
            job.choice.name: {
                "trace": job.choice.path.name,
                "operations": len(job.workload),
                "accesses": job.workload.accesses,
                "footprint": job.footprint,
                "limit": job.limit,
                "swap": job.swap,
            }
            for job in jobs
        },
        "started": _now(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
