"""What sampled lanes counted, as text, as CSV and as a figure."""

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxswap.race.lanes import CHECKS, ERRORS, LOCK_STEPS, OCTAVE
from jaxswap.race.sample import Sampled, window_quantile
from jaxswap.report.image import write_image
from jaxswap.report.tables import text_table
from jaxswap.swaptable.geometry import ERRNO_NAMES, SIZE_NAMES
from jaxswap.workload.files import make_folder, write_atomic

NAMES = ("sample.txt", "sample.csv", "window.csv", "figure.csv", "figure.png", "figure.pdf")
"""What :func:`write_sample` leaves in its folder."""
BY_ORDER = ("frames", "no_frame", "no_charge", "inserted", "thrown", "dropped", "fallback")
SINGLE = ("lanes", "faults", "events", "retries", "below_0")
LOCK = ("acquired", "held_ns", "waited_ns")
CHECKING = ("CHECK", "INSERT", "ADD")
"""Steps under the lock that check a range."""
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
DASHES = ((), (4, 1), (2, 1), (1, 1), (5, 1, 1, 1))

_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "figure.dpi": 200,
}


def million(count: float, one: Sampled) -> float:
    """Of a count, per million faults."""
    return 1e6 * count / max(1, one.counts.faults)


def checking_ns(one: Sampled) -> float:
    """Cluster lock held by the steps that check a range, nanoseconds a fault."""
    its = [LOCK_STEPS.index(step) for step in CHECKING]
    return one.counts.locks[1, its].sum() / max(1, one.counts.faults)


def sample_text(cells: Sequence[Sampled], origin: Sequence[str]) -> str:
    """Four tables: frames thrown away, errno of the checks, time under the lock, the window.

    origin: lines that say what made them.
    """
    orders = range(cells[0].counts.orders)
    sizes = [SIZE_NAMES[order] for order in orders]
    names = [[one.form, str(one.cpus)] for one in cells]

    def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        filled = [[*name, *row] for name, row in zip(names, rows, strict=True)]
        return [title, text_table(["form", "CPUs", *header], filled, 1), ""]

    def per_million(values: Iterable[Any], one: Sampled) -> list[str]:
        return [f"{million(float(value), one):,.0f}" for value in values]

    thrown = []
    for one in cells:
        by_order = one.counts.thrown
        pages = (by_order << np.arange(len(by_order)))[1:].sum()
        thrown.append([f"{one.counts.faults:,}", *per_million([*by_order, by_order[1:].sum(), pages], one)])
    errors, locks, window = [], [], []
    for one in cells:
        counts = one.counts
        both = counts.check[:, 1:].sum(2).ravel()
        errors.append(per_million([*both, counts.fallback.sum(), counts.retries], one))
        faults = max(1, counts.faults)
        checks = counts.locks[:, [LOCK_STEPS.index(step) for step in CHECKING]].sum(1) / faults
        every = counts.locks.sum(1) / faults
        locks.append([f"{checks[0]:.2f}", f"{checks[1]:.0f}", f"{every[0]:.2f}", f"{every[1]:.0f}"])
        locks[-1].append(f"{every[2]:.0f}")
        window.append(
            [
                _ns(window_quantile(counts, order, share))
                for order in (0, counts.orders - 1)
                for share in (0.5, 0.9, 0.99)
            ]
        )
    ends = (0, cells[0].counts.orders - 1)
    errnos = [f"{which} {ERRNO_NAMES[error]}" for which in CHECKS for error in ERRORS[1:]]
    shares = [f"{SIZE_NAMES[order]} {share}" for order in ends for share in ("50%", "90%", "99%")]
    seconds = sum(one.seconds for one in cells)
    faults = sum(one.counts.faults for one in cells)
    events = sum(one.counts.events for one in cells)
    return "\n".join(
        [
            *table(
                "thrown away per million faults: frames by size; all large ones, and their pages",
                ["faults", *sizes, "large", "pages"],
                thrown,
            ),
            *table(
                "checks that failed, swpin_fallback, retries, per million faults",
                [*errnos, "fallback", "retries"],
                errors,
            ),
            *table(
                "cluster lock, a fault: taken, and ns held, to check; in all; ns waited for",
                ["checks", "held", "all", "held", "waited"],
                locks,
            ),
            *table("window from look to insertion, ns", shares, window),
            f"{faults:,} faults, {events:,} steps in {seconds:.1f} s: "
            f"{faults / max(seconds, 1e-9):,.0f} faults/s",
            *origin,
        ]
    )


def _ns(value: float) -> str:
    return "" if np.isnan(value) else f"{value:,.0f}"


