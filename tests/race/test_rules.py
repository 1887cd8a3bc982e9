"""Every rule is broken by some state, and judges states as the plain explorer's does."""

from __future__ import annotations

import numpy as np
import pytest

from jaxswap.race import Actor, starts
from jaxswap.race.explore import Search
from jaxswap.race.rules import RULES, broken
from jaxswap.race.state import IN_FOLIO, MAPPED, PC, PCS, SHADOW, States, unpack
from jaxswap.race.steps import Steps
from jaxswap.swaptable.forms import MERGED
from tests.reference import race as reference

SLOTS = 4
ENTRIES = ("none", "swap", "zapping", "mapping")


@pytest.fixture(scope="module", params=["freeing", "swapout"])
def reached(request) -> tuple[Steps, States]:
    start = (Actor("fault", 1, 0b111), Actor("freeing", 0, 0b100), Actor("swapout", 0, 0b10))
    if request.param == "freeing":
        start = starts(("fault", "freeing", "zswap"), SLOTS, 0b111)[3]
    search = Search(Steps(MERGED, start, SLOTS))
    assert not list(search.run(lambda states: None))
    return search.steps, unpack(search.steps.layout, search.reached.keys[: search.reached.n])


def plain(s: States, at: int) -> reference.State:
    """One state as the plain explorer has it."""

    def word(code: int):
        return code - IN_FOLIO if code >= IN_FOLIO else f"shadow {code - SHADOW}" if code else "free"

    actors = [
        reference.Local(
            PCS[s.pc[a, at]],
            int(s.order[a, at]),
            int(s.mask[a, at]),
            f"shadow {s.shadow[a, at]}",
            int(s.found[a, at]) - 1 if s.found[a, at] else None,
            bool(s.whole[a, at]),
        )
        for a in range(s.layout.actors)
    ]
    folios = [
        reference.Folio(
            int(s.size[k, at]), int(s.refs[k, at]), *(bool(x[k, at]) for x in (s.locked, s.anon, s.cached))
        )
        if s.refs[k, at]
        else None
        for k in range(s.layout.actors)
    ]
    ptes = [int(code) - MAPPED if code >= MAPPED else ENTRIES[code] for code in s.ptes[:, at]]
    slots = [word(int(code)) for code in s.slots[:, at]]
    ptl = int(s.ptl[at]) - 1 if s.ptl[at] else None
    return reference.State(slots, s.counts[:, at].tolist(), ptes, actors, folios, bool(s.no_memory[at]), ptl)


def test_states_with_a_number_changed_are_judged_alike(reached):
    steps, states = reached
    model = reference.Model(MERGED, [reference.Actor(*vars(one).values()) for one in steps.start], SLOTS)
    rng = np.random.default_rng(4)
    s = states.take(rng.integers(0, states.n, 1500))
    alive = s.refs > 0
    for at in range(0, s.n, 2):
        slot, other = rng.integers(0, SLOTS, 2)
        k = int(rng.integers(0, s.layout.actors))
        match rng.integers(0, 5):
            case 0:
                s.slots[slot, at] = s.slots[other, at]
            case 1:
                s.counts[slot, at] ^= 1
            case 2 if alive[k, at]:
                s.refs[k, at] += 1
            case 3 if alive[k, at]:
                s.cached[k, at] ^= 1
            case 4:
                s.ptes[slot, at] = s.ptes[other, at]
    found = broken(steps, s)
    expected = [model.wrong(plain(s, at)) for at in range(s.n)]
    assert [RULES[number] for number in found] == expected
    assert set(expected) >= {"", "slot in two folios", "count lost", "reference leaked"}
    assert not any(expected[1::2])


def test_what_another_put_over_a_slot_of_mine_is_no_success_of_mine(reached):
    steps, states = reached
    s = states.take((states.pc[0] == PC["READ"]) & (states.order[0] == 1))
    assert s.n and not broken(steps, s).any()
    s.order[0] = 2  # says it has the four slots, and has two
    assert {RULES[number] for number in broken(steps, s)} == {"success for a slot of another"}


def test_a_slot_of_a_folio_that_is_gone(reached):
    steps, states = reached
    s = states.take(states.cached.any(0) & (states.pc == PC["LOCK"]).any(0))
    s.cached[:] = 0
    assert {RULES[number] for number in broken(steps, s)} == {"slot of a folio that is gone"}
