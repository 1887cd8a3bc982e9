"""Exploration reaches as many states as the plain explorer, and finds what is wrong and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxswap.race import Explored, Start, explore, starts
from jaxswap.race.trace import trace_lines
from jaxswap.swaptable.forms import FORMS, Form
from tests.race.planted import PLANTED
from tests.reference import race as reference

GOLDEN = Path(__file__).parent / "golden"
OTHERS = ("readahead", "zswap", "shmem", "freeing", "swapout")


def kinds_of(explored: Explored) -> dict[str, int]:
    return {kind: len(one.moves) for kind, one in explored.violations.items()}


def assert_equal(form: Form, start: Start, slots: int) -> None:
    explored = explore(form, [start], slots)
    actors = [reference.Actor(one.kind, one.target, one.orders) for one in start]
    expected = reference.explore(reference.Model(form, actors, slots))
    assert explored.states == expected.states
    assert kinds_of(explored) == expected.kinds


@pytest.mark.parametrize("name", [*FORMS, *PLANTED])
def test_two_cpus_on_four_slots_reach_as_many_states_as_the_plain_explorer(name):
    every = starts(("fault", "fault"), 4, 0b111)
    assert len(every) == 3
    for start in every if "nothp" in name or name in ("merged", "pre-phase4") else every[1:2]:
        assert_equal((FORMS | PLANTED)[name], start, 4)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["pre-phase4", "v3", "v4-squash", "merged", "v4-nothp", "pre-phase4-nothp"])
def test_a_cpu_and_any_other_actor_reach_as_many(name, other):
    for start in starts(("fault", other), 4, 0b101)[::2]:
        assert_equal(FORMS[name], start, 4)


@pytest.mark.parametrize("name", ["pre-phase4", "merged", "no-second-check"])
def test_slots_that_are_freed_and_used_again_reach_as_many(name):
    """The fault meets another page's folio, or its shadow, in the slots it looked at."""
    every = starts(("fault", "freeing", "swapout"), 2, 0b11)
    for start in every[:: max(1, len(every) // 6)]:
        assert_equal((FORMS | PLANTED)[name], start, 2)


def test_two_cpus_and_another_reach_as_many():
    for other in ("freeing", "zswap"):
        assert_equal(FORMS["merged"], starts(("fault", "fault", other), 1, 0b1)[0], 1)


@pytest.mark.parametrize("name", ["pre-phase4", "v3", "v4", "merged", "merged-nothp", "v3-nothp"])
def test_nothing_is_wrong_in_a_form_that_ends(name):
    for other in OTHERS:
        assert not explore(FORMS[name], starts(("fault", other), 4, 0b111)[::2], 4).violations, other
    every = starts(("fault", "freeing", "swapout"), 4, 0b111)
    assert not explore(FORMS[name], every[::5], 4).violations


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_is_wrong_in_the_merged_form_with_two_cpus(other):
    every = starts(("fault", "fault", other), 2, 0b11)
    assert not explore(FORMS["merged"], every, 2).violations


@pytest.mark.slow
def test_nothing_is_wrong_in_the_merged_form_on_eight_slots():
    for other in ("freeing", "zswap"):
        explored = explore(FORMS["merged"], starts(("fault", "fault", other), 8, 0b1111), 8)
        assert explored.states > 1_000_000 and not explored.violations


def test_the_squash_is_right_without_huge_pages_and_for_masks_with_order_0():
    assert not explore(FORMS["v4-squash-nothp"], starts(("fault", "shmem"), 4, 0b111), 4).violations
    assert not explore(FORMS["v4-squash"], starts(("fault", "fault"), 4, 0b111), 4).violations


FINDINGS = {
    "v4-nothp": (("fault",), "never returns"),
    "v4-nothp-two": (("fault", "zswap"), "never returns"),
    "v4-squash": (("fault", "shmem"), "goes on with order -1"),
    "no-second-check": (("fault", "fault"), "slot in two folios"),
    "no-second-check-freed": (("fault", "freeing"), "folio over a free slot"),
    "empty-shadow-restored": (("fault",), "undo with another shadow"),
    "fallback-counted-on-eexist": (("fault", "fault"), "fallback counted on -EEXIST"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_have_their_shortest_traces(name):
    kinds, kind = FINDINGS[name]
    form = (FORMS | PLANTED)[name.removesuffix("-two").removesuffix("-freed")]
    explored = explore(form, starts(kinds, 4, 0b111), 4)
    text = "\n".join(trace_lines(form, 4, explored.violations[kind])) + "\n"
    assert text == (GOLDEN / f"{name}.txt").read_text()


def test_a_loop_that_the_other_cpu_would_end_does_not_count():
    """While memory may come back, and while another actor has steps to do, nothing is stuck."""
    form = FORMS["v4-nothp"]
    for violation in explore(form, starts(("fault", "fault"), 4, 1), 4).violations.values():
        states = [state for _, state in violation.cycle]
        assert all(int(state.no_memory[0]) for state in states)
        moved = {actor for actor, _ in violation.cycle}
        for a in {0, 1} - moved:
            assert int(states[0].pc[a, 0]) == 0
        assert (states[-1].matrix == violation.moves[-1][1].matrix).all()
