"""`jaxswap validate`: a table of recordings, status 1 on a difference, one line for what cannot be read."""

import copy
import shutil
from pathlib import Path

import pytest

from jaxswap.cli import main
from jaxswap.validate import cells, pairs
from jaxswap.workload import read_recording, write_recording

DATA = Path(__file__).parents[1] / "data" / "recordings"
Output = pytest.CaptureFixture[str]


def folder(path: Path, *recordings: str) -> Path:
    """A folder with some recordings ("7.3.4/reuse") and their workloads."""
    (path / "workloads").mkdir()
    for recording in recordings:
        kernel, name = recording.split("/")
        (path / kernel).mkdir(exist_ok=True)
        shutil.copy(DATA / kernel / f"{name}.txt.gz", path / kernel)
        shutil.copy(DATA / "workloads" / f"{name}.t.gz", path / "workloads")
    return path


def rows(out: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each row of the table, by kernel and workload."""
    lines = [line.split(maxsplit=5) for line in out.splitlines()[1:-1]]
    return {(line[0], line[1]): line[2:] for line in lines}


def test_equal_recordings(tmp_path: Path, capsys: Output) -> None:
    made = folder(tmp_path, "7.3.4/reuse", "7.1.13/basic64", "6.18.15/basic64")
    assert main(["validate", str(made)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("3 equal, 0 differ, 0 not modelled\n")
    found = rows(out)
    assert found["7.3.4", "reuse"] == ["16/16", "0/0", "66/66"]
    assert found["7.1.13", "basic64"] == found["6.18.15", "basic64"] == ["10/10", "3/3", "528/528"]


def test_a_recording_that_differs(tmp_path: Path, capsys: Output) -> None:
    made = folder(tmp_path, "7.3.4/reuse", "7.3.4/basic64")
    recording = read_recording(made / "7.3.4" / "basic64.txt.gz")
    blocks = copy.deepcopy(recording.blocks)
    at, (_, label, runs) = next(
        (i, b) for i, b in enumerate(blocks) if b[0] == "DUMP" and any(run[0] == "S" for run in b[2])
    )
    blocks[at] = ("DUMP", label, [(*run[:4], run[4] + 512 * (run[0] == "S")) for run in runs])
    write_recording(made / "7.3.4" / "basic64.txt.gz", recording.header, blocks, 1)
    assert main(["validate", str(made)]) == 1
    out, _ = capsys.readouterr()
    assert out.endswith("1 equal, 1 differ, 0 not modelled\n")
    cells = rows(out)["7.3.4", "basic64"]
    assert cells[0] == "9/10" and cells[3].startswith(f"DUMP {label}: page ")


def test_what_is_not_modelled_says_why(tmp_path: Path, capsys: Output) -> None:
    made = folder(tmp_path, "7.3.4/reuse")
    recording = read_recording(made / "7.3.4" / "reuse.txt.gz")
    header = recording.header | {"swap": "tape 128M"}
    write_recording(made / "7.3.4" / "reuse.txt.gz", header, recording.blocks, 1)
    assert main(["validate", str(made)]) == 0
    out, _ = capsys.readouterr()
    assert "header swap: swap on tape is not modelled" in out
    assert out.endswith("0 equal, 0 differ, 1 not modelled\n")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda path: path / "nowhere", "no such folder"),
        (lambda path: path / "workloads", "no recording"),
        (lambda path: (path / "workloads" / "reuse.t.gz").unlink() or path, "no workload reuse.t"),
        (
            lambda path: (path / "7.3.4" / "reuse.txt.gz").write_bytes(b"x") and path,
            "reuse.txt.gz: the name ends in .gz",
        ),
        (
            lambda path: (path / "workloads" / "reuse.t.gz").write_bytes(b"x") and path,
            "reuse.t.gz: the name ends in .gz",
        ),
    ],
    ids=["no-folder", "empty", "no-workload", "broken-recording", "broken-workload"],
)
def test_bad_input_is_one_line(broken, said: str, tmp_path: Path, capsys: Output) -> None:
    made = broken(folder(tmp_path, "7.3.4/reuse"))
    assert main(["validate", str(made)]) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("jaxswap: ") and said in err


def test_every_stored_recording_is_a_pair_a_cell_or_apart() -> None:
    """Those of two CPUs at once have another form: `validate` of the whole tree leaves them out."""
    listed = [recording for _, recording in pairs(DATA)]
    assert len(listed) > 100 and len(cells(DATA)) > 80
    threads = sorted(DATA.glob("*/threads/*.txt.gz"))
    assert threads and not set(threads) & set(listed)
