"""Pressure cells: boots of one workload under one memory limit, and the bounds a replay is held to.

What a kernel does under a limit hangs on when it flushes its statistics and on what the TLB holds, so the
boots of a cell differ; replays are compared with their range, at the last STATS. With the classic LRU a cell
is replayed at several times between two flushes, since nobody knows when its boots began, and the median
counts.
"""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxswap.errors import InputError
from jaxswap.machine.counters import COUNTERS
from jaxswap.machine.lane import LIMITS, Lane
from jaxswap.machine.replay import OneReplay
from jaxswap.workload import Recording
from jaxswap.workload.recording import BASE

MEMCG = ("pgmajfault", "pswpin", "pswpout")
"""Read from memory.stat, as /proc/vmstat counts other processes too."""
FIRST_TOUCH = ("anon_fault_fallback", "anon_fault_fallback_charge")
BY_SIZE = ("swpin", "swpin_fallback", "swpin_fallback_charge", *FIRST_TOUCH)
EVENTS = {
    ("memory.events", "max"): "memcg_max",
    ("memory.events", "high"): "memcg_high",
}
"""(file, event): our name of it; without bounds."""
SHOWN = (
    "pgscan",
    "pgsteal",
    "pgrefill",
    "pgactivate",
    "pgdeactivate",
    "workingset_refault_anon",
    "workingset_activate_anon",
    "workingset_restore_anon",
)
"""Of memory.stat, without bounds: they scatter by up to 70 % between boots, or follow from the others."""
REFUSED = "swpout_fallback"  # by size, without bounds

MACHINE = ("kernel", "mthp", "swap", "cpus", "memory", "lru", "swappiness", "defrag", "zswap", "page-cluster")
"""Keys of a header in which the boots of a cell agree, with LIMITS."""
DEFAULTS = {"swappiness": "60", "defrag": "madvise", "zswap": "off", "page-cluster": "3"}
"""What a header need not say."""

SMALL, NEAR = 200, 10  # counts below SMALL may differ by NEAR

_BOOT = re.compile(r"(.+)-boot\d+\.txt(?:\.gz)?")


@dataclass(frozen=True)
class Cell:
    """The boots of one workload on one machine: those that lived, and those that were killed."""

    name: str
    workload: Path
    boots: tuple[Recording, ...]
    killed: tuple[Recording, ...]

    @property
    def compared(self) -> tuple[Recording, ...]:
        """The boots that lived, or if none did those that were killed."""
        return self.boots or self.killed

    @property
    def header(self) -> dict[str, str]:
        """Of the machine."""
        return self.compared[0].header

    @property
    def spread(self) -> float:
        """How far the boots' major faults lie apart, as a share of their median."""
        faults = [counters_of(boot)["pgmajfault"] for boot in self.compared]
        return (max(faults) - min(faults)) / (statistics.median(faults) or 1)


FLUSH_SECONDS = 2.0  # FLUSH_TIME of mm/memcontrol.c
SWITCH_SECONDS = 0.2  # the program that made the recordings looks after the one under the limit
PHASES = 8


@dataclass(frozen=True)
class Count:
    """One counter of a cell. replays: of those that were not killed. bounds: (least, most), None if it has
    none.
    """

    name: str
    replays: tuple[int, ...]
    boots: tuple[int, ...]
    bounds: tuple[float, float] | None

    @property
    def ours(self) -> int | None:
        """The lower median of the replays; None without one."""
        return statistics.median_low(self.replays) if self.replays else None

    @property
    def inside(self) -> bool:
        """Whether the replay's count is within its bounds, or has none."""
        return self.ours is None or self.bounds is None or self.bounds[0] <= self.ours <= self.bounds[1]

    @property
    def middle(self) -> float:
        """Median of the boots."""
        return statistics.median(self.boots)

    def off(self, value: float) -> float:
        """How far a value is from the median of the boots, as a share of it, or of SMALL if that is more."""
        return (value - self.middle) / max(self.middle, SMALL)

    @property
    def strain(self) -> float:
        """How much of the room outside the boots' range is used: 0 inside the range, 1 at the bound."""
        if self.ours is None or self.bounds is None:
            return 0.0
        low, high = min(self.boots), max(self.boots)
        past = low - self.ours if self.ours < low else max(self.ours - high, 0)
        room = low - self.bounds[0] if self.ours < low else self.bounds[1] - high
        return past / room if past else 0.0

    @property
    def range(self) -> str:
        """Of the boots: "40468..40470"."""
        return _range(self.boots)

    @property
    def range_of_replays(self) -> str:
        """Likewise."""
        return _range(self.replays)


