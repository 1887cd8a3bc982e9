"""What holds in every state, whatever operations came before: nothing is lost, shared or counted twice."""

import random
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from jaxswap.machine import Lane
from jaxswap.machine.observe import pages_of
from jaxswap.machine.replay import Replay
from jaxswap.machine.state import PLANES, MachineState, Plane, pages_room
from jaxswap.swaptable.clusters import FLAG, FRAG, FREE, FULL, LISTS, NONFULL, STRIDE
from jaxswap.swaptable.lanes import SPARE
from jaxswap.workload import parse_workload
from tests.machine.states import of_machine
from tests.machine.workloads import PAGES, random_text

CLUSTER = 512
SLOTS = 2600


def random_state(seed: int, operations: int, mapped: bool, limited: bool) -> MachineState:
    rng = random.Random(seed)
    sizes = " ".join(
        f"{size}{rng.choice(['', 'm'])}" for size in (16, 32, 64, 128, 512, 2048) if rng.random() < 0.6
    )
    policy = rng.choice(["kernel", "cap", "single", "backoff", "lookahead"])
    limit = rng.randint(100, 1400) * 4096 if limited else None
    workload = parse_workload(random_text(seed, operations, mapped=mapped))
    replay = Replay(workload, [Lane(sizes, policy, limit=limit, swap=SLOTS * 4096)], devices=1)
    replay.advance(0, replay.compiled.ops)
    return replay.lane_state()


def pages_are_in_one_state(state: MachineState) -> None:
    pages = pages_of(state, PAGES)
    present, swapped = pages[Plane.PRESENT], pages[Plane.SWAPPED]
    zero = pages[Plane.ZEROPAGE]
    assert not (present & swapped).any() and not (present & zero).any() and not (swapped & zero).any()
    none = ~(present | swapped | zero)
    for plane in Plane:
        assert not pages[plane][none].any(), f"{plane.name} of a page that is none"
    for plane in (Plane.YOUNG, Plane.TOUCHED, Plane.CAMEBACK, Plane.LARGE, Plane.PARTIAL):
        assert not pages[plane][swapped].any(), f"{plane.name} of a swapped page"
    assert not (pages[Plane.NEXT] & ~swapped).any() and not (pages[Plane.INCACHE] & ~swapped).any()
    assert not pages.order[~present].any()
    beyond = pages_of(state, pages_room(state)).planes[:, PAGES:]
    assert not beyond.any(), "a page behind the region has a state"


def slots_have_one_owner(state: MachineState) -> None:
    pages = pages_of(state, PAGES)
    swapped = np.flatnonzero(pages[Plane.SWAPPED])
    slots = pages.slots[swapped]
    assert len(set(slots.tolist())) == len(slots)
    assert not len(slots) or (slots.min() >= 1 and slots.max() < SLOTS)
    clusters = of_machine(state, PAGES)["clusters"]
    used = np.concatenate([np.array(row[0]) for row in clusters])
    cached = np.concatenate([np.array(row[1]) for row in clusters])
    zero = np.concatenate([np.array(row[2]) for row in clusters])
    owned = np.zeros(len(used), bool)
    owned[slots] = True
    bad = np.arange(len(used)) >= SLOTS
    bad[0] = True
    assert np.array_equal(used, owned | bad)
    assert int(np.asarray(state.clusters.free)[0]) == np.count_nonzero(~used)
    holders = np.zeros(len(used), bool)
    holders[pages.slots[pages[Plane.INCACHE]]] = True
    assert np.array_equal(cached, holders)
    assert not (zero & ~owned).any()
    assert not (zero[slots] & pages[Plane.NONZERO][swapped]).any(), "a zero flag on a page with content"


def next_plane_follows_the_slots(state: MachineState) -> None:
    pages = pages_of(state, PAGES)
    swapped = pages[Plane.SWAPPED]
    behind = np.zeros(PAGES, bool)
    behind[1:] = swapped[1:] & swapped[:-1] & (pages.slots[1:] == pages.slots[:-1] + 1)
    behind[::CLUSTER] = False
    assert np.array_equal(pages[Plane.NEXT], behind)


