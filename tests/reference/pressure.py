"""Hold the reference machine against recordings made under memory pressure:
`python -m tests.reference.pressure RECORDINGS WORKLOADS`.

RECORDINGS holds CELL-bootN.txt, WORKLOADS holds the NAME.t that their headers name, both also as .gz; CELL is
NAME-LRU-SIZES and what else is not default. One run of the machine answers for all boots of a cell. Prints,
for every counter at the last STATS, ours, the range of the boots, how far we are from its middle, and whether
that is inside the bounds; exits 1 if one is outside. Of a cell of which every boot was killed the counters
are those of that moment, and we are to be killed too. With --timed the machine
does by the clock what the kernel did: the statistics are flushed every 2 s, and every 0.2 s the CPU goes to
another process (the program that started the accesses looks after them), at the pace of the recordings.
"""

from __future__ import annotations

import argparse
import gzip
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from jaxswap.workload import Recording, Workload, read_recording, read_workload

from .machine import Machine
from .run import Runner
from .validate import machine_of, size_in_pages

MEMCG = ("pgmajfault", "pswpin", "pswpout")  # read from memory.stat: the global ones have other processes too
EVENTS = {
    ("memory.events", "max"): "memcg_max",
    ("memory.events", "high"): "memcg_high",
    ("memory.swap.events", "max"): "swap_max",
    ("memory.swap.events", "fail"): "swap_fail",
}
BY_SIZE = (
    "swpin",
    "swpin_fallback",
    "swpin_fallback_charge",
    "anon_fault_fallback",
    "anon_fault_fallback_charge",
    "swpout_fallback",
)
FIRST_TOUCH = ("anon_fault_fallback", "anon_fault_fallback_charge")
SMALL, NEAR = 200, 10  # counts below SMALL may differ by NEAR

FLUSH_SECONDS = 2.0  # FLUSH_TIME of mm/memcontrol.c
POLL_SECONDS = 0.2  # of the program that made the recordings

# Largest spread of the traffic of one cell from boot to boot, as a share (docs/pressure.md)
SPREAD = {"seq-mglru-none": 0.077, "hot-mglru-none": 0.028}


@dataclass(frozen=True)
class Cell:
    """All boots of one workload on one machine: those that lived, or if none did those that were killed.
    died: how many were killed.
    """

    name: str
    workload: Path
    boots: tuple[Recording, ...]
    died: int

    @property
    def header(self) -> dict[str, str]:
        return self.boots[0].header

    @property
    def killed(self) -> bool:
        """Whether every boot was killed."""
        return self.died == len(self.boots) and bool(self.boots[0].killed)


def cells(recordings: Path, workloads: Path, only: str = "") -> list[Cell]:
    """The cells of a folder whose names hold `only`."""
    boots: dict[str, list[Recording]] = defaultdict(list)
    for path in sorted([*recordings.glob("*-boot*.txt"), *recordings.glob("*-boot*.txt.gz")]):
        name = path.name.rpartition("-boot")[0]
        if only in name:
            boots[name].append(read_recording(path))
    found = []
    for name, read in boots.items():
        alive = [recording for recording in read if not recording.killed]
        workload = workloads / f"{Path(read[0].header['workload']).name}.t"
        if not workload.is_file():
            workload = workload.with_name(f"{workload.name}.gz")
        found.append(Cell(name, workload, tuple(alive or read), len(read) - len(alive)))
    return found


def counters_of(recording: Recording) -> dict[str, int]:
    """What one boot counted, at its last STATS; sizes count from the first, if that is before the region."""
    stats = recording.stats()
    first, last = stats[0][1] if stats[0][0] == "start" else {}, stats[-1][1]
    found = {name: last["memory.stat"].get(name, 0) for name in MEMCG}
    for size in sizes(recording.header):
        for name in BY_SIZE:
            found[f"{size}/{name}"] = last.get(size, {}).get(name, 0) - first.get(size, {}).get(name, 0)
    found |= {name: last.get(group, {}).get(event, 0) for (group, event), name in EVENTS.items()}
    return found


def pages(header: dict[str, str], key: str) -> int | None:
    """The pages of a limit such as 32M; None where the header has none."""
    return size_in_pages(header[key]) if key in header else None