def write_sample(cells: Sequence[Sampled], folder: Path, text: str, origin: Sequence[str]) -> None:
    """Write :data:`NAMES` into the folder."""
    make_folder(folder, "result")
    write_atomic(folder / "sample.csv", _table_csv(_COUNTS, _counts(cells), origin), "result")
    write_atomic(folder / "window.csv", _table_csv(_WINDOW, _windows(cells), origin), "result")
    write_atomic(folder / "figure.csv", _table_csv(_DRAWN, _drawn(cells), origin), "figure's data")
    write_image(lambda: _figure(cells, origin), folder / "figure", _STYLE)
    write_atomic(folder / "sample.txt", (text + "\n").encode(), "result")


_COUNTS = ("form", "cpus", "count", "part", "order", "value")
_WINDOW = ("form", "cpus", "order", "from_ns", "to_ns", "insertions")
_DRAWN = ("form", "cpus", "panel", "x", "y")


def _table_csv(header: Sequence[str], rows: Iterator[tuple], origin: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    buffer.writelines(f"# {line}\n" for line in origin)
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _counts(cells: Sequence[Sampled]) -> Iterator[tuple]:
    for one in cells:
        name, counts = (one.form, one.cpus), one.counts
        for count in SINGLE:
            yield *name, count, "", "", getattr(counts, count)
        for count in BY_ORDER:
            for order, value in enumerate(getattr(counts, count).tolist()):
                yield *name, count, "", order, value
        for (which, error, order), value in np.ndenumerate(counts.check):
            yield *name, f"{CHECKS[which]} check", ERRNO_NAMES[ERRORS[error]], order, int(value)
        for (which, step), value in np.ndenumerate(counts.locks):
            yield *name, f"lock {LOCK[which]}", LOCK_STEPS[step], "", int(value)


def _windows(cells: Sequence[Sampled]) -> Iterator[tuple]:
    for one in cells:
        for order, bin in np.argwhere(one.counts.window).tolist():
            edges = (f"{2.0 ** (edge / OCTAVE):.2f}" for edge in (bin, bin + 1))
            yield one.form, one.cpus, order, *edges, int(one.counts.window[order, bin])


def _drawn(cells: Sequence[Sampled]) -> Iterator[tuple]:
    """Every point of the figure."""
    top = cells[0].counts.orders - 1
    most = max(one.cpus for one in cells)
    for one in cells:
        name = one.form, one.cpus
        for order in range(1, top + 1):
            yield *name, f"thrown {SIZE_NAMES[order]}", one.cpus, million(one.counts.thrown[order], one)
        yield *name, "held", one.cpus, checking_ns(one)
        if one.cpus == most:
            bins = one.counts.window[top]
            below = bins.cumsum() / max(1, bins.sum())
            for bin in np.flatnonzero(bins).tolist():
                yield *name, "window", 2.0 ** ((bin + 1) / OCTAVE), float(below[bin])


def _figure(cells: Sequence[Sampled], origin: Sequence[str]) -> Figure:
    points = list(_drawn(cells))
    forms = list(dict.fromkeys(one.form for one in cells))
    most = max(one.cpus for one in cells)
    top = cells[0].counts.orders - 1
    large = [f"thrown {SIZE_NAMES[order]}" for order in range(1, top + 1)]
    columns = max(2, len(large))
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    grid = figure.add_gridspec(2 if large else 1, 2 * columns)
    panels = [(figure.add_subplot(grid[0, 2 * i : 2 * i + 2]), name) for i, name in enumerate(large)]
    panels += [
        (figure.add_subplot(grid[-1, :columns]), "held"),
        (figure.add_subplot(grid[-1, columns:]), "window"),
    ]
    titles = {
        name: f"{name.removeprefix('thrown ')} frames thrown away\nper million faults" for name in large
    }
    titles["held"] = "cluster lock held to check a range, ns a fault"
    titles["window"] = f"window of {SIZE_NAMES[top]}, share below, {most} CPUs"
    for axes, name in panels:
        axes.set_title(titles[name])
        _lines(axes, [point for point in points if point[2] == name], forms)
        axes.set_xlabel("ns" if name == "window" else "CPUs")
        if name == "window":
            axes.set_xscale("log")
        else:
            cpus = sorted({one.cpus for one in cells})
            axes.set_xscale("log", base=2)
            axes.set_xticks(cpus, [str(number) for number in cpus])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(forms), frameon=False)
    caption = textwrap.fill(", ".join(origin), 180)
    figure.suptitle(caption, fontsize=4.5, color="0.35", x=0.01, ha="left")
    return figure


def _lines(axes: Axes, points: Sequence[tuple], forms: Sequence[str]) -> None:
    for number, form in enumerate(forms):
        its = [point[3:] for point in points if point[0] == form]
        axes.plot(
            [x for x, _ in its],
            [y for _, y in its],
            label=form,
            color=COLORS[number % len(COLORS)],
            dashes=DASHES[number % len(DASHES)],
            linewidth=1,
            marker="" if len(its) > 12 else ".",
            markersize=3,
        )
