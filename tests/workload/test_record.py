"""Recording a program of one's own, what goes wrong then, the recipes, and the description of a workload."""

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.recorded_programs.recipes import PROGRAMS
from jaxswap.cli import main
from jaxswap.workload import parse_workload, read_workload, recorded_names
from jaxswap.workload.describe import describe
from jaxswap.workload.over_time import lru_misses
from jaxswap.workload.progress import recording

needs_valgrind = pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")


@needs_valgrind
def test_own_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "true.t.gz"
    assert main(["record", "--out", str(out), "--", "true"]) == 0
    workload = read_workload(out)
    assert workload.meta["program"] == workload.meta["command"] == "true"
    assert "ended" not in workload.meta and "recorded" in workload.meta
    assert 0 < describe(workload).footprint < 200
    said = capsys.readouterr().out
    assert "misses" in said and said.endswith(f"written: {out}\n")


@needs_valgrind
def test_the_programs_options_and_its_own_dashes_are_its_own(tmp_path: Path) -> None:
    out = tmp_path / "w.parquet"
    arguments = ["--name", "mine", "--out", str(out), "--operations", "10", "--cut"]
    assert main(["record", *arguments, "--", "echo", "-n", "--", "--out", "x"]) == 0
    workload = read_workload(out)
    assert workload.meta["command"] == "echo -n -- --out x" and workload.meta["program"] == "mine"
    assert len(workload) == 10 and workload.meta["cut"] == "after 10 operations"
    assert os.listdir(tmp_path) == ["w.parquet"]


@needs_valgrind
def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from jaxswap.cli import entry; entry()"]
    process = subprocess.Popen(
        [*command, "record", "--out", str(tmp_path / "w.t"), "--", "sleep", "60"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore it, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _valgrind_of(process.pid):
        time.sleep(0.05)
    child = _valgrind_of(process.pid)
    assert child
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.stderr
    assert "nothing was written" in process.stderr.read()
    assert process.wait() == 130 and not list(tmp_path.iterdir())
    assert not Path(f"/proc/{child}").exists()


def _valgrind_of(pid: int) -> str:
    """The child of a process, once it runs valgrind."""
    try:
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
        return child if b"lackey" in Path(f"/proc/{child}/cmdline").read_bytes() else ""
    except FileNotFoundError:
        return ""


@needs_valgrind
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "no/x.t", "--", "true"], "--out no/x.t: cannot be written there"),
        (["--out", "x.t", "--", "/no/such/program"], "/no/such/program: no such program"),
        (["--out", "x.t", "--", "nosuch"], "nosuch: no such program; for one in a folder write its path"),
        (["--out", "x.t", "--", "./data"], "./data: is no program (chmod +x?)"),
        (["--out", "x.t", "--", "false"], "false: ended with status 1 under valgrind"),
        (["--out", "x.t", "--", "sh", "-c", "kill -9 $$"], "was ended by signal 9"),
        (
            ["--out", "x.t", "--", "sh", "-c", "echo why >&2; exit 3"],
            "ended with status 3 under valgrind: why",
        ),
        (["--out", "x.t", "--operations", "3", "--", "true"], "more than 3 operations"),
    ],
)
def test_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("text")
    (tmp_path / "data").chmod(stat.S_IRUSR)
    assert main(["record", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxswap: ") and message in said and said.count("\n") == 1
    assert os.listdir(tmp_path) == ["data"]


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 4.0, 12.0, 13.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    stream = io.StringIO()
    with recording("prog", stream) as report:
        for accesses in (1_000_000, 6_000_000, 7_000_000):
            report(accesses, accesses // 1000)
    assert stream.getvalue() == "prog: 6.0 M accesses, 0.50 M/s, 6,000 operations\n"


def test_inputs_are_the_same_every_time(tmp_path: Path) -> None:
    compiled = ("join", "graph")
    for name, program in PROGRAMS.items():
        if name in compiled and not shutil.which("gcc"):
            continue
        made = []
        for again in ("1", "2"):
            folder = tmp_path / name / again
            folder.mkdir(parents=True)
            program.write_input(folder)
            files = (path for path in folder.rglob("*") if path.is_file())
            made.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
        assert made[0] == made[1] and made[0], name


def test_every_recording_has_its_recipe() -> None:
    assert set(recorded_names()) == set(PROGRAMS)


def test_description() -> None:
    w = parse_workload(
        "REGION 64 plain\nMAP 0 32 plain\nFILL 0 4\nREADN 0 4\nUNMAP 8 2\nDONTNEED 0 1\nTOUCH 0\nREAD 1\n"
    )
    seen = describe(w)
    assert (seen.pages, seen.footprint, seen.operations, seen.accesses) == (64, 4, 7, 10)
    assert (seen.writes, seen.vmas) == (0.5, 2)
    # Two pages of memory: the second pass misses all four, then page 0 is new and page 1 comes back.
    assert lru_misses(w, 2) == 5 and lru_misses(w, 4) == 0 and seen.misses == 500
    assert lru_misses(parse_workload("REGION 8 plain\nFILL 0 4\nPAGEOUT 0 2\nREADN 0 4\n"), 8) == 2
