"""The figure "simulated against real kernel": a line a pressure cell, a panel a family of counters.

Across: how far a count is from the median of the boots. A shaded band is what the bounds allow, grey marks
are the boots, a point is the replay's count.
"""

import csv
import io
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from jaxswap.errors import InputError
from jaxswap.machine import PROFILES, model_version
from jaxswap.origin import commit, device, versions
from jaxswap.pressure import EVENTS, SMALL, Count, HeldCell
from jaxswap.report.image import WIDTH, write_image
from jaxswap.report.provenance import said
from jaxswap.workload.files import write_atomic

LINE = 0.12  # inches a cell
LINEAR = 0.01  # deviations up to here are drawn to scale, larger ones by their logarithm
EDGE = 1.0  # what lies farther out is drawn there, as a triangle
INSIDE, OUTSIDE, FREE, BAND, GREY = "#0072B2", "#D55E00", "white", "#CFE3F1", "0.92"
COLORS = 128  # of the PNG

_STYLE: dict[Any, Any] = {
    "font.size": 6.5,
    "axes.titlesize": 6.5,
    "axes.linewidth": 0.5,
    "xtick.labelsize": 5.5,
    "ytick.labelsize": 5.6,
    "legend.fontsize": 6.5,
    "pdf.fonttype": 42,
    "figure.dpi": 200,
}


# Of each panel: what is counted in words, and the counters, without their size.
PANELS = (
    ("major\nfaults", ("pgmajfault",)),
    ("pages in", ("pswpin",)),
    ("pages out", ("pswpout",)),
    ("large\nswap-ins", ("swpin",)),
    ("swap-in\nfallbacks", ("swpin_fallback", "swpin_fallback_charge")),
    ("first-touch\nfallbacks", ("anon_fault_fallback", "anon_fault_fallback_charge")),
    ("events at\nthe limit", (*EVENTS.values(), "swpout_fallback")),
    ("scanned", ("pgscan",)),
    ("activated", ("pgactivate",)),
)


def figure_stem(text: str) -> Path:
    """OUT of OUT.png, OUT.pdf and OUT.csv; one of these endings may be given.

    Raises InputError if the folder is not there, so that it is said before the replays.
    """
    path = Path(text)
    stem = path.with_suffix("") if path.suffix in (".png", ".pdf", ".csv") else path
    if not stem.parent.is_dir():
        raise InputError(f"--figure {text}: no folder {stem.parent}; make it first")
    return stem


def draw_cells(found: Sequence[HeldCell], stem: Path, command: str) -> Path:
    """Write STEM.png, STEM.pdf and STEM.csv; returns the path of the PNG."""
    rows = sorted((held for held in found if held.cell.boots), key=_order)
    lines = _provenance(rows, command)
    png = write_image(lambda: _figure(rows, lines), stem, _STYLE, _smaller)
    write_atomic(stem.with_name(f"{stem.name}.csv"), _csv(rows, lines).encode(), "figure's data")
    return png


def _smaller(png: bytes) -> bytes:
    """A PNG with a palette: a third of the bytes."""
    with Image.open(io.BytesIO(png)) as image:
        dpi = image.info["dpi"]
        buffer = io.BytesIO()
        image.convert("RGB").quantize(COLORS).save(buffer, format="png", optimize=True, dpi=dpi)
    return buffer.getvalue()


def _order(held: HeldCell) -> tuple[str, str, str]:
    header = held.cell.header
    return header.get("kernel", ""), header.get("lru", "none"), held.cell.name


def _provenance(rows: Sequence[HeldCell], command: str) -> tuple[str, str]:
    kernels = sorted({held.cell.header.get("kernel", "") for held in rows})
    profiles = sorted({".".join(kernel.split(".")[:2]) for kernel in kernels})
    model = [f"model {model_version(name)}" for name in profiles if name in PROFILES]
    return said([*model, f"recorded on {', '.join(kernels)}"], versions(), commit(), device(), command)


