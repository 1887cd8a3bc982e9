"""A replay that was killed goes on from its checkpoint; on how many devices it runs, no file tells."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxswap.config import load_config
from jaxswap.machine import COUNTERS
from jaxswap.machine.kept import Halfway
from jaxswap.machine.replay import Replay
from jaxswap.sweep import checkpoint
from jaxswap.sweep.checkpoint import Checkpoint
from jaxswap.sweep.footprint import footprint
from jaxswap.sweep.manifest import read_manifest
from jaxswap.sweep.result import WorkloadResult, to_parquet
from jaxswap.sweep.space import candidates
from jaxswap.workload import read_workload

CONFIG = """
[space]
sizes = [16, 32]

[workloads.one]
trace = "one.t"
limit = "50%"
"""
ROUNDS = 4
OPERATIONS = 4 * ROUNDS  # two of 1,024 pages a round, each cut in two
KILLED = (3, 5)  # checkpoints written by the first process, by the second


def sweep(folder: Path, last: int) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a sweep on four devices that is killed at its `last` checkpoint."""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    env = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    arguments = [str(folder / "small.toml"), "--out", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.killed_halfway", str(last), "sweep", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=env | {"XLA_FLAGS": flags},
        timeout=900,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str, str]]]:
    """A sweep that is killed twice in the middle of its only replay, then runs to its end."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "one.t").write_text("REGION 1024 plain\n" + "FILL 0 1024\nREADN 0 1024\n" * ROUNDS)
    (folder / "small.toml").write_text(CONFIG)
    return folder, [sweep(folder, last) for last in (*KILLED, 0)]


def test_a_killed_replay_goes_on_from_its_last_call(
    runs: tuple[Path, list[tuple[int, str, str]]],
) -> None:
    folder, ((first, out, _), (second, again, _), (third, last, said)) = runs
    assert (first, second, third) == (-signal.SIGKILL, -signal.SIGKILL, 0), said
    assert "goes on" not in out
    assert again.startswith(f"goes on at {KILLED[0]}\n")
    assert last.startswith(f"goes on at {sum(KILLED)}\n") and sum(KILLED) < OPERATIONS
    assert not list((folder / "out").rglob("*.npz"))


def test_four_devices_and_two_kills_leave_the_bytes_of_one_device(
    runs: tuple[Path, list[tuple[int, str, str]]],
) -> None:
    folder = runs[0]
    manifest = read_manifest(folder / "out")
    assert manifest["device"]["count"] == 4
    config = load_config(folder / "small.toml")
    workload, every = read_workload(folder / "one.t"), candidates(config)[0]
    size = footprint(workload)
    limit, swap = config.workloads[0].limit.of(size), config.swap_of(size)
    rows, oom = [], []
    for candidate in every:
        replay = Replay(workload, [candidate.lane(config.lane, limit, swap)], config.kernel, devices=1)
        replay.advance(0, replay.compiled.ops)
        rows.append(replay.result().counters[0])
        oom.append(replay.result().oom[0])
    result = WorkloadResult(
        "one", workload.accesses, len(workload), size, limit, swap, COUNTERS, np.array(rows), np.array(oom)
    )
    assert len(every) == 4 and result.counter("pswpin").all()
    kept = (folder / "out" / "results" / "one.parquet").read_bytes()
    assert kept == to_parquet(result, every, manifest["key"], None)


def halfway(at: int, shape: tuple[int, ...] = (2, 3)) -> Halfway:
    random = np.random.default_rng(at)
    return Halfway(
        at,
        random.integers(0, 1 << 40, (2, 5)),
        [random.integers(0, 99, shape).astype(np.uint32), random.integers(0, 2, 7) == 1],
    )


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a checkpoint of the replay "this"."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    path = tmp_path / "parts" / "one" / "0-2.npz"
    Checkpoint(path, "this").offer(halfway(5))
    return path


def test_what_is_written_is_read(kept: Path) -> None:
    keeper = Checkpoint(kept, "this")
    found, wanted = keeper.read(halfway(0)), halfway(5)
    assert found is not None and found.at == 5
    for ours, theirs in zip((found.totals, *found.arrays), (wanted.totals, *wanted.arrays), strict=True):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    keeper.remove()
    assert Checkpoint(kept, "this").read(halfway(0)) is None


@pytest.mark.parametrize(
    "change",
    [lambda _: b"", lambda _: b"PK no", lambda data: data[: len(data) // 2]],
    ids=["empty", "something else", "half"],
)
def test_a_damaged_one_is_said_and_the_replay_begins_anew(
    kept: Path, change: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write_bytes(change(kept.read_bytes()))
    assert Checkpoint(kept, "this").read(halfway(0)) is None
    said = capsys.readouterr().err
    assert said.startswith(f"{kept}: is no checkpoint of this replay (") and said.count("\n") == 1


def test_a_wrong_bit_is_found_or_changes_nothing(kept: Path) -> None:
    data, wanted, found = kept.read_bytes(), halfway(5), 0
    for place in range(0, len(data), 5):
        kept.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        read = Checkpoint(kept, "this").read(halfway(0))
        found += read is None
        if read is not None:
            assert read.at == wanted.at and np.array_equal(read.totals, wanted.totals)
            assert all(map(np.array_equal, read.arrays, wanted.arrays))
    assert found > len(data) // 10


def test_that_of_another_replay_is_said_and_the_replay_begins_anew(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Checkpoint(kept, "that").read(halfway(0)) is None
    assert "(it is of another replay); the replay begins anew" in capsys.readouterr().err
    assert Checkpoint(kept, "this").read(halfway(0, (3, 2))) is None
    assert "(it holds uint32[2, 3] for uint32[3, 2])" in capsys.readouterr().err
    like = halfway(0)
    other = Halfway(0, like.totals, [np.asarray(like.arrays[0]).view(np.int32), like.arrays[1]])
    assert Checkpoint(kept, "this").read(other) is None
    assert "(it holds uint32[2, 3] for int32[2, 3])" in capsys.readouterr().err


def test_one_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    (tmp_path / "parts").write_text("a file")
    keeper = Checkpoint(tmp_path / "parts" / "0-2.npz", "this")
    keeper.offer(halfway(5))
    keeper.offer(halfway(6))
    said = capsys.readouterr().err
    assert "; the replay goes on without one\n" in said and said.count("\n") == 1


def test_the_seconds_of_all_processes_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for took, all_of_it in ((70, 70), (100, 170)):
        keeper = Checkpoint(tmp_path / "0-2.npz", "this")
        keeper.read(halfway(0))
        now += took
        keeper.offer(halfway(1))
        assert keeper.seconds == all_of_it


def test_they_are_a_minute_apart_or_cost_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slow = 1000.0, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def write(*_: object) -> None:
        nonlocal now
        now += slow
        written.append(now)

    written: list[float] = []
    monkeypatch.setattr(checkpoint, "write_whole", write)
    keeper = Checkpoint(tmp_path / "0-2.npz", "this")
    for _ in range(200):
        now += 1
        keeper.offer(halfway(1))
    assert written == [1060, 1120, 1180]
    slow = 6.0
    for _ in range(300):
        now += 1
        keeper.offer(halfway(1))
    assert written[3:] == [1246, 1372, 1498]
