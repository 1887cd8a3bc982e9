"""Hold the reference machine against recordings made under memory pressure:
`python -m tests.reference.pressure FOLDER`.

FOLDER holds CELL-bootN.txt, also as .gz; CELL is NAME-LRU-SIZES and what else is not default; NAME.t lies
where jaxswap.validate looks for it. One run of the machine answers for all boots of a cell; the bounds are
those of jaxswap.pressure. Prints, for every counter at the last STATS, ours, the range of the boots, how far
we are from its middle, and whether that is inside the bounds; exits 1 if one is outside. Of a cell of which
every boot was killed the counters are those of that moment, and we are to be killed too. With --timed the
machine does by the clock what the kernel did: the statistics are flushed every 2 s, and every 0.2 s the CPU
goes to another process (the program that started the accesses looks after them), at the pace of the
recordings.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from jaxswap.pressure import LIMITS, Cell, bounds, counters_of, pace
from jaxswap.validate import cells
from jaxswap.workload import Workload, read_workload

from .machine import Machine
from .run import Runner
from .validate import machine_of


def machine_for(cell: Cell, workload: Workload, **options: object) -> Machine:
    """The reference machine of a cell before its workload. options: fields of the Machine."""
    return replace(machine_of(cell.compared[0], workload.npages), **options)


def run(cell: Cell, **options: object) -> Machine:
    """The reference machine after the workload of a cell."""
    workload = read_workload(cell.workload)
    machine = machine_for(cell, workload, **options)
    for _ in Runner(workload, machine).blocks():
        pass
    return machine


def hold(cell: Cell, timed: bool = False, **options: object) -> tuple[list[str], int]:
    """Lines of the table, and how many counters are outside their bounds."""
    if timed:
        options = pace(cell) | options
    started = time.perf_counter()
    machine = run(cell, **options)
    took = time.perf_counter() - started
    recorded = [counters_of(boot) for boot in cell.compared]
    dead = len(cell.killed)
    died = ", all killed" if not cell.boots else f", {dead} killed left out" if dead else ""
    outside = int(machine.oom == bool(cell.boots))
    killed = f"; OURS WAS {'' if machine.oom else 'NOT '}KILLED" if outside else ""
    lines = [f"{cell.name}: {len(cell.compared)} boots{died}; {took:.1f} s{killed}"]
    counted = machine.n + Counter({f"swap_{name}": n for name, n in machine.root.swap_events.items()})
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
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="part of the name of a cell")
    parser.add_argument("--timed", action="store_true", help="flush and switch by the clock")
    arguments = parser.parse_args()
    wrong = 0
    for cell in cells(arguments.folder):
        if arguments.only not in cell.name or not cell.header.keys() & set(LIMITS):
            continue
        lines, outside = hold(cell, arguments.timed)
        print("\n".join(lines), flush=True)
        wrong += outside
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
