"""The report of a sweep: ranked tables, Pareto fronts, refusals, winners; as text, with figures beside it."""

from collections.abc import Sequence

import numpy as np

from jaxswap.config import SIZES
from jaxswap.machine.counters import REASONS
from jaxswap.report.figure import draw_front
from jaxswap.report.provenance import provenance
from jaxswap.report.tables import change, mebibytes, number, text_table
from jaxswap.report.winners import Winners, winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.objective import AXES, Dominance
from jaxswap.sweep.result import WorkloadResult
from jaxswap.sweep.space import sysfs_lines
from jaxswap.workload.files import write_atomic

TOP = 8
"""Rows of a ranked table, the reference apart."""
FRONT = 16
"""Rows of a front's table; the figure's CSV has every one."""

_COLUMNS = {
    "failed": "failed",
    "fallbacks": "fallb",
    "major_faults": "majflt",
    "useless_pages": "useless",
    "pages_in": "in",
    "pages_out": "out",
    "large_coverage": "large",
    "refusals": "refused",
}
AXIS_NAMES = {
    "failed_fallbacks": "failed + fallbacks",
    "major_faults": "major faults",
    "useless_pages": "useless pages",
}


def write_report(sweep: Sweep) -> str:
    """Write report.txt and figures/front.{png,pdf,csv} into the run directory; returns the text to print."""
    figure = draw_front(sweep)
    path = sweep.folder / "report.txt"
    write_atomic(path, (report_text(sweep, by_size=True) + "\n").encode(), "report")
    return f"{report_text(sweep)}\n\nby size and reason: {path}\nfigure: {figure} (PDF and CSV beside it)\n"


def report_text(sweep: Sweep, by_size: bool = False) -> str:
    """The report: one part a workload, then all workloads together; with tables by size where asked."""
    parts = [
        "\n".join(provenance(sweep)),
        f"{len(sweep.candidates)} candidates, objective: {sweep.objective}\n"
        "Counts per 1,000 accesses. R: the reference; +: better than it by the objective; *: on the Pareto\n"
        "front; same: further candidates with these very counts.",
    ]
    if sweep.failed:
        parts.append("\n".join(_without(sweep)))
    for result in sweep.results:
        title = (
            f"{result.name}: {result.accesses:,} accesses, footprint {mebibytes(result.footprint)}, "
            f"limit {mebibytes(result.limit)}, swap {mebibytes(result.swap)}"
        )
        parts += _part(sweep, title, [result], by_size)
    if len(sweep.results) > 1:
        parts += _part(
            sweep, "All workloads (means; + no worse than the reference on each)", sweep.results, by_size
        )
    return "\n\n".join(parts)


def _without(sweep: Sweep) -> list[str]:
    """What a report says first where workloads failed."""
    others = ", ".join(result.name for result in sweep.results)
    return [
        *(f"FAILED, in no table: {name}: {why}" for name, why in sweep.failed.items()),
        f"Every ranking is over {others} alone; a candidate that is better here may be worse on the rest.",
    ]


def _part(sweep: Sweep, title: str, results: Sequence[WorkloadResult], by_size: bool) -> list[str]:
    best = winners(sweep, results)
    return [
        f"{title}\n{'=' * len(title)}",
        _ranked(sweep, results, best),
        _front(sweep, results),
        *([_by_size(sweep, results, best)] if by_size else []),
        _winners(sweep, results, best),
    ]


def _means(sweep: Sweep, results: Sequence[WorkloadResult]) -> dict[str, np.ndarray]:
    return {name: values.mean(axis=0) for name, values in sweep.measured(results).items()}


def _ranked(sweep: Sweep, results: Sequence[WorkloadResult], best: Winners) -> str:
    """The best TOP candidates, those with equal counts in one row; the reference and both winners always."""
    means, front, ranking = _means(sweep, results), sweep.front(results), best.ranking
    dead = np.isinf(ranking.violation)
    counts = np.stack([means[name] for name in _COLUMNS if name != "refusals"] + [dead], axis=1)
    places: dict[tuple[float, ...], list[tuple[int, int]]] = {}
    for place, index in enumerate(ranking.order.tolist(), 1):
        places.setdefault(tuple(counts[index]), []).append((place, index))
    kept = {sweep.reference, best.sysfs, best.heuristic}
    rows, left_off = [], 0
    for group in places.values():
        shown = [(place, index) for place, index in group if (place, index) == group[0] or index in kept]
        if len(rows) >= TOP and not any(index in kept for _, index in shown):
            left_off += 1
            continue
        for place, index in shown:
            candidate = sweep.candidates[index]
            marks = [
                "R" if index == sweep.reference else "",
                "+" if ranking.beats[index] else "",
                "*" if front[index] else "",
            ]
            values = [number(means[name][index]) for name in _COLUMNS]
            same = f"+{len(group) - len(shown)}" if len(group) > len(shown) and index == shown[0][1] else ""
            rows.append(
                [
                    str(place),
                    "".join(marks),
                    candidate.mthp or "none",
                    str(candidate.policy),
                    *(["OOM"] + [""] * (len(values) - 1) if dead[index] else values),
                    same,
                ]
            )
    header = ["#", "", "sizes kB", "heuristic", *_COLUMNS.values(), "same"]
    more = f"\n({left_off} more in results/*.parquet)" if left_off else ""
    return text_table(header, rows, 4) + more


