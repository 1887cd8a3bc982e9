"""What the bench measured, as text, as JSON, as CSV, and as a figure of how it grows."""

import csv
import io
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxswap.bench.rows import KEYS, SHOWN
from jaxswap.report.image import WIDTH, write_image
from jaxswap.report.tables import rows_table
from jaxswap.workload.files import make_folder, write_atomic

Row = Mapping[str, Any]

_PANELS = (
    ("add_check/planes", "slots", "add_check: ns a request"),
    ("cache_alloc", "slots", "cache_alloc: ns a request"),
    ("replay/growth", "lanes", "replay: ns a lane-operation"),
)
_LOOK: dict[str, tuple[str, str, str]] = {
    "JAX": ("#0072B2", "o", "-"),
    "JAX from words": ("#56B4E9", "s", "-"),
    "JAX, queues made before": ("#56B4E9", "s", "-"),
    "C": ("#D55E00", "^", "--"),
    "C, slot scan": ("#D55E00", "^", "--"),
    "C, same planes": ("#E69F00", "v", "--"),
}


def bench_text(rows: Sequence[Row]) -> str:
    """One table of all rows."""
    return rows_table([{key: row[key] for key in SHOWN} for row in rows])


def write_bench(rows: Sequence[Row], folder: Path, lines: Sequence[str]) -> None:
    """Write bench.txt, bench.json and growth.pdf, .png and .csv. lines: what made them."""
    make_folder(folder, "result")
    text = "\n".join([*lines, "", bench_text(rows), ""])
    write_atomic(folder / "bench.txt", text.encode(), "result")
    write_atomic(
        folder / "bench.json",
        ("[\n" + ",\n".join(json.dumps(dict(row)) for row in rows) + "\n]\n").encode(),
        "result",
    )
    drawn = [row for *_, points in _series(rows) for row in points]
    buffer = io.StringIO()
    buffer.writelines(f"# {line}\n" for line in lines)
    writer = csv.DictWriter(buffer, KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(drawn)
    write_atomic(folder / "growth.csv", buffer.getvalue().encode(), "figure's data")
    write_image(lambda: _figure(rows, lines), folder / "growth")


def _series(rows: Sequence[Row]) -> Iterator[tuple[int, str, list[Row]]]:
    """(panel, what is drawn, its rows in order), all on one core and tables with the first contents."""
    timed = [row for row in rows if row["time"] is not None and row["cores"] == 1]
    for number, (name, axis, _) in enumerate(_PANELS):
        here = [row for row in timed if row["name"] == name]
        if here:
            here = [row for row in here if row["case"] == here[0]["case"]]
        for variant in dict.fromkeys(row["variant"] for row in here):
            points = [row for row in here if row["variant"] == variant]
            yield number, variant, sorted(points, key=lambda row: row[axis])
        if number == 0 and here:
            words = [row for row in timed if row["name"] == "add_check/words" and row["variant"] == "JAX"]
            words = [row for row in words if row["case"] == here[0]["case"]]
            yield number, "JAX from words", sorted(words, key=lambda row: row["slots"])


def _figure(rows: Sequence[Row], lines: Sequence[str]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), squeeze=False)[0]
    for number, variant, points in _series(rows):
        axes, axis = panels[number], _PANELS[number][1]
        assert isinstance(axes, Axes)
        colour, marker, dash = _LOOK[variant]
        x = [row[axis] for row in points]
        each = [1e9 / row["rate"] for row in points]
        spread = [[(row["time"] - row["time_min"]) / row["time"] for row in points]]
        spread.append([(row["time_max"] - row["time"]) / row["time"] for row in points])
        bars = [[y * share for y, share in zip(each, side, strict=True)] for side in spread]
        axes.errorbar(
            x, each, bars, color=colour, marker=marker, ls=dash, ms=3, lw=0.9, elinewidth=0.6, label=variant
        )
    for axes, (_, axis, title) in zip(panels, _PANELS, strict=True):
        axes.set_title(title)
        axes.set_xlabel("slots of the table" if axis == "slots" else "lanes")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(axis="y", color="0.9", linewidth=0.4, zorder=0)
        if axes.has_data():
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        else:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
    about = [*lines, "one core; median of the repeats, bars from the least to the most"]
    caption = "\n".join(textwrap.fill(line, 190) for line in about)
    figure.suptitle(caption, fontsize=5, color="0.35", x=0.01, ha="left")
    return figure
