"""The run of a sweep: every candidate on every workload, stored as it goes, resumed where it stopped."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxswap.config import Config, WorkloadChoice, format_size
from jaxswap.errors import InputError
from jaxswap.machine import COUNTERS, Lane, lane_bytes, replay_lanes
from jaxswap.machine.kept import Keeper
from jaxswap.machine.memory import free_on, lanes_that_fit
from jaxswap.policy import Policy
from jaxswap.sweep.finished import Sweep, read_sweep
from jaxswap.sweep.footprint import footprint
from jaxswap.sweep.manifest import manifest_of
from jaxswap.sweep.progress import progress
from jaxswap.sweep.result import WorkloadResult, joined
from jaxswap.sweep.shards import WHOLE, Shard
from jaxswap.sweep.space import Candidate, candidates
from jaxswap.sweep.store import Store, open_store
from jaxswap.workload import Workload, read_workload

RUNS = Path("runs")
"""Where run directories are made when neither the config nor the command names one."""
BLOCK = 64
"""Most candidates that are replayed, and kept, together on a CPU."""
WIDE_BLOCK = 8192
"""The same elsewhere, where lanes go in lock step."""


@dataclass(frozen=True)
class Job:
    """A workload to replay, under its limit and with its swap device; sizes in bytes."""

    choice: WorkloadChoice
    workload: Workload
    footprint: int
    limit: int
    swap: int

    def about(self) -> dict[str, Any]:
        """What the manifest says of the workload."""
        return {
            "trace": self.choice.path.name,
            "operations": len(self.workload),
            "accesses": self.workload.accesses,
            "footprint": self.footprint,
            "limit": self.limit,
            "swap": self.swap,
        }

    def lanes(self, chosen: Sequence[Candidate], common: Lane) -> list[Lane]:
        """Lanes of some candidates. common: what the lanes of all have."""
        cgroups = dict(self.choice.limit.cgroups)
        limit = None if cgroups else self.limit
        common = replace(common, limits=cgroups)
        return [candidate.lane(common, limit, self.swap) for candidate in chosen]


class BrokenError(Exception):
    """A workload cannot be replayed; a disk that is full is another matter, and ends the sweep."""


@contextlib.contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (InputError, jax.errors.JaxRuntimeError) as error:
        raise BrokenError(str(error).splitlines()[0]) from error


@dataclass(frozen=True)
class Ran:
    """A run's directory, and why each workload failed that did."""

    folder: Path
    failed: Mapping[str, str]


def run_sweep(config: Config, command: Sequence[str]) -> Sweep:
    """Run a sweep, or the part of it that its directory does not hold yet.

    A workload that fails while it is replayed is left out: Sweep.failed. Raises InputError before anything is
    replayed if a workload cannot run under its limit, and after it if the OOM killer ended the reference.
    """
    ran = run_shard(config, command, WHOLE)
    return read_sweep(ran.folder, ran.failed)


def run_shard(config: Config, command: Sequence[str], shard: Shard) -> Ran:
    """Run a shard of a sweep, or what its directory does not hold of it yet.

    A workload that fails is said on stderr, and the others go on. command: as manifest_of takes it. Raises
    InputError before anything is replayed if a workload cannot run under its limit, or if there are fewer
    candidates than shards; after it if every workload failed.
    """
    jobs = [job_of(config, choice) for choice in config.workloads]
    every, _ = candidates(config)
    if shard.count > len(every):
        raise InputError(f"--shard {shard}: there are {len(every)} candidates; take at most as many shards")
    share = [every[row] for row in shard.rows(len(every))]
    about = {job.choice.name: job.about() for job in jobs}
    manifest = manifest_of(config, command, about, len(every), shard)
    name = f"{config.name}-{manifest['key'][:8]}"
    if shard != WHOLE:
        name += f"-{shard.number}of{shard.count}"
    folder = config.out or RUNS / name
    with open_store(folder, manifest) as store:
        done = [store.read(job.choice.name, share) is not None for job in jobs]
        if not all(done):
            store.begin()
        failed: dict[str, str] = {}
        for number, (job, is_done) in enumerate(zip(jobs, done, strict=True), 1):
            name, position = job.choice.name, f"{number}/{len(jobs)}"
            if is_done:
                store.forget_parts(name)
                continue
            try:
                _replay(config, job, share, store, position)
            except BrokenError as error:
                failed[name] = str(error)
                print(f"{position} {name} failed: {failed[name]}", file=sys.stderr, flush=True)
    if len(failed) == len(jobs):
        raise InputError("; ".join(f"{name}: {why}" for name, why in failed.items()))
    return Ran(folder, failed)