def cluster_counts_and_lists(state: MachineState) -> None:
    found = of_machine(state, PAGES)
    clusters, lists = found["clusters"], found["swap"]["lists"]
    assert len(clusters) == -(-SLOTS // CLUSTER)
    listed = Counter(number for queue in lists.values() for number in queue)
    assert listed == Counter(range(len(clusters))), "the lists do not partition the clusters"
    for number, (used, _, _, count, order, flag) in enumerate(clusters):
        assert count == sum(used)
        queue = next(key for key, members in lists.items() if number in members)
        assert queue == (0, flag, order if flag in (NONFULL, FRAG) else 0)
        assert count == CLUSTER or flag != FULL
        assert (flag == FREE) == (count == 0)
    for slot in found["swap"]["hints"].values():
        assert 0 <= slot < SLOTS
    room, words = (
        int(state.clusters.lists[0]),
        np.asarray(state.clusters.words)[:-SPARE, 0].reshape(-1, STRIDE),
    )
    assert not words[len(clusters) : room, FLAG].any()
    links = state.clusters.next, state.clusters.prev
    assert both_ways(*links, range(room, room + LISTS)) == len(clusters)


def both_ways(forwards: Array, backwards: Array, sentinels: Iterable[int]) -> int:
    """Members of all lists; each list read backwards must be the list read forwards."""
    following, before = (np.asarray(links)[:, 0] for links in (forwards, backwards))
    members = 0
    for sentinel in sentinels:
        at = sentinel
        while True:
            after = int(following[at])
            assert before[after] == at
            at = after
            if at == sentinel:
                break
            members += 1
            assert members < len(following), "a list does not end"
    return members


def folios_are_on_the_lists(state: MachineState) -> None:
    pages, found = pages_of(state, PAGES), of_machine(state, PAGES)
    present, order = pages[Plane.PRESENT], pages.order
    base = np.arange(PAGES) >> order << order
    names: dict[tuple[int, int], int] = {}
    for v in np.flatnonzero(present):
        names.setdefault((int(base[v]), int(order[v])), int(v))
    heads = {v: 1 << size for (_, size), v in names.items()}
    heads |= {int(v): 1 for v in np.flatnonzero(pages[Plane.INCACHE])}
    assert sorted(found["inactive"] + found["active"]) == sorted(heads)
    active = pages[Plane.ACTIVE]
    assert not active[found["inactive"]].any() and active[found["active"]].all()
    assert found["sizes"] == tuple(sum(heads[v] for v in found[name]) for name in ("inactive", "active"))
    assert found["scalars"]["used"] == sum(heads.values()) + len(found["tables"]) + len(found["huge"])
    for (start, size), name in names.items():
        members = slice(start, start + (1 << size))
        mine = present[members] & (order[members] == size)
        lost = np.count_nonzero(mine) < 1 << size
        for plane in (Plane.REFERENCED, Plane.ACTIVE, Plane.WORKINGSET, Plane.PARTIAL):
            flags = pages[plane][members][mine]
            assert flags.all() or not flags.any(), f"{plane.name} differs inside the folio of page {name}"
        assert pages[Plane.PARTIAL][name] == lost
    tables = set(found["tables"])
    some = np.flatnonzero(present | pages[Plane.SWAPPED] | pages[Plane.ZEROPAGE]) // CLUSTER
    assert set(some.tolist()) <= tables | set(found["huge"])
    room = pages_room(state)
    assert both_ways(state.next, state.prev, range(room, room + 2)) == len(heads)


def accesses_find_what_they_need(state: MachineState) -> None:
    """The derived planes: which accesses change nothing."""
    words = np.asarray(state.rows)[:-SPARE, 0].reshape(-1, PLANES)
    known = words[:, Plane.PRESENT] & words[:, Plane.YOUNG] & words[:, Plane.TOUCHED]
    assert np.array_equal(words[:, Plane.QUIET], known | words[:, Plane.ZEROPAGE])
    assert np.array_equal(words[:, Plane.QUIET_WRITE], known & words[:, Plane.NONZERO])
    assert not words[:, len(Plane) :].any()


CHECKS = (
    pages_are_in_one_state,
    slots_have_one_owner,
    next_plane_follows_the_slots,
    cluster_counts_and_lists,
    folios_are_on_the_lists,
    accesses_find_what_they_need,
)


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@given(seed=st.integers(0, 2**32), operations=st.integers(20, 150), mapped=st.booleans())
@settings(max_examples=20)
def test_every_state_is_whole(limited: bool, seed: int, operations: int, mapped: bool) -> None:
    state = random_state(seed, operations, mapped, limited)
    for holds in CHECKS:
        holds(state)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_see_something(check) -> None:
    """A fresh machine with pages of every kind passes; what a check looks at is not empty."""
    state = random_state(7, 150, False, True)
    found = pages_of(state, PAGES)
    assert found[Plane.SWAPPED].sum() > 100 and found[Plane.PRESENT].sum() > 50 and found[Plane.NEXT].any()
    check(state)
