"""The figure of a workload: its accesses, footprint and reuse over time, the density of its 64 kB blocks."""

import csv
import io
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jaxswap import __version__
from jaxswap.origin import commit
from jaxswap.report.image import WIDTH, write_image
from jaxswap.workload import Workload
from jaxswap.workload.files import write_atomic
from jaxswap.workload.over_time import BLOCK, OverTime, over_time, pages_of

PARTS = 100
_MAP = (200, 120)  # cells of the map of accesses: in time, in pages
_BLUE, _RED, _GREEN = "#0072B2", "#D55E00", "#009E73"


def said(command: str) -> str:
    """What made a figure: version, commit, command. Nothing in it is random or depends on a kernel."""
    version = commit()
    return f"jaxswap {__version__}{f' ({version[:12]}{version[40:]})' if version else ''}, command: {command}"


def draw_workload(workload: Workload, stem: Path, command: str) -> Path:
    """Write STEM.png, STEM.pdf and STEM.csv; returns the path of the PNG."""
    parts = over_time(workload, PARTS)
    page, _ = pages_of(workload)
    # pages that are never touched take no room on the axis
    used, place = np.unique(page, return_inverse=True)
    cells, *_ = np.histogram2d(
        np.arange(len(page)), place, bins=_MAP, range=((0, max(len(page), 1)), (0, max(len(used), 1)))
    )
    line = said(command)
    png = write_image(lambda: _figure(workload, parts, cells, len(used), line), stem)
    write_atomic(stem.with_name(f"{stem.name}.csv"), _csv(parts, cells, line).encode(), "figure's data")
    return png


def _figure(workload: Workload, parts: OverTime, cells: np.ndarray, used: int, line: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    grid = figure.subplots(2, 2)
    total = int(parts.accesses.sum()) / 1000
    ends = np.cumsum(parts.accesses) / 1000
    many = np.maximum(parts.accesses, 1)
    _map(figure, grid[0, 0], cells, total, used)
    axes = grid[0, 1]
    axes.set_title("footprint and pages touched")
    axes.plot(ends, parts.footprint, color=_BLUE, lw=1, label="hold something")
    axes.plot(ends, parts.touched, color=_RED, lw=1, label=f"touched in {100 // PARTS} % of the run")
    axes.set_ylabel("pages")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes = grid[1, 0]
    axes.set_title("reuse")
    axes.plot(ends, 1000 * parts.missed / many, color=_RED, lw=1, label="missed at half the pages")
    axes.plot(ends, 1000 * parts.fresh / many, color=_GREEN, lw=1, label="new pages")
    axes.set_ylabel("per 1,000 accesses")
    axes.set_ylim(0, 1.3 * max(axes.get_ylim()[1], 1))  # room for the legend
    axes.legend(frameon=False, loc="upper right")
    for one in (grid[0, 1], grid[1, 0]):
        one.set_xlim(0, max(total, 1e-3))
        one.set_xlabel("thousand accesses")
    axes = grid[1, 1]
    axes.set_title("density of 64 kB blocks")
    axes.bar(range(1, BLOCK + 1), parts.blocks[1:], color=_BLUE, width=0.8)
    axes.set_xticks([1, 4, 8, 12, 16])
    axes.set_xlabel("pages of 16 ever touched")
    axes.set_ylabel("blocks")
    figure.suptitle(
        f"{workload.name}: {workload.meta.get('about', workload.meta.get('command', ''))}"[:110], fontsize=8
    )
    figure.supxlabel("\n".join(textwrap.wrap(line, 150)), fontsize=5, color="0.4")
    return figure


def _map(figure: Figure, axes: Axes, cells: np.ndarray, total: float, used: int) -> None:
    axes.set_title("accesses")
    shown = np.ma.masked_equal(cells.T, 0)
    image = axes.imshow(
        shown,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="cividis_r",
        norm=LogNorm(1, max(float(cells.max(initial=1)), 2)),
        extent=(0, max(total, 1e-3), 0, max(used, 1)),
    )
    axes.set_xlabel("thousand accesses")
    axes.set_ylabel("pages touched, by address")
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("accesses")
    bar.outline.set_linewidth(0.4)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def _csv(parts: OverTime, cells: np.ndarray, line: str) -> str:
    buffer = io.StringIO()
    buffer.write(f"# {line}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["what", "x", "y", "value"])
    for name in ("accesses", "writes", "footprint", "touched", "fresh", "missed", "reuse", "density"):
        for part, value in enumerate(getattr(parts, name).tolist()):
            writer.writerow([name, part, "", f"{value:.6g}" if isinstance(value, float) else value])
    for pages, count in enumerate(parts.blocks.tolist()):
        writer.writerow(["blocks", pages, "", count])
    for x, y in zip(*np.nonzero(cells), strict=True):
        writer.writerow(["map", int(x), int(y), int(cells[x, y])])
    return buffer.getvalue()
