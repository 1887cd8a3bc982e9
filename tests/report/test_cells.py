"""Pressure cells in reports: rows, summary, every counter of one, and the figure's files."""

import csv
from pathlib import Path

import pytest

from jaxswap.errors import InputError
from jaxswap.pressure import BY_SIZE, EVENTS, MEMCG, Cell, Count, HeldCell
from jaxswap.report.cells import cell_row, cell_text, cells_summary
from jaxswap.report.cells_figure import PANELS, draw_cells, figure_stem
from jaxswap.workload import Recording


def held(name: str, *counts: Count, refused: str = "", oom: bool = False, lru: str = "classic") -> HeldCell:
    header = {"kernel": "7.3.4", "lru": lru, "mthp": "16 64"}
    boots = tuple(Recording(f"{name}-boot{n}.txt", header, []) for n in (1, 2))
    killed = (Recording(f"{name}-boot3.txt", header, []),)
    replays = 0 if refused else max(len(count.replays) for count in counts) + oom
    return HeldCell(Cell(name, Path("w.t"), boots, killed), counts, refused, replays, int(oom))


INSIDE = Count("pgmajfault", (1010,), (1000, 1020), (950, 1071))
OUTSIDE = Count("64kB/swpin", (300,), (400, 410), (380, 430))
SMALL = Count("16kB/swpin_fallback", (4,), (0, 0), (-10, 10))
FREE = Count("pgactivate", (900,), (100, 200), None)
CELLS = [
    held("uni-classic", INSIDE, SMALL, FREE),
    held("seq-classic", INSIDE, OUTSIDE),
    held("uni-mglru", Count("pgmajfault", (), (5, 9), (-5, 19)), refused="lru is not modelled", lru="mglru"),
    held("hot-classic", Count("pgmajfault", (), (5, 9), (-5, 19)), oom=True),
]


def test_rows() -> None:
    rows = [cell_row(one).split(maxsplit=5) for one in CELLS]
    assert rows[0] == ["7.3.4", "uni-classic", "2", "(1", "killed)", "2/2  16kB/swpin_fallback 4, boots 0"]
    assert rows[1][5] == "1/2  OUTSIDE: 64kB/swpin 300, boots 400..410"
    assert rows[2][5] == "not modelled: lru is not modelled"
    assert rows[3][5] == "OUTSIDE: every replay was killed, the boots were not"
    assert cells_summary(CELLS) == "1 of 4 cells inside the bounds, 2 outside, 1 not modelled"


def test_every_counter_of_a_cell() -> None:
    lines = cell_text(CELLS[1]).splitlines()
    assert lines[:2] == [
        "seq-classic: 2 boots of 7.3.4",
        "left out, as its process was killed: seq-classic-boot3.txt",
    ]
    assert lines[4].split() == ["pgmajfault", "1010", "1000..1020", "+0.00", "%", "inside"]
    assert lines[5].split() == ["64kB/swpin", "300", "400..410", "-25.93", "%", "OUTSIDE"]
    assert cell_text(CELLS[0]).splitlines()[-1].split()[-2:] == ["no", "bound"]
    assert cell_text(CELLS[3]).splitlines()[-1].startswith("OUTSIDE: the OOM killer ended every replay")


def test_several_replays_of_a_cell() -> None:
    count = Count("pgmajfault", (990, 1100, 1010), (1000, 1020), (980, 1041))
    one = held("uni-classic", count, oom=True)
    assert one.inside and (one.replays, one.killed) == (4, 1)
    row = cell_row(one)
    assert row.endswith("1/1  pgmajfault 1010, boots 1000..1020; 1 of 4 replays killed")
    lines = cell_text(one).splitlines()
    assert lines[2].startswith("4 replays") and "1 of them killed" in lines[2]
    assert lines[-1].split() == ["pgmajfault", "1010", "990..1100", "1000..1020", "+0.00", "%", "inside"]


def test_the_figure_is_whole_and_the_same_twice(tmp_path: Path) -> None:
    stem = figure_stem(str(tmp_path / "cells"))
    assert draw_cells(CELLS, stem, "jaxswap validate x") == tmp_path / "cells.png"
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"cells.png", "cells.pdf", "cells.csv"}
    assert first["cells.png"].startswith(b"\x89PNG") and first["cells.png"].endswith(b"IEND\xaeB`\x82")
    assert first["cells.pdf"].startswith(b"%PDF") and first["cells.pdf"].rstrip().endswith(b"%%EOF")
    draw_cells(CELLS, stem, "jaxswap validate x")
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_csv_has_every_count(tmp_path: Path) -> None:
    draw_cells(CELLS, tmp_path / "cells", "jaxswap validate x")
    text = (tmp_path / "cells.csv").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "model 7.3-v" in comments[0] and "recorded on 7.3.4" in comments[0]
    assert comments[1] == "# command: jaxswap validate x"
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert [(row["cell"], row["counter"], row["inside"]) for row in rows] == [
        ("hot-classic", "pgmajfault", ""),
        ("seq-classic", "pgmajfault", "1"),
        ("seq-classic", "64kB/swpin", "0"),
        ("uni-classic", "pgmajfault", "1"),
        ("uni-classic", "16kB/swpin_fallback", "1"),
        ("uni-classic", "pgactivate", ""),
        ("uni-mglru", "pgmajfault", ""),
    ]
    assert [row["remark"] for row in rows if row["remark"]] == [
        "every replay was killed",
        "lru is not modelled",
    ]
    small = next(row for row in rows if row["counter"].startswith("16kB"))
    assert (float(small["off"]), small["least"], small["most"]) == (0.02, "-10", "10")


def test_every_counter_with_bounds_has_a_panel() -> None:
    shown = [name for _, names in PANELS for name in names]
    assert len(shown) == len(set(shown)) and set(shown) >= {*MEMCG, *BY_SIZE, *EVENTS.values()}


def test_where_the_figure_goes(tmp_path: Path) -> None:
    assert figure_stem("cells.png") == figure_stem("cells") == Path("cells")
    assert figure_stem(f"{tmp_path}/a-7.3.4") == tmp_path / "a-7.3.4"
    with pytest.raises(InputError, match=r"--figure nowhere/x: no folder nowhere; make it first"):
        figure_stem("nowhere/x")
