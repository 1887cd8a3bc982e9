"""The recordings of the tree: whole, named for what they hold, each of its own workload."""

import gzip
import re
from pathlib import Path

import pytest

from experiments.real_kernel.machine import parse_mthp, parse_swap
from jaxswap.workload import read_recording

DATA = Path(__file__).parents[1] / "data" / "recordings"
STORED = sorted(DATA.glob("[0-9]*/*.txt.gz"))
PRESSURE = sorted(DATA.glob("7.3.4/pressure/*.txt.gz"))
LARGEST = 60_000  # bytes of one recording, gzip


def test_there_are_recordings_of_six_kernels() -> None:
    assert {path.parent.name for path in STORED} == {
        "7.3.4",
        "7.2.12",
        "7.1.13",
        "7.0.13",
        "6.18.15",
        "6.12.95",
    }
    named = {path.name.removesuffix(".txt.gz") for path in STORED}
    assert named == {path.name.removesuffix(".t.gz") for path in (DATA / "workloads").glob("*.t.gz")}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[] if p.parent.name == "7.3.4" else pytest.mark.slow) for p in STORED],
    ids=lambda path: f"{path.parent.name}-{path.name[:-7]}",
)
def test_a_stored_recording(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    name = path.name.removesuffix(".txt.gz")
    workload = gzip.decompress((DATA / "workloads" / f"{name}.t.gz").read_bytes()).decode()
    recording = read_recording(path)
    assert (recording.header["kernel"], recording.header["workload"]) == (path.parent.name, name)
    assert parse_mthp(recording.header["mthp"]) == recording.header["mthp"].replace("-", "")
    assert parse_swap(recording.header["swap"])
    asked = re.findall(r"^(?:p\d+ )?(DUMP|FOLIOS|STATS) (\S+)$", workload, re.MULTILINE)
    assert [block[:2] for block in recording.blocks if block[0] != "ECHO"] == asked
    assert len(asked) == len(set(asked))
    assert f"REGION {recording.npages} " in workload


def test_cells_under_pressure_have_workloads_and_rows() -> None:
    used = {read_recording(path).header["workload"].removeprefix("pressure/") for path in PRESSURE}
    assert used == {path.name.removesuffix(".t.gz") for path in (DATA / "workloads" / "pressure").glob("*")}
    cells = {path.name.rpartition("-boot")[0] for path in PRESSURE}
    readme = (DATA / "README.md").read_text()
    assert cells == set(re.findall(r"^\| `(\w+-(?:classic|mglru)-\S+)` \|", readme, re.MULTILINE))
    assert sum(path.stat().st_size for path in PRESSURE) < 2_000_000


@pytest.mark.parametrize("path", PRESSURE, ids=lambda path: path.name[:-7])
def test_a_stored_recording_under_pressure(path: Path) -> None:
    """Its name says what the header says; where it was not killed, it has every STATS of its workload."""
    assert path.stat().st_size < LARGEST
    recording = read_recording(path)
    header = recording.header
    name = header["workload"].removeprefix("pressure/")
    sizes = header["mthp"].replace(" ", "-").strip("-") or "none"
    assert path.name.startswith(f"{name}-{header['lru']}-{sizes}-")
    workload = gzip.decompress((DATA / "workloads" / "pressure" / f"{name}.t.gz").read_bytes()).decode()
    asked = re.findall(r"^STATS (\S+)$", workload, re.MULTILINE)
    found = [label for label, _ in recording.stats() if label != "start"]
    if recording.killed:
        assert found[-1] == "died" and found[:-1] == asked[: len(found) - 1]
    else:
        assert found == [label for label in asked if label != "start"]
    files = (files for _, files in recording.stats())
    assert all(any(file.endswith("memory.stat") for file in groups) for groups in files)
