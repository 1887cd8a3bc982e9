"""The figures of a search: held-out differences with intervals, refusals by order and reason, sensitivity."""

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxswap.config import SIZES
from jaxswap.machine.counters import PATHS, REASONS
from jaxswap.report.image import WIDTH, write_image
from jaxswap.report.search import FORESEES, Search, group_name
from jaxswap.report.sweep import AXIS_NAMES
from jaxswap.sweep.objective import AXES, pareto
from jaxswap.tune.compare import Comparison
from jaxswap.workload.files import write_atomic

_KERNEL, _WINNER, _FUTURE, _OTHER = "#D55E00", "#009E73", "#0072B2", "0.55"
_TINTS = ("#D55E00", "#0072B2", "#009E73")
_PATH_NAMES = dict(zip(PATHS, ("first touch", "swap-in"), strict=True))
_REASONS = dict(
    zip(
        REASONS,
        (
            "#BBBBBB",
            "#999999",
            "#777777",
            "#CC79A7",
            "#E69F00",
            "#F0E442",
            "#56B4E9",
            "#0072B2",
            "#D55E00",
            "#009E73",
        ),
        strict=True,
    )
)

Rows = Iterator[Sequence[object]]


def draw(search: Search) -> list[Path]:
    """Write figures/NAME.png, .pdf and .csv of each figure; returns the paths of the PNGs."""
    figures: dict[str, tuple[Callable[[Search], Figure], Callable[[Search], Rows]]] = {
        "fronts": (_fronts, _fronts_rows),
        "refusals": (_refusals, _refusals_rows),
    }
    if any(True for _ in _around(search)):
        figures["sensitivity"] = (_sensitivity, _sensitivity_rows)
    return [
        _write(search, name, lambda chosen=figure: chosen(search), rows(search))
        for name, (figure, rows) in figures.items()
    ]


def _write(search: Search, name: str, figure: Callable[[], Figure], rows: Rows) -> Path:
    stem = search.folder / "figures" / name
    buffer = io.StringIO()
    for line in search.said:
        buffer.write(f"# {line}\n")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    write_atomic(stem.with_suffix(".csv"), buffer.getvalue().encode(), "figure's data")
    return write_image(figure, stem)


