"""The search around the replays: rounds, halving, shapes, what is kept, what is held out."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxswap.cli import main
from jaxswap.tune import rounds
from jaxswap.tune.config import load_tune
from jaxswap.tune.result import Tuned, read_tuned
from jaxswap.tune.rounds import run_tune
from tests.sweep.fake import FakeReplay

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


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, pages in (("one", 1024), ("two", 512), ("three", 768)):
        (tmp_path / f"{name}.t").write_text(f"REGION {pages} plain\nFILL 0 {pages}\nREADN 0 {pages}\n")
    (tmp_path / "mine.py").write_text(RULE)
    path = tmp_path / "search.toml"
    path.write_text(CONFIG)
    return path


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


def test_the_files_of_a_search(config: Path, fake: FakeReplay) -> None:
    names = {name for name in files_of(told(config)) if not name.startswith("figures/")}
    of_rounds = {f"rounds/{number:02}.parquet" for number in range(6)}
    assert "Held out: other, recorded programs" in (config.parent / "out" / "report.txt").read_text()
    assert names == {"manifest.json", "report.txt", "train.parquet", "held_out.parquet", *of_rounds}


def test_the_tables(config: Path, fake: FakeReplay) -> None:
    found = tuned(config)
    first = ["16 32 kernel", "16 32 never"]
    assert [str(one) for one in found.train.candidates[:2]] == first
    assert [str(one) for one in found.held_out.candidates[:2]] == first
    assert [one.name for one in found.train.results] == ["a", "b"]
    assert [one.name for one in found.held_out.results] == ["c", "d"]
    scores = found.train.measured()["major_faults"].mean(axis=0)
    assert (np.diff(scores[2:]) >= 0).all() and len(set(found.train.candidates)) == len(scores)
    finalists = [found.held_out.candidates[i] for i in found.finalists]
    ranked = list(found.train.candidates[2:])
    assert finalists[:3] == ranked[:3]
    assert {one.policy.name for one in finalists} == {"cap", "backoff", "mine"}
    assert [ranked.index(one) for one in finalists] == sorted(ranked.index(one) for one in finalists)
    assert found.workload("d").real and found.workload("d").regime == "other"


def test_halving_keeps_the_best_of_each_beginning(config: Path, fake: FakeReplay) -> None:
    folder = tuned(config).folder
    for number in (2, 3):
        table = pq.read_table(folder / "rounds" / f"{number:02}.parquet").to_pandas()
        means = table.groupby(["share", "candidate"])["per_1000/major_faults"].mean()
        survivors = set(range(8))
        for share, count in ((0.25, 8), (0.5, 4), (1.0, 2)):
            assert set(means[share].index) == survivors and len(survivors) == count
            rows = table[table.share == share]
            assert (
                rows.groupby("workload").accesses.first() == {"a": 1024 * share * 2, "b": 1024 * share}
            ).all()
            survivors = set(means[share].nsmallest(count // 2).index)


def test_every_round_tries_what_was_not_seen(config: Path, fake: FakeReplay) -> None:
    folder = tuned(config).folder
    tried = [
        {(row["mthp"], row["policy"], row["params"]) for row in pq.read_table(path).to_pylist()}
        for path in sorted((folder / "rounds").glob("*.parquet"))[:4]
    ]
    assert [len(one) for one in tried] == [2, 2, 8, 8]
    assert len(set.union(*tried)) == sum(map(len, tried))


def test_replays_of_a_workload_have_one_shape_and_the_same_heuristics(config: Path, fake: FakeReplay) -> None:
    tuned(config)
    assert len(fake.shapes) > 10
    lanes, rules = {lanes for lanes, _ in fake.shapes}, {rules for _, rules in fake.shapes}
    assert lanes == {8} and len(rules) == 1
    assert {"mine", "backoff", "cap", "never"} <= set(*rules)


def test_nothing_is_replayed_twice(config: Path, fake: FakeReplay) -> None:
    folder = tuned(config).folder
    count, before = len(fake.calls), files_of(folder)
    tuned(config)
    assert len(fake.calls) == count and files_of(folder) == before


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


def test_seeds_draw_others(config: Path, fake: FakeReplay) -> None:
    one, other = tuned(config), tuned(config, "seed=1", out="other")
    assert set(one.train.candidates) != set(other.train.candidates)


@pytest.mark.parametrize("after", [0, 1, 5, 9, 14])
def test_interrupted_and_begun_again(config: Path, fake: FakeReplay, after: int) -> None:
    fake.interrupt_after = after
    folder = config.parent / "stopped"
    assert main(["tune", str(config), "--out", str(folder)]) == 130
    fake.interrupt_after = None
    tuned(config, out="stopped")
    assert files_of(folder) == files_of(tuned(config).folder)


def test_killed_again_and_again(config: Path, fake: FakeReplay) -> None:
    folder = config.parent / "killed"
    process = subprocess.run(
        [sys.executable, "-m", "tests.sweep.killed", "3,9,14,20", "0", "tune", str(config), "--out", folder],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("killed\n") == 4
    assert files_of(folder) == files_of(told(config))
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_a_reference_that_is_killed_ends_the_search(
    config: Path, fake: FakeReplay, capsys: pytest.CaptureFixture
) -> None:
    fake.killed = frozenset({"16 32"})
    assert main(["tune", str(config), "--out", str(config.parent / "out")]) == 2
    assert "search.toml: a: the OOM killer ended the reference (16 32 kernel)" in capsys.readouterr().err
    assert not (config.parent / "out" / "train.parquet").exists()


def test_a_search_of_nothing_says_so(config: Path, fake: FakeReplay, capsys: pytest.CaptureFixture) -> None:
    steps = 'search=[{method="exhaustive",policies=["kernel"]}]'
    assert main(["tune", str(config), "--out", str(config.parent / "out"), "--set", steps]) == 2
    assert "search: tried nothing besides the reference" in capsys.readouterr().err


def test_a_block_is_what_fits(config: Path, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tuned(config)
    monkeypatch.setattr(rounds, "BLOCK", 2)
    parts = tuned(config, out="parts")
    assert {lanes for lanes, _ in fake.shapes} == {2, 8}
    assert parts.train.candidates == whole.train.candidates
    assert (parts.folder / "train.parquet").read_bytes() == (whole.folder / "train.parquet").read_bytes()
