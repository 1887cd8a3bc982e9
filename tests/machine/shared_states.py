"""One form for the state of both machines where several processes share folios."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxswap.machine import cgroups
from jaxswap.machine.program import places_of
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.state import Folio
from jaxswap.machine.state import MachineState, pages_room
from jaxswap.machine.tables import HUGE, TABLE
from jaxswap.swaptable.cluster_table import ROW, STORED, STRIDE, USED
from jaxswap.swaptable.lanes import SPARE
from jaxswap.workload import Kind, Workload
from tests.machine.states import SCALARS, _clusters, _walk, linked, sizes_of
from tests.reference.folio import Folio as ReferenceFolio
from tests.reference.machine import Machine
from tests.swaptable.slot_machine import of_jax, of_plain

KINDS = ("none", "zero", "present", "swapped")
FLAGS = ("dirty", "partial", "used", "marked_shared", "active", "referenced", "workingset")
BITS = (sharing.DIRTY, sharing.PARTIAL, sharing.USED, sharing.MARKED, sharing.ACTIVE, sharing.REFERENCED,
        sharing.WORKINGSET)  # fmt: skip
PAGE_BITS = (sharing.NONZERO, sharing.YOUNG, sharing.TOUCHED, sharing.CAMEBACK, sharing.LARGE)


def places(workload: Workload) -> dict[int, int]:
    """Place of each process that lives at the end."""
    _, children, _ = places_of(workload)
    found = {0: 0}
    for i in np.flatnonzero(workload.kind >= Kind.FORK).tolist():
        if workload.kind[i] == Kind.FORK:
            found[int(workload.v[i])] = int(children[i])
        elif workload.kind[i] == Kind.EXIT:
            del found[int(workload.process[i])]
    return found


def _cgroups(machine: Machine) -> dict[int, int]:
    """Number of each cgroup, by identity."""
    return {id(cgroup): number for number, cgroup in enumerate(machine.cgroups.values())}


def _heads(state: MachineState, groups: int) -> list[int]:
    """Sentinels of the lists, inactive and active of each cgroup."""
    return [pages_room(state) - 2 * number + k for number in range(groups) for k in (0, 1)]


def _of_cgroups_of_reference(machine: Machine, place: dict[int, int]) -> dict:
    """What is charged to whom, and what each cgroup remembers."""
    number = _cgroups(machine)
    slots = [
        (number[id(c.memcg[i])], number[id(c.shadow[i][2])] == 0)
        for device in machine.swap.devices
        for c in device.clusters
        for i in range(512)
        if c.counts[i] and c.cache[i] is None
    ]
    return {
        "processes of cgroups": [
            sorted(place[k] for k in cgroup.processes) for cgroup in machine.cgroups.values()
        ],
        "owners of slots": slots,
        "owners of tables": sorted(
            (place[k], block, number[id(owner)])
            for k, p in machine.processes.items()
            for block, owner in (*p.tables.items(), *p.huge.items())
        ),
        "cgroups": [
            {"used": c.usage, "sizes": (c.lists.inactive_nr, c.lists.active_nr)}
            | {name: getattr(c, name) for name in SCALARS if c is not machine.root or name != "age"}
            for c in machine.cgroups.values()
        ],
        "age of the root": machine.root.age,
    }


def _of_cgroups_of_machine(state: MachineState, living: list[int], groups: int) -> dict:
    c, s = state.cgroups, sharing.of(state)
    assert c is not None
    words = np.asarray(cgroups.all_words(state))[:groups, :, 0]
    rows = [dict(zip(cgroups.SCALARS, row.tolist(), strict=True)) for row in words]
    of_process, found = np.asarray(c.of_process)[:, 0], np.asarray(state.tables)[:-SPARE, 0]
    of_slot, of_table = np.asarray(c.of_slot)[:, 0], np.asarray(c.of_table)[:, 0]
    blocks = sharing.room(state) // 512
    counts, cache = np.asarray(s.counts)[:-SPARE, 0], np.asarray(s.cache)[:-SPARE, 0]
    return {
        "processes of cgroups": [
            sorted(k for k in living if of_process[k] == number) for number in range(len(rows))
        ],
        "owners of slots": [
            (int(of_slot[i]) & cgroups.OWNER, bool(of_slot[i] & cgroups.BY_ROOT))
            for i in np.flatnonzero((counts > 0) & (cache < 0)).tolist()
        ],
        "owners of tables": [
            (t // blocks, t % blocks, int(of_table[t])) for t in np.flatnonzero(found != 0).tolist()
        ],
        "cgroups": [
            {
                "used": row["used"],
                "sizes": (
                    row["inactive"] - (row["waiting"] - row["waiting_active"]),
                    row["active"] - row["waiting_active"],
                ),
            }
            | {name: row[name] for name in SCALARS if number or name != "age"}
            for number, row in enumerate(rows)
        ],
        "age of the root": int(np.asarray(c.root_age)[0]),
    }


def _deferred(state: MachineState, numbers: dict[int, int], groups: int) -> list[tuple[list[int], int]]:
    """The deferred split list of each cgroup, oldest first, and what its shrinker put off."""
    words = np.asarray(sharing.of(state).folios)[:-SPARE, 0].reshape(-1, sharing.FIELDS)
    folios = {n: Folio(*words[k][: len(Folio._fields)]) for k, n in numbers.items()}  # type: ignore[arg-type]
    found: list[tuple[list[int], int]] = []
    for group in range(groups):
        waiting = [n for n, folio in folios.items() if folio.queued > 0 and folio.memcg == group]
        assert len(waiting) == int(sharing.of(state).deferred[group, 0])
        put_off = int(state.nr_deferred[0])
        if state.cgroups is not None:
            at = cgroups.SCALARS.index("nr_deferred")
            put_off = int(np.asarray(cgroups.all_words(state))[group, at, 0])
        found.append((sorted(waiting, key=lambda n: int(folios[n].queued)), put_off))
    return found


def _owners(pairs: list) -> list:
    return [(owner, number) if owner not in (None, -1) else (-1, 0) for owner, number in pairs]


def _readahead_of_reference(machine: Machine) -> dict:
    """What readahead, rotational devices and zswap remember."""
    device = machine.swap.devices[0]
    offset = machine.readahead_offset
    return {
        "marks": [
            [f.readahead for f in linked(machine, k, c)] for c in machine.cgroups.values() for k in (0, 1)
        ],
        "around": [0 if offset is None else offset + 1, machine.readahead_last, machine.readahead_hits],
        "device hints": [device.hints.get(order, 0) for order in range(10)],
        "stored": sorted(slot for _, slot in machine.zswap_slots),
        "switches": (machine.vma_readahead, machine.zswap, machine.zswap_ever),
        "page cluster": machine.page_cluster,
    }


def _readahead_of_machine(state: MachineState, groups: int) -> dict:
    """The same of a machine with one lane."""
    s = sharing.of(state)
    flags = np.asarray(s.folios)[:-SPARE, 0].reshape(-1, sharing.FIELDS)[:, Folio._fields.index("flags")]
    links = np.asarray(state.next)[:, 0]
    lists = [_walk(links, head) for head in _heads(state, groups)]
    rows = np.asarray(state.clusters.words)[:-SPARE, 0].reshape(-1, STRIDE)[:, : 16 * ROW].reshape(-1, ROW)
    # A slot that is free has no content, whatever is said of it.
    words = np.ascontiguousarray(rows[:, STORED] & rows[:, USED])
    switches = int(s.switches[0])
    return {
        "marks": [[bool(flags[number] & sharing.AHEAD) for number in numbers] for numbers in lists],
        "around": np.asarray(s.around)[:, 0].tolist(),
        "device hints": np.asarray(s.hints)[:10, 0].tolist(),
        "stored": np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist(),
        "switches": tuple(bool(switches >> i & 1) for i in range(3)),
        "page cluster": int(state.settings[6, 0]),
    }


def of_reference(machine: Machine, place: dict[int, int]) -> dict[str, Any]:
    """Pages of all processes, folios in list order, slots, clusters, scalars of the reference machine."""
    devices = machine.swap.devices
    bases = [0, *np.cumsum([len(device.clusters) for device in devices]) * 512]

    def number(place: tuple[int, int]) -> int:
        return int(bases[place[0]] + place[1])

    numbers: dict[int, int] = {}

    def describe(folio: ReferenceFolio) -> tuple:
        numbers[id(folio)] = len(numbers)
        owners = [
            (place[k] if k is not None else -1, n) for k, n in zip(folio.owners, folio.owned, strict=True)
        ]
        row = (folio.base, folio.order, number(folio.place) if folio.place else -1, folio.mapcount)
        flags = tuple(bool(getattr(folio, name)) for name in FLAGS)
        return (*row, flags, _owners(owners) if folio.order else None, group[id(folio.memcg)])

    group = _cgroups(machine)
    lists = [[describe(f) for f in linked(machine, k, c)] for c in machine.cgroups.values() for k in (0, 1)]
    pages = {}
    for k, process in machine.processes.items():
        rows = []
        for page in process.pages:
            if page.state == "present":
                flags = (page.nonzero, page.young, page.touched, page.swapped_in, page.large)
                rows.append(("present", page.exclusive, numbers[id(page.folio)], flags))
            elif page.state == "swapped":
                rows.append(("swapped", page.exclusive, number((page.device, page.slot)), page.nonzero))
            else:
                rows.append((page.state,))
        pages[place[k]] = rows
    clusters = [c for device in devices for c in device.clusters]
    slots = [
        (
            c.counts[i],
            c.shadow[i][:2] if c.counts[i] and c.cache[i] is None else None,
            numbers[id(c.cache[i])] if c.cache[i] else -1,
        )
        for c in clusters
        for i in range(512)
    ]
    sets = [
        (tuple(map(bool, c.used)), tuple(x is not None for x in c.cache), tuple(c.zero)) for c in clusters
    ]
    scalars = {"free": machine.swap.free_slots, "oom": machine.oom}
    if len(machine.cgroups) == 1:
        root = machine.root
        scalars |= {name: getattr(root, name) for name in SCALARS} | {"used": root.usage}
        scalars |= {"sizes": (root.lists.inactive_nr, root.lists.active_nr)}
    else:
        scalars |= _of_cgroups_of_reference(machine, place)
    return {
        "processes": sorted(pages),
        **{f"pages {k}": pages[k] for k in sorted(pages)},
        "lists": lists,
        "slots": slots,
        "sets": sets,
        "swap": of_plain(SimpleNamespace(swap=machine.swap, bases=bases, number=number)),  # type: ignore[arg-type]
        "tables": sorted((place[k], block) for k, p in machine.processes.items() for block in p.tables),
        "huge": sorted((place[k], block) for k, p in machine.processes.items() for block in p.huge),
        "memory": list(machine.policy_memory),
        "scalars": scalars,
        "deferred": [
            ([numbers[id(folio)] for folio in c.deferred], c.nr_deferred) for c in machine.cgroups.values()
        ],
        **_readahead_of_reference(machine),
    }


def of_machine(
    state: MachineState, npages: int, living: list[int], devices: int = 1, groups: int = 1
) -> dict[str, Any]:
    """The same of a machine with one lane and so many cgroups."""
    s = sharing.of(state)
    folios = np.asarray(s.folios)[:-SPARE, 0].reshape(-1, sharing.FIELDS)
    room = sharing.room(state)
    numbers: dict[int, int] = {}

    def describe(number: int) -> tuple:
        folio = Folio(*folios[number][: len(Folio._fields)].tolist())  # type: ignore[arg-type]
        numbers[number] = len(numbers)
        flags = tuple(bool(folio.flags & bit) for bit in BITS)
        owners = _owners([(folio.owner0, folio.owned0), (folio.owner1, folio.owned1)])
        assert folio.gather == -2 and folio.flags & sharing.LISTED
        row = (folio.base, folio.order, folio.place, folio.maps, flags)
        return (*row, owners if folio.order else None, folio.memcg)

    links = np.asarray(state.next)[:, 0]
    lists = [[describe(f) for f in _walk(links, head)] for head in _heads(state, groups)]
    words, places = np.asarray(s.pages)[:, 0], np.asarray(state.slots)[:, 0]
    pages = {}
    for k in range(sharing.processes(state)):
        rows = []
        for v in range(k * room, k * room + npages):
            word = int(words[v])
            kind, exclusive = KINDS[word & sharing.KIND], bool(word & sharing.EXCLUSIVE)
            if kind == "present":
                flags = tuple(bool(word & bit) for bit in PAGE_BITS)
                rows.append((kind, exclusive, numbers[int(places[v])], flags))
            elif kind == "swapped":
                rows.append((kind, exclusive, int(places[v]), bool(word & sharing.NONZERO)))
            else:
                rows.append((kind,))
        pages[k] = rows
        assert k in living or all(row == ("none",) for row in rows)
    sets = [row[:3] for row in _clusters(state.clusters)]
    slot_count = len(sets) * 512
    counts, cache = np.asarray(s.counts)[:slot_count, 0], np.asarray(s.cache)[:slot_count, 0]
    shadows = np.asarray(state.shadows)[:slot_count, 0]
    slots = [
        (int(n), (int(x) >> 1, bool(x & 1)) if n and c < 0 else None, numbers[int(c)] if c >= 0 else -1)
        for n, c, x in zip(counts, cache, shadows, strict=True)
    ]
    found = np.asarray(state.tables)[:-SPARE, 0]
    tables, huge = np.flatnonzero(found == TABLE), np.flatnonzero(found == HUGE)
    blocks = room // 512
    scalars = {"free": int(np.asarray(state.clusters.free)[0]), "oom": bool(np.asarray(state.oom)[0])}
    if state.cgroups is None:
        scalars |= {name: int(np.asarray(getattr(state, name))[0]) for name in (*SCALARS, "used")}
        scalars |= {"sizes": sizes_of(state)}
    else:
        scalars |= _of_cgroups_of_machine(state, living, groups)
    return {
        "processes": living,
        **{f"pages {k}": pages[k] for k in living},
        "lists": lists,
        "slots": slots,
        "sets": sets,
        "swap": of_jax(state.clusters, devices),
        "tables": [(int(t) // blocks, int(t) % blocks) for t in tables],
        "huge": [(int(t) // blocks, int(t) % blocks) for t in huge],
        "memory": np.asarray(state.memory)[:, 0].tolist(),
        "scalars": scalars,
        "deferred": _deferred(state, numbers, groups),
        **_readahead_of_machine(state, groups),
    }