def _panels(search: Search, count: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.9 + height * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in list(grid.flat)[count:]:
        axes.remove()
    caption = textwrap.fill(", ".join(search.said), 200)
    figure.suptitle(caption, fontsize=5, color="0.35", x=0.01, ha="left")
    return figure, list(grid.flat)[:count]


def _name(search: Search, candidate: int) -> str:
    """Short where it is clear: without the parameters if no other candidate has the heuristic."""
    found, every = search.held_out.candidates[candidate], search.held_out.candidates
    alone = sum(one.policy.name == found.policy.name for one in every) == 1
    said = found.policy.name if alone else str(found.policy)
    return said if found.mthp == every[0].mthp else f"{found.mthp} / {said}"


def _fronts(search: Search) -> Figure:
    """A panel a group of held-out workloads: x major faults, y failed attempts and fallbacks, both less the
    kernel's, with the intervals; black where no other candidate that a kernel can have has less of all three.
    """
    groups = search.groups()
    figure, panels = _panels(search, len(groups), 2.3)
    for axes, (group, among) in zip(panels, groups.items(), strict=True):
        front, found = _front(search, among)
        for i, comparison in found.items():
            failed, faults, _ = (comparison.differences[name] for name in AXES)
            role, name = search.role(i), search.held_out.candidates[i].policy.name
            tint = {0: _KERNEL, search.winner: _WINNER}.get(i, _FUTURE if role == FORESEES else _OTHER)
            axes.errorbar(
                faults.mean,
                failed.mean,
                xerr=[[faults.mean - faults.low], [faults.high - faults.mean]],
                yerr=[[failed.mean - failed.low], [failed.high - failed.mean]],
                fmt="s" if i == 0 else "o" if i > search.shown else "*" if role == FORESEES else "^",
                color=tint,
                markersize=5 if i in (0, search.winner) else 3.5,
                markeredgecolor="black" if i in front else tint,
                markeredgewidth=0.8,
                elinewidth=0.6,
                zorder=5 if i in (0, search.winner) else 3,
                label="kernel's rule" if i == 0 else "winner of training" if i == search.winner else None,
            )
            if 0 < i <= search.shown or (name == "cap" and i != search.winner):
                axes.annotate(
                    _name(search, i), (faults.mean, failed.mean), xytext=(3, 3), textcoords="offset points",
                    fontsize=4.5, color="0.3",
                )  # fmt: skip
        axes.axhline(0, color=_KERNEL, linewidth=0.4, zorder=0)
        axes.axvline(0, color=_KERNEL, linewidth=0.4, zorder=0)
        axes.set_title(f"{group_name(group)} ({found[0].units} units)")
        axes.set_xlabel("major faults less the kernel's")
    panels[0].set_ylabel("failed + fallbacks less the kernel's")
    panels[0].plot([], [], "^", color=_OTHER, markersize=3.5, label="for orientation")
    if any(search.role(i) == FORESEES for i in range(1 + search.shown)):
        panels[0].plot([], [], "*", color=_FUTURE, markersize=4, label=f"{FORESEES} (no bound)")
    panels[0].plot([], [], "o", color=_OTHER, markersize=3.5, label="other finalist")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _front(search: Search, among: Sequence[int]) -> tuple[set[int], dict[int, Comparison]]:
    """(those on the front, every candidate that was replayed, held to the reference)."""
    candidates = range(len(search.held_out.candidates))
    found = {i: search.compared(i, among) for i in candidates if search.replayed(i, among)}
    able = [i for i in found if not search.held_out.candidates[i].foresees]
    points = np.array([[found[i].differences[name].mean for name in AXES] for i in able])
    return {i for i, on in zip(able, pareto(points), strict=True) if on}, found


def _fronts_rows(search: Search) -> Rows:
    parts = [f"{name}_{part}" for name in AXES for part in ("mean", "low", "high", "more", "fewer")]
    yield ["regime", "real", "mthp", "policy", "role", "units", *parts, "front", "verdict"]
    for (regime, real), among in search.groups().items():
        front, found = _front(search, among)
        for i, comparison in found.items():
            candidate = search.held_out.candidates[i]
            values = [
                f"{value:.6g}"
                for name in AXES
                for one in [comparison.differences[name]]
                for value in (one.mean, one.low, one.high, one.more, one.fewer)
            ]
            yield [
                regime, int(real), candidate.mthp, str(candidate.policy), search.role(i),
                comparison.units, *values, int(i in front), "" if i == 0 else comparison.verdict,
            ]  # fmt: skip


def _refused(
    search: Search, among: Sequence[int], candidate: int, path: str, reason: str, size: int
) -> float:
    """Refusals per 1,000 accesses, the mean over workloads."""
    name = f"refused/{path}/{reason}/{size}kB"
    results = [search.held_out.results[i] for i in among]
    return float(np.mean([one.counter(name)[candidate] * 1000 / one.accesses for one in results]))


def _sizes(search: Search) -> list[int]:
    pair = [search.held_out.candidates[i] for i in (0, search.winner)]
    enabled = {int(word.removesuffix("m")) for one in pair for word in one.mthp.split()}
    return [size for size in SIZES if size in enabled]


def _refusals(search: Search) -> Figure:
    """A panel a group: for each path and order two bars, the kernel's rule and the winner."""
    groups, sizes = search.groups(), _sizes(search)
    figure, panels = _panels(search, len(groups), 2.3)
    seen: set[str] = set()
    for axes, (group, among) in zip(panels, groups.items(), strict=True):
        ticks = []
        for at, (path, size) in enumerate((path, size) for path in PATHS for size in sizes):
            ticks.append(f"{'touch' if path == PATHS[0] else 'in'}\n{size}")
            for shift, candidate in ((-0.2, 0), (0.2, search.winner)):
                bottom = 0.0
                for reason, tint in _REASONS.items():
                    value = _refused(search, among, candidate, path, reason, size)
                    if value:
                        seen.add(reason)
                        axes.bar(
                            at + shift, value, 0.36, bottom, color=tint, linewidth=0.3,
                            edgecolor="white" if candidate == 0 else "black",
                        )  # fmt: skip
                        bottom += value
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_title(group_name(group))
    panels[0].set_ylabel("refusals / 1,000 accesses")
    for reason in REASONS:
        if reason in seen:
            panels[0].bar(0, 0, color=_REASONS[reason], label=reason.replace("_", " "))
    panels[0].bar(0, 0, color="0.85", edgecolor="black", linewidth=0.5, label="right bar: winner")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _refusals_rows(search: Search) -> Rows:
    yield ["regime", "real", "path", "kB", "reason", "kernel", "winner"]
    for (regime, real), among in search.groups().items():
        for path in PATHS:
            for size in _sizes(search):
                for reason in REASONS:
                    pair = [_refused(search, among, i, path, reason, size) for i in (0, search.winner)]
                    if any(pair):
                        named = [regime, int(real), _PATH_NAMES[path], size, reason]
                        yield [*named, *(f"{value:.6g}" for value in pair)]


def _around(search: Search) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """(parameter, [(value, candidate of train)]) where the search tried others that differ in it alone."""
    winner = search.held_out.candidates[search.winner]
    params = dict(winner.policy.params)
    for name in params:
        found = {
            dict(one.policy.params)[name]: i
            for i, one in enumerate(search.train.candidates)
            if one.mthp == winner.mthp
            and one.policy.name == winner.policy.name
            and {**dict(one.policy.params), name: params[name]} == params
        }
        if len(found) > 1:
            yield name, sorted(found.items())


def _sensitivity(search: Search) -> Figure:
    """A panel a parameter of the winner: the three counts on the training workloads, less the kernel's."""
    around = list(_around(search))
    figure, panels = _panels(search, len(around), 2.0)
    means = {name: values.mean(axis=0) for name, values in search.train.measured().items()}
    chosen = dict(search.held_out.candidates[search.winner].policy.params)
    for axes, (param, found) in zip(panels, around, strict=True):
        for name, tint in zip(AXES, _TINTS, strict=True):
            y = [means[name][i] - means[name][0] for _, i in found]
            axes.plot([value for value, _ in found], y, "o-", color=tint, linewidth=0.8, markersize=3,
                      label=AXIS_NAMES[name])  # fmt: skip
        axes.axvline(chosen[param], color="0.8", linewidth=3, zorder=0, label="the winner's value")
        axes.axhline(0, color="0.4", linewidth=0.5, zorder=0)
        values = [value for value, _ in found]
        axes.set_xticks(values if len(values) <= 5 else [values[0], chosen[param], values[-1]])
        axes.set_xlabel(param)
    panels[0].set_ylabel("training workloads:\nless the kernel's / 1,000 accesses")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _sensitivity_rows(search: Search) -> Rows:
    means = {name: values.mean(axis=0) for name, values in search.train.measured().items()}
    yield ["parameter", "value", *AXES]
    for param, found in _around(search):
        for value, i in found:
            yield [param, value, *(f"{means[name][i] - means[name][0]:.6g}" for name in AXES)]
