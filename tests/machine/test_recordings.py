"""The machine equals real kernels: every recording of the tree, page by page, folio by folio, counter by
counter; those of a few kinds in every run, the others when slow tests run."""

import copy
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxswap.cli import main
from jaxswap.machine import Lane, compare, replay_one
from jaxswap.validate import hold
from jaxswap.workload import read_recording, read_workload, write_recording

DATA = Path(__file__).parents[1] / "data" / "recordings"
LANES = {
    "basic64": Lane("64m", swap=128 << 20),
    "orders": Lane("16m 32m 64m 128m", swap=128 << 20),
    "reuse": Lane("64", swap=128 << 20),
    "frag": Lane("64", swap=16 << 20),
    "fallback": Lane("64m", swap=128 << 20),
    "flags-1": Lane("64", swap=64 << 20),
}
SHOWN = {
    "basic64": (10, 3, 8),
    "orders": (7, 5, 8),
    "reuse": (16, 0, 1),
    "frag": (7, 3, 6),
    "fallback": (7, 5, 14),
    "flags-1": (12, 1, 12),
}
"""Page maps, folio lists and counter blocks of each recording."""
COUNTERS_OF_A_BLOCK = 66
STORED = sorted((path.parent.name, path.name.removesuffix(".txt.gz")) for path in DATA.glob("*/*.txt.gz"))
QUICK = ("basic64", "orders", "reuse", "frag", "fallback", "flags-2", "rand-huge-1", "rand-mixed-2", "set-1")


def paths(name: str) -> tuple[str, str]:
    return str(DATA / "workloads" / f"{name}.t.gz"), str(DATA / "7.3.4" / f"{name}.txt.gz")


@pytest.mark.parametrize("name", LANES)
def test_equals_the_kernel(name: str) -> None:
    workload_path, recording_path = paths(name)
    workload, recording = read_workload(workload_path), read_recording(recording_path)
    assert recording.header["kernel"] == "7.3.4" and recording.header["mthp"] == LANES[name].mthp
    replay = replay_one(workload, LANES[name])
    found = compare(replay, recording)
    assert found.equal, str(found)
    maps, folios, blocks = SHOWN[name]
    counted = blocks * COUNTERS_OF_A_BLOCK
    assert (found.maps, found.folios, found.counters) == ((maps, maps), (folios, folios), (counted, counted))
    assert replay.counters["pswpin"] > 0 and replay.counters["pswpout"] > 0
    assert recording.stats()[-1][1]["vmstat"]["pswpout"] == replay.counters["pswpout"]


def quick(kernel: str, name: str) -> bool:
    """Whether a recording is held in every run: in one whose pages go one by one, compilation takes long."""
    by_page = name.startswith("flags") and kernel.startswith("6.")
    return (name in QUICK or (name in LANES and kernel != "7.3.4")) and not by_page


@pytest.mark.parametrize(
    ("kernel", "name"),
    [pytest.param(*one, marks=[] if quick(*one) else pytest.mark.slow) for one in STORED],
)
def test_equals_every_kernel(kernel: str, name: str) -> None:
    held = hold(DATA / "workloads" / f"{name}.t.gz", DATA / kernel / f"{name}.txt.gz")
    assert held.found is not None, held.refused
    assert held.found.equal, str(held.found)
    assert held.found.maps[1] > 0 and held.found.counters[1] > 0


@pytest.mark.parametrize("name", ["basic64", "fallback", "flags-1"])
def test_command_line_says_equal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    workload, recording = paths(name)
    assert main(["replay", workload, "--against", recording]) == 0
    maps, folios, blocks = SHOWN[name]
    counted = blocks * COUNTERS_OF_A_BLOCK
    out, err = capsys.readouterr()
    assert f"page maps equal {maps}/{maps}, folios equal {folios}/{folios}" in out and err == ""
    assert f"counters equal {counted}/{counted}" in out and out.count("\n") == 1