def _figure(rows: Sequence[HeldCell], lines: Sequence[str]) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.01, wspace=0.0)
    figure = Figure(figsize=(WIDTH, 1.2 + LINE * len(rows)), layout=layout)
    grid = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(grid, PANELS, strict=True):
        axes.set_title(title)
        _axes(axes, rows)
        for y, held in enumerate(rows):
            _cell(axes, y, [count for count in held.counts if count.name.rpartition("/")[2] in names])
    several = len({held.cell.header.get("kernel") for held in rows}) > 1
    grid[0].set_yticks(range(len(rows)), [_label(held, several) for held in rows])
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    for label, held in zip(grid[0].get_yticklabels(), rows, strict=True):
        label.set_color(OUTSIDE if held.outside else "0.5" if held.refused else "black")
    figure.legend(
        handles=_legend(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        handletextpad=0.4,
        columnspacing=1.2,
        title="deviation from the median of the boots in % (lines at ±1 and ±10; linear within ±1); "
        "in brackets: number of boots",
        title_fontsize=6.5,
    )
    caption = textwrap.fill(", ".join(lines), 200)
    figure.suptitle(caption, fontsize=4.5, color="0.35", x=0.01, ha="left")
    return figure


def _label(held: HeldCell, several: bool) -> str:
    """The cell, the number of boots, and whether the replay was killed. several: of several kernels."""
    cell = held.cell
    kernel = f"{cell.header.get('kernel', '')} " if several else ""
    remark = "ours killed: " if held.oom else ""
    return f"{remark}{kernel}{cell.name} ({len(cell.boots)})"


def _axes(axes: Axes, rows: Sequence[HeldCell]) -> None:
    """The empty panel: a symmetric scale, a line under each LRU's cells."""
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
    axes.set_xlim(-EDGE * 1.6, EDGE * 1.6)
    axes.xaxis.set_major_locator(FixedLocator([-EDGE, -0.1, -LINEAR, 0, LINEAR, 0.1, EDGE]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(["", "−10", "", "0", "", "10", ""])
    for x in (-0.1, -LINEAR, 0, LINEAR, 0.1):
        axes.axvline(x, color="0.88" if x else "0.6", linewidth=0.3 if x else 0.5, zorder=0 if x else 1)
    axes.tick_params(length=1.5, width=0.4, pad=1.5)
    axes.tick_params(axis="y", length=0)
    for y, (above, held) in enumerate(itertools.pairwise(rows), 1):
        if _order(above)[:2] != _order(held)[:2]:
            axes.axhline(y - 0.5, color="0.4", linewidth=0.6, zorder=1)
    for y in range(1, len(rows)):
        axes.axhline(y - 0.5, color="0.9", linewidth=0.3, zorder=0)


def _cell(axes: Axes, y: int, counts: Sequence[Count]) -> None:
    """The counters of one cell in one panel, below each other within its line."""
    for place, count in zip(np.linspace(y - 0.36, y + 0.36, 2 * len(counts) + 1)[1::2], counts, strict=True):
        height = 0.72 / len(counts)
        if count.bounds:
            least, most = (float(np.clip(count.off(edge), -1.6, 1.6)) for edge in count.bounds)
            shade = BAND if count.ours is not None else GREY
            axes.barh(place, most - least, 0.92 * height, least, color=shade, linewidth=0, zorder=2)
        boots = np.clip([count.off(boot) for boot in count.boots], -EDGE, EDGE)
        axes.plot([boots.min(), boots.max()], [place, place], color="0.45", linewidth=0.6, zorder=3)
        axes.plot(
            boots, [place] * len(boots), "|", color="0.25", markersize=4.2 * height + 1, mew=0.6, zorder=3
        )
        if count.ours is None:
            continue
        replays = np.clip([count.off(one) for one in count.replays], -EDGE, EDGE)
        tint = FREE if count.bounds is None else INSIDE if count.inside else OUTSIDE
        axes.plot([replays.min(), replays.max()], [place, place], color=INSIDE, linewidth=0.5, zorder=4)
        off = count.off(count.ours)
        marker = "o" if abs(off) <= EDGE else ">" if off > 0 else "<"
        axes.plot(
            np.clip(off, -EDGE, EDGE), place, marker, color=tint, markersize=1.4 + 2.0 * height,
            markeredgecolor="0.2" if tint == FREE else tint, mew=0.5, zorder=5,
        )  # fmt: skip


def _legend() -> list[Line2D | Patch]:
    def mark(marker: str, label: str, face: str, edge: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, markersize=4, label=label,
            markerfacecolor=face, markeredgecolor=edge, markeredgewidth=0.6,
        )  # fmt: skip

    return [
        mark("|", "boot of the kernel", "0.25", "0.25"),
        Patch(color=BAND, linewidth=0, label="within bounds"),
        mark("o", "simulated (line: all phases)", INSIDE, INSIDE),
        mark("o", "outside", OUTSIDE, OUTSIDE),
        mark("o", "no bound", FREE, "0.2"),
        Patch(color=GREY, linewidth=0, label="not modelled"),
    ]


def _csv(rows: Sequence[HeldCell], lines: Sequence[str]) -> str:
    """Every counter of every cell, after comment lines with its provenance."""
    buffer = io.StringIO()
    for line in lines:
        buffer.write(f"# {line}\n")
    buffer.write(f"# off: (ours - median) / max(median, {SMALL})\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "kernel",
            "cell",
            "killed",
            "counter",
            "ours",
            "replays",
            "replays_killed",
            "median",
            "off",
            "least",
            "most",
            "inside",
            "boots",
            "remark",
        ]
    )
    for held in rows:
        cell = held.cell
        for count in held.counts:
            least, most = count.bounds or ("", "")
            compared = count.ours is not None
            writer.writerow(
                [
                    cell.header.get("kernel", ""),
                    cell.name,
                    len(cell.killed),
                    count.name,
                    count.ours if count.ours is not None else "",
                    " ".join(map(str, count.replays)),
                    held.killed,
                    f"{count.middle:g}",
                    f"{count.off(count.ours):.6f}" if count.ours is not None else "",
                    f"{least:.10g}" if count.bounds else "",
                    f"{most:.10g}" if count.bounds else "",
                    int(count.inside) if compared and count.bounds else "",
                    " ".join(map(str, count.boots)),
                    held.refused or ("every replay was killed" if held.oom else ""),
                ]
            )
    return buffer.getvalue()
