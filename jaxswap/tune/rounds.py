"""The search: rounds of replays kept as they come, then the best of them on the held-out workloads."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int64

from jaxswap.config import PolicyChoice
from jaxswap.errors import InputError
from jaxswap.machine.memory import free_on, lanes_that_fit
from jaxswap.machine.replay import goes_by_page
from jaxswap.sweep import run
from jaxswap.sweep.manifest import made_by
from jaxswap.sweep.progress import progress
from jaxswap.sweep.result import WorkloadResult, joined, measured
from jaxswap.sweep.space import Candidate
from jaxswap.sweep.store import Store, open_store
from jaxswap.tune import result as files
from jaxswap.tune.config import Step, TuneConfig, TuneWorkload
from jaxswap.tune.fit import FITTED
from jaxswap.tune.fit import proposals as fitted
from jaxswap.tune.harvest import Cases, harvest
from jaxswap.tune.propose import Rounds, proposals
from jaxswap.tune.result import Tuned, read_tuned
from jaxswap.tune.space import Family
from jaxswap.tune.table import Evaluated, Level, from_parquet
from jaxswap.workload.files import make_folder, write_atomic

BLOCK = 16
"""Lanes of every replay on a CPU: the same in all rounds, so that a workload has one compiled program."""
WIDE_BLOCK = 8192
"""Most lanes of a replay elsewhere, where they go in lock step."""

Placed = tuple[TuneWorkload, run.Job]


def run_tune(config: TuneConfig, command: Sequence[str]) -> Tuned:
    """Run a search, or the part of it that its directory does not hold yet.

    command: that makes these very results. Raises InputError before anything is replayed if a workload cannot
    run under its limit, or a fit cannot learn from it; later if one cannot be replayed, if a fit finds no
    order that was tried, or if the OOM killer ends the reference.
    """
    jobs = [(one, run.job_of(one.setting, one.choice)) for one in config.workloads]
    about = {
        one.choice.name: {"set": one.choice.table, "regime": one.regime, "real": one.real, **job.about()}
        for one, job in jobs
    }
    labelled = {
        place: _labelled(config, step, jobs)
        for place, step in enumerate(config.steps)
        if step.method == "fit"
    }
    paths = {one.choice.name: one.choice.path for one in config.workloads}
    manifest = made_by(
        command,
        config.path,
        config.as_dict(),
        about,
        paths,
        {"candidates": sum(step.candidates * step.rounds for step in config.steps), "shard": None}
        | {"tune": {"shown": len(config.shown)}},
        ("tune",),
        ("scipy", "optax", "evosax"),
    )
    folder = config.out or run.RUNS / f"{config.name}-{manifest['key'][:8]}"
    with open_store(folder, manifest) as store:
        store.begin()
        _Search(config, store, jobs, labelled).search()
    return read_tuned(folder)


def _labelled(config: TuneConfig, step: Step, jobs: Sequence[Placed]) -> list[Placed]:
    """The training workloads that a fit learns from."""
    where, several = f"{config.path}: search: fit", "several processes, CPUs or cgroups"
    if not config.reference:
        raise InputError(f"{where} needs an order to learn of; give the reference a size")
    asked, found = step.labels, []
    for one, job in jobs:
        if one.held_out or (asked is not None and one.choice.name not in asked):
            continue
        if not goes_by_page(job.workload, one.setting.lane, config.kernel):
            found.append((one, job))
        elif asked is not None:
            raise InputError(f"{where}: labels: {one.choice.name} has {several}; leave it out there")
    if not found:
        raise InputError(
            f"{where} has nothing to learn from: every training workload has {several}; "
            "add one with one of each, or leave the step out"
        )
    return found


class _Search:
    """A search under way: what was replayed so far, by share, setting and workload."""

    def __init__(
        self,
        config: TuneConfig,
        store: Store,
        jobs: Sequence[Placed],
        labelled: Mapping[int, Sequence[Placed]],
    ) -> None:
        self.config, self.store, self.labelled = config, store, labelled
        self.sets = {
            held_out: [(one, job) for one, job in jobs if one.held_out == held_out]
            for held_out in (False, True)
        }
        self.reference = Candidate(config.reference, PolicyChoice("kernel"))
        self.beside = [Candidate(config.reference, choice) for choice in config.shown]
        self.known: dict[tuple[float, str, Candidate], tuple[Int64[np.ndarray, " counters"], bool]] = {}
        self.about: dict[tuple[float, str], WorkloadResult] = {}
        self.full: dict[Candidate, None] = {}
        most = max([len(self.beside) + 1, config.finalists, *(step.candidates for step in config.steps)])
        self.most = 1 << (most - 1).bit_length()
        self.lengths: dict[str, int] = {}

    def search(self) -> None:
        config = self.config
        shares = sorted({share for step in config.steps for share in step.shares})
        count = sum(step.rounds for step in config.steps)
        self._round(0, count, "reference", [self.reference, *self.beside], shares, len(self.beside) + 1)
        seen, number = {self.reference, *self.beside}, 0
        for place, step in enumerate(config.steps):
            if step.method == "fit":
                rounds = self._fit(step, number + 1, f"round {number + 1}/{count} fit", self.labelled[place])
            else:
                rounds = proposals(step, [config.seed, place], seen, self._best)
            last = number + step.rounds
            with contextlib.suppress(StopIteration):
                candidates = next(rounds)
                while True:
                    number += 1
                    order = self._round(number, count, step.method, candidates, step.shares, step.halving)
                    seen.update(candidates)
                    candidates = rounds.send(order)
            number = last
        self._finish()

    def _fit(self, step: Step, number: int, said: str, workloads: Sequence[Placed]) -> Rounds:
        """The linear rule with the reference's sizes, fitted to labels of exact replays; those of the round,
        if it is written."""
        path = self._path(number)
        if os.path.exists(path):
            yield list(from_parquet(path, self.store.key).candidates)
            return
        cases = [
            self._harvest(f"{said}, {place}/{len(workloads)}", one, job)
            for place, (one, job) in enumerate(workloads, 1)
        ]
        features = np.concatenate([one.features for one in cases])
        good = np.concatenate([one.good() for one in cases])
        if not len(good):
            raise InputError(
                f"{self.config.path}: search: fit has nothing to learn from: no order was tried at swap-in; "
                "lower the limits of the training workloads"
            )
        yield [
            Candidate(self.config.reference, PolicyChoice(FITTED, tuple(params.items())))
            for params in fitted(features, good)[: step.candidates]
        ]

    def _harvest(self, position: str, one: TuneWorkload, job: run.Job) -> Cases:
        name, start = one.choice.name, time.monotonic()
        lane = job.lanes([self.reference], one.setting.lane)[0]
        try:
            with progress(f"{name}, labels", position) as report:
                found = harvest(job.workload, lane, self.config.kernel, self.config.share, report)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        self.store.write_times({f"{position} {name}, labels": round(time.monotonic() - start, 2)})
        return found

    def _best(self, families: Sequence[Family]) -> Candidate | None:
        """The best setting so far that one of the families has."""
        of_these = (one for one in self._found() if any(family.has(one) for family in families))
        return next(of_these, None)

    def _found(self) -> list[Candidate]:
        """What was replayed on all of the training workloads, best first; without the reference and what is
        shown, which take no part in the search."""
        candidates = [one for one in self.full if one not in (self.reference, *self.beside)]
        if not candidates:
            return []
        results = self._results(candidates, self.config.share, held_out=False)
        return [candidates[index] for index in self._order(candidates, self.config.share, results)]

    def _path(self, number: int) -> Path:
        return self.store.folder / "rounds" / f"{number:02}.parquet"

    def _order(
        self, candidates: Sequence[Candidate], share: float, results: Sequence[WorkloadResult]
    ) -> list[int]:
        """Indices of the candidates, best first, beside the reference on the same share."""
        reference = self._results([self.reference], share, held_out=False)
        both = [
            joined([([0], one), (range(1, len(candidates) + 1), rest)])
            for one, rest in zip(reference, results, strict=True)
        ]
        found = self.config.goal.rank(measured(both), np.stack([one.oom for one in both]), 0)
        return [int(index) - 1 for index in found.order if index]

    def _results(
        self, candidates: Sequence[Candidate], share: float, held_out: bool
    ) -> tuple[WorkloadResult, ...]:
        """Of what was replayed."""
        found = []
        for one, _ in self.sets[held_out]:
            name = one.choice.name
            rows = [self.known[share, name, candidate] for candidate in candidates]
            found.append(
                replace(
                    self.about[share, name],
                    counters=np.stack([counters for counters, _ in rows]),
                    oom=np.array([oom for _, oom in rows]),
                )
            )
        return tuple(found)

    def _round(
        self,
        number: int,
        count: int,
        method: str,
        candidates: list[Candidate],
        shares: Sequence[float],
        halving: int,
    ) -> list[int]:
        """Replay a round on the training workloads and keep it; returns the candidates' order, best first.

        The reference's round has the reference alone on all shares but the last.
        """
        path = self._path(number)
        kept = files.read_kept(path, self.store.key, candidates)
        if kept is not None:
            self._remember(kept)
        members, levels, behind = list(range(len(candidates))), [], []
        for place, share in enumerate(shares):
            now = [0] if number == 0 and place < len(shares) - 1 else members
            said = f"round {number}/{count} {method}"
            results = self._replay(said, f"{number:02}", [candidates[i] for i in now], share, held_out=False)
            levels.append(Level(share, np.array(now, np.int64), results))
            if number == 0:
                self._check_reference(results)
                continue
            order = self._order([candidates[i] for i in now], share, results)
            members = [now[i] for i in order]
            if place < len(shares) - 1:
                go_on = max(1, len(members) // halving)
                behind = members[go_on:] + behind
                members = sorted(members[:go_on])
        self.full |= dict.fromkeys(candidates[i] for i in levels[-1].members)
        if kept is None:
            self._write(path, Evaluated(tuple(candidates), tuple(levels)))
            files.forget_parts(self.store.folder)
        return members + behind

    def _check_reference(self, results: Sequence[WorkloadResult]) -> None:
        for result in results:
            if result.oom[0]:
                raise InputError(
                    f"{self.config.path}: {result.name}: the OOM killer ended the reference "
                    f"({self.reference}); raise its limit or the swap size"
                )

    def _replay(
        self, said: str, part: str, candidates: Sequence[Candidate], share: float, held_out: bool
    ) -> tuple[WorkloadResult, ...]:
        """The results of some candidates; what was replayed before, or is kept, is not replayed again."""
        for place, (one, job) in enumerate(self.sets[held_out], 1):
            name = one.choice.name
            missing = [which for which in candidates if (share, name, which) not in self.known]
            if missing:
                path = self.store.folder / "parts" / f"{part}-{share:g}-{name}.parquet"
                kept = files.read_part(path, self.store.key, missing)
                if kept is None:
                    position = f"{said}, {place}/{len(self.sets[held_out])}"
                    kept = self._replay_workload(one, job, missing, share, position)
                    files.write_part(path, self.store.key, missing, kept)
                self._note(share, missing, kept)
        return self._results(candidates, share, held_out)

    def _replay_workload(
        self, one: TuneWorkload, job: run.Job, chosen: Sequence[Candidate], share: float, position: str
    ) -> WorkloadResult:
        """What a workload gives for some settings. Those that know the accesses to come are replayed apart,
        so that the others have the same program with them and without; where there are several processes,
        CPUs or cgroups they cannot be, and their counters stay 0, `accesses` too."""
        length, start, parts = self._length(one, job), time.monotonic(), []
        able, apart = (
            [i for i, which in enumerate(chosen) if which.foresees == foresees] for foresees in (False, True)
        )
        blocks = [(able[at : at + length], length, self.config.rules) for at in range(0, len(able), length)]
        without = apart if goes_by_page(job.workload, one.setting.lane, self.config.kernel) else []
        if apart and not without:
            blocks.append((apart, len(apart), ()))
        with progress(f"{one.choice.name}, {len(chosen)} settings", position) as report:
            for number, (rows, lanes, rules) in enumerate(blocks):
                try:
                    part = run.replay_block(
                        one.setting,
                        job,
                        [chosen[i] for i in rows],
                        lanes,
                        run.share_of(report, number, len(blocks)),
                        beginning=share,
                        heuristics=rules,
                    )
                except run.BrokenError as error:
                    raise InputError(f"{one.choice.name}: {error}") from None
                parts.append((rows, part))
        if without:
            ran = parts[0][1]
            none = np.zeros((len(without), len(ran.names)), np.int64)
            parts.append((without, replace(ran, counters=none, oom=np.zeros(len(without), bool))))
        self.store.write_times({f"{position} {one.choice.name}": round(time.monotonic() - start, 2)})
        return joined(parts)

    def _length(self, one: TuneWorkload, job: run.Job) -> int:
        """Lanes of every replay of a workload: a power of two, as many as fit in memory."""
        name = one.choice.name
        if name not in self.lengths:
            devices = jax.local_devices()
            lane = job.lanes([self.reference], one.setting.lane)[0]
            try:
                each = run.lane_bytes(job.workload, lane, self.config.kernel, self.config.rules)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            most = min(BLOCK if devices[0].platform == "cpu" else WIDE_BLOCK, self.most)
            self.lengths[name] = lanes_that_fit(each, free_on(devices), most)
        return self.lengths[name]

    def _remember(self, kept: Evaluated) -> None:
        for level in kept.levels:
            for result in level.results:
                self._note(level.share, [kept.candidates[i] for i in level.members], result)

    def _note(self, share: float, candidates: Sequence[Candidate], result: WorkloadResult) -> None:
        self.about[share, result.name] = result
        for candidate, counters, oom in zip(candidates, result.counters, result.oom, strict=True):
            self.known[share, result.name, candidate] = (counters, bool(oom))

    def _finish(self) -> None:
        """The table of all that was replayed on all of the training workloads, then the held-out one."""
        share, first, others = self.config.share, [self.reference, *self.beside], self._found()
        if not others:
            raise InputError(
                f"{self.config.path}: search: tried nothing besides the reference and what is shown; "
                "take more candidates, or leave those out of shown"
            )
        every = [*first, *others]
        results = self._results(every, share, held_out=False)
        self._write(self.store.folder / files.TRAIN, _whole(every, share, results))
        finalists = [*first, *self._finalists(others)]
        path = self.store.folder / files.HELD_OUT
        kept = files.read_kept(path, self.store.key, finalists)
        if kept is None:
            results = self._replay("held out", "held_out", finalists, share, held_out=True)
            self._check_reference(results)
            self._write(path, _whole(finalists, share, results))
        files.forget_parts(self.store.folder)

    def _finalists(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """The best, and the best of each heuristic, in order."""
        names = {one.policy.name: None for one in ranked}
        best = {next(one for one in ranked if one.policy.name == name) for name in names}
        best |= set(ranked[: self.config.finalists])
        return [one for one in ranked if one in best]

    def _write(self, path: Path, found: Evaluated) -> None:
        make_folder(path.parent, "results")
        write_atomic(path, files.to_parquet(found, self.store.key), "result")


def _whole(candidates: Sequence[Candidate], share: float, results: tuple[WorkloadResult, ...]) -> Evaluated:
    return Evaluated(tuple(candidates), (Level(share, np.arange(len(candidates)), results),))