def sizes(header: dict[str, str]) -> list[str]:
    """Folder names of the sizes that are on, largest first."""
    return [f"{size}kB" for size in sorted(map(int, re.findall(r"\d+", header["mthp"])), reverse=True)]


def machine_for(cell: Cell, workload: Workload, **options: object) -> Machine:
    """The reference machine of a cell before its workload. options: fields of the Machine."""
    header = cell.header
    machine = machine_of(cell.boots[0], workload.npages)
    given = {
        "limit": pages(header, "memory.max"),
        "high": pages(header, "memory.high"),
        "swap_max": pages(header, "memory.swap.max"),
        "swappiness": int(header.get("swappiness", 60)),
        "defrag": header.get("defrag", "madvise"),
        "lru": header["lru"],
    }
    return replace(machine, **given | options)


def run(cell: Cell, **options: object) -> Machine:
    """The reference machine after the workload of a cell."""
    workload = read_workload(cell.workload)
    machine = machine_for(cell, workload, **options)
    for _ in Runner(workload, machine).blocks():
        pass
    return machine


def pace(cell: Cell) -> dict[str, int]:
    """The options `flush` and `switch` of the Machine, in faults, by the median boot's faults per second."""
    rates = []
    for boot in cell.boots:
        data = Path(boot.path).read_bytes()
        text = (gzip.decompress(data) if boot.path.endswith(".gz") else data).decode()
        seconds = sum(float(took) for took in re.findall(r"^OP .* : ([\d.]+) s$", text, re.MULTILINE))
        rates.append(boot.stats()[-1][1]["memory.stat"]["pgfault"] / seconds)
    rate = statistics.median(rates)
    return {"flush": round(rate * FLUSH_SECONDS), "switch": round(rate * POLL_SECONDS)}


def bounds(cell: Cell, counter: str, low: int, high: int, stale: bool) -> tuple[float, float]:
    """Within which our count is held for right, for boots from `low` to `high`."""
    name, classic = cell.name, cell.header["lru"] == "classic"
    if classic and counter in EVENTS.values():
        slack = 0.05
    elif classic and (name.startswith("seq") or counter.rpartition("/")[2] in FIRST_TOUCH):
        slack = 0.005
    elif classic:
        slack = 0.02 if stale else 0.05
    else:
        slack = max(0.10, 2 * SPREAD.get(name, 0.0))
    least, most = low * (1 - slack), high * (1 + slack)
    if max(low, high) < SMALL:
        return min(least, low - NEAR), max(most, high + NEAR)
    return least, most


def hold(cell: Cell, timed: bool = False, **options: object) -> tuple[list[str], int]:
    """Lines of the table, and how many counters are outside their bounds."""
    if timed:
        options = pace(cell) | options
    started = time.perf_counter()
    machine = run(cell, **options)
    took = time.perf_counter() - started
    recorded = [counters_of(boot) for boot in cell.boots]
    died = ", all killed" if cell.killed else f", {cell.died} killed left out" if cell.died else ""
    outside = int(machine.oom != cell.killed)
    killed = f"; OURS WAS {'' if machine.oom else 'NOT '}KILLED" if outside else ""
    lines = [f"{cell.name}: {len(cell.boots)} boots{died}; {took:.1f} s{killed}"]
    counted = machine.n + Counter({f"swap_{name}": n for name, n in machine.swap.events.items()})
    for counter in recorded[0]:
        low, high = min(r[counter] for r in recorded), max(r[counter] for r in recorded)
        ours = counted[counter]
        if not (ours or high):
            continue
        least, most = bounds(cell, counter, low, high, timed)
        inside = least <= ours <= most
        outside += not inside
        span = str(low) if low == high else f"{low}..{high}"
        off = 100 * (ours / ((low + high) / 2) - 1) if high else 0.0
        verdict = "inside" if inside else "OUTSIDE"
        lines.append(f"  {counter:32}{ours:9}{span:>18}{off:+8.2f} %  {verdict}")
    return lines, outside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("workloads", type=Path)
    parser.add_argument("--only", default="", help="part of the name of a cell")
    parser.add_argument("--timed", action="store_true", help="flush and switch by the clock")
    arguments = parser.parse_args()
    wrong = 0
    for cell in cells(arguments.recordings, arguments.workloads, arguments.only):
        lines, outside = hold(cell, arguments.timed)
        print("\n".join(lines), flush=True)
        wrong += outside
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
