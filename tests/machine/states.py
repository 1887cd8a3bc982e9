"""One form for the state of both machines, so that they can be compared page by page and list by list."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from jaxswap.frames.buddy import frames_room
from jaxswap.frames.start import ORDERS
from jaxswap.machine import lru
from jaxswap.machine.frames import NOTHING
from jaxswap.machine.observe import Pages, pages_of
from jaxswap.machine.state import MachineState, Plane, pages_room
from jaxswap.machine.tables import HUGE, TABLE
from jaxswap.swaptable.clusters import COUNT, FLAG, ORDER, ROW, STRIDE, Clusters
from jaxswap.swaptable.lanes import SPARE
from tests.reference.cgroup import Cgroup
from tests.reference.folio import Folio
from tests.reference.frames import Plenty
from tests.reference.machine import Machine
from tests.swaptable.slot_machine import full_sorted, of_jax, of_plain

OF_CLASSIC = (
    "age",
    "anon_cost",
    "counted_cost",
    "flushed_cost",
    "activations",
    "refaults_seen",
    "flushed_active",
    "flushed_total",
)
SCALARS = ("stock", *OF_CLASSIC)


def first_page(folio: Folio) -> int:
    """The page the JAX machine lists a folio by: its first mapped one."""
    return min((min(pages) for pages in folio.maps.values()), default=folio.base)


def linked(machine: Machine, active: int, cgroup: Cgroup | None = None) -> list[Folio]:
    """A list of a cgroup, or of the only one, from its head on; first those that wait to be linked there, as
    the JAX machine has them.
    """
    cgroup = cgroup or machine.root
    waiting = [f for f in machine.batches.waiting if f.active == active and f.memcg is cgroup]
    return waiting[::-1] + cgroup.lists.order(active)


def shadow_of_reference(machine: Machine, shadow: tuple) -> tuple:
    """What eviction left, without the cgroup that reclaimed."""
    return shadow[:2] if machine.lru == "classic" else shadow


def sizes_of(state: MachineState) -> tuple[int, int]:
    """Pages on the lists, without those that wait."""
    inactive, active = lru.sizes(state)
    return int(inactive[0]), int(active[0])


def _flags(machine: Machine, folio: Folio) -> tuple:
    """A folio's flags as the LRU has them: its generation, with the multi-gen LRU."""
    if machine.lru == "classic":
        return folio.active, folio.referenced, folio.workingset
    waits = folio.prev is None
    gen = folio.memcg.lists.place(folio) if waits else folio.gen
    return gen, folio.referenced, folio.workingset, folio.refs if folio.referenced else 0


def _lru(machine: Machine) -> dict[str, Any]:
    """Lists, sizes and what else the LRU of the reference machine knows."""
    lists = machine.root.lists
    if machine.lru == "classic":
        return {
            "lists": [[first_page(f) for f in linked(machine, k)] for k in (0, 1)],
            "sizes": (lists.inactive_nr, lists.active_nr),
            "memory of reclaim": {name: getattr(machine.root, name) for name in OF_CLASSIC},
        }
    queues = {}
    for seq in range(lists.min_seq[0], lists.max_seq + 1):
        waiting = [f for f in machine.batches.waiting if lists.place(f) == seq][::-1]
        folio = lists.heads[seq].next
        queues[seq] = [first_page(f) for f in waiting]
        while folio is not lists.heads[seq]:
            queues[seq].append(first_page(folio))
            folio = folio.next
    process = machine.processes[0]
    return {
        "lists": queues,
        "sizes": (lists.nr, 0),
        "generations": (lists.max_seq, *lists.min_seq, lists.walked, 0 in lists.known),
        "filters": [None if f is None else sorted(block for _, block in f) for f in lists.filters],
        "used": sorted(process.used_tables),
        "tiers": [
            lists.refaulted,
            lists.evicted,
            lists.protected,
            lists.average_refaulted,
            lists.average_total,
        ],
        "activating": [first_page(f) for f in machine.batches.activating],
    }


