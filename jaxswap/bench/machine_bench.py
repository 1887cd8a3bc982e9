"""Replay beside a plain C machine: one lane, 64, and as many as memory takes, on one core.

JAX and C run in turn in a process that is pinned to one CPU before JAX starts; first the two must show the
same counters on every lane, and the same page map on the first. Times are divided by the same count on both
sides: lane-operations, in which single accesses count one each and operations on ranges one for each 2 MiB
block and VMA they touch. Run as a module, it measures in this process and prints a JSON object a row:
``python -m jaxswap.bench.machine_bench [quick]``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np

from jaxswap.bench.cmachine import CLane, CMachine, available
from jaxswap.bench.rows import pin, row, rows_of
from jaxswap.bench.timing import copy_bandwidth, cpu_name
from jaxswap.machine import lane_bytes
from jaxswap.machine.counters import COUNTERS
from jaxswap.machine.lane import Lane
from jaxswap.machine.memory import bytes_of, free_on
from jaxswap.sweep.footprint import footprint
from jaxswap.workload import Kind, Workload, parse_workload, read_workload, recorded, recorded_names

FULL = {"lanes": (1, 64), "repeats": 5, "longest": (1 << 20, 20_000), "growth": 2_000}
QUICK = {"lanes": (1, 16), "repeats": 3, "longest": (10_000, 4_000), "growth": 0}
"""Lane counts; repeats; how many operations of a workload are replayed at most, for each lane count; of the
workload that is replayed on ever more lanes."""

MOST_LANES = 1 << 14
ACCESSES = 100_000  # of the rows replay/fault-rate, after their region was filled
RATES = {0.0: 1.1, 0.01: 0.9955, 0.1: 0.905}
"""Major faults an access: the limit, as a share of the region, under which random accesses make so many."""

PROGRAMS = ("python", "sort", "sqlite")
"""The recorded programs that are timed on one lane, over their whole length; on many lanes all are."""

SIZES = (16, 32, 64, 128, 256, 512, 1024)
PAGE = 4096


@dataclasses.dataclass(frozen=True)
class Case:
    """A workload and the machine it runs on: memory.max in bytes or None, bytes of the swap device."""

    name: str
    workload: Workload
    limit: int | None
    swap: int

    def lanes(self, count: int) -> list[Lane]:
        """One lane with 64 kB folios, or lanes that go through the sets of sizes."""
        if count == 1:
            return [Lane("64", limit=self.limit, swap=self.swap)]
        sets = itertools.chain.from_iterable(
            itertools.combinations(SIZES, n) for n in (3, 1, 4, 2, 5, 0, 6, 7)
        )
        masks = [" ".join(map(str, chosen)) for chosen in sets]
        return [Lane(masks[i % len(masks)], limit=self.limit, swap=self.swap) for i in range(count)]


def rows(quick: bool = False) -> Iterator[dict]:
    """One dict a measurement, all on one core; keys as in ``jaxswap.bench.rows``.

    ``size`` lane-operations a lane. A row of variant "JAX, geometric mean" sums up the workloads before it,
    one of variant "JAX, worst" names the slowest of them against C; the rows replay/fault-rate, of one lane
    under random accesses, and those of growth are not in it. Without a C compiler the ratios are None and a
    row of variant "no C compiler" says so.
    """
    environment = {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    arguments = ["quick"] if quick else []
    yield from rows_of("jaxswap.bench.machine_bench", *arguments, environment=environment)


def measure(quick: bool) -> Iterator[dict]:
    """The rows of this process, which should be pinned to one CPU already."""
    plan = QUICK if quick else FULL
    machine = CMachine() if available() else None
    common = {"cores": 1, "device": f"cpu: {cpu_name()}", "copy_bandwidth": copy_bandwidth()}
    for lanes, longest in zip(plan["lanes"], plan["longest"], strict=True):
        common |= {"name": "replay/one-lane" if lanes == 1 else "replay/lanes", "lanes": lanes}
        ratios: dict[str, float] = {}
        for case in cases(quick, longest, every=lanes > 1):
            for one in _case(case, lanes, plan["repeats"], machine):
                if one["variant"] == "JAX":
                    ratios[case.name] = one["ratio_to_c"]
                yield row(**one, **common)
        if machine is None:
            yield row(variant="no C compiler", **common)
        else:
            mean, worst = math.exp(statistics.fmean(map(math.log, ratios.values()))), max(ratios.values())
            yield row(variant="JAX, geometric mean", case="all of these", ratio_to_c=mean, **common)
            at = next(name for name, ratio in ratios.items() if ratio == worst)
            yield row(variant="JAX, worst", case=at, ratio_to_c=worst, **common)
    common |= {"name": "replay/fault-rate", "lanes": 1}
    for case in rate_cases():
        for one in _case(case, 1, plan["repeats"], machine):
            yield row(**one, **common)
    if plan["growth"]:
        case = Case("growth", first_operations(parse_workload(mixed()), plan["growth"]), None, 64 << 20)
        common["name"] = "replay/growth"
        for lanes in lane_counts(case):
            for one in _case(case, lanes, 3, machine):
                yield row(**one, **(common | {"lanes": lanes}))


def lane_counts(case: Case) -> list[int]:
    """1, 4, 64 and on by 16, up to MOST_LANES or to where half of the free memory is taken: by the states
    four times over, as a call's input and output and as the bench puts them back.
    """
    import jax

    each, free = lane_bytes(case.workload, case.lanes(1)[0]), free_on(jax.local_devices())
    most = MOST_LANES if free is None else min(MOST_LANES, max(1, free // (4 * each)))
    return sorted({1, *itertools.takewhile(lambda lanes: lanes < most, (4 << 4 * k for k in range(8))), most})


def cases(quick: bool, longest: int, every: bool = False) -> Iterator[Case]:
    """The recorded programs at half their footprint, mixed operations without a limit, a crowded device.

    every: all programs, not only those of PROGRAMS.
    """
    programs = PROGRAMS[:1] if quick else recorded_names() if every else PROGRAMS
    for name in programs:
        workload = first_operations(read_workload(recorded(name)), longest)
        size = footprint(workload)
        yield Case(name, workload, size // 2 // PAGE * PAGE, max(2 * size, 8 << 20))
    yield Case("mixed", first_operations(parse_workload(mixed(), name="mixed"), longest), None, 64 << 20)
    yield Case(
        "crowded", first_operations(parse_workload(crowded(), name="crowded"), longest), None, 16 << 20
    )


def rate_cases(accesses: int = ACCESSES, seed: int = 7) -> Iterator[Case]:
    """Random accesses to a region of 64 kB folios at each rate of major faults, without a limit and with one.

    Without a limit folios leave by PAGEOUT, four at a time, with one by reclaim.
    """
    step, folios, leaving = 100, 512, 4
    for rate, limited in itertools.product(RATES, (False, True)):
        rng = random.Random(seed)
        pages, away = 16 * folios, 0.0 if limited else rate
        first = rng.sample(range(0, folios, leaving), round(away * folios / leaving))
        lines = [f"REGION {pages} huge", "INIT", *(f"PAGEOUT {16 * v} {16 * leaving}" for v in first)]
        owed = 0.0
        for part in range(accesses // step):
            lines.append(f"UNI 0 {pages} {step} 307 {seed + part}")
            # as many leave as come back; some of those drawn have left already
            owed += step * away / (1 - away) / leaving
            for _ in range(int(owed)):
                lines.append(f"PAGEOUT {16 * rng.randrange(0, folios, leaving)} {16 * leaving}")
            owed %= 1
        name = f"{rate:.0%} faults, {'a' if limited else 'no'} limit"
        workload = parse_workload("\n".join([*lines, "DUMP end"]) + "\n", name=name)
        yield Case(name, workload, int(pages * RATES[rate]) * PAGE if limited else None, 64 << 20)


def first_operations(workload: Workload, count: int) -> Workload:
    """The workload's first operations and a page map at their end."""
    count = min(count, len(workload))
    end = {"kind": Kind.DUMP, "v": 0, "n": 0, "line": 0}
    columns = {
        name: np.append(getattr(workload, name)[:count], np.array(value, getattr(workload, name).dtype))
        for name, value in end.items()
    }
    text = {i: label for i, label in workload.text.items() if i < count} | {count: "end"}
    return dataclasses.replace(workload, text=text, **columns)


