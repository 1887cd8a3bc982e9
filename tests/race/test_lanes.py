"""Sampled lanes are paths of the explorer, equal the plain twin event by event, and keep the identities."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jaxswap.race import state
from jaxswap.race.draws import LOCKED, STEP_OF, Time, Times
from jaxswap.race.lanes import ERRORS, IN_FOLIO, LOCK_STEPS, Counts, Crowd, Event, Lanes
from jaxswap.race.start import Actor
from jaxswap.race.state import PC, SHADOW, unpack
from jaxswap.race.steps import Steps
from jaxswap.swaptable.forms import FORMS
from tests.reference import race_lanes

TIMES: Times = {name: Time("lognormal", 40.0, 0.8) for name in STEP_OF} | {
    "frame": Time("exponential", 300.0, growth=0.5),
    "read": Time("lognormal", 500.0, 1.0, 1.0),
    "map": Time("constant", 25.0),
    "start": Time("exponential", 500.0),
}
CROWD = Crowd(FORMS["merged"], 5, 0b1101, 16, 8, 0.7, 0.15, 0.15, (0.02, 0.1, 0.1, 0.2), 0.1, TIMES)


ALL = replace(CROWD, readahead=0.1, freeing=0.2, zswap=0.1, shmem=0.15, swapout=0.15)


def walked(crowd: Crowd, lanes: int, seed: int = 1) -> tuple[Counts, list[Event]]:
    trace: list[Event] = []
    counts = Lanes(crowd, seed, np.arange(lanes), trace).run()
    return counts, trace


def as_counter(counts: Counts) -> Counter[Any]:
    """The counts as the twin has them."""
    found: Counter[Any] = Counter({"retries": counts.retries, "faults": counts.faults})
    for name in ("frames", "no_frame", "no_charge", "inserted", "thrown", "dropped", "fallback"):
        found.update({(name, order): int(n) for order, n in enumerate(getattr(counts, name))})
    for (which, errno, order), n in np.ndenumerate(counts.check):
        found["check", bool(which), ERRORS[errno], order] = int(n)
    for (order, bin), n in np.ndenumerate(counts.window):
        found["window", order, bin] = int(n)
    for row, name in enumerate(("locks", "held", "waited")):
        found.update({(name, pc): int(counts.locks[row, i]) for i, pc in enumerate(LOCK_STEPS)})
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cpus", [2, 5, 17])
def test_equals_the_plain_twin_event_by_event(form: str, cpus: int) -> None:
    equals_the_twin(replace(CROWD, form=FORMS[form], cpus=cpus), 25 if cpus < 17 else 4, seed=cpus)


@pytest.mark.parametrize("form", FORMS)
def test_equals_the_plain_twin_with_every_kind_of_actor(form: str) -> None:
    crowd = replace(ALL, form=FORMS[form], cpus=9, slots=8, hot_slots=4)
    counts = equals_the_twin(crowd, 40, seed=11)
    for step in ("SLOT", "UNMAP", "LEAVE"):
        assert counts.locks[0, LOCK_STEPS.index(step)] > 0, step


@pytest.mark.parametrize("form", ["pre-phase4", "merged"])
def test_equals_the_plain_twin_on_the_largest_range_and_order(form: str) -> None:
    whole = replace(CROWD, form=FORMS[form], orders=0b1001010101, slots=512, hot_slots=32)
    equals_the_twin(replace(whole, cpus=8, frame_fails=(0.1,) * 10, charge_fails=0.3), 6, seed=3)


def equals_the_twin(crowd: Crowd, lanes: int, seed: int) -> Counts:
    counts, trace = walked(crowd, lanes, seed)
    orders = crowd.top + 1
    times = {pc: TIMES[name].table(orders).tolist() for name, its in STEP_OF.items() for pc in its}
    start = TIMES["start"].table(1)[0].tolist()
    together: Counter[Any] = Counter()
    for lane in range(lanes):
        played = race_lanes.play(crowd, seed, lane, times, start, LOCKED)
        assert [event[1:] for event in trace if event[0] == lane] == played.events
        together.update(played.count)
    assert +together == +as_counter(counts)
    assert counts.events == len(trace) and counts.lanes == lanes
    return counts


class Kept(Lanes):
    """Keeps what each lane ends in: words (all shadows alike), counts, page table entries."""

    def __init__(self, crowd: Crowd, seed: int, lanes: int, trace: list[Event]) -> None:
        self.last: dict[int, tuple[np.ndarray, ...]] = {}
        super().__init__(crowd, seed, np.arange(lanes), trace)

    def _keep(self, going: np.ndarray) -> None:
        for row in np.flatnonzero(~going):
            self.last[int(self.lane[row])] = self.word[row], self.count[row], self.pte[row]
        super()._keep(going)


@pytest.mark.parametrize("crowd", [CROWD, ALL], ids=["faults", "all"])
@pytest.mark.parametrize("form", ["pre-phase4", "v3", "v4", "v4-squash", "merged", "merged-nothp"])
def test_every_trace_is_a_path_of_the_explorer_and_ends_in_its_state(form: str, crowd: Crowd) -> None:
    crowd = replace(crowd, form=FORMS[form], cpus=3, orders=0b111, slots=4, hot_slots=4)
    lanes, seed = 20, 7
    trace: list[Event] = []
    sampled = Kept(crowd, seed, lanes, trace)
    sampled.run()
    assert len(sampled.last) == lanes
    for lane in range(lanes):
        streams = [race_lanes.stream_of(seed, lane, actor) for actor in range(3)]
        people = race_lanes.people(crowd, streams)
        start = tuple(Actor(one.kind, one.target, one.orders) for one in people)
        steps = Steps(crowd.form, start, crowd.slots)
        states = steps.first()
        gone = set(range(3))
        for _, _, actor, pc in (event for event in trace if event[0] == lane and event[3] != "ARRIVE"):
            gone.discard(actor)
            here = states.take(states.pc[actor] == PC[pc])
            ways = [way.states.pack() for way in steps.go(here, actor, PC[pc])] if here.n else []
            assert sum(map(len, ways)), (lane, actor, pc)
            states = unpack(steps.layout, np.unique(np.concatenate(ways), axis=0))
        moved = [actor for actor in range(3) if actor not in gone]
        word, count, pte = (row[:, None] for row in sampled.last[lane])
        slots = states.slots.astype(int)
        slots = np.where(
            slots >= state.IN_FOLIO, slots - state.IN_FOLIO + IN_FOLIO, np.minimum(slots, SHADOW)
        )
        same = (slots == word) & (states.counts == count) & (states.ptes == pte)
        assert (same.all(0) & (states.pc[moved] == PC["DONE"]).all(0)).any(), lane


BUSY = replace(CROWD, cpus=16, orders=0b11111, slots=64, hot_slots=16, frame_fails=(0.01,) * 5)


@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if form.checks_under_lock])
def test_who_wins_has_passed_two_checks(form: str) -> None:
    counts, _ = walked(replace(BUSY, form=FORMS[form]), 120)
    fit, refused = counts.check[:, 0], counts.check[:, 1:].sum(1)
    assert (fit[1] == counts.inserted).all() and counts.inserted.sum() > 300
    assert (fit[0] == counts.frames + counts.no_frame).all()
    assert (counts.frames == counts.inserted + refused[1]).all()
    assert (counts.thrown == refused[1]).all() and counts.thrown.sum() > 0
    assert (counts.window.sum(1) == counts.inserted).all()
    assert counts.retries == counts.check[:, ERRORS.index(-17)].sum()
    assert counts.locks[0, LOCK_STEPS.index("CHECK")] == counts.check[0].sum()
    assert counts.locks[0, LOCK_STEPS.index("INSERT")] == counts.check[1].sum() == counts.frames.sum()
    assert counts.locks[0, LOCK_STEPS.index("UNDO")] == counts.no_charge.sum()


@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if form.checks_under_lock])
def test_fallback_is_what_was_busy_where_memory_does_not_fail(form: str) -> None:
    plenty = replace(BUSY, form=FORMS[form], frame_fails=(0.0,) * 5, charge_fails=0.0)
    counts, _ = walked(plenty, 120)
    busy = counts.check[:, ERRORS.index(-16)].sum(0)
    assert (counts.fallback[1:] == busy[1:]).all()
    assert counts.fallback.sum() > 0 or not plenty.form.thp
    short, _ = walked(replace(plenty, frame_fails=BUSY.frame_fails, charge_fails=0.1), 120)
    busy = short.check[:, ERRORS.index(-16)].sum(0) + short.no_frame + short.no_charge
    assert (short.fallback[1:] == busy[1:]).all()


def test_before_phase_4_only_want_of_memory_is_counted() -> None:
    before = replace(BUSY, form=FORMS["pre-phase4"])
    counts, _ = walked(before, 120)
    assert (counts.fallback[1:] == (counts.no_frame + counts.no_charge)[1:]).all()
    assert counts.check[0].sum() == 0 and (counts.check[1, 0] == counts.inserted).all()
    assert (counts.frames == counts.inserted + counts.thrown + counts.no_charge).all()
    assert counts.check[1, ERRORS.index(-16)].sum() == 0


@pytest.mark.parametrize("form", ["v3", "v4", "v4-squash"])
def test_posted_forms_and_merged_do_the_same_where_order_0_is_in_every_mask(form: str) -> None:
    posted, merged = (walked(replace(BUSY, form=FORMS[name]), 120) for name in (form, "merged"))
    assert posted[1] == merged[1] and posted[0].below_0 == 0


def test_a_seed_decides_and_the_company_does_not() -> None:
    whole = walked(BUSY, 60)[1]
    assert whole == walked(BUSY, 60)[1]
    assert whole != walked(BUSY, 60, seed=2)[1]
    trace: list[Event] = []
    Lanes(BUSY, 1, np.arange(40, 60), trace).run()
    assert sorted(trace) == sorted(event for event in whole if event[0] >= 40)
    other = sorted(event for event in whole if event[0] == 1)
    assert sorted((0, *event[1:]) for event in other) != sorted(event for event in whole if event[0] == 0)