def _range(values: Sequence[int]) -> str:
    return "..".join(dict.fromkeys((str(min(values)), str(max(values)))))


@dataclass(frozen=True)
class HeldCell:
    """A cell held against its replays. refused: why there is none. killed: how many of them were."""

    cell: Cell
    counts: tuple[Count, ...]
    refused: str = ""
    replays: int = 0
    killed: int = 0

    @property
    def oom(self) -> bool:
        """Whether every replay was killed."""
        return bool(self.replays) and self.killed == self.replays

    @property
    def bound(self) -> tuple[Count, ...]:
        """The counters that have bounds and that were compared."""
        return tuple(count for count in self.counts if count.bounds and count.ours is not None)

    @property
    def inside(self) -> bool:
        """Whether there is a replay and every counter is within its bounds."""
        return not (self.refused or self.oom) and all(count.inside for count in self.bound)

    @property
    def outside(self) -> bool:
        """Whether there is a replay, and it was killed or a counter is outside its bounds."""
        return not (self.refused or self.inside)

    @property
    def worst(self) -> Count | None:
        """The counter nearest to its bounds or farthest outside; None if nothing was compared."""
        strain = [(count.strain, abs(count.off(count.ours or 0))) for count in self.bound]
        return self.bound[strain.index(max(strain))] if strain else None


def limited(recording: Recording) -> bool:
    """Whether a recording was made under a memory limit."""
    return any(recording.header.get(key, "max") != "max" for key in LIMITS)


def cell_path(path: Path) -> Path | None:
    """The path of a recording NAME-bootN.txt without -bootN.txt; None for another name."""
    match = _BOOT.fullmatch(path.name)
    return path.with_name(match[1]) if match else None


def cell_of(name: str, workload: Path, recordings: Sequence[Recording]) -> Cell:
    """The cell of some boots.

    Raises InputError if they are not of one machine, or one has no STATS or not those of the others.
    """
    first = recordings[0]
    for other in recordings[1:]:
        for key in (*MACHINE, *LIMITS):
            here, there = (one.header.get(key, DEFAULTS.get(key)) for one in (other, first))
            if here != there:
                raise InputError(
                    f"{other.path}: header {key} is {here!r}, of {first.path} {there!r}; boots of one "
                    "cell have one machine: name them after different cells"
                )
    alive = tuple(recording for recording in recordings if not recording.killed)
    for boot in alive:
        if not _labels(boot):
            raise InputError(f"{boot.path}: has no STATS; add STATS end to the workload and record it again")
        if _labels(boot) != _labels(alive[0]):
            raise InputError(
                f"{boot.path}: has other STATS than {alive[0].path}; boots of one cell have one workload"
            )
    killed = tuple(recording for recording in recordings if recording.killed)
    return Cell(name, workload, alive, killed)


def grouped(recordings: Iterable[Recording]) -> dict[Path, list[Recording]]:
    """Recordings by cell, in order; one that is no NAME-bootN.txt is a cell of its own."""
    found: dict[Path, list[Recording]] = {}
    for recording in recordings:
        found.setdefault(cell_path(Path(recording.path)) or Path(recording.path), []).append(recording)
    return found


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Cells without those whose boots are the same as those of an earlier one: copies in another folder."""
    found: list[Cell] = []
    for cell in cells:
        if not any(cell.name == other.name and _boots(cell) == _boots(other) for other in found):
            found.append(cell)
    return found


def _boots(cell: Cell) -> list[tuple]:
    return [(boot.header, boot.blocks, boot.killed) for boot in (*cell.boots, *cell.killed)]


def sizes(header: dict[str, str]) -> list[str]:
    """Folder names of the mTHP sizes that are on, largest first."""
    found = sorted(map(int, re.findall(r"\d{1,18}", header.get("mthp", ""))), reverse=True)
    return [f"{size}kB" for size in found]


def _of_cgroups(groups: dict[str, Any], file: str, name: str) -> int:
    """A counter of a cgroup's file, or of all cgroups that the workload names together."""
    return sum(
        values.get(name, 0) for group, values in groups.items() if group == file or group.endswith(f"/{file}")
    )


def counters_of(recording: Recording) -> dict[str, int]:
    """The counters with bounds, as one boot or replay had counted them at its last STATS."""
    first, last = recording.before(), recording.stats()[-1][1]
    found = {name: _of_cgroups(last, "memory.stat", name) for name in MEMCG}
    for size in sizes(recording.header):
        for name in BY_SIZE:
            found[f"{size}/{name}"] = last.get(size, {}).get(name, 0) - first.get(size, {}).get(name, 0)
    return found


