"""The quick start's counters, exactly: a change of any rule of the machine or of a workload shows here.

`python -m tests.sweep.test_golden` writes the file anew; a commit that changes it says why, and raises the
version of the kernel profile.
"""

import json
from pathlib import Path

import pytest

from jaxswap.config import Config, load_config, parse_policy
from jaxswap.machine import COUNTERS, model_version, replay_lanes
from jaxswap.sweep.footprint import footprint
from jaxswap.sweep.space import Candidate
from jaxswap.workload import read_workload

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.toml"
GOLDEN = Path(__file__).with_name("golden.json")
SETTINGS = ("16 32 64 128 / kernel", "none / kernel", "16 64 / lookahead", "64 / backoff:limit=4")


def counters(config: Config, name: str) -> dict[str, dict[str, int]]:
    """Setting -> the counters that are not zero, for one of the quick start's workloads."""
    choice = next(choice for choice in config.workloads if choice.name == name)
    workload = read_workload(choice.path)
    size = footprint(workload)
    lanes = []
    for setting in SETTINGS:
        mthp, _, policy = setting.partition(" / ")
        candidate = Candidate(mthp.replace("none", ""), parse_policy(policy))
        lanes.append(candidate.lane(config.lane, choice.limit.of(size), config.swap_of(size)))
    found = replay_lanes(workload, lanes, profile=config.kernel).counters.tolist()
    return {
        setting: {counter: value for counter, value in zip(COUNTERS, row, strict=True) if value}
        for setting, row in zip(SETTINGS, found, strict=True)
    }


def golden(config: Config) -> dict:
    """What the file holds."""
    return {
        "model": model_version(config.kernel),
        "workloads": {choice.name: counters(config, choice.name) for choice in config.workloads},
    }


CONFIG = load_config(QUICKSTART)


@pytest.mark.parametrize("name", [choice.name for choice in CONFIG.workloads])
def test_counters_of_the_quick_start(name: str) -> None:
    kept = json.loads(GOLDEN.read_text())
    assert kept["model"] == model_version(CONFIG.kernel)
    assert counters(CONFIG, name) == kept["workloads"][name]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(CONFIG), indent=1) + "\n")