def of_reference(machine: Machine) -> dict[str, Any]:
    """Pages, lists, clusters and scalars of the reference machine."""
    pages = []
    process, device = machine.processes[0], machine.swap.devices[0]
    for page in process.pages:
        if page.state == "present":
            folio = page.folio
            assert folio is not None
            row: tuple = (
                "present",
                folio.order,
                page.nonzero,
                page.young,
                page.touched,
                page.swapped_in,
                page.large,
                *_flags(machine, folio),
                folio.mapcount < folio.nr,
            )
        elif page.state == "swapped":
            cluster, i = device.at(page.slot)
            cached, shadow = cluster.cache[i], shadow_of_reference(machine, cluster.shadow[i])
            flags = (*_flags(machine, cached), cached.dirty) if cached else None
            row = ("swapped", page.slot, None if cached else shadow, page.nonzero, flags)
        else:
            row = (page.state,)
        pages.append(row)
    clusters = [
        (
            tuple(map(bool, c.used)),
            tuple(folio is not None for folio in c.cache),
            tuple(c.zero),
            c.count,
            c.order,
            c.flag,
        )
        for c in device.clusters
    ]
    swap = SimpleNamespace(swap=machine.swap, bases=[0], number=lambda place: place[1])
    scalars = {"stock": machine.root.stock, "used": machine.root.usage}
    scalars |= {"free": device.free_slots, "oom": machine.oom}
    return {
        "frames": _frames_of_reference(machine),
        "pages": pages,
        "deferred": ([first_page(f) for f in machine.root.deferred], machine.root.nr_deferred),
        **_lru(machine),
        "clusters": clusters,
        "swap": full_sorted(of_plain(swap)),  # type: ignore[arg-type]
        "tables": sorted(process.tables),
        "huge": sorted(process.huge),
        "memory": list(machine.policy_memory),
        "scalars": scalars,
    }


def of_machine(state: MachineState, npages: int) -> dict[str, Any]:
    """The same of a machine with one lane."""
    pages = pages_of(state, npages)
    order = pages.order
    shadows = np.asarray(state.shadows)[:, 0]

    def flag(plane: Plane, v: int) -> bool:
        return bool(pages[plane][v])

    lists = state.generations
    oldest = int(lists.min_anon[0]) if lists else 0

    def of_folio(v: int) -> tuple:
        referenced, workingset = flag(Plane.REFERENCED, v), flag(Plane.WORKINGSET, v)
        if lists is None:
            return flag(Plane.ACTIVE, v), referenced, workingset
        gen = flag(Plane.GEN0, v) | flag(Plane.GEN1, v) << 1
        refs = flag(Plane.REFS0, v) | flag(Plane.REFS1, v) << 1
        return oldest + (gen - oldest) % 4, referenced, workingset, refs if referenced else 0

    def shadow_of(shadow: int) -> tuple:
        age, workingset = shadow >> 1, bool(shadow & 1)
        return (age, workingset) if lists is None else (age >> 2, age & 3, workingset)

    rows = []
    for v in range(npages):
        if flag(Plane.PRESENT, v):
            names = (Plane.NONZERO, Plane.YOUNG, Plane.TOUCHED, Plane.CAMEBACK, Plane.LARGE)
            seen = (flag(plane, v) for plane in names)
            row: tuple = ("present", int(order[v]), *seen, *of_folio(v), flag(Plane.PARTIAL, v))
        elif flag(Plane.SWAPPED, v):
            cached = flag(Plane.INCACHE, v)
            flags = (*of_folio(v), flag(Plane.UNWRITTEN, v)) if cached else None
            shadow = None if cached else shadow_of(int(shadows[v]))
            row = ("swapped", int(pages.slots[v]), shadow, flag(Plane.NONZERO, v), flags)
        else:
            row = ("zero",) if flag(Plane.ZEROPAGE, v) else ("none",)
        rows.append(row)
    scalars = {name: int(np.asarray(getattr(state, name))[0]) for name in ("stock", "used")}
    scalars |= {"free": int(np.asarray(state.clusters.free)[0]), "oom": bool(np.asarray(state.oom)[0])}
    tables = np.asarray(state.tables)[:-SPARE, 0]
    return {
        "frames": _frames_of(state, pages),
        "pages": rows,
        "deferred": _deferred(state),
        **_lru_of_machine(state),
        "clusters": _clusters(state.clusters),
        "swap": full_sorted(of_jax(state.clusters, 1)),
        "tables": np.flatnonzero(tables == TABLE).tolist(),
        "huge": np.flatnonzero(tables == HUGE).tolist(),
        "memory": np.asarray(state.memory)[:, 0].tolist(),
        "scalars": scalars,
    }


def _frames_of_reference(machine: Machine) -> Any:
    """The free lists, head first, and the frame of each page that has one; of a machine that lives."""
    frames = machine.frames
    if isinstance(frames, Plenty) or machine.oom:
        return None
    pages = {}
    for frame, folio in frames.folios.items():
        mapped = folio.maps.get(0, {folio.base})
        pages |= {v: frame + v - folio.base for v in mapped}
    return {
        "lists": [list(blocks) for blocks in frames.buddy.free],
        "pages": dict(sorted(pages.items())),
    }


