"""The sweep's figure: one panel a workload, every candidate a point, the front and the winners marked."""

import csv
import io
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator

from jaxswap.report.image import COLUMN, WIDTH, write_image
from jaxswap.report.provenance import provenance
from jaxswap.report.winners import Winners, winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.objective import AXES
from jaxswap.sweep.result import WorkloadResult
from jaxswap.workload.files import make_folder, write_atomic

_COLOURS = "cividis_r"
_REFERENCE, _SYSFS, _HEURISTIC = "#D55E00", "#0072B2", "#009E73"


def draw_front(sweep: Sweep) -> Path:
    """Write figures/front.png, .pdf and .csv into the run directory; returns the path of the PNG."""
    folder = sweep.folder / "figures"
    make_folder(folder, "figure")
    png = write_image(lambda: front_figure(sweep), folder / "front")
    write_atomic(folder / "front.csv", _csv(sweep).encode(), "figure's data")
    return png


def front_figure(sweep: Sweep) -> Figure:
    """The figure, to be drawn under STYLE."""
    panels = sweep.results
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    wide = columns > 1  # else one column of a paper, with the legend's entries below one another
    size = (WIDTH, 0.75 + 2.2 * lines) if wide else (COLUMN, 3.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    useless = np.concatenate([result.metrics["useless_pages"][~result.oom] for result in panels])
    colour = Normalize(0, max(float(useless.max()), 1e-9))
    points = None
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.remove()
            continue
        points = _panel(axes, sweep, panels[index], colour)
        if index % columns == 0:
            axes.set_ylabel("failed attempts + fallbacks / 1,000 accesses")
        axes.set_xlabel("major faults / 1,000 accesses")
    assert points is not None
    bar = figure.colorbar(points, ax=grid, fraction=0.03, pad=0.01, aspect=30)
    bar.set_label("useless pages / 1,000 accesses")
    bar.outline.set_linewidth(0.4)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4 if wide else 1, frameon=False)
    figure.suptitle(_caption(sweep, columns), fontsize=5, color="0.35", x=0.01, ha="left")
    return figure


def _panel(axes: Axes, sweep: Sweep, result: WorkloadResult, colour: Normalize):
    """One workload: x major faults, y failed attempts + fallbacks, colour useless pages."""
    metrics, front = result.metrics, sweep.front([result])
    x, y, useless = metrics["major_faults"], metrics["failed_fallbacks"], metrics["useless_pages"]
    alive = ~result.oom
    sysfs = np.array([candidate.sysfs for candidate in sweep.candidates])
    _scale(axes, x[alive], y[alive])
    points = None
    for chosen, marker in ((~sysfs, "D"), (sysfs, "o")):
        for on_front in (False, True):
            pick = alive & chosen & (front == on_front)
            drawn = axes.scatter(
                x[pick],
                y[pick],
                c=useless[pick],
                norm=colour,
                cmap=_COLOURS,
                marker=marker,
                s=16 if marker == "o" else 11,
                linewidths=0.9 if on_front else 0.25,
                edgecolors="black" if on_front else "0.55",
                zorder=4 if on_front else 3,
                clip_on=False,
            )
            points = points or drawn
    best = winners(sweep, [result])
    for index, tint, size in _rings(sweep.reference, best):
        axes.scatter(
            x[index],
            y[index],
            s=size,
            facecolors="none",
            edgecolors=tint,
            linewidths=1.2,
            zorder=6,
            clip_on=False,
        )
    _no_worse(axes, x[sweep.reference], y[sweep.reference])
    axes.set_title(
        f"{result.name} ({result.limit / result.footprint:.0%} of {result.footprint / (1 << 20):.0f} MiB)"
    )
    return points


def _rings(reference: int, best: Winners) -> list[tuple[int, str, float]]:
    """(candidate, colour, area) of marked candidates; areas differ so that rings on one point all show."""
    marked = [(reference, _REFERENCE, 42.0), (best.sysfs, _SYSFS, 82.0), (best.heuristic, _HEURISTIC, 134.0)]
    return [(index, tint, size) for index, tint, size in marked if index is not None]


def _no_worse(axes: Axes, x: float, y: float) -> None:
    """Shade what is no worse than the reference on both axes."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    area = Rectangle((left, bottom), x - left, y - bottom, color=_REFERENCE, alpha=0.1, linewidth=0, zorder=0)
    axes.add_artist(area)


def _scale(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Limits with some air; the y axis logarithmic where its values span more than a decade, 0 kept on it."""
    air = 0.06 * (x.max() - x.min() or 1)
    axes.set_xlim(x.min() - air, x.max() + air)
    positive = y[y > 0]
    if not len(positive):
        axes.set_ylim(-0.05, 1)
        return
    least, most = positive.min(), positive.max()
    if most <= 10 * least:
        axes.set_ylim(-0.05 * most if (y == 0).any() else 0, 1.1 * most)
        return
    zero = bool((y == 0).any())
    axes.set_yscale("symlog", linthresh=least, linscale=0.35)
    axes.set_ylim(-0.25 * least if zero else least / 1.3, most * 1.6)
    decades = 10.0 ** np.arange(np.ceil(np.log10(least)), np.floor(np.log10(most)) + 1)
    steps = np.outer(
        10.0 ** np.arange(np.floor(np.log10(least)), np.ceil(np.log10(most)) + 1), range(2, 10)
    ).ravel()
    axes.yaxis.set_major_locator(FixedLocator([0, *decades] if zero else [*decades]))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(FixedLocator([*steps[(steps >= least) & (steps <= most * 1.6)]]))


def _legend() -> list[Line2D | Patch]:
    def point(marker: str, label: str, size: float, edge: str, width: float, face: str = "0.8") -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, markersize=size, label=label,
            markeredgecolor=edge, markeredgewidth=width, markerfacecolor=face,
        )  # fmt: skip

    return [
        point("o", "kernel's rule, some mask (sysfs)", 4.0, "0.55", 0.25),
        point("D", "heuristic (kernel patch)", 3.3, "0.55", 0.25),
        point("o", "on the Pareto front", 4.0, "black", 0.9),
        point("o", "reference", 6.5, _REFERENCE, 1.2, "none"),
        point("o", "best by sysfs", 7.5, _SYSFS, 1.2, "none"),
        point("o", "best heuristic", 8.5, _HEURISTIC, 1.2, "none"),
        Patch(color=_REFERENCE, alpha=0.1, linewidth=0, label="no worse than the reference on both axes"),
    ]


def _caption(sweep: Sweep, columns: int) -> str:
    """Provenance, wrapped to the figure's width."""
    text = ", ".join(provenance(sweep))
    return textwrap.fill(text, 200 if columns > 1 else 95)


def _csv(sweep: Sweep) -> str:
    """Every point of the figure, after comment lines with its provenance."""
    buffer = io.StringIO()
    for line in provenance(sweep):
        buffer.write(f"# {line}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["workload", "mthp", "policy", "params", *AXES, "oom", "front", "reference", "best"])
    for result in sweep.results:
        metrics, front, best = result.metrics, sweep.front([result]), winners(sweep, [result])
        for index, candidate in enumerate(sweep.candidates):
            writer.writerow(
                [
                    result.name,
                    candidate.mthp,
                    candidate.policy.name,
                    " ".join(f"{key}={value}" for key, value in candidate.policy.params),
                    *(f"{metrics[name][index]:.6g}" for name in AXES),
                    int(result.oom[index]),
                    int(front[index]),
                    int(index == sweep.reference),
                    {best.sysfs: "sysfs", best.heuristic: "heuristic"}.get(index, ""),
                ]
            )
    return buffer.getvalue()