def test_equals_the_kernel_as_users_compile_it(tmp_path: Path) -> None:
    """In a process of its own, with LLVM's optimisations and nothing from a cache."""
    workload, recording = paths("frag")
    unlike_users = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in unlike_users}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from jaxswap.cli import entry; entry()",
            "replay",
            workload,
            "--against",
            recording,
        ],
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "page maps equal 7/7, folios equal 3/3" in done.stdout


def altered(name: str, change: Callable[[list], None], path: Path) -> str:
    """A recording with its blocks changed, well formed otherwise."""
    recording = read_recording(paths(name)[1])
    blocks = copy.deepcopy(recording.blocks)
    change(blocks)
    write_recording(path, recording.header, blocks, 1)
    assert read_recording(path).blocks == blocks != recording.blocks
    return str(path)


def other_slot(blocks: list) -> None:
    """The first swapped run of a page map in the middle lies elsewhere."""
    runs = [block for block in blocks if block[0] == "DUMP"][6][2]
    at = next(i for i, run in enumerate(runs) if run[0] == "S")
    runs[at] = (*runs[at][:4], runs[at][4] + 1000)


def other_count(blocks: list) -> None:
    """One counter of the last block is higher by one."""
    groups = [block for block in blocks if block[0] == "STATS"][-1][2]
    groups["64kB"]["swpin"] = groups["64kB"].get("swpin", 0) + 1


def other_folio(blocks: list) -> None:
    """The last run of folios is not there."""
    del [block for block in blocks if block[0] == "FOLIOS"][-1][2][-1]


@pytest.mark.parametrize(
    ("change", "maps", "said"),
    [
        (
            other_slot,
            11,
            r"DUMP \S+: page \d+: the replay has it in slot \d+ of swap 0, the kernel in slot",
        ),
        (other_count, 12, r"STATS \S+: 64kB swpin: the replay counts (\d+), the kernel \d+"),
        (other_folio, 12, r"FOLIOS \S+: the replay has"),
    ],
)
def test_an_altered_recording_is_refused(
    change: Callable[[list], None], maps: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = altered("flags-1", change, tmp_path / "altered.txt.gz")
    assert main(["replay", paths("flags-1")[0], "--against", recording]) == 1
    out, err = capsys.readouterr()
    assert f"page maps equal {maps}/12" in out and err == ""
    assert re.search(said, out), out


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (r"^ENDDUMP$", ""),
        (r"^P 0 (\d+)$", r"P 1 \1"),
        (r"^(S \d+ \d+) t0 \d+$", r"\1 t0 x"),
        (r"^OPS.*$", ""),
    ],
    ids=["no-end", "gap", "no-number", "cut"],
)
def test_a_broken_recording_is_bad_input(
    line: str, instead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload, recording = paths("basic64")
    whole = gzip.decompress(Path(recording).read_bytes()).decode()
    broken = re.sub(line, instead, whole, count=1, flags=re.MULTILINE)
    assert broken != whole
    path = tmp_path / "broken.txt"
    path.write_text(broken)
    assert main(["replay", workload, "--against", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.match(rf"jaxswap: {re.escape(str(path))}:\d+: ", err), err


def test_like_and_out_write_the_recording_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload, recording = paths("basic64")
    written = tmp_path / "again.txt.gz"
    assert main(["replay", workload, "--like", recording, "--out", str(written)]) == 0
    capsys.readouterr()
    real, ours = read_recording(recording), read_recording(written)
    assert (ours.header["mthp"], ours.header["swap"]) == (real.header["mthp"], real.header["swap"])
    assert ours.dumps() == real.dumps()
    assert [block[:2] for block in ours.blocks] == [block[:2] for block in real.blocks]
    for block, theirs in zip(ours.blocks, real.blocks, strict=True):
        if block[0] == "FOLIOS":
            assert [run[:3] for run in block[2]] == [run[:3] for run in theirs[2]]
    assert main(["replay", workload, "--against", str(written), recording]) == 0
    assert capsys.readouterr().out.count("page maps equal 10/10, folios equal 3/3") == 2


def test_a_recording_of_another_workload_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", paths("fallback")[0], "--against", paths("reuse")[1]]) == 1
    assert "is it the same workload?" in capsys.readouterr().out
