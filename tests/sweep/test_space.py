"""The candidates of a config, and the sysfs lines that set one."""

import math
from pathlib import Path

import pytest

from jaxswap.config import load_config
from jaxswap.machine import Lane
from jaxswap.sweep.space import SYSFS_SIZES, candidates, masks, sysfs_lines


def test_every_mask_once_in_each_mode() -> None:
    assert masks([32, 16], ["always"]) == ["", "16", "32", "16 32"]
    assert masks([16, 32], ["always", "madvise"]) == ["", "16", "16m", "32", "32m", "16 32", "16m 32m"]
    for count in range(1, 6):
        found = masks(SYSFS_SIZES[:count], ["always", "madvise"])
        assert len(found) == len(set(found)) == 1 + 2 * sum(math.comb(count, k) for k in range(1, count + 1))


def test_candidates_of_a_config(config_file: Path) -> None:
    found, reference = candidates(load_config(config_file))
    assert len(found) == len(set(found)) == 4 + 3 * 3
    assert str(found[reference]) == "16 32 / kernel"
    assert [str(one) for one in found if not one.mthp] == ["none / kernel"]
    assert {one.policy.name for one in found if one.sysfs} == {"kernel"}


def test_reference_outside_the_space_is_added(config_file: Path) -> None:
    found, reference = candidates(load_config(config_file, ["reference=64m"]))
    assert str(found[reference]) == "64m / kernel"
    assert len(found) == 4 + 3 * 3 + 1


def test_lane_carries_everything(config_file: Path) -> None:
    found, _ = candidates(load_config(config_file))
    candidate = next(one for one in found if str(one) == "16 32 / cap order=3")
    lane = candidate.lane(Lane(lru="mglru"), 1 << 20, 2 << 20)
    assert (lane.mthp, lane.policy, lane.policy_params) == ("16 32", "cap", {"order": 3})
    assert (lane.limit, lane.swap, lane.lru) == (1 << 20, 2 << 20, "mglru")


@pytest.mark.parametrize("mthp", ["", "16", "64m", "16 2048m", "16 32 64 128 256 512 1024 2048"])
def test_sysfs_lines_set_every_size(mthp: str) -> None:
    lines = sysfs_lines(mthp)
    assert len(lines) == len(SYSFS_SIZES)
    state = {}
    for line in lines:
        echo, value, arrow, path = line.split()
        assert (echo, arrow) == ("echo", ">")
        folder, size, file = path.rsplit("/", 2)
        assert (folder, file) == ("/sys/kernel/mm/transparent_hugepage", "enabled")
        state[int(size.removeprefix("hugepages-").removesuffix("kB"))] = value
    assert "hugepages-8kB" not in "".join(lines)
    for size in SYSFS_SIZES:
        words = mthp.split()
        expected = "always" if str(size) in words else "madvise" if f"{size}m" in words else "never"
        assert state[size] == expected