def job_of(config: Config, choice: WorkloadChoice) -> Job:
    """A workload of a config, read. Raises InputError if it cannot run under its limit."""
    workload = read_workload(choice.path)
    if choice.region is not None:
        workload = workload.advised(choice.region)
    if not workload.accesses:
        raise InputError(f"{choice.path}: has no access; a sweep needs TOUCH, READ or ZERO operations")
    size = footprint(workload)
    limit, swap = choice.limit.of(size), config.swap_of(size)
    if choice.limit.cgroups:  # which of them a page is charged to, the footprint does not say
        return Job(choice, workload, size, limit, swap)
    where = f"{config.path}: {choice.table}.{choice.name}.limit: {choice.limit}"
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
    return Job(choice, workload, size, limit, swap)


def _replay(config: Config, job: Job, share: Sequence[Candidate], store: Store, position: str) -> None:
    """Replay a workload's candidates, block by block, and write their rows; what is kept is not replayed."""
    name, blocks = job.choice.name, blocks_of(len(share), _at_once(config, job, share, position))
    parts, seconds = [], 0.0
    with progress(name, position) as report:
        for number, rows in enumerate(blocks):
            chosen = share[rows.start : rows.stop]
            kept = store.read_part(name, chosen, rows)
            if kept is None:
                keeper = store.checkpoint(name, chosen, rows)
                shared = share_of(report, number, len(blocks))
                part = replay_block(
                    config, job, chosen, len(blocks[0]), shared, keeper, heuristics=config.rules
                )
                took = keeper.seconds
                store.write_part(part, chosen, rows, took)
                keeper.remove()
            else:
                part, took = kept
            parts.append((rows, part))
            seconds += took
    store.write(joined(parts), share, seconds)


def _at_once(config: Config, job: Job, share: Sequence[Candidate], position: str) -> int:
    """How many candidates are replayed together: as many as fit in memory. Says so on stderr."""
    devices = jax.local_devices()
    with _broken():
        each = lane_bytes(job.workload, job.lanes(share[:1], config.lane)[0], config.kernel, config.rules)
    free = free_on(devices)
    most = min(BLOCK if devices[0].platform == "cpu" else WIDE_BLOCK, len(share))
    most = lanes_that_fit(each, free, most)
    known = "unknown" if free is None else f"{free / 2**30:.1f} GiB"
    print(
        f"{position} {job.choice.name}: {each / 2**20:.2f} MiB a candidate, {most} of {len(share)} at once: "
        f"{each * most / 2**20:.0f} MiB, free: {known}",
        file=sys.stderr,
        flush=True,
    )
    return most


def blocks_of(count: int, most: int) -> list[range]:
    """The rows of `count` candidates in blocks of about the same length, at most `most`."""
    length = -(-count // -(-count // most))
    return [range(start, min(start + length, count)) for start in range(0, count, length)]


def share_of(report: Callable[[int, int], None], number: int, count: int) -> Callable[[int, int], None]:
    """Progress of one of `count` blocks of about the same work as progress of all of them."""
    return lambda done, total: report(done + number * total, count * total)


def replay_block(
    config: Config,
    job: Job,
    chosen: Sequence[Candidate],
    length: int,
    report: Callable[[int, int], None],
    keeper: Keeper | None = None,
    beginning: float = 1.0,
    heuristics: Sequence[Policy] = (),
) -> WorkloadResult:
    """The rows of some candidates, the last repeated up to `length`.

    beginning: share of the workload's accesses, its first. heuristics: that the program has besides those of
    the candidates, so that blocks of different ones have one.
    """
    lanes = job.lanes(chosen, config.lane)
    lanes += lanes[-1:] * (length - len(lanes))
    with _broken():
        replayed = replay_lanes(
            job.workload,
            lanes,
            profile=config.kernel,
            progress=report,
            keeper=keeper,
            share=beginning,
            heuristics=heuristics,
        )
    counters = np.asarray(replayed.counters, np.int64)[: len(chosen)]
    return WorkloadResult(
        name=job.choice.name,
        accesses=int(counters[0, COUNTERS.index("accesses")]),
        operations=len(job.workload),
        footprint=job.footprint,
        limit=job.limit,
        swap=job.swap,
        names=COUNTERS,
        counters=counters,
        oom=np.asarray(replayed.oom, bool)[: len(chosen)],
    )
