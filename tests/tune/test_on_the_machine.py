"""The search's replays on the machine itself: beginnings of workloads, a heuristic from a
user's file, and a fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxswap.machine import Lane, replay_lanes
from jaxswap.sweep.run import job_of
from jaxswap.tune.config import TuneConfig, load_tune
from jaxswap.tune.result import Tuned
from jaxswap.tune.rounds import run_tune
from jaxswap.workload import parse_workload

TEXT = """REGION 1024 plain
FILL 0 1024
READN 0 512
DONTNEED 0 64
READN 100 300
FILL 700 200
READN 0 1024
"""
LANES = [Lane("16 64", limit=1 << 21, swap=1 << 24), Lane("", limit=1 << 21, swap=1 << 24)]
RULE = """
from jaxswap.policy import Param, Policy, offer
import jax.numpy as jnp

def decide(params, memory, seen):
    return offer(seen.candidates & jnp.left_shift(jnp.uint32(1), params[0].astype(jnp.uint32)), memory)

mine = Policy("mine", "one order or none", decide, params=(Param("order", 2, 0, 9, "the order"),))
"""


@pytest.mark.parametrize(
    ("share", "accesses", "lines"),
    [
        (0.1, 512, ["FILL 0 512"]),
        (1024 / 3060, 1024, TEXT.splitlines()[1:2]),
        (0.4, 1536, TEXT.splitlines()[1:3]),
        (0.51, 1836, TEXT.splitlines()[1:5]),
        (0.66, 2036, TEXT.splitlines()[1:6]),
        (1, 3060, TEXT.splitlines()[1:]),
    ],
)
def test_a_share_is_the_workload_cut_there(share: float, accesses: int, lines: list[str]) -> None:
    """At the end of the first operation that reaches the share; of a range, of its 2 MiB block."""
    part = replay_lanes(parse_workload(TEXT), LANES, share=share)
    whole = replay_lanes(parse_workload("\n".join(["REGION 1024 plain", *lines]) + "\n"), LANES)
    assert (part.counter("accesses") == accesses).all()
    np.testing.assert_array_equal(part.counters, whole.counters)


CONFIG = """
objective = "0 - large_coverage"
[space]
sizes = [16, 32]
masks = ["16 32"]
[policies]
mine = { file = "mine.py", order = { from = 2, to = 4 } }
linear = {}
[[search]]
method = "sobol"
policies = ["mine"]
candidates = 3
[[search]]
method = "fit"
[train]
a = { trace = "one.t", limit = "2M", regime = "limit" }
[held_out]
b = { trace = "one.t", limit = "3M", regime = "limit" }
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A search with a user's heuristic and a fit of the linear rule."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "mine.py").write_text(RULE)
    (folder / "one.t").write_text(TEXT)
    (folder / "search.toml").write_text(CONFIG)
    return run_tune(config_of(folder), ["jaxswap", "tune", "search.toml"])


def config_of(folder: Path) -> TuneConfig:
    return replace(load_tune(folder / "search.toml"), out=folder / "out")


def test_a_heuristic_from_a_users_file_is_searched(tuned: Tuned) -> None:
    """The order that it lets through is the only large one swapped in."""
    orders = {
        dict(one.policy.params)["order"]: lane
        for lane, one in enumerate(tuned.train.candidates)
        if one.policy.name == "mine"
    }
    assert sorted(orders) == [2, 3, 4] and max(orders.values()) == orders[4]
    result = tuned.train.results[0]
    of_16, of_32 = (result.counter(f"{size}/swpin") for size in ("16kB", "32kB"))
    for order, lane in orders.items():
        assert (of_16[lane] > 0, of_32[lane] > 0) == (order == 2, order == 3)


def test_a_fitted_rule_is_replayed_like_any_other(tuned: Tuned) -> None:
    """Each row of the table is what a replay of that rule gives."""
    fitted = [i for i, one in enumerate(tuned.train.candidates) if one.policy.name == "linear"]
    assert fitted and len({tuned.train.candidates[i].policy for i in fitted}) == len(fitted)
    config = config_of(tuned.folder.parent)
    one = config.workloads[0]
    job = job_of(one.setting, one.choice)
    lanes = job.lanes([tuned.train.candidates[i] for i in fitted], one.setting.lane)
    eight = [lanes[i % len(lanes)] for i in range(8)]  # as the search has them: nothing is compiled
    alone = replay_lanes(job.workload, eight, heuristics=config.rules)
    np.testing.assert_array_equal(alone.counters[: len(lanes)], tuned.train.results[0].counters[fitted])


def test_labels_that_are_harvested_again_give_the_same_bytes(tuned: Tuned) -> None:
    """As if the search had been killed while the fit's round was replayed."""
    before = {path: path.read_bytes() for path in tuned.folder.rglob("*.parquet")}
    for path in before:
        if path.name != "00.parquet" and path.name != "01.parquet":
            path.unlink()
    run_tune(config_of(tuned.folder.parent), ["jaxswap", "tune", "search.toml"])
    assert {path: path.read_bytes() for path in tuned.folder.rglob("*.parquet")} == before
