"""The commands as a user types them: exit statuses, one clear line on stderr, nothing half written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxswap import __version__
from jaxswap.bench import machine_bench, swaptable_bench
from jaxswap.bench.rows import row
from jaxswap.cli import main
from tests.sweep.fake import FakeReplay


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The single line on stderr; nothing may be on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxswap: ") and err.count("\n") == 1
    return err


def test_sweep(config_file: Path, fake: FakeReplay, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config_file.parent / "out"
    assert main(["sweep", str(config_file), "--out", str(folder), "--set", "seed=7"]) == 0
    out, err = capsys.readouterr()
    assert f"figure: {folder}/figures/front.png" in out
    assert "seed 7" in out and f"command: jaxswap sweep {config_file}" in out
    assert "1/2 one" in err and "2/2 two" in err
    assert (folder / "figures" / "front.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["swap"], "invalid choice: 'swap'"),
        (["sweep"], "CONFIG"),
        (["sweep", "no.toml"], "no.toml: no such config file"),
        (["sweep", "CONFIG", "--set", "x"], "--set x: write it as key=value"),
        (["sweep", "CONFIG", "--set", "space.sizes=[8]"], "space.sizes: 8 kB exists for shmem only"),
        (["sweep", "CONFIG", "--frobnicate"], "--frobnicate"),
        (["replay"], "WORKLOAD"),
        (["replay", "no.t"], "no.t: no such workload file"),
        (["replay", "TRACE", "--mthp", "48"], "--mthp: '48' is not a set of mTHP sizes"),
        (["replay", "TRACE", "--swap", "lots"], "--swap: 'lots' is not a size"),
        (["replay", "TRACE", "--swap", "5000"], "--swap: '5000' is not a size in whole 4 KiB pages"),
        (["replay", "TRACE", "--limit", "0"], "--limit: '0' is not a size"),
        (["replay", "TRACE", "--kernel", "9.9.1"], "--kernel: no profile of kernel '9.9.1'"),
        (["replay", "TRACE", "--policy", "lru"], "--policy: lru: unknown heuristic"),
        (["replay", "TRACE", "--policy", "cap:order=99"], "--policy: cap.order: 99 is out of range"),
        (["replay", "TRACE", "--against", "no.txt"], "no.txt: no such recording file"),
        (["replay", "TRACE", "--against", "TRACE", "--like", "TRACE"], "give one of them"),
        (
            ["validate", "DIR", "--figure", "no/where.png"],
            "--figure no/where.png: no folder no; make it first",
        ),
        (["validate", "no", "--figure", "x"], "no: no such folder"),
    ],
)
def test_bad_input_is_status_2_and_one_line(
    config_file: Path,
    fake: FakeReplay,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    stands_for = {"CONFIG": str(config_file), "TRACE": str(config_file.parent / "one.t")}
    stands_for["DIR"] = str(config_file.parent)
    before = sorted(config_file.parent.rglob("*"))
    assert main([stands_for.get(argument, argument) for argument in arguments]) == 2
    assert said in one_line(capsys)
    assert sorted(config_file.parent.rglob("*")) == before


def test_interrupt_is_130(config_file: Path, fake: FakeReplay, capsys: pytest.CaptureFixture[str]) -> None:
    fake.interrupt_on = "one"
    assert main(["sweep", str(config_file), "--out", str(config_file.parent / "out")]) == 130
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("jaxswap: interrupted; the same command goes on")
    )


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, said in (("--version", __version__), ("--help", "sweep")):
        with pytest.raises(SystemExit) as done:
            main([flag])
        assert done.value.code == 0
        assert said in capsys.readouterr().out


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-c", _PIPED],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (141, "")


_PIPED = """
import argparse, sys
from jaxswap import cli
def run(arguments, command):
    print("x" * 100000)
    return 0
parser = argparse.ArgumentParser()
parser.set_defaults(run=run)
cli._parser = lambda: parser
sys.exit(cli.main([]))
"""


def test_bench_prints_and_writes_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(name: str, quick: bool) -> list[dict]:
        return [row(name=name, variant="JAX", case="one", time=0.5, size=3 if quick else 7, device="cpu: x")]

    for module, name in ((swaptable_bench, "cache_alloc"), (machine_bench, "replay/lanes")):
        monkeypatch.setattr(module, "rows", lambda quick, name=name: iter(rows(name, quick)))
    assert main(["bench", "--quick"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].startswith("variant JAX, case one, size 3")
    assert shown.err.splitlines()[1].endswith("row 2: replay/lanes, JAX, one")
    assert main(["bench", "--json", "--out", str(tmp_path / "out")]) == 0
    expected = rows("cache_alloc", False) + rows("replay/lanes", False)
    assert json.loads(capsys.readouterr().out) == expected
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == expected
    assert main(["bench", "--out", str(tmp_path / "no" / "\0")]) == 2


def test_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metadata", "--swap", "16G", "--in-use", "50%"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4,194,304 slots, 8,192 clusters, 4,096 of them in use (50 %)"
    assert lines[-1].split() == ["7.3", "0.4", "+0.0", "0.09375", "20.0", "20.4"]


@pytest.mark.parametrize(
    "wrong", [["--swap", "1X"], ["--swap", "1K"], ["--in-use", "101"], ["--in-use", "-1"]]
)
def test_metadata_of_what_there_is_not(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metadata", *wrong]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1 and wrong[0] in said.err
