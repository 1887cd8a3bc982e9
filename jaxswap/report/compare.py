"""Runs side by side: in what they differ, and of each the kernel's rule and the winners, per workload."""

import string
from collections.abc import Sequence

import numpy as np

from jaxswap.errors import InputError
from jaxswap.report.provenance import provenance
from jaxswap.report.sweep import AXIS_NAMES
from jaxswap.report.tables import mebibytes, number, percent, text_table
from jaxswap.report.winners import winners
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.manifest import differences
from jaxswap.sweep.objective import Dominance, rank
from jaxswap.sweep.result import WorkloadResult

MOST = len(string.ascii_uppercase)
_COLUMNS = {**AXIS_NAMES, "pages_in": "pages in", "pages_out": "pages out"}


def compare_text(sweeps: Sequence[Sweep]) -> str:
    """Two runs or more side by side; every difference is to the first. Raises InputError for too many."""
    if not 2 <= len(sweeps) <= MOST:
        raise InputError(f"compare: {len(sweeps)} run(s); give two to {MOST}")
    letters = string.ascii_uppercase[: len(sweeps)]
    heads = [
        "\n   ".join([f"{letter}  {sweep.folder}", *provenance(sweep)])
        for letter, sweep in zip(letters, sweeps, strict=True)
    ]
    names = dict.fromkeys(result.name for sweep in sweeps for result in sweep.results)
    parts = ["\n".join(heads), _differing(sweeps, letters)]
    for name in names:
        chosen = [[result for result in sweep.results if result.name == name] for sweep in sweeps]
        parts.append(_part(name, sweeps, chosen, letters))
    shared = [[one for one in sweep.results if _in_all(one.name, sweeps)] for sweep in sweeps]
    if len(names) > 1 and shared[0]:
        title = "All workloads" if all(len(one) == len(names) for one in shared) else "Workloads of all runs"
        parts.append(_part(f"{title} (means)", sweeps, shared, letters))
    return "\n\n".join(parts)


def _in_all(name: str, sweeps: Sequence[Sweep]) -> bool:
    return all(any(result.name == name for result in sweep.results) for sweep in sweeps)


def _differing(sweeps: Sequence[Sweep], letters: str) -> str:
    """What decides results and is not the same in all runs, a column a run."""
    values: dict[str, list[str]] = {}
    for index, sweep in enumerate(sweeps[1:], 1):
        for key, left, right in differences(sweeps[0].manifest, sweep.manifest):
            values.setdefault(key, [left] * len(sweeps))[index] = right
    if not values:
        return "They differ in nothing that decides results."
    rows = [[key, *(one or "-" for one in row)] for key, row in values.items()]
    return text_table(["They differ in", *letters], rows, 1 + len(letters))


def _part(
    title: str, sweeps: Sequence[Sweep], chosen: Sequence[Sequence[WorkloadResult]], letters: str
) -> str:
    """A table of one workload, or of several together: the kernel's rule and both winners of each run."""
    roles: dict[str, list[tuple[int, int | None]]] = {}
    limits = []
    for run, (sweep, results) in enumerate(zip(sweeps, chosen, strict=True)):
        if not results:
            continue
        best = winners(sweep, results)
        roles.setdefault("kernel's rule", []).append((run, sweep.reference))
        roles.setdefault("best sysfs", []).append((run, best.sysfs))
        roles.setdefault("best heuristic", []).append((run, best.heuristic))
        limits.append(f"{letters[run]} {mebibytes(results[0].limit)} of {mebibytes(results[0].footprint)}")
    rows = []
    for role, members in roles.items():
        base: dict[str, float] | None = None
        for run, index in members:
            if index is None:
                rows.append([role, letters[run], "none", *[""] * (2 + len(_COLUMNS))])
                role = ""
                continue
            sweep, results = sweeps[run], chosen[run]
            means = {
                name: float(values.mean(axis=0)[index]) for name, values in sweep.measured(results).items()
            }
            cells = [_cell(means[name], base[name] if base else None) for name in _COLUMNS]
            base = base or means
            candidate = sweep.candidates[index]
            stands = "" if index == sweep.reference else "yes" if _dominates(sweep, results, index) else "no"
            rows.append([role, letters[run], candidate.mthp or "none", str(candidate.policy), stands, *cells])
            role = ""
    header = ["", "run", "sizes kB", "heuristic", "dominates", *_COLUMNS.values()]
    single = len({len(one) for one in chosen} - {0, 1}) == 0
    about = f" (limit {', '.join(limits)})" if single else ""
    head = f"{title}{about}"
    return f"{head}\n{'=' * len(head)}\n{text_table(header, rows, 5)}"


def _dominates(sweep: Sweep, results: Sequence[WorkloadResult], index: int) -> bool:
    """Whether a candidate dominates its run's kernel's rule on every workload, whatever the objective."""
    oom = np.stack([result.oom for result in results])
    return bool(rank(sweep.measured(results), oom, sweep.reference, Dominance()).beats[index])


def _cell(value: float, base: float | None) -> str:
    """A count, and how it differs from the first run's."""
    change = "" if base is None or value == base else percent(value, base)
    return f"{number(value)} {change}".rstrip()
