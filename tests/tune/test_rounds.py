"""The search around the replays: rounds, halving, shapes, what is kept, what is held out."""

import itertools
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxswap.cli import main
from jaxswap.errors import InputError
from jaxswap.machine import Lane
from jaxswap.machine.replay import Progress
from jaxswap.policy.linear import WEIGHTS
from jaxswap.sweep import run
from jaxswap.tune import rounds
from jaxswap.tune.config import load_tune
from jaxswap.tune.harvest import Cases
from jaxswap.tune.result import Tuned, read_tuned
from jaxswap.tune.rounds import run_tune
from jaxswap.tune.table import from_parquet
from jaxswap.workload import Workload
from tests.sweep.fake import FakeReplay, fake_lane_bytes

RULE = """
from jaxswap.policy import Param, Policy, offer

def decide(params, memory, seen):
    return offer(seen.candidates, memory)

mine = Policy("mine", "as the kernel", decide, params=(Param("level", 1, 0, 99, "of nothing"),))
"""
CONFIG = """
objective = "major_faults"
finalists = 3
shown = ["never"]
[space]
sizes = [16, 32]
masks = ["16 32"]
[policies]
cap = { order = [2, 3] }
backoff = { limit = { from = 1, to = 14 } }
mine = { file = "mine.py", level = { from = 1, to = 64, log = true } }

[[search]]
method = "exhaustive"
policies = ["cap"]
[[search]]
method = "sobol"
policies = ["backoff", "mine"]
candidates = 8
rounds = 2
halving = 2
shortest = 0.25
[[search]]
method = "es"
policies = ["mine"]
candidates = 4
rounds = 2

[quick]
candidates = 2
rounds = 1
finalists = 1
train = ["a"]
share = 0.5

[train]
a = { trace = "one.t", limit = "50%", regime = "limit" }
b = { trace = "two.t", limit = "50%", regime = "limit" }
[held_out]
c = { trace = "three.t", limit = "50%", regime = "limit" }
d = { trace = "two.t", limit = "60%", regime = "other", swap = "90%", real = true }
"""


def written(folder: Path) -> Path:
    """The config, with what it names beside it."""
    for name, pages in (("one", 1024), ("two", 512), ("three", 768)):
        (folder / f"{name}.t").write_text(f"REGION {pages} plain\nFILL 0 {pages}\nREADN 0 {pages}\n")
    (folder / "mine.py").write_text(RULE)
    path = folder / "search.toml"
    path.write_text(CONFIG)
    return path


@dataclass(frozen=True)
class Done:
    """`jaxswap tune` of the config that ran through, and its replays."""

    config: Path
    tuned: Tuned
    fake: FakeReplay


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    config, fake = written(tmp_path_factory.mktemp("done")), FakeReplay()
    with mock.patch.object(run, "replay_lanes", fake), mock.patch.object(run, "lane_bytes", fake_lane_bytes):
        return Done(config, read_tuned(told(config)), fake)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path)


def tuned(config: Path, *overrides: str, out: str = "out") -> Tuned:
    """The search of a config, without its report."""
    loaded = replace(load_tune(config, overrides), out=config.parent / out)
    return run_tune(loaded, ["jaxswap", "tune", str(config)])


def told(config: Path, *more: str, out: str = "out") -> Path:
    """The directory of `jaxswap tune`."""
    folder = config.parent / out
    assert main(["tune", str(config), "--out", str(folder), *more]) == 0
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a search but its times, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"times.json", ".lock"}
    }


def test_the_files_of_a_search(done: Done) -> None:
    found = files_of(done.tuned.folder)
    of_rounds = {f"rounds/{number:02}.parquet" for number in range(6)}
    assert {name for name in found if not name.startswith("figures/")} == {
        "manifest.json",
        "report.txt",
        "results.md",
        "train.parquet",
        "held_out.parquet",
        *of_rounds,
    }
    assert b"Held out: other, recorded programs" in found["report.txt"]


