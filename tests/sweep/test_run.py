"""A run directory over its life: written whole, resumed, refused to others, and honest about killed lanes."""

import fcntl
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxswap.cli import main
from jaxswap.config import load_config
from jaxswap.errors import InputError
from jaxswap.machine import COUNTERS
from jaxswap.sweep.finished import Sweep, read_sweep
from jaxswap.sweep.metrics import METRICS
from jaxswap.sweep.run import run_sweep
from jaxswap.workload import files
from tests.sweep.fake import FakeReplay

COMMAND = ["jaxswap", "sweep", "small.toml"]


def run(config_file: Path, *overrides: str) -> Sweep:
    return run_sweep(load_config(config_file, [f"out={config_file.parent / 'out'}", *overrides]), COMMAND)


def test_manifest_and_parquet(config_file: Path, fake: FakeReplay) -> None:
    sweep = run(config_file)
    manifest = json.loads((sweep.folder / "manifest.json").read_text())
    assert manifest["command"] == "jaxswap sweep small.toml"
    assert re.search(r"-v\d+$", manifest["model"])
    assert manifest["kernel"] == "7.3"
    assert manifest["device"]["platform"] == "cpu"
    assert set(manifest["versions"]) == {"jaxswap", "python", "jax", "jaxlib", "numpy"}
    assert manifest["config"]["sizes"] == [16, 32]
    about = manifest["workloads"]["one"]
    assert about.pop("operations") > 0
    assert about == {
        "trace": "one.t",
        "accesses": 2048,
        "footprint": 4 << 20,
        "limit": 2 << 20,
        "swap": 8 << 20,
        "sha256": hashlib.sha256((config_file.parent / "one.t").read_bytes()).hexdigest(),
    }
    table = pq.read_table(sweep.folder / "results")
    assert table.num_rows == 2 * len(sweep.candidates)
    assert set(COUNTERS) <= set(table.column_names)
    assert {f"per_1000/{name}" for name in METRICS} <= set(table.column_names)
    one = sweep.results[0]
    assert (
        pq.read_table(sweep.folder / "results" / "one.parquet")["pswpin"].to_numpy() == one.counter("pswpin")
    ).all()


def test_the_same_command_again_replays_nothing(config_file: Path, fake: FakeReplay) -> None:
    first = run(config_file)
    assert fake.calls == ["one", "two"]
    again = run(config_file)
    assert fake.calls == ["one", "two"]
    for a, b in zip(first.results, again.results, strict=True):
        assert (a.counters == b.counters).all()
        assert (a.oom == b.oom).all()
        assert a.metrics.keys() == b.metrics.keys()
    assert first.ranking().order.tolist() == again.ranking().order.tolist()


def test_an_interrupted_run_goes_on(config_file: Path, fake: FakeReplay) -> None:
    fake.interrupt_on = "two"
    with pytest.raises(KeyboardInterrupt):
        run(config_file)
    with pytest.raises(InputError, match=r"out: is not finished \(two is missing\); give its command again"):
        read_sweep(config_file.parent / "out")
    fake.interrupt_on = ""
    sweep = run(config_file)
    assert fake.calls == ["one", "two"]
    assert read_sweep(sweep.folder).ranking().order.tolist() == sweep.ranking().order.tolist()
    assert json.loads((sweep.folder / "times.json").read_text()).keys() == {"one", "two"}


