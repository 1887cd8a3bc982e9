"""How many lanes run at once, and what is said where not even one can."""

from pathlib import Path

import jax
import pytest

from jaxswap.errors import InputError
from jaxswap.machine import Lane, lane_bytes, memory
from jaxswap.machine.memory import check_memory, free_on, lanes_that_fit
from jaxswap.policy import POLICIES
from jaxswap.workload import parse_workload, read_workload


@pytest.mark.parametrize(
    ("each", "free", "most", "fit"),
    [
        (10, 640, 64, 64),
        (10, 639, 64, 32),
        (10, 630, 63, 63),
        (10, 25, 8, 2),
        (10, 9, 8, 1),
        (10, None, 8, 8),
    ],
)
def test_all_lanes_or_a_power_of_two_that_fits(each: int, free: int | None, most: int, fit: int) -> None:
    assert lanes_that_fit(each, free, most) == fit


def cgroup(folder: Path, limit: str, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_free_memory_is_what_the_tightest_cgroup_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path("/proc/self/cgroup").read_text().splitlines()[-1].removeprefix("0::/")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    before = free_on(jax.local_devices())
    cgroup(tmp_path / own, "max", 10, 0)
    assert free_on(jax.local_devices()) == pytest.approx(before, rel=0.5)
    cgroup(tmp_path / own, "1000", 700, 50)
    assert free_on(jax.local_devices()) == 350


def test_lanes_that_do_not_fit_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_on", lambda devices: 3 << 20)
    check_memory(3 << 20, 1, jax.local_devices())
    with pytest.raises(InputError, match="one lane needs 4 MiB and 3 MiB are free; take a smaller workload"):
        check_memory(4 << 20, 1, jax.local_devices())
    with pytest.raises(InputError, match="8 lanes need 4 MiB and 3 MiB are free; take fewer candidates"):
        check_memory(4 << 20, 8, jax.local_devices())


def test_a_lane_takes_more_with_more_pages_and_slots(tmp_path: Path) -> None:
    path = tmp_path / "w.t"
    sizes = []
    for pages, swap in ((512, 4 << 20), (1 << 16, 4 << 20), (1 << 16, 1 << 30)):
        path.write_text(f"REGION {pages} plain\nFILL 0 512\n")
        sizes.append(lane_bytes(read_workload(path), Lane("64", swap=swap)))
    assert sizes == sorted(sizes)
    assert sizes[1] - sizes[0] > 1 << 16 and sizes[2] - sizes[1] > 1 << 17


def test_a_lane_takes_more_where_something_is_noted_of_each_block() -> None:
    workload = parse_workload("REGION 65536 plain\nFILL 0 512\n")
    lane = Lane("64", swap=4 << 20)
    noting = lane_bytes(workload, lane, heuristics=[POLICIES["last"]])
    assert noting - lane_bytes(workload, lane) >= 65536 // 512 * 4
