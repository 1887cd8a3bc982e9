"""Recording a program of one's own, what goes wrong then, and the description of a workload."""

import shutil
from pathlib import Path

import pytest

from jaxswap.workload import parse_workload, read_workload
from jaxswap.workload.describe import describe, lru_misses
from jaxswap.workload.record_lackey import PROGRAMS, main

needs_valgrind = pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")


@needs_valgrind
def test_own_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "true.t.gz"
    assert main(["true", "--out", str(out), "--", "true"]) == 0
    workload = read_workload(out)
    assert workload.meta["command"] == "true" and "ended" not in workload.meta and "recorded" in workload.meta
    assert 0 < describe(workload).footprint < 200
    assert "misses" in capsys.readouterr().out
    assert main(["x", "--out", str(out), "--operations", "10", "--cut", "--", "true"]) == 0
    assert len(read_workload(out)) == 10


@needs_valgrind
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no recording 'nothing'; there are sort, python, sqlite"),
        (["x", "--out", "no/x.t", "--", "true"], "no/x.t: its folder does not exist"),
        (["x", "--", "/no/such/program"], "/no/such/program: no such program"),
        (["x", "--", "false"], "false: ended with status 1 under valgrind"),
        (["x", "--entries", "2", "--", "true"], "at least 8 entries"),
        (["x", "--operations", "3", "--", "true"], "more than 3 operations"),
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
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxswap: ") and message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_inputs_are_the_same_every_time(tmp_path: Path) -> None:
    for name, program in PROGRAMS.items():
        made = []
        for again in ("1", "2"):
            folder = tmp_path / name / again
            folder.mkdir(parents=True)
            program.write_input(folder)
            made.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert made[0] == made[1] and made[0]


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
