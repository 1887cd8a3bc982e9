"""What holds in every state, whatever operations came before: nothing is lost, shared or counted twice."""

import random
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from jaxswap.machine import Lane
from jaxswap.machine.generations import MAX_NR_GENS, MIN_NR_GENS
from jaxswap.machine.lru import FOLIO_BATCH_SIZE
from jaxswap.machine.observe import pages_of
from jaxswap.machine.replay import Replay
from jaxswap.machine.state import KERNEL_PAGES, PLANES, MachineState, Plane, pages_room
from jaxswap.machine.state import LISTS as SENTINELS
from jaxswap.swaptable.clusters import FLAG, FRAG, FREE, FULL, LISTS, NONFULL, STRIDE
from jaxswap.swaptable.lanes import SPARE
from jaxswap.workload import parse_workload
from tests.machine.states import of_machine
from tests.machine.workloads import PAGES, random_text

CLUSTER = 512
SLOTS = 2600


LRUS = (None, "classic", "mglru")
"""Of a machine with a limit; None: without one."""


def random_state(seed: int, operations: int, mapped: bool, lru: str | None) -> MachineState:
    rng = random.Random(seed)
    sizes = " ".join(
        f"{size}{rng.choice(['', 'm'])}" for size in (16, 32, 64, 128, 512, 2048) if rng.random() < 0.6
    )
    policy = rng.choice(["kernel", "cap", "single", "backoff", "lookahead"])
    limit = rng.randint(100, 1400) * 4096 if lru else None
    workload = parse_workload(random_text(seed, operations, mapped=mapped))
    flush = rng.choice([0, 100, None])
    lane = Lane(sizes, policy, limit=limit, lru=lru or "classic", flush=flush, swap=SLOTS * 4096)
    replay = Replay(workload, [lane], devices=1)
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
    for plane in (Plane.TOUCHED, Plane.CAMEBACK, Plane.LARGE, Plane.PARTIAL):
        assert not pages[plane][swapped].any(), f"{plane.name} of a swapped page"
    unwritten = swapped & pages[Plane.INCACHE] & (state.generations is not None)
    assert not (pages[Plane.UNWRITTEN] & swapped & ~unwritten).any(), "a swapped page is young"
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


def folio_heads(state: MachineState) -> dict[int, int]:
    """Name of every folio, its lowest mapped page or the page whose slot it is cached for: its pages."""
    pages = pages_of(state, PAGES)
    order = pages.order
    base = np.arange(PAGES) >> order << order
    names: dict[tuple[int, int], int] = {}
    for v in np.flatnonzero(pages[Plane.PRESENT]):
        names.setdefault((int(base[v]), int(order[v])), int(v))
    heads = {v: 1 << size for (_, size), v in names.items()}
    return heads | {int(v): 1 for v in np.flatnonzero(pages[Plane.INCACHE])}


def folios_are_on_the_lists(state: MachineState) -> None:
    pages, found, heads = pages_of(state, PAGES), of_machine(state, PAGES), folio_heads(state)
    queues = found["lists"] if state.generations is None else list(found["lists"].values())
    assert sorted(v for queue in queues for v in queue) == sorted(heads)
    mine = [sum(heads[v] for v in queue) for queue in queues]
    totals = (int(state.inactive[0]), int(state.active[0]))
    waiting, waiting_active = int(state.waiting[0]), int(state.waiting_active[0])
    assert 0 <= waiting_active <= waiting < FOLIO_BATCH_SIZE
    if state.generations is None:
        active = pages[Plane.ACTIVE]
        assert not active[queues[0]].any() and active[queues[1]].all()
        assert totals == tuple(mine)
        for queue, some in zip(queues, (waiting - waiting_active, waiting_active), strict=True):
            assert all(heads[v] == 1 for v in queue[:some]), "a large folio waits"
    else:
        assert totals == (sum(mine), 0) and not waiting_active
    assert found["sizes"] == (totals[0] - waiting + waiting_active, totals[1] - waiting_active)
    pages_of_tables = len(found["tables"]) + len(found["huge"])
    assert found["scalars"]["used"] == sum(heads.values()) + pages_of_tables + KERNEL_PAGES
    present, order = pages[Plane.PRESENT], pages.order
    flags = {Plane.REFERENCED, Plane.ACTIVE, Plane.WORKINGSET, Plane.PARTIAL}
    flags |= set() if state.generations is None else {Plane.GEN1, Plane.REFS0, Plane.REFS1}
    for name, nr in heads.items():
        size = nr.bit_length() - 1
        base = name >> size << size
        members = slice(base, base + nr)
        own = present[members] & (order[members] == size)
        if pages[Plane.INCACHE][name]:
            continue
        for plane in flags:
            values = pages[plane][members][own]
            assert values.all() or not values.any(), f"{plane.name} differs inside the folio of page {name}"
        assert pages[Plane.PARTIAL][name] == (np.count_nonzero(own) < nr)
    tables = set(found["tables"])
    some = np.flatnonzero(present | pages[Plane.SWAPPED] | pages[Plane.ZEROPAGE]) // CLUSTER
    assert set(some.tolist()) <= tables | set(found["huge"])
    room = pages_room(state)
    assert both_ways(state.next, state.prev, range(room, room + SENTINELS)) == len(heads)


