"""A sweep that was killed, or sharded, ends with the very bytes of one that ran through."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxswap.cli import main
from jaxswap.sweep import run
from tests.sweep import killed
from tests.sweep.fake import FakeReplay

APART = {"times.json", ".lock"}


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a run but its times, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in APART
    }


def through(config_file: Path) -> Path:
    """A run in one piece, in this process."""
    folder = config_file.parent / "through"
    assert killed.sweep(None, 0, ["sweep", str(config_file), "--out", str(folder)]) == 0
    return folder


def begin(moments: list[int], seconds: float, config_file: Path, folder: Path) -> subprocess.Popen[str]:
    arguments = ["sweep", str(config_file), "--out", str(folder)]
    listed = ",".join(map(str, moments))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.killed", listed, str(seconds), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_the_files_of_a_run(config_file: Path) -> None:
    assert set(files_of(through(config_file))) == {
        "manifest.json",
        "results/one.parquet",
        "results/two.parquet",
        "report.txt",
        "figures/front.csv",
        "figures/front.pdf",
        "figures/front.png",
    }


@pytest.mark.parametrize("chain", ["one later each time", pytest.param("anywhere", marks=pytest.mark.slow)])
def test_killed_again_and_again(config_file: Path, chain: str) -> None:
    rng = random.Random(0)
    moments = range(1, 40) if chain == "one later each time" else [rng.randint(4, 14) for _ in range(40)]
    folder = config_file.parent / "killed"
    process = begin(list(moments), 0, config_file, folder)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out.count("killed\n") > 6
    assert files_of(folder) == files_of(through(config_file))
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_killed_from_outside_while_it_replays(config_file: Path) -> None:
    folder = config_file.parent / "killed"
    process = begin([], 0.5, config_file, folder)
    until = time.monotonic() + 300
    while not list(folder.glob("parts/two/*.parquet")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (folder / "report.txt").exists()
    kept = {path.name for path in folder.glob("parts/two/*.parquet")}
    assert kept and (folder / "results" / "one.parquet").exists()
    assert killed.sweep(None, 0, ["sweep", str(config_file), "--out", str(folder)]) == 0
    assert files_of(folder) == files_of(through(config_file))


def test_only_what_is_missing_is_replayed(
    config_file: Path, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BLOCK", 5)
    arguments = ["sweep", str(config_file), "--out", str(config_file.parent / "out")]
    fake.interrupt_after = 4
    assert main(arguments) == 130
    assert fake.calls == ["one", "one", "one", "two"]
    fake.interrupt_after = None
    assert main(arguments) == 0
    assert fake.calls == ["one", "one", "one", "two", "two", "two"]
    times = json.loads((config_file.parent / "out" / "times.json").read_text())
    assert times.keys() == {"one", "two"} and all(one["seconds"] >= 0 for one in times.values())


def test_blocks_of_different_heuristics_have_one_program(
    config_file: Path, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BLOCK", 5)
    assert main(["sweep", str(config_file), "--out", str(config_file.parent / "out")]) == 0
    assert len(fake.shapes) == 6 and set(fake.shapes) == {(5, ("kernel", "never", "cap"))}


def test_damaged_times_decide_nothing(config_file: Path, fake: FakeReplay) -> None:
    folder = through(config_file)
    (folder / "times.json").write_text("{")
    assert main(["sweep", str(config_file), "--out", str(folder)]) == 0


@pytest.mark.parametrize("count", [2, 13])
def test_shards_join_to_the_bytes_of_the_whole(config_file: Path, fake: FakeReplay, count: int) -> None:
    whole = files_of(through(config_file))
    shards = [config_file.parent / f"s{number}" for number in range(1, count + 1)]
    for number, folder in enumerate(shards, 1):
        assert main(["sweep", str(config_file), "--shard", f"{number}/{count}", "--out", str(folder)]) == 0
        assert not (folder / "report.txt").exists()
    out = config_file.parent / "joined"
    assert main(["merge", *map(str, reversed(shards)), "--out", str(out)]) == 0
    assert files_of(out) == whole
    # and the whole is found done there
    calls = len(fake.calls)
    assert main(["sweep", str(config_file), "--out", str(out)]) == 0
    assert files_of(out) == whole and len(fake.calls) == calls


def test_shards_of_other_machines_are_said(config_file: Path, fake: FakeReplay) -> None:
    shards = [config_file.parent / f"s{number}" for number in (1, 2)]
    for number, folder in enumerate(shards, 1):
        assert main(["sweep", str(config_file), "--shard", f"{number}/2", "--out", str(folder)]) == 0
    manifest = json.loads((shards[1] / "manifest.json").read_text())
    manifest["device"]["count"] = 64
    (shards[1] / "manifest.json").write_text(json.dumps(manifest))
    out = config_file.parent / "joined"
    assert main(["merge", *map(str, shards), "--out", str(out)]) == 0
    assert "2 / 64 x cpu" in (out / "report.txt").read_text()
