"""What a workload is like, as text; and the lists of the recorded ones and of the synthetic patterns."""

import numpy as np

from jaxswap.report.tables import text_table
from jaxswap.workload import Workload, is_held_out, read_workload, recorded, recorded_names
from jaxswap.workload.describe import Description, describe
from jaxswap.workload.over_time import OverTime, over_time
from jaxswap.workload.patterns import PATTERNS

PARTS = 10


def workload_text(workload: Workload) -> str:
    """Header, numbers, a table over time and one of densities."""
    parts = over_time(workload, PARTS)
    return "\n\n".join([summary_text(workload), _over_time(parts), _density(parts)])


def summary_text(workload: Workload) -> str:
    """Header and numbers alone."""
    lines = [f"{key:<13}{value}" for key, value in workload.meta.items()]
    return "\n".join([*lines, *_numbers(workload, describe(workload))])


def recorded_text() -> str:
    """The recorded workloads: a row each."""
    rows = []
    for name in recorded_names():
        workload = read_workload(recorded(name))
        sizes = [f"{len(workload):,}", f"{workload.accesses:,}"]
        rows.append([name, _use(name), workload.meta.get("about", ""), *sizes])
    return text_table(["name", "for", "what", "operations", "accesses"], rows, 3)


def _use(name: str) -> str:
    return "held out" if is_held_out(name) else "tuning"


def _numbers(workload: Workload, seen: Description) -> list[str]:
    mib = f"{seen.footprint / 256:.1f} MiB"
    processes = int(workload.process.max(initial=0)) + 1
    found = {
        "pages": f"{seen.pages:,}, of these accessed {seen.footprint:,} ({mib})",
        "operations": f"{seen.operations:,}, accesses {seen.accesses:,}, {seen.writes:.0%} writes",
        "VMAs": f"at most {seen.vmas}" + (f", processes {processes}" if processes > 1 else ""),
        "misses": f"{seen.misses:.1f} per 1,000 accesses in an LRU memory of half the pages accessed",
    }
    if workload.path and (names := [one for one in recorded_names() if str(recorded(one)) == workload.path]):
        found["for"] = _use(names[0])
    return [f"{key:<13}{value}" for key, value in found.items()]


def _over_time(parts: OverTime) -> str:
    rows = []
    for i in range(len(parts.accesses)):
        many = max(int(parts.accesses[i]), 1)
        rows.append(
            [
                f"{100 * (i + 1) // len(parts.accesses)}%",
                f"{100 * parts.writes[i] / many:.0f}",
                f"{parts.footprint[i]:,}",
                f"{parts.touched[i]:,}",
                f"{parts.fresh[i]:,}",
                _plain(parts.reuse[i], 0),
                f"{1000 * parts.missed[i] / many:.1f}",
                _plain(parts.density[i], 1),
            ]
        )
    header = ["until", "writes %", "footprint", "touched", "new", "reuse", "misses", "of 16"]
    return text_table(header, rows, 1)


def _plain(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:,.{digits}f}"


def _density(parts: OverTime) -> str:
    counts = parts.blocks[1:]
    total = max(int(counts.sum()), 1)
    groups = [("1", 1, 1), ("2-4", 2, 4), ("5-8", 5, 8), ("9-12", 9, 12), ("13-15", 13, 15), ("16", 16, 16)]
    sums = [int(counts[low - 1 : high].sum()) for _, low, high in groups]
    cells = [f"{100 * count / total:.0f}" for count in sums]
    head = f"64 kB blocks: {int(counts.sum()):,}; percent of them by pages ever touched"
    return f"{head}\n" + text_table([name for name, _, _ in groups], [cells], 0)


def patterns_text() -> str:
    """The synthetic patterns: what each does, and its parameters with their defaults."""
    lines = []
    for pattern in PATTERNS.values():
        lines.append(f"{pattern.name}: {pattern.about}")
        for number in pattern.numbers:
            lines.append(
                f"    {number.name}={number.default:<10} {number.about} ({number.low} to {number.high})"
            )
    return "\n".join(lines)
