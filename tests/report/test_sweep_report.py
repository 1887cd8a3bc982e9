"""The report of a finished sweep: what a reader must find in the text, the figure's files and the CSV."""

import csv
import dataclasses
import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxswap.config import PolicyChoice, load_config
from jaxswap.report.figure import front_figure
from jaxswap.report.image import STYLE
from jaxswap.report.sweep import report_text, write_report
from jaxswap.report.tables import change, number, rows_table, text_table
from jaxswap.report.winners import winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.objective import AXES
from jaxswap.sweep.run import run_sweep
from jaxswap.sweep.space import sysfs_lines
from tests.sweep.fake import FakeReplay


@pytest.fixture
def sweep(config_file: Path, fake: FakeReplay) -> Sweep:
    fake.killed = frozenset({"16"})
    config = load_config(config_file, [f"out={config_file.parent / 'out'}"])
    return run_sweep(config, ["jaxswap", "sweep", "small.toml"])


def test_text_names_everything(sweep: Sweep) -> None:
    text = write_report(sweep)
    whole = (sweep.folder / "report.txt").read_text()
    assert "by size" in whole and "swap-in refused: alignment" in whole and "swap-in fallbacks" in whole
    for said in ("model 7.3", "kernel profile 7.3", "seed 0", "2 x cpu", "command: jaxswap sweep small.toml"):
        assert said in text
    for title in (
        "one: 2,048 accesses, footprint 4.0 MiB, limit 2.0 MiB, swap 8.0 MiB",
        "two: ",
        "All workloads",
    ):
        assert title in text
    assert text.count("Pareto front") == text.count("needs a kernel patch") == 3
    assert text.rstrip().endswith(f"figure: {sweep.folder}/figures/front.png (PDF and CSV beside it)")
    assert text.isascii() and whole.isascii()
    assert max(map(len, text.splitlines())) <= 120 + len(str(sweep.folder))


def test_winners_and_their_lines(sweep: Sweep) -> None:
    text = report_text(sweep)
    for results in ([sweep.results[0]], [sweep.results[1]], sweep.results):
        best = winners(sweep, results)
        place = {int(index): rank for rank, index in enumerate(best.ranking.order)}
        assert sweep.candidates[best.sysfs].sysfs
        assert all(
            place[best.sysfs] <= place[index] for index, one in enumerate(sweep.candidates) if one.sysfs
        )
        assert best.heuristic is not None
        assert not sweep.candidates[best.heuristic].sysfs
        assert all(
            place[best.heuristic] <= place[index]
            for index, one in enumerate(sweep.candidates)
            if not one.sysfs
        )
        lines = "\n".join(f"    {line}" for line in sysfs_lines(sweep.candidates[best.sysfs].mthp))
        assert lines in text


def test_who_knows_the_accesses_to_come_never_wins(sweep: Sweep) -> None:
    best = winners(sweep)
    knows = tuple(
        dataclasses.replace(one, policy=PolicyChoice("clairvoyant")) if index == best.heuristic else one
        for index, one in enumerate(sweep.candidates)
    )
    after = winners(dataclasses.replace(sweep, candidates=knows))
    assert best.heuristic is not None and after.heuristic not in (None, best.heuristic)
    assert after.sysfs == best.sysfs


def test_killed_lanes_are_marked(sweep: Sweep) -> None:
    rows = [line.split() for line in report_text(sweep).splitlines() if " OOM" in line]
    assert not rows or all("16" in row for row in rows)
    best = winners(sweep)
    assert sweep.candidates[best.sysfs].mthp != "16"


def test_csv_has_every_point(sweep: Sweep) -> None:
    write_report(sweep)
    text = (sweep.folder / "figures" / "front.csv").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "command: jaxswap sweep small.toml" in comments[1]
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert len(rows) == 2 * len(sweep.candidates)
    for result in sweep.results:
        mine = [row for row in rows if row["workload"] == result.name]
        front = sweep.front([result])
        assert [int(row["front"]) for row in mine] == front.astype(int).tolist()
        for name in AXES:
            assert np.allclose([float(row[name]) for row in mine], result.metrics[name], rtol=1e-5)
        assert sorted(row["best"] for row in mine if row["best"]) == ["heuristic", "sysfs"]
        assert sum(int(row["reference"]) for row in mine) == 1


def test_figures_are_whole_and_the_same_twice(sweep: Sweep) -> None:
    write_report(sweep)
    folder = sweep.folder / "figures"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert first["front.png"].startswith(b"\x89PNG") and first["front.png"].endswith(b"IEND\xaeB`\x82")
    assert first["front.pdf"].startswith(b"%PDF") and first["front.pdf"].rstrip().endswith(b"%%EOF")
    write_report(sweep)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("panels", [1, 2])
def test_nothing_is_cut_off_a_figure(sweep: Sweep, panels: int) -> None:
    with matplotlib.rc_context(STYLE):
        drawn = front_figure(dataclasses.replace(sweep, results=sweep.results[:panels]))
        drawn.savefig(io.BytesIO(), format="png")
        renderer = FigureCanvasAgg(drawn).get_renderer()
        for part in (drawn.legends[0], drawn.axes[0].yaxis.label):
            inside = part.get_window_extent(renderer)
            assert inside.x0 >= 0 and inside.x1 <= drawn.bbox.x1 and inside.y0 >= 0
            assert inside.y1 <= drawn.bbox.y1


def test_a_sweep_without_heuristics(config_file: Path, fake: FakeReplay) -> None:
    overrides = [f"out={config_file.parent / 'out'}", "policies={}", "space.sizes=[32]"]
    text = report_text(run_sweep(load_config(config_file, overrides), ["jaxswap"]))
    assert "Best heuristic: none ran to its end and did anything that sysfs cannot express." in text


def test_a_heuristic_that_does_what_sysfs_does_is_passed_over(sweep: Sweep) -> None:
    best = winners(sweep)
    assert best.heuristic is not None
    twin = next(index for index, one in enumerate(sweep.candidates) if one.sysfs and one.mthp == "32")
    refused = [index for index, name in enumerate(sweep.results[0].names) if name.startswith("refused/")]
    for result in sweep.results:
        kept = result.counters[best.heuristic, refused].copy()
        result.counters[best.heuristic] = result.counters[twin]
        result.counters[best.heuristic, refused] = kept
    assert winners(dataclasses.replace(sweep)).heuristic not in (None, best.heuristic)


def test_text_table() -> None:
    table = text_table(["name", "n"], [["a", "10"], ["longer", "2"]], 1)
    assert table.splitlines() == ["name     n", "------  --", "a       10", "longer   2"]


def test_rows_table_puts_what_never_changes_above() -> None:
    table = rows_table([{"name": "a", "n": 1234, "x": 1.5}, {"name": "a", "n": 2, "y": None}])
    assert table.splitlines() == ["name a", "n      x", "-----  ---", "1,234  1.5", "2"]


def test_numbers() -> None:
    assert [number(value) for value in (0, 0.1234, 12.345, 1234.56)] == ["0", "0.123", "12.35", "1,234.6"]
    assert change(5, 10) == "10.00 -> 5.00 (-50%)"
    assert change(9.996, 10) == "10.00 -> 10.00 (-0.04%)"
    assert change(10, 10) == "10.00 -> 10.00 (same)"
    assert change(1, 0) == "0 -> 1.00"