def _front(sweep: Sweep, results: Sequence[WorkloadResult]) -> str:
    means, front = _means(sweep, results), np.flatnonzero(sweep.front(results))
    points: dict[tuple[float, ...], list[int]] = {}
    for index in sorted(front, key=lambda one: tuple(means[name][one] for name in ("major_faults", *AXES))):
        points.setdefault(tuple(means[name][index] for name in AXES), []).append(int(index))
    rows = [
        [
            sweep.candidates[group[0]].mthp or "none",
            str(sweep.candidates[group[0]].policy),
            *(number(value) for value in point),
            f"+{len(group) - 1}" if len(group) > 1 else "",
        ]
        for point, group in list(points.items())[:FRONT]
    ]
    header = ["sizes kB", "heuristic", *(AXIS_NAMES[name] for name in AXES), "same"]
    left_off = len(points) - len(rows)
    more = f"\n({left_off} more in figures/front.csv)" if left_off else ""
    return f"Pareto front, fewest major faults first\n{text_table(header, rows, 2)}{more}"


_BY_SIZE = {
    "first touches": "{size}/anon_fault_alloc",
    "first-touch fallbacks": "{size}/anon_fault_fallback",
    "  first-touch charge refused": "{size}/anon_fault_fallback_charge",
    "swapped in": "{size}/swpin",
    "swap-in fallbacks": "{size}/swpin_fallback",
    "  swap-in charge refused": "{size}/swpin_fallback_charge",
    "swapped out": "{size}/swpout",
    "swap-out fallbacks": "{size}/swpout_fallback",
} | {
    f"{path} refused: {reason}": f"refused/{key}/{reason}/{{size}}"
    for path, key in (("touch", "touch"), ("swap-in", "swapin"))
    for reason in REASONS
}
"""Row of the table by size -> raw counter."""


def _by_size(sweep: Sweep, results: Sequence[WorkloadResult], best: Winners) -> str:
    """What became of each order, by size: the reference and the winners; rows of nothing are left out."""
    named = {"reference": sweep.reference, "best sysfs": best.sysfs, "best heuristic": best.heuristic}
    sizes = sizes_of(sweep)
    rows = []
    for label, index in named.items():
        if index is None:
            continue
        for row, pattern in _BY_SIZE.items():
            values = [_mean(results, pattern.format(size=size), index) for size in sizes]
            if any(values):
                rows.append([label, row, *map(number, values)])
                label = ""
    return text_table(["", "by size", *sizes], rows, 2)


def sizes_of(sweep: Sweep) -> list[str]:
    """The mTHP sizes that any candidate enables, as counters name them."""
    enabled = {
        f"{word.removesuffix('m')}kB" for candidate in sweep.candidates for word in candidate.mthp.split()
    }
    return [f"{size}kB" for size in SIZES if f"{size}kB" in enabled]


def _mean(results: Sequence[WorkloadResult], counter: str, index: int) -> float:
    """A raw counter of one candidate per 1,000 accesses, the mean over workloads."""
    return float(np.mean([result.counter(counter)[index] * 1000 / result.accesses for result in results]))


def _winners(sweep: Sweep, results: Sequence[WorkloadResult], best: Winners) -> str:
    sysfs = sweep.candidates[best.sysfs]
    lines = [f"Best setting that sysfs can express: {sysfs.mthp or 'none'}"]
    lines += _standing(sweep, results, best, best.sysfs)
    lines += [f"    {line}" for line in sysfs_lines(sysfs.mthp)]
    if best.heuristic is None:
        lines.append("Best heuristic: none ran to its end and did anything that sysfs cannot express.")
    else:
        lines.append(f"Best heuristic (needs a kernel patch): {sweep.candidates[best.heuristic]}")
        lines += _standing(sweep, results, best, best.heuristic)
        order = best.ranking.order.tolist()
        if order.index(best.heuristic) > order.index(best.sysfs):
            lines.append("    ranks behind the sysfs setting: the best result here needs no patch")
    return "\n".join(lines)


def _standing(sweep: Sweep, results: Sequence[WorkloadResult], best: Winners, index: int) -> list[str]:
    """How a winner stands to the reference: in words where not better, then by the three main counts."""
    if index == sweep.reference:
        return ["    the reference itself: nothing that sysfs can express is better"]
    lines = []
    if isinstance(sweep.objective, Dominance) and best.ranking.violation[index] > 0:
        where = "" if len(results) == 1 else " on some workload"
        lines.append(f"    does NOT dominate the reference: more major faults or useless pages{where}")
    elif not best.ranking.beats[index]:
        lines.append("    not better than the reference")
    means = _means(sweep, results)
    return lines + [
        f"    {AXIS_NAMES[name]:<18} {change(means[name][index], means[name][sweep.reference])}"
        for name in AXES
    ]