def generations_are_in_order(state: MachineState) -> None:
    """Of the multi-gen LRU: what its lists, flags and accounts say of each other."""
    if state.generations is None:
        return
    found, heads = of_machine(state, PAGES), folio_heads(state)
    youngest, oldest, oldest_file, walked, _ = found["generations"]
    for least in (oldest, oldest_file):
        assert MIN_NR_GENS <= youngest - least + 1 <= MAX_NR_GENS
    assert MIN_NR_GENS <= walked <= youngest
    pages = pages_of(state, PAGES)
    gen = pages[Plane.GEN0] | pages[Plane.GEN1] << 1
    for seq, queue in found["lists"].items():
        for v in queue:
            # a walk gives folios a younger generation and leaves them on their list
            assert oldest + (gen[v] - oldest) % MAX_NR_GENS >= seq, f"page {v} is older than its list"
    room = pages_room(state)
    assert both_ways(state.next, state.prev, range(room + MAX_NR_GENS, room + SENTINELS)) == 0
    waiting = found["activating"]
    assert len(waiting) == len(set(waiting)) < FOLIO_BATCH_SIZE
    assert all(heads.get(v) == 1 for v in waiting), "what waits to be activated is no small folio"
    assert all(pages_in_tier >= 0 for account in found["tiers"] for pages_in_tier in account)


def accesses_find_what_they_need(state: MachineState) -> None:
    """The derived planes: which accesses change nothing. With the multi-gen LRU a known page may be loud, so
    that its next access marks the page table as used; a quiet one lies in a table that is."""
    words = np.asarray(state.rows)[:-SPARE, 0].reshape(-1, PLANES)
    known = words[:, Plane.PRESENT] & words[:, Plane.YOUNG] & words[:, Plane.TOUCHED]
    if state.generations is not None:
        known &= words[:, Plane.QUIET]
        used = np.asarray(state.generations.used)[: len(words) // 16, 0].astype(bool)
        assert used[np.flatnonzero(known) // 16].all(), "a quiet page in a table that counts as unused"
    assert np.array_equal(words[:, Plane.QUIET], known | words[:, Plane.ZEROPAGE])
    assert np.array_equal(words[:, Plane.QUIET_WRITE], known & words[:, Plane.NONZERO])
    assert not words[:, len(Plane) :].any()


CHECKS = (
    pages_are_in_one_state,
    slots_have_one_owner,
    next_plane_follows_the_slots,
    cluster_counts_and_lists,
    folios_are_on_the_lists,
    generations_are_in_order,
    accesses_find_what_they_need,
)


@pytest.mark.parametrize("lru", LRUS, ids=["free", "classic", "mglru"])
@given(seed=st.integers(0, 2**32), operations=st.integers(20, 150), mapped=st.booleans())
@settings(max_examples=20)
def test_every_state_is_whole(lru: str | None, seed: int, operations: int, mapped: bool) -> None:
    state = random_state(seed, operations, mapped, lru)
    for holds in CHECKS:
        holds(state)


@pytest.mark.parametrize("lru", LRUS[1:])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_see_something(check: Callable[[MachineState], None], lru: str) -> None:
    """A machine with pages of every kind passes; what a check looks at is not empty."""
    state = random_state(5 if lru == "mglru" else 7, 150, False, lru)
    found = pages_of(state, PAGES)
    assert found[Plane.SWAPPED].sum() > 100 and found[Plane.PRESENT].sum() > 50 and found[Plane.NEXT].any()
    if lru == "mglru":
        lists = of_machine(state, PAGES)
        assert sum(map(bool, lists["lists"].values())) > 1 and lists["generations"][0] > MAX_NR_GENS
    check(state)