def test_a_broken_workload_is_said_and_the_others_go_on(
    config_file: Path, fake: FakeReplay, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config_file.parent / "out"
    arguments = ["sweep", str(config_file), "--out", str(folder)]
    fake.break_on = "one"
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert fake.calls == ["two"]
    assert "1/2 one failed: some.t:7: cannot be replayed; mend it\n" in err
    assert f"jaxswap: one failed, the other workloads are kept in {folder}" in err
    report = (folder / "report.txt").read_text()
    for text in (out, report):
        assert (
            "FAILED, in no table: one: some.t:7: cannot be replayed; mend it\nEvery ranking is over two"
            in text
        )
        assert "All workloads" not in text
    with pytest.raises(InputError, match="one is missing"):
        read_sweep(folder)
    fake.break_on = ""
    assert main(arguments) == 0
    assert fake.calls == ["two", "one"]
    assert "FAILED" not in (folder / "report.txt").read_text()


def test_where_every_workload_is_broken(config_file: Path, fake: FakeReplay) -> None:
    fake.break_on = "one"
    with pytest.raises(InputError, match=r"^one: some\.t:7"):
        run(config_file, 'workloads={one={trace="one.t",limit="50%"}}')


def test_killed_while_writing_leaves_no_part(
    config_file: Path, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def killed(source: str, target: str) -> None:
        if str(target).endswith("two.parquet"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config_file)
    results = config_file.parent / "out" / "results"
    assert [path.name for path in results.glob("*.parquet")] == ["one.parquet"]
    monkeypatch.setattr(files.os, "replace", real)
    run(config_file)
    assert fake.calls == ["one", "two"]
    assert not (config_file.parent / "out" / "parts").exists()


def test_another_run_is_refused(config_file: Path, fake: FakeReplay) -> None:
    run(config_file)
    before = {path: path.read_bytes() for path in (config_file.parent / "out").rglob("*") if path.is_file()}
    for override in ("seed=1", "space.sizes=[16]", "workloads.one.limit=40%", "objective=failed"):
        with pytest.raises(InputError, match=r"out: holds another run .*--out"):
            run(config_file, override)
    (config_file.parent / "one.t").write_text("REGION 1024 plain\nFILL 0 1000\n")
    with pytest.raises(InputError, match="holds another run"):
        run(config_file)
    assert before == {
        path: path.read_bytes() for path in (config_file.parent / "out").rglob("*") if path.is_file()
    }


def test_a_directory_of_something_else_is_refused_untouched(config_file: Path, fake: FakeReplay) -> None:
    folder = config_file.parent / "out"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"files that are no run \(thesis\.tex\)"):
        run(config_file)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_two_runs_at_once_are_refused(config_file: Path, fake: FakeReplay) -> None:
    run(config_file)
    with open(config_file.parent / "out" / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing here now"):
            run(config_file)
    run(config_file)


def test_damaged_files_are_named(config_file: Path, fake: FakeReplay) -> None:
    folder = run(config_file).folder
    (folder / "results" / "one.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"one\.parquet: is not a result file .* delete it"):
        run(config_file)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json: is not a manifest"):
        run(config_file)


def test_unusable_directory(config_file: Path, fake: FakeReplay) -> None:
    (config_file.parent / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used as run directory"):
        run(config_file, f"out={config_file.parent / 'file' / 'below'}")


def test_default_directory_is_named_after_the_config(
    config_file: Path, fake: FakeReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config_file.parent)
    first = run_sweep(load_config(config_file), COMMAND)
    second = run_sweep(load_config(config_file, ["seed=1"]), COMMAND)
    assert re.fullmatch(r"runs/small-[0-9a-f]{8}", str(first.folder))
    assert first.folder != second.folder


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("workloads.two.limit=2M", r"workloads\.two\.limit: 2M holds the whole footprint \(2M\)"),
        ("workloads.two.limit=3%", r"workloads\.two\.limit: 3% of 2M cannot hold four folios of 32 kB"),
        ("machine.swap=2M", r"machine\.swap: 2M and the limit of 1M cannot hold the footprint of one"),
    ],
)
def test_limits_that_make_no_sense(config_file: Path, fake: FakeReplay, override: str, said: str) -> None:
    overrides = [override, "workloads.one.limit=1M"] if override.startswith("machine") else [override]
    with pytest.raises(InputError, match=said):
        run(config_file, *overrides)
    assert not fake.calls
    assert not (config_file.parent / "out").exists()


def test_a_workload_without_accesses(config_file: Path, fake: FakeReplay) -> None:
    (config_file.parent / "two.t").write_text("REGION 512 plain\nDONTNEED 0 512\n")
    with pytest.raises(InputError, match=r"two\.t: has no access"):
        run(config_file)


def test_killed_lanes_never_win(config_file: Path, fake: FakeReplay) -> None:
    fake.killed = frozenset({"16"})
    sweep = run(config_file)
    dead = [index for index, one in enumerate(sweep.candidates) if one.mthp == "16"]
    ranking = sweep.ranking()
    assert set(ranking.order[-len(dead) :]) == set(dead)
    assert np.isinf(ranking.violation[dead]).all()
    assert not sweep.front()[dead].any()


def test_a_killed_reference_is_said(config_file: Path, fake: FakeReplay) -> None:
    fake.killed = frozenset({"16 32"})
    with pytest.raises(
        InputError,
        match=r"workloads\.one\.limit: the OOM killer ended the reference \(16 32 / kernel\) at 2M",
    ):
        run(config_file)