def _frames_of(state: MachineState, pages: Pages) -> Any:
    f = state.frames
    if f is None or bool(np.asarray(state.oom)[0]):
        return None
    free_lists = jax.tree.map(np.asarray, f.buddy)
    room = frames_room(free_lists)
    assert int(np.asarray(f.held)[0]) == NOTHING
    lists = [_walk(free_lists.next[:, 0], room + order) for order in range(ORDERS)]
    assert int(free_lists.orders[0]) == sum(1 << o for o, blocks in enumerate(lists) if blocks)
    assert int(free_lists.free[0]) == sum(len(blocks) << o for o, blocks in enumerate(lists))
    kinds = {block: o for o, blocks in enumerate(lists) for block in blocks}
    kind = free_lists.kind[:room, 0]
    assert {int(at): int(kind[at]) for at in np.flatnonzero(kind >= 0)} == kinds
    where = np.asarray(f.of)[:, 0]
    held = {int(v): int(where[v]) for v in np.flatnonzero(pages[Plane.PRESENT] | pages[Plane.INCACHE])}
    assert all(free_lists.next[frame, 0] == v for v, frame in held.items())
    return {"lists": lists, "pages": held}


def _deferred(state: MachineState) -> tuple[list[int], int]:
    """The deferred split list, oldest first, and what its shrinker put off."""
    after, before = np.asarray(state.slots)[:, 0], np.asarray(state.shadows)[:, 0]
    found, at, last = [], int(state.deferred_first[0]), -1
    while at >= 0:
        assert int(before[at]) == last + 1
        found.append(at)
        at, last = -2 - int(after[at]), at
    assert last == int(state.deferred_last[0]) and len(found) == int(state.deferred[0])
    assert set(found) == set(np.flatnonzero(after[:-SPARE] < 0).tolist())
    return found, int(state.nr_deferred[0])


def _lru_of_machine(state: MachineState) -> dict[str, Any]:
    links, first, lists = np.asarray(state.next)[:, 0], pages_room(state), state.generations
    if lists is None:
        return {
            "lists": [_walk(links, first + i) for i in (0, 1)],
            "sizes": sizes_of(state),
            "memory of reclaim": {name: int(np.asarray(getattr(state, name))[0]) for name in OF_CLASSIC},
        }
    oldest, youngest = int(lists.min_anon[0]), int(lists.max_seq[0])
    filters, live = np.asarray(lists.filters)[:-SPARE, 0], int(lists.live[0])
    tiers = np.asarray(lists.tiers)[: 5 * 4, 0].reshape(5, 4).tolist()
    return {
        "lists": {seq: _walk(links, first + seq % 4) for seq in range(oldest, youngest + 1)},
        "sizes": sizes_of(state),
        "generations": (youngest, oldest, int(lists.min_file[0]), int(lists.walked[0]), bool(lists.known[0])),
        "filters": [np.flatnonzero(filters >> i & 1).tolist() if live >> i & 1 else None for i in (0, 1)],
        "used": np.flatnonzero(np.asarray(lists.used)[:-SPARE, 0]).tolist(),
        "tiers": tiers,
        "activating": np.asarray(lists.activating)[: int(lists.activations[0]), 0].tolist(),
    }


def _walk(links: np.ndarray, sentinel: int) -> list[int]:
    found, at = [], int(links[sentinel])
    while at != sentinel:
        found.append(at)
        at = int(links[at])
    return found


def _clusters(c: Clusters) -> list[tuple]:
    """Sets, count, order and flag of each cluster there is."""
    rows = []
    for row in np.asarray(c.words)[:-SPARE, 0].reshape(-1, STRIDE):
        if row[COUNT] or row[FLAG]:
            sets = np.ascontiguousarray(row[: 16 * ROW].reshape(16, ROW)[:, :3].T)
            planes = np.unpackbits(sets.view(np.uint8), axis=1, bitorder="little").astype(bool)
            rows.append(
                (*(tuple(plane.tolist()) for plane in planes), *(int(row[i]) for i in (COUNT, ORDER, FLAG)))
            )
    return rows


def differences(reference: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    """What differs, in words."""
    found = []
    for key, theirs in reference.items():
        mine = machine[key]
        if mine == theirs:
            continue
        if isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
            at = next(i for i, (a, b) in enumerate(zip(theirs, mine, strict=True)) if a != b)
            found.append(f"{key}[{at}]: reference {theirs[at]}, machine {mine[at]}")
        else:
            found.append(f"{key}: reference {theirs}, machine {mine}")
    return found
