"""Hold the reference machine against recordings made under memory pressure:
`python -m tests.reference.pressure RECORDINGS WORKLOADS`.

RECORDINGS holds NAME-LRU-SIZES-bootN.txt, WORKLOADS holds NAME.t. One run of the machine answers for all
boots of a cell. Prints, for every counter at the last STATS, ours, the range of the boots, how far we are
from its middle, and whether that is inside the bounds; exits 1 if one is outside. With --timed the machine
does by the clock what the kernel did: the statistics are flushed every 2 s, and every 0.2 s the CPU goes to
another process (the program that started the accesses looks after them), at the pace of the recordings.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from jaxswap.workload import Recording, Workload, read_recording, read_workload

from .machine import Machine
from .run import Runner
from .validate import UNITS, machine_of

MEMCG = ("pgmajfault", "pswpin", "pswpout")  # read from memory.stat: the global ones have other processes too
BY_SIZE = (
    "swpin",
    "swpin_fallback",
    "swpin_fallback_charge",
    "anon_fault_fallback",
    "anon_fault_fallback_charge",
)
FIRST_TOUCH = ("anon_fault_fallback", "anon_fault_fallback_charge")
SMALL, NEAR = 200, 10  # counts below SMALL may differ by NEAR

FLUSH_SECONDS = 2.0  # FLUSH_TIME of mm/memcontrol.c
POLL_SECONDS = 0.2  # of the program that made the recordings

# Largest spread of the traffic of one cell from boot to boot, as a share (docs/pressure.md)
SPREAD = {"seq-mglru-none": 0.077, "hot-mglru-none": 0.028}


@dataclass(frozen=True)
class Cell:
    """All boots of one workload under one LRU and one set of sizes. died: boots that were killed."""

    name: str
    workload: Path
    boots: tuple[Recording, ...]
    died: int

    @property
    def header(self) -> dict[str, str]:
        return self.boots[0].header


def cells(recordings: Path, workloads: Path) -> list[Cell]:
    """The cells of a folder; those of which every boot was killed have no boots and are left out."""
    boots: dict[str, list[Recording]] = defaultdict(list)
    for path in sorted(recordings.glob("*-boot*.txt")):
        boots[path.name.rpartition("-boot")[0]].append(read_recording(path))
    found = []
    for name, read in boots.items():
        alive = tuple(recording for recording in read if not recording.killed)
        if alive:
            workload = workloads / f"{name.partition('-')[0]}.t"
            found.append(Cell(name, workload, alive, len(read) - len(alive)))
    return found


def counters_of(recording: Recording) -> dict[str, int]:
    """What one boot counted, at its last STATS."""
    stats = [groups for _, groups in recording.stats()]
    first, last = stats[0], stats[-1]
    found = {name: last["memory.stat"].get(name, 0) for name in MEMCG}
    for size in sizes(recording.header):
        for name in BY_SIZE:
            found[f"{size}/{name}"] = last.get(size, {}).get(name, 0) - first.get(size, {}).get(name, 0)
    return found


def sizes(header: dict[str, str]) -> list[str]:
    """Folder names of the sizes that are on, largest first."""
    return [f"{size}kB" for size in sorted(map(int, re.findall(r"\d+", header["mthp"])), reverse=True)]


def machine_for(cell: Cell, workload: Workload, **options: object) -> Machine:
    """The reference machine of a cell before its workload. options: fields of the Machine."""
    header = cell.header
    machine = machine_of(cell.boots[0], workload.npages)
    amount = header["memory.max"].split()[0]
    limit = int(amount[:-1]) * UNITS[amount[-1]] // 4096
    return replace(machine, **{"limit": limit, "lru": header["lru"]} | options)


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
        text = Path(boot.path).read_text()
        seconds = sum(float(took) for took in re.findall(r"^OP .* : ([\d.]+) s$", text, re.MULTILINE))
        rates.append(boot.stats()[-1][1]["memory.stat"]["pgfault"] / seconds)
    rate = statistics.median(rates)
    return {"flush": round(rate * FLUSH_SECONDS), "switch": round(rate * POLL_SECONDS)}


def bounds(cell: Cell, counter: str, low: int, high: int, stale: bool) -> tuple[float, float]:
    """Within which our count is held for right, for boots from `low` to `high`."""
    name, classic = cell.name, cell.header["lru"] == "classic"
    if classic and (name.startswith("seq") or counter.rpartition("/")[2] in FIRST_TOUCH):
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
    died = f", {cell.died} killed left out" if cell.died else ""
    killed = "; OURS WAS KILLED" if machine.oom else ""
    lines = [f"{cell.name}: {len(cell.boots)} boots{died}; {took:.1f} s{killed}"]
    outside = int(machine.oom)
    for counter in recorded[0]:
        low, high = min(r[counter] for r in recorded), max(r[counter] for r in recorded)
        ours = machine.n[counter]
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
    for cell in cells(arguments.recordings, arguments.workloads):
        if arguments.only in cell.name:
            lines, outside = hold(cell, arguments.timed)
            print("\n".join(lines), flush=True)
            wrong += outside
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