def shown_of(recording: Recording) -> dict[str, int]:
    """The counters without bounds, as one boot or replay had counted them at its last STATS."""
    first, last = recording.before(), recording.stats()[-1][1]
    found = {name: _of_cgroups(last, "memory.stat", name) for name in SHOWN}
    found |= {name: _of_cgroups(last, group, event) for (group, event), name in EVENTS.items()}
    for size in sizes(recording.header):
        found[f"{size}/{REFUSED}"] = last.get(size, {}).get(REFUSED, 0) - first.get(size, {}).get(REFUSED, 0)
    return found


def bounds(cell: Cell, counter: str, low: int, high: int, stale: bool = False) -> tuple[float, float]:
    """Within which a count is held for right, for boots from `low` to `high`.

    stale: the replay flushed the statistics when the kernel did, not at every reclaim.
    """
    if cell.header.get("lru") == "classic":
        in_order = cell.name.startswith("seq") or counter.rpartition("/")[2] in FIRST_TOUCH
        slack = 0.005 if in_order else 0.02 if stale else 0.05
    else:
        slack = max(0.10, 2 * cell.spread)
    least, most = low * (1 - slack), high * (1 + slack)
    if high < SMALL:
        return min(least, low - NEAR), max(most, high + NEAR)
    return least, most


def pace(cell: Cell) -> dict[str, int]:
    """The options `flush` and `switch`, in faults, by the median boot's faults a second; none where the boots
    do not say how long they took.
    """
    if not all(boot.seconds for boot in cell.compared):
        return {}
    faults = [_of_cgroups(boot.stats()[-1][1], "memory.stat", "pgfault") for boot in cell.compared]
    rates = [count / boot.seconds for count, boot in zip(faults, cell.compared, strict=True)]
    every = {"flush": FLUSH_SECONDS, "switch": SWITCH_SECONDS}
    return {name: max(round(statistics.median(rates) * seconds), 1) for name, seconds in every.items()}


def clocked(cell: Cell, lane: Lane) -> list[Lane]:
    """A lane of a cell as PHASES lanes that flush the statistics and the TLB at the pace of the boots, the
    first flush at times spread evenly; none where that is not known, or where the multi-gen LRU reclaims,
    which decides by no old statistics.
    """
    found = pace(cell)
    if lane.lru != "classic" or not found:
        return []
    one = replace(lane, flush=found["flush"], switch=found["switch"])
    return [replace(one, phase=i * found["flush"] // PHASES) for i in range(PHASES)]


def compare_cell(cell: Cell, replays: Sequence[OneReplay]) -> HeldCell:
    """Hold the boots of a cell that lived against the replays that did.

    Raises InputError if the STATS of a replay are not those of the boots.
    """
    ours = []
    for one in replays:
        shown = replace(cell.boots[0], blocks=one.blocks)
        labels, wanted = _labels(shown), _labels(cell.boots[0])
        if not one.oom and labels != wanted:
            raise InputError(
                f"{cell.boots[0].path}: has STATS {' '.join(wanted)}, "
                f"the workload {' '.join(labels) or 'none'}; is it the same workload?"
            )
        if not one.oom:
            free = {name: count for name, count in shown_of(shown).items() if name in COUNTERS}
            ours.append(counters_of(shown) | free)
    stale = all(one.lane.flush != 0 for one in replays)
    counts = tuple(_counts(cell, ours, stale))
    return HeldCell(cell, counts, replays=len(replays), killed=len(replays) - len(ours))


def refuse_cell(cell: Cell, why: str) -> HeldCell:
    """A cell without a replay."""
    return HeldCell(cell, tuple(_counts(cell, [], False)), why)


def _counts(cell: Cell, ours: Sequence[dict[str, int]], stale: bool) -> Iterable[Count]:
    """The counters of a cell that are not zero everywhere."""
    for counted, bound in ((counters_of, True), (shown_of, False)):
        recorded = [counted(boot) for boot in cell.boots]
        for name in recorded[0] if recorded else ():
            boots = tuple(counters[name] for counters in recorded)
            replays = tuple(counters[name] for counters in ours if name in counters)
            if any((*boots, *replays)):
                within = bounds(cell, name, min(boots), max(boots), stale) if bound else None
                yield Count(name, replays, boots, within)


def _labels(recording: Recording) -> list[str]:
    """Labels of the workload's STATS."""
    labels = [label for label, _ in recording.stats()]
    return labels[labels[:1] == [BASE] :]
