"""The search's replays on the machine itself: beginnings of workloads, and a heuristic from a user's file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxswap.machine import Lane, replay_lanes
from jaxswap.tune.config import load_tune
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


def test_a_heuristic_from_a_users_file_is_searched(tmp_path: Path) -> None:
    """The order that it lets through is the only large one swapped in."""
    (tmp_path / "mine.py").write_text(RULE)
    (tmp_path / "one.t").write_text(TEXT)
    path = tmp_path / "search.toml"
    path.write_text("""
objective = "0 - large_coverage"
[space]
sizes = [16, 32]
masks = ["16 32"]
[policies]
mine = { file = "mine.py", order = { from = 2, to = 4 } }
[[search]]
method = "sobol"
policies = ["mine"]
candidates = 3
[train]
a = { trace = "one.t", limit = "2M", regime = "limit" }
[held_out]
b = { trace = "one.t", limit = "3M", regime = "limit" }
""")
    tuned = run_tune(replace(load_tune(path), out=tmp_path / "out"), ["jaxswap", "tune", "search.toml"])
    orders = [dict(one.policy.params).get("order") for one in tuned.train.candidates]
    assert orders[0] is None and sorted(map(str, orders[1:])) == ["2", "3", "4"] and orders[-1] == 4
    result = tuned.train.results[0]
    of_16, of_32 = (result.counter(f"{size}/swpin") for size in ("16kB", "32kB"))
    for lane, order in enumerate(orders[1:], 1):
        assert (of_16[lane] > 0, of_32[lane] > 0) == (order == 2, order == 3)
