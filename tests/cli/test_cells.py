"""Pressure cells on the command line: `validate` with a row each and the figure, `replay --against` boots."""

import copy
import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxswap.cli import main
from jaxswap.workload import read_recording, write_recording

Output = pytest.CaptureFixture[str]
WORKLOAD = """\
REGION 1024 plain
INIT
STATS init
UNI 0 1024 4000 307 5
STATS end
"""
KILLED = "CHILD DIED memory cgroup out of memory"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay with 64 kB folios under 3 MiB, as a recording; its workload lies beside it."""
    folder = tmp_path_factory.mktemp("cells")
    (folder / "uni.t").write_text(WORKLOAD)
    options = ["--mthp", "64", "--swap", "8M", "--limit", "3M"]
    out = folder / "uni.txt"
    assert main(["replay", str(folder / "uni.t"), *options, "--out", str(out)]) == 0
    return out


def boot(simulated: Path, path: Path, share: float = 1.0, killed: str = "", **header: str) -> Path:
    """A boot whose counters are those of the replay, but for pgmajfault, which is `share` of it."""
    one = read_recording(simulated)
    blocks = copy.deepcopy(one.blocks)
    memory = blocks[-1][2]["memory.stat"]
    memory["pgmajfault"] = round(memory["pgmajfault"] * share)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = one.header | {"kernel": "7.3.4"} | {key.replace("_", "."): text for key, text in header.items()}
    write_recording(path, head, blocks, 5, killed)
    return path


def folder(simulated: Path, path: Path, **boots: dict) -> Path:
    """A folder with a boot uni-classic-64-BOOT of each name, and the workload."""
    (path / "workloads" / "pressure").mkdir(parents=True)
    (path / "workloads" / "pressure" / "uni.t").write_text(WORKLOAD)
    for name, options in boots.items():
        boot(simulated, path / "7.3.4" / "pressure" / f"uni-classic-64-{name}.txt", **options)
    return path


def test_a_replay_counts_as_memory_stat_does(simulated: Path, capsys: Output) -> None:
    groups = read_recording(simulated).stats()[-1][1]
    memory = groups["memory.stat"]
    assert memory["pgmajfault"] == groups["vmstat"]["pgmajfault"] > 200
    assert memory["pswpout"] == memory["pgsteal"] > 0 and memory["pgfault"] > memory["pgmajfault"]
    assert memory["pgscan"] > memory["pgsteal"] and groups["memory.events"]["max"] > 0
    assert main(["replay", str(simulated.with_name("uni.t")), "--like", str(simulated)]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pgscan", f"{memory['pgscan']:,}"] in printed
    assert ["memcg_max", f"{groups['memory.events']['max']:,}"] in printed


def test_cells_inside(simulated: Path, tmp_path: Path, capsys: Output) -> None:
    made = folder(simulated, tmp_path, boot1={}, boot2={"share": 1.04}, boot3={"killed": KILLED})
    assert main(["validate", str(made)]) == 0
    out, err = capsys.readouterr()
    head, row, summary = out.splitlines()
    assert err == "" and head.split()[:5] == ["kernel", "cell", "under", "a", "limit"]
    assert row.split()[:6] == ["7.3.4", "uni-classic-64", "2", "(1", "killed)", "8/8"]
    assert summary == "1 of 1 cells inside the bounds, 0 outside, 0 not modelled"


def test_a_cell_outside(simulated: Path, tmp_path: Path, capsys: Output) -> None:
    made = folder(simulated, tmp_path, boot1={"share": 1.07}, boot2={"share": 1.08})
    assert main(["validate", str(made)]) == 1
    row, summary = capsys.readouterr().out.splitlines()[1:]
    faults = read_recording(simulated).stats()[-1][1]["memory.stat"]["pgmajfault"]
    boots = f"{round(1.07 * faults)}..{round(1.08 * faults)}"
    assert row.endswith(f"7/8  OUTSIDE: pgmajfault {faults}, boots {boots}")
    assert summary == "0 of 1 cells inside the bounds, 1 outside, 0 not modelled"


def test_cells_that_cannot_be_compared_say_why(simulated: Path, tmp_path: Path, capsys: Output) -> None:
    made = folder(simulated, tmp_path, boot1={"killed": KILLED}, boot2={"killed": KILLED})
    boot(simulated, made / "7.3.4" / "pressure" / "uni-tape-boot1.txt", swap="tape 8M")
    boot(simulated, made / "7.3.4" / "pressure" / "uni-pieces-boot1.txt", fragment="8M")
    boot(simulated, made / "7.3.4" / "pressure" / "shell-boot1.txt")
    (made / "workloads" / "shell.t").write_text("REGION 512 plain\nSH sync\n")
    assert main(["validate", str(made)]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    said = {row.split()[1]: row for row in rows[:4]}
    assert said["uni-classic-64"].split(maxsplit=5)[2:] == [
        "0",
        "(2",
        "killed)",
        "not compared: every boot was killed",
    ]
    assert said["uni-tape"].split(maxsplit=3)[3].startswith("not modelled: header swap: swap on tape")
    assert (
        "not modelled: header fragment: no STATS start says what is free of the memory in pieces"
        in said["uni-pieces"]
    )
    assert f"not modelled: {made}/workloads/shell.t:2: SH runs a shell command" in said["shell"]
    assert rows[4] == "0 of 4 cells inside the bounds, 0 outside, 3 not modelled, 1 with every boot killed"


def test_replay_against_boots(simulated: Path, tmp_path: Path, capsys: Output) -> None:
    made = folder(simulated, tmp_path, boot1={}, boot2={"share": 1.04}, boot3={"killed": KILLED})
    boots = sorted(str(path) for path in made.rglob("*-boot*.txt"))
    workload = str(simulated.with_name("uni.t"))
    assert main(["replay", workload, "--against", *boots]) == 0
    out = capsys.readouterr().out
    assert out.startswith("uni-classic-64: 2 boots of 7.3.4\nleft out, as its process was killed: ")
    assert boots[2] in out and boots[0] not in out
    verdicts = {line.split()[0]: line.split()[-1] for line in out.splitlines()[4:]}
    assert verdicts["pgmajfault"] == verdicts["64kB/swpin"] == "inside"
    assert out.count("no bound") == len(verdicts) - 8
    # other settings than the boots'
    assert main(["replay", workload, "--against", *boots, "--limit", "2M"]) == 1
    assert "OUTSIDE" in capsys.readouterr().out


def test_a_recording_of_another_name_goes_page_by_page(simulated: Path, capsys: Output) -> None:
    assert main(["replay", str(simulated.with_name("uni.t")), "--against", str(simulated)]) == 0
    assert "page maps equal 0/0, folios equal 0/0, counters equal 132/132" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda path: (path / "workloads" / "pressure" / "uni.t").unlink(), "boot1.txt: no workload uni.t"),
        (
            lambda path: (path / "workloads" / "pressure" / "uni.t").write_text("REGION 8 plain\nSTATS x\n"),
            "boot1.txt: has STATS init end, the workload x; is it the same workload?",
        ),
        (
            lambda path: (path / "workloads" / "pressure" / "uni.t").write_text("REGION 8 plain\nHOP 1\n"),
            "uni.t:2: unknown operation HOP",
        ),
        (
            lambda path: (path / "7.3.4" / "pressure" / "uni-classic-64-boot2.txt").write_text(
                "# kernel 7\n"
            ),
            "boot2.txt:1: ends without its OPS line",
        ),
    ],
    ids=["no-workload", "other-workload", "broken-workload", "broken-boot"],
)
def test_bad_input_is_one_line(
    simulated: Path, tmp_path: Path, capsys: Output, broken: Callable[[Path], object], said: str
) -> None:
    made = folder(simulated, tmp_path, boot1={}, boot2={})
    broken(made)
    assert main(["validate", str(made)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("jaxswap: ") and said in err


def test_boots_of_two_machines_and_only_killed_ones_are_bad_input(
    simulated: Path, tmp_path: Path, capsys: Output
) -> None:
    first, other = (tmp_path / f"uni-boot{number}.txt" for number in (1, 2))
    boot(simulated, first)
    boot(simulated, other, mthp="16")
    workload = str(simulated.with_name("uni.t"))
    assert main(["replay", workload, "--against", str(first), str(other)]) == 2
    err = capsys.readouterr().err
    assert f"{other}: header mthp is '16', of {first} '64'" in err and err.count("\n") == 1
    boot(simulated, other, killed=KILLED)
    assert main(["replay", workload, "--against", str(other)]) == 2
    assert capsys.readouterr().err == f"jaxswap: {other}: every boot of uni was killed; record more boots\n"


def test_the_figure(simulated: Path, tmp_path: Path, capsys: Output) -> None:
    made = folder(simulated, tmp_path / "made", boot1={"share": 1.07}, boot2={"share": 1.08})
    boot(simulated, made / "7.3.4" / "pressure" / "uni-tape-boot1.txt", swap="tape 8M")
    out = tmp_path / "figures.d" / "cells.png"
    out.parent.mkdir()
    assert main(["validate", str(made), "--figure", str(out)]) == 1
    assert capsys.readouterr().out.endswith(f"figure: {out} (PDF and CSV beside it)\n")
    assert {path.name for path in out.parent.iterdir()} == {"cells.png", "cells.pdf", "cells.csv"}
    text = out.with_suffix(".csv").read_text()
    assert f"command: jaxswap validate {made} --figure {out}" in text.splitlines()[1]
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    faults = next(row for row in rows if (row["cell"], row["counter"]) == ("uni-classic-64", "pgmajfault"))
    assert faults["inside"] == "0" and len(faults["boots"].split()) == 2
    assert float(faults["most"]) > float(faults["median"]) > float(faults["least"]) > int(faults["ours"])
    tape = next(row for row in rows if row["cell"] == "uni-tape")
    assert tape["ours"] == tape["inside"] == "" and "tape" in tape["remark"]


def test_a_figure_without_cells(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "a.txt").write_bytes(b"# kernel 7.3.4\nOPS 1 bad=0\n")
    (tmp_path / "a.t").write_text("REGION 512 plain\n")
    assert main(["validate", str(tmp_path), "--figure", str(tmp_path / "x")]) == 2
    assert "no pressure cell below" in capsys.readouterr().err
