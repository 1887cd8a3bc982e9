"""What one machine shows from outside: page map, folios, counters, as a recording of a kernel prints them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt32

from jaxswap.machine.counters import COUNTERS
from jaxswap.machine.state import ORDER, PLANES, MachineState, Plane
from jaxswap.machine.tables import HUGE
from jaxswap.swaptable.cluster_table import BASE, layout_of
from jaxswap.swaptable.geometry import CLUSTER, SIZE_NAMES
from jaxswap.swaptable.lanes import SPARE

NONE, PRESENT, SWAPPED = 0, 1, 2


@dataclass(frozen=True)
class Pages:
    """The pages of one machine on the host.

    planes: a row a plane of Plane. slots: of each page, numbered over all devices. bases: the first slot of
    each device. huge: blocks that one entry maps.
    """

    planes: np.ndarray
    slots: np.ndarray
    bases: np.ndarray
    huge: np.ndarray

    def __getitem__(self, plane: Plane) -> np.ndarray:
        return self.planes[plane]

    @property
    def order(self) -> np.ndarray:
        """Order of each present page's folio."""
        bits = [self[plane].astype(np.int64) << i for i, plane in enumerate(ORDER)]
        return np.bitwise_or.reduce(bits)


def pages_of(state: MachineState, npages: int) -> Pages:
    """The pages of the only lane of a state."""
    words = np.asarray(state.rows)[:-SPARE, 0].reshape(-1, PLANES)[:, : len(Plane)].T
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    planes = bits.astype(bool)[:, :npages]
    bases = np.asarray(layout_of(state.clusters, BASE))[:, 0].astype(np.int64) * CLUSTER
    huge = np.asarray(state.tables)[:-SPARE, 0] == HUGE
    return Pages(planes, np.asarray(state.slots)[:npages, 0].astype(np.int64), bases, huge)


def _runs(keys: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of the runs of equal keys."""
    cuts = np.flatnonzero(np.diff(keys)) + 1
    starts = [0, *cuts.tolist()]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], len(keys)], strict=True)]


def dump(pages: Pages) -> list[tuple[str, int, int, int, int]]:
    """The runs of a DUMP: (state, start, length, swap type, slot)."""
    state = np.where(
        pages[Plane.SWAPPED], SWAPPED, (pages[Plane.PRESENT] | pages[Plane.ZEROPAGE]).astype(int)
    )
    number = np.arange(len(state))
    keys = np.where(state == SWAPPED, pages.slots - number + (len(state) + 2), -state)
    kind = np.searchsorted(pages.bases, pages.slots, side="right") - 1
    offset = pages.slots - pages.bases[kind]
    kind, offset = (np.where(state == SWAPPED, value, 0) for value in (kind, offset))
    return [("NPS"[state[at]], at, n, int(kind[at]), int(offset[at])) for at, n in _runs(keys)]


def folios(pages: Pages) -> list[tuple[str, int, int, str]]:
    """The runs of FOLIOS: ("F", head, mapped pages), ("TAIL", page, 1), ("s", start, length); no flags."""
    found: list[tuple[str, int, int, str]] = []
    order = pages.order
    present, zero = pages[Plane.PRESENT], pages[Plane.ZEROPAGE]
    small = zero | (present & (order == 0))
    whole = zero & np.repeat(pages.huge, 512)[: len(zero)]
    base = np.arange(len(present)) >> order << order
    folio = np.where(present & (order > 0), base * 16 + order, -1)
    at, end = 0, len(present)
    while at < end:
        stop = at + 1
        if whole[at]:
            stop = at + 512
            found.append(("F", at, 512, ""))
        elif small[at]:
            while stop < end and small[stop] and not whole[stop]:
                stop += 1
            found.append(("s", at, stop - at, ""))
        elif present[at] and base[at] == at:
            while stop < end and folio[stop] == folio[at]:
                stop += 1
            found.append(("F", at, stop - at, ""))
        elif present[at]:
            found.append(("TAIL", at, 1, ""))
        at = stop
    return found


_VMSTAT = ("pswpin", "pswpout", "pgmajfault", "swap_ra", "swap_ra_hit", "swpin_zero", "swpout_zero")
_OURS = ("frame_refused", "charge_refused")
_MEMCG = (  # name in memory.stat: counter
    {name: name for name in COUNTERS if name.startswith(("pg", "pswp", "workingset_"))}
    | {"pgfault": "faults", "swpin_zero": "swpin_zero", "swpout_zero": "swpout_zero"}
)


def stats(counters: dict[str, int]) -> dict[str, Any]:
    """The groups of a STATS block: sizes, memory.events, memory.stat with their non-zero counters; vmstat."""
    groups: dict[str, Any] = {}
    for size in SIZE_NAMES:
        row = {
            name.partition("/")[2]: value
            for name, value in counters.items()
            if name.startswith(f"{size}/") and value and name.partition("/")[2] not in _OURS
        }
        if row:
            groups[size] = dict(sorted(row.items()))
    groups["vmstat"] = {name: counters[name] for name in _VMSTAT}
    events = {name: counters[f"memcg_{name}"] for name in ("max", "high")}
    groups["memory.events"] = {name: count for name, count in events.items() if count}
    groups["memory.stat"] = {name: counters[own] for name, own in _MEMCG.items() if counters[own]}
    return groups


def leaving(rows: UInt32[np.ndarray, "words lanes"]) -> dict[str, Int64[np.ndarray, " lanes"]]:
    """What the pages still in memory were good for, judged as if they left now (as usefulness.leave)."""
    words = rows[:-SPARE].reshape(-1, PLANES, rows.shape[1])

    def total(members: np.ndarray) -> np.ndarray:
        return np.bitwise_count(members).sum(axis=0, dtype=np.int64)

    present, touched = words[:, Plane.PRESENT], words[:, Plane.TOUCHED]
    back, large = present & words[:, Plane.CAMEBACK], words[:, Plane.LARGE]
    ahead = words[:, Plane.SWAPPED] & words[:, Plane.INCACHE] & ~words[:, Plane.UNWRITTEN]
    return {
        "useless_swapin": total(back & ~touched) + total(ahead),
        "useless_touch": total(present & ~words[:, Plane.CAMEBACK] & ~touched),
        "needed_pages": total(back & touched),
        "covered_pages": total(back & touched & large),
    }


def named(values: np.ndarray) -> dict[str, int]:
    """One lane's counters by name."""
    return dict(zip(COUNTERS[1:], values.tolist(), strict=True))
