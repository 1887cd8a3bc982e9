"""A replay held against a recording of a real kernel: page maps, folios, the region's counters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxswap.machine.replay import OneReplay
from jaxswap.swaptable.geometry import SIZE_NAMES
from jaxswap.workload import Recording

# Counters that are the region's alone in a recording (the others count the interpreter's memory too).
SIZED = ("swpin", "swpin_fallback", "swpin_fallback_charge", "swpout", "swpout_fallback", "split")
VMSTAT = ("pswpin", "pswpout", "swpin_zero", "swpout_zero", "swap_ra", "swap_ra_hit")


@dataclass(frozen=True)
class Difference:
    """One thing that differs: in which block, and what, in words."""

    block: str
    what: str

    def __str__(self) -> str:
        return f"{self.block}: {self.what}"


@dataclass(frozen=True)
class Comparison:
    """How much of a recording a replay equals. differences: the first of each block that differs."""

    maps: tuple[int, int]
    folios: tuple[int, int]
    counters: tuple[int, int]
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        text = ", ".join(
            f"{name} equal {equal}/{total}"
            for name, (equal, total) in (
                ("page maps", self.maps),
                ("folios", self.folios),
                ("counters", self.counters),
            )
        )
        return text + "".join(f"\n  {difference}" for difference in self.differences[:1])


def compare(replay: OneReplay, recording: Recording) -> Comparison:
    """Compare a replay with a recording."""
    return compare_blocks(replay.blocks, recording)


def compare_blocks(blocks: Iterable[tuple], recording: Recording) -> Comparison:
    """Compare block by block: every page of every DUMP, every folio, every counter of the region.

    blocks: as read_recording's."""
    score = {"DUMP": [0, 0], "FOLIOS": [0, 0], "STATS": [0, 0]}
    differences: list[Difference] = []
    mine = [block for block in blocks if block[0] in score]
    theirs = [block for block in recording.blocks if block[0] in score]
    for own, real in zip(mine, theirs, strict=False):
        name = f"{real[0]} {real[1]}"
        if own[:2] != real[:2]:
            differences.append(
                Difference(name, f"the replay has {own[0]} {own[1]} here; is it the same workload?")
            )
            break
        if real[0] == "STATS":
            equal, total, found = _counters(own[2], real[2])
            score["STATS"][0] += equal
            score["STATS"][1] += total
        else:
            found = _pages(own[2], real[2]) if real[0] == "DUMP" else _folios(own[2], real[2])
            score[real[0]][0] += not found
            score[real[0]][1] += 1
        if found:
            differences.append(Difference(name, found))
    else:
        if len(mine) != len(theirs):
            differences.append(
                Difference(
                    "end",
                    f"the replay shows {len(mine)} blocks, the recording {len(theirs)}; the same workload?",
                )
            )
    maps, folios, counters = ((score[kind][0], score[kind][1]) for kind in ("DUMP", "FOLIOS", "STATS"))
    return Comparison(maps, folios, counters, tuple(differences))


def _pages(own: list[tuple], real: list[tuple]) -> str:
    """The first page two dumps differ in, in words; empty if none."""
    for mine, theirs in zip(own, real, strict=False):
        if tuple(mine) != tuple(theirs):
            # Runs are maximal, so the two agree up to here; they part where the shorter one ends, or at once.
            page = mine[1]
            if _where(mine, page) == _where(theirs, page):
                page += min(mine[2], theirs[2])
                mine = next(run for run in own if run[1] <= page < run[1] + run[2])
                theirs = next(run for run in real if run[1] <= page < run[1] + run[2])
            return f"page {page}: the replay has it {_where(mine, page)}, the kernel {_where(theirs, page)}"
    return "" if len(own) == len(real) else "the dumps have different lengths"


def _where(run: tuple, page: int) -> str:
    state, start, _, kind, slot = run
    if state == "S":
        return f"in slot {slot + page - start} of swap {kind}"
    return "present" if state == "P" else "none"


def _folios(own: list[tuple], real: list[tuple]) -> str:
    for mine, theirs in zip(own, real, strict=False):
        if tuple(mine[:3]) != tuple(theirs[:3]):
            return "the replay has {} {} {}, the kernel {} {} {}".format(*mine[:3], *theirs[:3])
    return "" if len(own) == len(real) else f"the replay has {len(own)} runs, the kernel {len(real)}"


def _counters(own: Mapping[str, Any], real: Mapping[str, Any]) -> tuple[int, int, str]:
    """(counters equal, counters compared, the first that differs in words)."""
    wanted = [(size, name) for size in SIZE_NAMES for name in SIZED] + [("vmstat", name) for name in VMSTAT]
    equal, found = 0, ""
    for group, name in wanted:
        mine, theirs = own.get(group, {}).get(name, 0), real.get(group, {}).get(name, 0)
        equal += mine == theirs
        if mine != theirs and not found:
            found = f"{group} {name}: the replay counts {mine}, the kernel {theirs}"
    return equal, len(wanted), found