def mixed(operations: int = 16_000, pages: int = 8192, seed: int = 3) -> str:
    """Random accesses, frees and write-outs of pages that all went to swap; half allow small folios only."""
    rng = random.Random(seed)
    lines = [f"REGION {pages} plain", f"MADVNOHUGE {pages // 2} {pages // 2}"]
    lines += [f"FILL 0 {pages}", f"PAGEOUT 0 {pages}"]
    words = ["READ", "READN", "TOUCH", "FILL", "DONTNEED", "PAGEOUT"]
    for word in rng.choices(words, [4, 3, 2, 3, 4, 4], k=operations):
        if rng.random() < 0.5:
            v, n = rng.randrange(pages // 16) * 16, 16 * rng.choice([1, 1, 1, 2, 4])
        else:
            v, n = rng.randrange(pages), rng.choice([1, 1, 2, 3, 5, 8, 13])
        if word == "PAGEOUT" and rng.random() < 0.3:
            n = rng.choice([64, 128, 256, 512])
        lines.append(f"{word} {v}" if word in ("READ", "TOUCH") else f"{word} {v} {min(n, pages - v)}")
    return "\n".join(lines) + "\n"


def crowded(rounds: int = 3200, seed: int = 5) -> str:
    """Large folios written out to a 16 MiB device where only scattered slots are free: split after split."""
    rng = random.Random(seed)
    lines = ["REGION 8192 plain", "MADVNOHUGE 0 4096", "FILL 0 4000", "PAGEOUT 0 4000"]
    for _ in range(rounds):
        lines += [f"DONTNEED {rng.randrange(3990)} {rng.choice([1, 2, 3, 5, 9])}" for _ in range(3)]
        v = 4096 + 16 * rng.randrange(250)
        lines += [f"FILL {v} 16", f"PAGEOUT {v} 16", f"READN {v} {rng.choice([1, 4, 16])}"]
        lines.append(f"DONTNEED {4096 + 16 * rng.randrange(250)} {rng.choice([8, 16, 32])}")
        w = rng.randrange(3980)
        lines += [f"FILL {w} 8", f"PAGEOUT {w} 8"]
    return "\n".join(lines) + "\n"


def _case(case: Case, lanes: int, repeats: int, machine: CMachine | None) -> list[dict]:
    """The rows of one workload."""
    import jax

    from jaxswap.machine.replay import Replay

    carried = case.lanes(lanes)
    replay = Replay(case.workload, carried)
    fresh, where = jax.device_get(replay.states), jax.tree.map(lambda x: x.sharding, replay.states)

    def run() -> float:
        replay.states = jax.block_until_ready(jax.device_put(fresh, where))
        replay.totals[:] = 0
        begin = time.perf_counter()
        replay.advance(0, replay.compiled.ops)
        jax.block_until_ready(replay.states)
        return time.perf_counter() - begin

    first = run()
    result = replay.result()
    faults = float(result.counter("pgmajfault").mean())
    spent: dict[str, list[float]] = {"JAX": []}
    c_lanes = [
        CLane(*lane.masks(), lane.limit // PAGE if lane.limit else None, lane.slots) for lane in carried
    ]
    if machine is not None:
        _same(case, carried, c_lanes, result.counters, machine)
        spent["C"] = []
    for _ in range(repeats):
        spent["JAX"].append(run())
        if machine is not None:
            spent["C"].append(machine.time(case.workload, c_lanes, 1)[0] / 1e9)
    size, accesses = replay.compiled.lane_operations, case.workload.accesses
    moved = 2 * bytes_of(replay.states) + bytes_of((replay.params, replay.program))
    found = []
    for variant, times in spent.items():
        median = statistics.median(times)
        one = {"variant": variant, "case": case.name, "slots": carried[0].slots, "size": size}
        one |= {"time": median, "time_min": min(times), "time_max": max(times)}
        one["rate"] = lanes * size / median
        one["ns_per_operation"] = 1e9 * median / (lanes * size)
        one["ns_per_access"] = 1e9 * median / (lanes * accesses)
        one["fault_rate"] = faults / accesses
        one["ratio_to_c"] = median / statistics.median(spent["C"]) if machine is not None else None
        if variant == "JAX":
            one |= {"compile_time": max(first - median, 0.0), "bytes": moved}
        found.append(one)
    return found


def _same(
    case: Case, lanes: list[Lane], c_lanes: list[CLane], counters: np.ndarray, machine: CMachine
) -> None:
    """Raise RuntimeError unless C counts the same on every lane and, for one, prints the same page map."""
    from jaxswap.machine.replay import replay_one

    known: dict[CLane, dict[str, int]] = {}
    for number, (c_lane, counts) in enumerate(zip(c_lanes, counters.tolist(), strict=True)):
        if c_lane not in known:
            result = machine.run(case.workload, *c_lane)
            known[c_lane] = result.counters
            if (
                number == 0
                and len(lanes) == 1
                and replay_one(case.workload, lanes[0]).blocks != result.blocks
            ):
                raise RuntimeError(f"{case.name}: the page maps of JAX and C differ")
        ours = dict(zip(COUNTERS, counts, strict=True))
        for name in COUNTERS:
            if ours[name] != known[c_lane].get(name, 0):
                theirs = known[c_lane].get(name, 0)
                raise RuntimeError(f"{case.name}, lane {number}: JAX counts {ours[name]} {name}, C {theirs}")


if __name__ == "__main__":
    pin(1)
    for found in measure(quick="quick" in sys.argv[1:]):
        print(json.dumps(found), flush=True)
