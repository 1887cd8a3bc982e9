"""Why orders were not used: the winners' refusals by order and reason beside those of the kernel's rule."""

from collections.abc import Sequence

from jaxswap.machine.counters import PATHS, REASONS
from jaxswap.report.provenance import provenance
from jaxswap.report.sweep import sizes_of
from jaxswap.report.tables import number, percent, text_table
from jaxswap.report.winners import winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.result import WorkloadResult

_PATHS = dict(zip(PATHS, ("first touch", "swap-in"), strict=True))
_WHY = {
    "vma_edge": "VMA edge",
    "alignment": "slot alignment",
    "pte_gap": "PTEs",
    "zero_flag": "-EBUSY zero flag",
    "cached": "-EBUSY cached or free",
    "memcg": "-EBUSY other memcg",
    "zswap": "-EBUSY zswap",
    "frame": "-ENOMEM frame",
    "charge": "-ENOMEM charge",
    "policy": "heuristic",
}
"""Reason -> the kernel's name for it: its error where it has one (docs/metrics.md), else the test."""
assert set(_WHY) == set(REASONS)
_LARGEST = 3


def explain_text(sweep: Sweep) -> str:
    """Of each workload a table for the best sysfs setting and one for the best heuristic of the whole run."""
    best = winners(sweep)
    parts = [
        "\n".join(provenance(sweep)),
        "Refusals per 1,000 accesses: orders that sysfs and the region allow, above the one got, not used.\n"
        f"kernel: the kernel's rule, {sweep.candidates[sweep.reference]}. -EEXIST and -ENOENT concern the\n"
        "faulting slot itself; in a sweep nothing races with a fault, so they do not occur.",
    ]
    named = {"best sysfs": best.sysfs, "best heuristic": best.heuristic}
    if best.sysfs == sweep.reference:
        parts.append("best sysfs: the kernel's rule itself; nothing that sysfs can express is better")
    if best.heuristic is None:
        parts.append("best heuristic: none ran to its end and did anything that sysfs cannot express")
    for role, index in named.items():
        if index is None or index == sweep.reference:
            continue
        for result in sweep.results:
            title = f"{result.name}: {role} {sweep.candidates[index]}"
            table = _table(sweep, result, index, role.removeprefix("best "))
            parts.append(f"{title}\n{'=' * len(title)}\n{table}")
    return "\n\n".join(parts)


def _table(sweep: Sweep, result: WorkloadResult, index: int, role: str) -> str:
    """Two lines a reason (the kernel's rule, the winner), a column an order; the largest changes below it."""
    sizes = sizes_of(sweep)
    rows, changes = [], []
    totals = [[0.0] * len(sizes), [0.0] * len(sizes)]
    for path, path_name in _PATHS.items():
        for reason, why in _WHY.items():
            pair = [_refused(result, path, reason, sizes, one) for one in (sweep.reference, index)]
            if not any(map(any, pair)):
                continue
            totals = [[a + b for a, b in zip(*both, strict=True)] for both in zip(totals, pair, strict=True)]
            rows += _rows(path_name, why, role, pair)
            changes.append((sum(pair[1]) - sum(pair[0]), f"{path_name} {why}", pair))
    if not rows:
        return "neither had a refusal"
    rows += _rows("all", "", role, totals)
    table = text_table(["path", "why", "", *sizes, "all", ""], rows, 3)
    changes = sorted((one for one in changes if one[0]), key=lambda one: -abs(one[0]))[:_LARGEST]
    said = [f"{name} {number(sum(pair[0]))} -> {number(sum(pair[1]))}" for _, name, pair in changes]
    return "\n    ".join([f"{table}\nlargest changes:", *(said or ["none"])])


def _rows(path: str, why: str, role: str, pair: Sequence[Sequence[float]]) -> list[list[str]]:
    base, now = map(sum, pair)
    change = "same" if base == now else percent(now, base)
    kernel, winner = ([number(value) for value in (*values, sum(values))] for values in pair)
    return [[path, why, "kernel", *kernel, ""], ["", "", role, *winner, change]]


def _refused(result: WorkloadResult, path: str, reason: str, sizes: Sequence[str], index: int) -> list[float]:
    """A candidate's refusals for one reason, by size, per 1,000 accesses."""
    counts = [result.counter(f"refused/{path}/{reason}/{size}")[index] for size in sizes]
    return [float(count) * 1000 / result.accesses for count in counts]
