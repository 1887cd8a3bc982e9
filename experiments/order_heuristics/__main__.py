"""Replay every workload of configs/order_heuristics.toml under a list of rules, and report.

    python -m experiments.order_heuristics [--out DIR] [--only REGIME]

The rules are ranked on the training workloads and judged on the held-out ones. The same command goes on where
it stopped. DIR holds a Parquet file of all counters a workload, report.txt and figures/.
"""

import argparse
import hashlib
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxswap.config import PolicyChoice, parse_policy
from jaxswap.frames import parse_frames
from jaxswap.machine import COUNTERS, Lane, model_version, replay_lanes
from jaxswap.origin import code_hash, commit, device, versions
from jaxswap.report.provenance import said
from jaxswap.report.search import About, Evaluated, Search
from jaxswap.report.tune import write_report
from jaxswap.sweep.footprint import footprint
from jaxswap.sweep.objective import Dominance, rank
from jaxswap.sweep.result import WorkloadResult, from_parquet, to_parquet
from jaxswap.sweep.space import Candidate
from jaxswap.workload import read_workload, recorded, recorded_names
from jaxswap.workload.files import make_folder, write_atomic

CONFIG = Path(__file__).parents[2] / "configs/order_heuristics.toml"
MASK = "16 32 64"
ROOMS = ("machine", "policy", "swaptable", "frames")
SHOWN = ("never", "cap:order=2", "lookahead", "headroom:shift=0,touch=1", "zswap_rfc")
RULES = (
    "backoff:limit=4", "window:touch=1", "refault:old=1", "last:step=0,touch=1", "ask", "ask:slots=1",
    *(f"ask:slots=1,least={least},log2={log2},state={state}"
      for log2, least in ((2, 1), (3, 1), (3, 2), (3, 4)) for state in (0, 2)),
)  # fmt: skip
FINALISTS = 6


@dataclass(frozen=True)
class Unit:
    """A workload and the machine it runs on. swap: share of the footprint."""

    name: str
    path: Path
    held_out: bool
    about: About
    limit: float
    swap: float
    frames: str | None


def units() -> list[Unit]:
    """Those of the config."""
    config = tomllib.loads(CONFIG.read_text())
    found = []
    for table in ("train", "held_out"):
        for name, given in config[table].items():
            trace = given["trace"]
            path = recorded(trace) if trace in recorded_names() else CONFIG.parent / trace
            limit, swap = (float(given.get(key, "200%").rstrip("%")) / 100 for key in ("limit", "swap"))
            about = About(given["regime"], given.get("real", False), trace)
            found.append(Unit(name, path, table == "held_out", about, limit, swap, given.get("frames")))
    return found


def candidates() -> list[Candidate]:
    """The kernel's rule, those shown for orientation, the others; parameters that are not said by default."""
    return [
        Candidate(MASK, choice) for choice in (PolicyChoice("kernel"), *map(parse_policy, (*SHOWN, *RULES)))
    ]


def replay(unit: Unit, rules: Sequence[Candidate]) -> WorkloadResult:
    """A unit under every rule."""
    workload = read_workload(unit.path)
    size = footprint(workload)
    limit, swap = (int(size * share) // 4096 * 4096 for share in (unit.limit, unit.swap))
    common = Lane(frames=parse_frames(unit.frames) if unit.frames else None)
    found = replay_lanes(workload, [one.lane(common, limit, swap) for one in rules])
    return WorkloadResult(
        name=unit.name,
        accesses=workload.accesses,
        operations=len(workload),
        footprint=size,
        limit=limit,
        swap=swap,
        names=COUNTERS,
        counters=np.asarray(found.counters, np.int64),
        oom=np.asarray(found.oom, bool),
    )


def search(folder: Path, results: dict[str, WorkloadResult], among: Sequence[Unit], command: str) -> Search:
    """What the report is of: finalists are chosen on the training workloads alone."""
    rules = candidates()
    train, held_out = (
        [results[unit.name] for unit in among if unit.held_out == held] for held in (False, True)
    )
    seen = Evaluated(rules, train)
    order = rank(seen.measured(), np.stack([one.oom for one in train]), 0, Dominance()).order
    shown = range(1, 1 + len(SHOWN))
    finalists = [int(i) for i in order if i and i not in shown][:FINALISTS]
    chosen = [0, *shown, *finalists]
    judged = [replace(one, counters=one.counters[chosen], oom=one.oom[chosen]) for one in held_out]
    model = (f"model {model_version('7.3')}", "kernel profile 7.3, classic LRU", "seed 0")
    return Search(
        folder=folder,
        said=said(model, versions(), commit(), device(), command),
        train=seen,
        held_out=Evaluated([rules[i] for i in chosen], judged),
        order=order,
        shown=len(SHOWN),
        about={unit.name: unit.about for unit in among},
        seed=0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.order_heuristics", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/order_heuristics"), metavar="DIR")
    parser.add_argument("--only", metavar="REGIME", help="this regime alone")
    given = parser.parse_args(arguments)
    rules = candidates()
    key = hashlib.sha256(f"{code_hash(ROOMS)} {list(map(str, rules))}".encode()).hexdigest()
    among = [unit for unit in units() if given.only in (None, unit.about.regime)]
    make_folder(given.out / "results", "results")
    results = {}
    for number, unit in enumerate(among, 1):
        path = given.out / "results" / f"{unit.name}.parquet"
        start = time.monotonic()
        if not path.exists():
            write_atomic(path, to_parquet(replay(unit, rules), rules, key, None), "results")
            print(
                f"{number}/{len(among)} {unit.name} {time.monotonic() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        results[unit.name] = from_parquet(path, key)[0]
    command = "python -m experiments.order_heuristics" + (f" --only '{given.only}'" if given.only else "")
    print(write_report(search(given.out, results, among, command)), end="")


if __name__ == "__main__":
    main()
