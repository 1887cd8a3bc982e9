"""What is harvested of a replay is what the plain machine saw and what the counters say became of it."""

import dataclasses
import random
from collections.abc import Iterator

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.machine import Lane
from jaxswap.machine.faultlog import WORDS, Word
from jaxswap.machine.replay import ReplayResult
from jaxswap.tune.harvest import Faults, cases_of, explorers, faults_of, harvest, joined, used_pages
from jaxswap.workload import Workload, parse_workload
from tests.machine.test_against_reference import reference_of, run_reference
from tests.reference import policies

LANE = Lane("16 64 256", limit=900 * 4096, swap=3000 * 4096)


def workload() -> Workload:
    """Runs of 1 to 20 pages, some written and some given up, of a region twice as large as the limit."""
    rng = np.random.default_rng(7)
    lines = ["REGION 2048 plain", "FILL 0 2048"]
    for _ in range(500):
        n = int(rng.choice([1, 1, 4, 8, 20]))
        lines.append(
            f"{rng.choice(['READN', 'READN', 'FILL', 'DONTNEED'], p=[0.5, 0.2, 0.25, 0.05])} "
            f"{rng.integers(0, 2048 - n)} {n}"
        )
    return parse_workload("\n".join(lines) + "\n")


def toy(seed: int) -> tuple[list[tuple[int, int]], list[list[int]], list[int]]:
    """A memory of 16 pages that leave at random: what is accessed and given up (as in Future, by page and
    time), the records of its faults, and how many of the pages of each were accessed before they left."""
    rng = random.Random(seed)
    present: dict[int, int] = {}
    events, words, used = [], [], []
    for now in range(60):
        present = {page: owner for page, owner in present.items() if rng.random() < 0.9}
        if rng.random() < 0.1:
            page = rng.randrange(16)
            present.pop(page, None)
            events.append((page, 2 * now))
        page = rng.randrange(16)
        if page not in present:
            order = rng.choice([0, 2, 3])
            base = page >> order << order
            if any(at in present for at in range(base, base + (1 << order))):
                order, base = 0, page
            record = [0] * WORDS
            record[Word.NOW], record[Word.PAGE], record[Word.GOT], record[Word.RUN] = now, page, order, 1
            present |= dict.fromkeys(range(base, base + (1 << order)), len(words))
            words.append(record)
            used.append(set())
        used[present[page]].add(page)
        events.append((page, 2 * now + 1))
    return sorted(events), words, [len(pages) for pages in used]


@pytest.mark.parametrize("seed", range(40))
def test_pages_are_used_if_they_are_accessed_before_they_leave(seed: int) -> None:
    events, words, used = toy(seed)
    page, time = np.array(events, np.int32).T
    assert used_pages(page, time, np.array(words, np.int32)).tolist() == used


@pytest.fixture(scope="module")
def lanes() -> list[Lane]:
    return explorers(LANE)


@pytest.fixture(scope="module")
def harvested(lanes: list[Lane]) -> tuple[list[Faults], ReplayResult]:
    return faults_of(workload(), lanes)


def test_what_was_not_used_is_what_the_counters_call_useless(
    harvested: tuple[list[Faults], ReplayResult],
) -> None:
    faults, result = harvested
    for index, one in enumerate(faults):
        back = one[Word.SWAPIN] == 1
        pages = (1 << one[Word.GOT]) + one[Word.RUN] - 1
        assert (pages - one.used)[back].sum() == result.counter("useless_swapin")[index]
        assert len(one.words) > 500
    assert len({tuple(row) for row in result.counters.tolist()}) == len(faults)


def test_of_a_share_the_faults_are_the_first_and_pages_count_up_to_there(
    lanes: list[Lane], harvested: tuple[list[Faults], ReplayResult]
) -> None:
    steps: list[tuple[int, int]] = []
    part, result = faults_of(workload(), lanes, share=0.6, progress=lambda *at: steps.append(at))
    for one, all_, lane in zip(part, harvested[0], range(3), strict=True):
        count = len(one.words)
        assert 0 < count < len(all_.words) and (one.words == all_.words[:count]).all()
        back = one[Word.SWAPIN] == 1
        pages = (1 << one[Word.GOT]) + one[Word.RUN] - 1
        assert (pages - one.used)[back].sum() == result.counter("useless_swapin")[lane]
        assert (one.used < all_.used[:count]).any()
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]


def test_orders_that_failed_are_those_of_the_counters(
    harvested: tuple[list[Faults], ReplayResult],
) -> None:
    faults, result = harvested
    for index, one in enumerate(faults):
        cases = cases_of(one)
        for order, size in ((2, "16kB"), (4, "64kB"), (6, "256kB")):
            mine = cases.order == order
            assert (mine & cases.failed).sum() == result.counter(f"{size}/swpin_fallback")[index]
    assert cases_of(joined(faults)).failed.any()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Features of every order that the plain linear rule chose at a swap-in, and outcomes."""
    twin, rows, last = policies.POLICIES["linear"], [], []

    def decide(params: tuple[int, ...], memory: list[int], seen: policies.Seen) -> tuple[int, int, int]:
        last[:] = [policies.linear_features(memory, seen, order) for order in range(2, 10)]
        return twin.decide(params, memory, seen)

    def learn(params: tuple[int, ...], memory: list[int], touch: bool, failed: int, got: int) -> None:
        if not touch:
            tried = [order for order in range(2, 10) if failed >> order & 1 or got == order]
            rows.extend((order, failed >> order & 1, *last[order - 2]) for order in tried)
        twin.learn(params, memory, touch, failed, got)

    monkeypatch.setitem(policies.POLICIES, "linear", policies.Twin(decide, learn))
    yield rows


@pytest.mark.parametrize("index", range(3))
def test_features_are_those_of_the_plain_machine(
    index: int,
    lanes: list[Lane],
    harvested: tuple[list[Faults], ReplayResult],
    seen: list[tuple[int, ...]],
) -> None:
    machine = reference_of(workload(), lanes[index])
    run_reference(workload(), machine)
    cases = cases_of(harvested[0][index])
    found = np.column_stack([cases.order, cases.failed, cases.features])
    assert found.tolist() == [list(row) for row in seen]
    assert len(set(map(tuple, cases.features.tolist()))) > 20


def test_explorers_are_caps_and_the_kernel() -> None:
    found = explorers(dataclasses.replace(LANE, policy="never"))
    assert [lane.policy_params for lane in found] == [
        {"bias": 5, "order": -2},
        {"bias": 9, "order": -2},
        {"bias": 13, "order": -2},
    ]
    assert {lane.policy for lane in found} == {"linear"}


def test_what_cannot_be_harvested() -> None:
    with pytest.raises(InputError, match="no size is enabled"):
        harvest(workload(), Lane(""))
    with pytest.raises(InputError, match="has several processes"):
        harvest(parse_workload("REGION 64 plain\nFORK 1\n"), Lane("16"))
