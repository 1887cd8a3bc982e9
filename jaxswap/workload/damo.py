"""DAMON's results as damo writes them (`damo report access --json`, `damo record` with json or
json_compressed; older: `damo report raw --json`).

A list of records, one a monitoring target, each with snapshots: an interval of time and regions with
nr_accesses, the number of samples in the interval that found the region accessed. Which page, how often and
in which order it does not say; expand() has the rule that makes accesses of it.
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload.accesses import MOST_PAGE, Accesses
from jaxswap.workload.generate import splitmix64

MOST_ACCESSES = 20_000_000
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_TIMES = {"": 1, "ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_PART = re.compile(r"([\d,]{1,40}(?:\.\d{1,20})?) *([a-zA-Z]*)")
_PARTS = re.compile(rf"{_PART.pattern}(?: +{_PART.pattern})*")
_SAMPLES = 20
"""Samples in an interval where the file names no intervals: DAMON's default, 5 ms in 100 ms."""


@dataclass(frozen=True)
class Region:
    """Pages [start, end) and the share of the samples that found the region accessed."""

    start: int
    end: int
    share: float


@dataclass(frozen=True)
class Snapshot:
    """One interval of one target: when it began (ns), the target's place in the file, its regions."""

    time: float
    target: int
    regions: tuple[Region, ...]


def read_damo(data: bytes, where: str) -> list[Snapshot]:
    """The snapshots of all records, by time, then by target. Raises InputError for anything else."""
    if data[:1] == b"\x78":
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise InputError(
                f"{where}: damaged compressed JSON ({error}); fetch or record it again"
            ) from None
    try:
        records = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not JSON ({error}); write it by: damo report access --json") from None
    if not isinstance(records, list) or not records:
        raise InputError(f"{where}: is no list of damo's records; write it by: damo report access --json")
    found = []
    for target, record in enumerate(records):
        place = f"record {target}"
        try:
            snapshots = record["snapshots"]
            most = _samples(record.get("intervals"))
            for number, snapshot in enumerate(snapshots):
                place = f"record {target}, snapshot {number}"
                regions = tuple(_region(region, most) for region in snapshot["regions"])
                found.append(Snapshot(_scaled(snapshot["start_time"], _TIMES), target, regions))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{where}: {place}: {why}; write it by: damo report access --json") from None
    return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.target))


def expand(snapshots: list[Snapshot], where: str, seed: int) -> Accesses:
    """Accesses that the snapshots may stand for.

    In order of time; a target is a process. In a snapshot the regions come in an order drawn at random;
    of a region each page, ascending, is accessed once with a probability of its share. The first access of a
    page is a write, later ones read. Draws are of the splitmix64 stream that starts at seed: for a snapshot
    one a region (regions by their draw, lowest first), then one a page of each region in that order, which is
    accessed if the draw / 2^64 is below the share. Raises InputError for more than MOST_ACCESSES pages.
    """
    pages, owners = [], []
    at = total = 0
    for snapshot in snapshots:
        regions = [region for region in snapshot.regions if region.share > 0 and region.end > region.start]
        order = np.argsort(splitmix64(seed, at, len(regions)), kind="stable")
        at += len(regions)
        for index in order.tolist():
            region = regions[index]
            count = region.end - region.start
            total += count
            if total > MOST_ACCESSES:
                raise InputError(
                    f"{where}: its regions come to more than {MOST_ACCESSES} pages over all snapshots; "
                    "record a smaller target or a shorter time"
                )
            draws = splitmix64(seed, at, count)
            at += count
            taken = np.flatnonzero((draws >> np.uint64(11)) * 2.0**-53 < region.share)
            pages.append(region.start + taken)
            owners.append(np.full(len(taken), min(snapshot.target, 255), np.uint8))
    page = np.concatenate([np.zeros(0, np.int64), *pages])
    process = np.concatenate([np.zeros(0, np.uint8), *owners])
    _, first = np.unique(process.astype(np.int64) * MOST_PAGE + page, return_index=True)
    write = np.zeros(len(page), bool)
    write[first] = True
    return Accesses(page, write, process)


def _samples(intervals: dict[str, Any] | None) -> float:
    """Samples in an aggregation interval."""
    if not intervals:
        return _SAMPLES
    sample, total = (_scaled(intervals[key], _TIMES, "us") for key in ("sample_us", "aggr_us"))
    if not 0 < sample <= total:
        raise ValueError(f"intervals of {sample / 1e3:g} and {total / 1e3:g} us")
    return total / sample


def _region(region: dict[str, Any], most: float) -> Region:
    start, end = (int(_scaled(region[key], _UNITS)) for key in ("start", "end"))
    accesses = region["nr_accesses"]
    percent = None
    if isinstance(accesses, dict):
        accesses, percent = accesses.get("samples"), accesses.get("percent")
    if accesses is not None:
        share = _scaled(accesses, {"": 1}) / most
    else:
        text = percent.removesuffix("%").strip() if isinstance(percent, str) else percent
        share = _scaled(text, {"": 1}) / 100
    if not 0 <= start <= end <= MOST_PAGE << 12:
        raise ValueError(f"a region from {start} to {end}")
    return Region(start >> 12, -(-end >> 12), min(share, 1.0))


def _scaled(value: Any, units: Mapping[str, float], default: str = "") -> float:
    """A number, or text as damo formats it: "4,096", "4.000 KiB", "16 m 40 s 100 ms"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    if not isinstance(value, str):
        return value * units[default]
    parts = value.strip()
    if not _PARTS.fullmatch(parts):
        raise ValueError(f"{value[:40]!r} is no number")
    total = 0
    for number, unit in _PART.findall(parts):
        unit = (unit or default).removesuffix("iB")
        if unit not in units:
            raise ValueError(f"{value[:40]!r} is no number")
        digits = number.replace(",", "")
        total += (float(digits) if "." in digits else int(digits)) * units[unit]
    return total