def test_the_tables(done: Done) -> None:
    found = done.tuned
    for table in (found.train, found.held_out):
        assert [(one.mthp, one.policy.name) for one in table.candidates[:2]] == [
            ("16 32", "kernel"),
            ("16 32", "never"),
        ]
    assert [one.name for one in found.train.results] == ["a", "b"]
    assert [one.name for one in found.held_out.results] == ["c", "d"]
    scores = found.train.measured()["major_faults"].mean(axis=0)
    assert (np.diff(scores[2:]) >= 0).all() and len(set(found.train.candidates)) == len(scores)
    finalists = [found.held_out.candidates[i] for i in found.finalists]
    ranked = list(found.train.candidates[2:])
    assert finalists[:3] == ranked[:3]
    assert {one.policy.name for one in finalists} == {one.policy.name for one in ranked}
    assert [ranked.index(one) for one in finalists] == sorted(ranked.index(one) for one in finalists)
    assert found.workload("d").real and found.workload("d").regime == "other"


def rows_of(done: Done, number: int) -> list[dict]:
    return pq.read_table(done.tuned.folder / "rounds" / f"{number:02}.parquet").to_pylist()


@pytest.mark.parametrize("number", [2, 3])
def test_halving_keeps_the_best_of_each_beginning(done: Done, number: int) -> None:
    rows, survivors = rows_of(done, number), set(range(8))
    for share, count in ((0.25, 8), (0.5, 4), (1.0, 2)):
        scores: dict[int, float] = dict.fromkeys(survivors, 0)
        for row in rows:
            if row["share"] == share:
                scores[row["candidate"]] += row["per_1000/major_faults"]
                assert row["accesses"] == {"a": 2048, "b": 1024}[row["workload"]] * share
        assert set(scores) == survivors and len(scores) == count
        survivors = set(sorted(scores, key=lambda which: scores[which])[: count // 2])


def test_rounds_try_what_was_not_seen(done: Done) -> None:
    tried = [
        {(row["mthp"], row["policy"], row["params"]) for row in rows_of(done, number)} for number in range(4)
    ]
    assert [len(one) for one in tried] == [2, 2, 8, 8]
    assert len(set.union(*tried)) == sum(map(len, tried))


def test_replays_have_one_shape_and_the_same_heuristics(done: Done) -> None:
    assert len(done.fake.shapes) > 10
    lanes, rules = {lanes for lanes, _ in done.fake.shapes}, {rules for _, rules in done.fake.shapes}
    assert lanes == {8} and len(rules) == 1
    assert {"mine", "backoff", "cap", "never"} <= set(*rules)


def test_nothing_is_replayed_twice(done: Done, fake: FakeReplay) -> None:
    before = files_of(done.tuned.folder)
    assert told(done.config) == done.tuned.folder
    assert fake.calls == [] and files_of(done.tuned.folder) == before


def test_quick_is_smaller_and_apart(config: Path, fake: FakeReplay, capsys: pytest.CaptureFixture) -> None:
    found = read_tuned(told(config, "--quick"))
    assert [one.name for one in found.train.results] == ["a"]
    assert found.train.results[0].accesses == 1024
    assert [one.name for one in found.held_out.results] == ["c", "d"]
    said = (found.folder / "report.txt").read_text()
    assert "the first 50% of every workload's accesses" in said and "--quick" in said
    capsys.readouterr()
    assert main(["tune", str(config), "--out", str(found.folder)]) == 2
    assert "holds another run" in capsys.readouterr().err


FIT = """search=[
  {method="fit", labels=["a"]},
  {method="es", policies=["linear"], candidates=4, rounds=2},
  {method="neighbours", policies=["linear", "backoff"]}
]"""
STEPS = ("policies.linear={bias={from=-9,to=9},room=[0,2,4]}", FIT)


class FakeHarvest:
    """Stands for harvest: labels that follow a rule, by workload. calls: (workload, share)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def __call__(
        self, workload: Workload, lane: Lane, profile: str, share: float, progress: Progress
    ) -> Cases:
        assert lane.mthp == "16 32" and lane.limit is not None
        self.calls.append((workload.name, share))
        features = np.random.default_rng(len(workload.name)).integers(-8, 9, (400, len(WEIGHTS)))
        order = np.full(400, 2)
        return Cases(features.astype(np.int32), order, features @ np.arange(len(WEIGHTS)) < 3, order * 2)


@pytest.fixture
def harvested(monkeypatch: pytest.MonkeyPatch) -> FakeHarvest:
    """The fake harvest, already in place."""
    found = FakeHarvest()
    monkeypatch.setattr(rounds, "harvest", found)
    return found


def test_what_is_fitted_is_replayed_and_evolved_from(
    config: Path, fake: FakeReplay, harvested: FakeHarvest
) -> None:
    found = tuned(config, *STEPS)
    assert harvested.calls == [("one", 1)]
    first, second = (
        from_parquet(found.folder / f"rounds/0{i}.parquet", found.manifest["key"]) for i in (1, 2)
    )
    assert 2 <= len(first.candidates) <= 6
    assert {one.policy.name for one in first.candidates} == {"linear"}
    assert all(len(one.policy.params) == len(WEIGHTS) for one in first.candidates)
    assert set(first.candidates) <= set(found.train.candidates)
    # they lie outside the axes, evolution stays on them
    assert any(dict(one.policy.params)["luck"] for one in first.candidates)
    for one in second.candidates:
        given = dict(one.policy.params)
        assert (
            given.pop("bias") in range(-9, 10) and given.pop("room") in (0, 2, 4) and not any(given.values())
        )


def test_a_written_round_is_not_harvested_again(
    config: Path, fake: FakeReplay, harvested: FakeHarvest
) -> None:
    """Interrupted before the fit's round is written, its labels are made once more, and give the same."""
    whole = tuned(config, *STEPS)
    replays, folder = len(fake.calls), config.parent / "stopped"
    for after, harvests in ((3, 2), (1, 3), (4, 3)):
        fake.interrupt_after = len(fake.calls) + after
        with pytest.raises(KeyboardInterrupt):
            tuned(config, *STEPS, out="stopped")
        assert len(harvested.calls) == harvests
    fake.interrupt_after = None
    tuned(config, *STEPS, out="stopped")
    assert len(harvested.calls) == 3 and len(fake.calls) == 2 * replays
    assert files_of(folder) == files_of(whole.folder)


def test_neighbours_of_the_best_are_replayed_on_the_whole(
    config: Path, fake: FakeReplay, harvested: FakeHarvest
) -> None:
    found = tuned(config, *STEPS)
    before = [from_parquet(found.folder / f"rounds/0{i}.parquet", found.manifest["key"]) for i in range(1, 5)]
    tried = set(itertools.chain(*(one.candidates for one in before[:3])))
    best = next(one for one in found.train.candidates if one in tried)
    family = next(one for one in load_tune(config, STEPS).families if one.name == "linear")
    assert list(before[3].candidates) == family.around(best)
    assert set(before[3].candidates) <= set(found.train.candidates)


def test_a_fit_that_no_order_was_tried_for_says_so(
    config: Path, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Cases(np.zeros((0, len(WEIGHTS)), np.int32), *(np.zeros(0, kind) for kind in (int, bool, int)))
    monkeypatch.setattr(rounds, "harvest", lambda *_: none)
    with pytest.raises(InputError, match="fit has nothing to learn from: no order was tried at swap-in"):
        tuned(config, *STEPS)


def test_quick_leaves_out_methods_and_what_is_shown(
    config: Path, fake: FakeReplay, harvested: FakeHarvest
) -> None:
    changes = ('quick.methods=["es"]', 'quick.shown=["cap:order=2"]')
    quick = load_tune(config, [*STEPS, *changes], quick=True)
    assert [step.method for step in quick.steps] == ["es"]
    assert [str(one) for one in quick.shown] == ["cap order=2"]
    assert len(load_tune(config, [*STEPS, *changes]).steps) == 3
    part = replace(load_tune(config, STEPS, quick=True), out=config.parent / "quick")
    run_tune(part, ["jaxswap"])
    assert harvested.calls == [("one", 0.5)]


def test_what_knows_the_future_is_replayed_apart_where_it_can_be(config: Path, fake: FakeReplay) -> None:
    (config.parent / "forks.t").write_text("REGION 768 plain\nFILL 0 768\nFORK 1\nREADN 0 768\n")
    found = tuned(config, 'shown=["clairvoyant"]', "held_out.c.trace=forks.t")
    assert {lanes for lanes, rules in fake.shapes if rules} == {8}
    assert {lanes for lanes, rules in fake.shapes if not rules} == {1}
    assert not any("clairvoyant" in rules for _, rules in fake.shapes)
    accesses = {one.name: one.counter("accesses")[:3].tolist() for one in found.held_out.results}
    assert accesses["c"] == [1536, 0, 1536] and accesses["d"][0] == accesses["d"][1] > 0


def test_several_objectives_give_fronts(config: Path, fake: FakeReplay) -> None:
    goal = ('objective=["major_faults", "useless_pages"]', 'constraints=["pages_in <= 600"]')
    found = tuned(config, *goal)
    means = {name: values.mean(axis=0) for name, values in found.train.measured().items()}
    pages = found.train.measured()["pages_in"]
    keeps = (pages <= 600).all(axis=0)
    assert 2 < keeps.sum() < len(keeps)
    points = np.stack([means["major_faults"], means["useless_pages"]], axis=1)

    def less(one: int, other: int) -> bool:
        return bool((points[one] <= points[other]).all() and (points[one] < points[other]).any())

    winner = found.train.candidates.index(found.held_out.candidates[found.finalists[0]])
    tried = range(2, len(points))
    assert keeps[winner] and not any(less(i, winner) for i in tried if keeps[i])
    assert (np.diff(keeps[2:].astype(int)) <= 0).all()
    assert [bool(one) for one in found.ranking().beats] == [
        bool(keeps[i]) and less(i, 0) for i in range(len(points))
    ]


def test_seeds_draw_others(done: Done, fake: FakeReplay) -> None:
    assert set(done.tuned.train.candidates) != set(tuned(done.config, "seed=1", out="seed").train.candidates)


def test_interrupted_again_and_again(done: Done, fake: FakeReplay) -> None:
    """At its first replay, then at the second, the fifth ... of those that are left."""
    folder = done.config.parent / "stopped"
    for after in (0, 1, 4, 7, 9):
        fake.interrupt_after = len(fake.calls) + after
        assert main(["tune", str(done.config), "--out", str(folder)]) == 130
        assert not (folder / "report.txt").exists()
    fake.interrupt_after = None
    assert files_of(told(done.config, out="stopped")) == files_of(done.tuned.folder)
    assert len(fake.calls) == len(done.fake.calls)


def test_killed_again_and_again(done: Done) -> None:
    folder, moments = done.config.parent / "killed", "3,9,14,20"
    process = subprocess.run(
        [sys.executable, "-m", "tests.sweep.killed", moments, "0", "tune", done.config, "--out", folder],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("killed\n") == 4
    assert files_of(folder) == files_of(done.tuned.folder)
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_a_reference_that_is_killed_ends_the_search(
    config: Path, fake: FakeReplay, capsys: pytest.CaptureFixture
) -> None:
    fake.killed = frozenset({"16 32"})
    assert main(["tune", str(config), "--out", str(config.parent / "out")]) == 2
    assert "search.toml: a: the OOM killer ended the reference (16 32 / kernel)" in capsys.readouterr().err
    assert not (config.parent / "out" / "train.parquet").exists()


def test_a_search_of_nothing_says_so(config: Path, fake: FakeReplay, capsys: pytest.CaptureFixture) -> None:
    steps = 'search=[{method="exhaustive",policies=["kernel"]}]'
    assert main(["tune", str(config), "--out", str(config.parent / "out"), "--set", steps]) == 2
    assert "search: tried nothing besides the reference" in capsys.readouterr().err


def test_blocks_are_joined(done: Done, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "BLOCK", 2)
    parts = tuned(done.config, out="parts")
    assert {lanes for lanes, _ in fake.shapes} == {2}
    assert (parts.folder / "train.parquet").read_bytes() == (done.tuned.folder / "train.parquet").read_bytes()
