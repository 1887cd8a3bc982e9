"""What a search lowers: constraints, several objectives, and lanes that ran out of memory."""

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.sweep.metrics import METRICS
from jaxswap.tune.goal import fronts, parse_goal


def measured(**given: list[float]) -> dict[str, np.ndarray]:
    lanes = len(next(iter(given.values())))
    return {name: np.array([given.get(name, [0.0] * lanes)]) for name in METRICS}


def ranked(goal, oom: tuple[int, ...] = (), **given: list[float]):
    found = measured(**given)
    dead = np.zeros((1, len(next(iter(given.values())))), bool)
    dead[0, list(oom)] = True
    return goal.rank(found, dead, 0)


def test_lanes_that_break_a_constraint_come_after_those_that_keep_it() -> None:
    goal = parse_goal(["major_faults"], ["useless_pages <= ref_useless_pages"])
    found = ranked(goal, major_faults=[9, 1, 5, 2], useless_pages=[10, 30, 10, 20])
    assert found.order.tolist() == [2, 0, 3, 1]
    assert found.violation.tolist() == [0, 2, 0, 1]
    assert found.beats.tolist() == [False, False, True, False]


@pytest.mark.parametrize("objectives", [["major_faults"], ["major_faults", "useless_pages"]])
def test_a_lane_out_of_memory_is_last_and_beats_nothing(objectives: list[str]) -> None:
    found = ranked(parse_goal(objectives, []), (1,), major_faults=[9, 1, 5], useless_pages=[9, 1, 5])
    assert found.order.tolist() == [2, 0, 1] and found.beats.tolist() == [False, False, True]


def test_several_objectives_rank_by_fronts() -> None:
    goal = parse_goal(["major_faults", "useless_pages"], [])
    found = ranked(goal, major_faults=[5, 1, 4, 6], useless_pages=[5, 9, 4, 6])
    assert found.score.tolist() == [1, 0, 0, 2]
    assert found.beats.tolist() == [False, False, True, False]


def test_fronts_are_peeled_off_one_after_another() -> None:
    points = np.random.default_rng(0).integers(0, 8, (60, 3)).astype(float)
    number = fronts(points)
    for i, point in enumerate(points):
        above = number[(points <= point).all(axis=1) & (points < point).any(axis=1)]
        assert number[i] == (above.max() + 1 if above.size else 0)


def test_the_infinite_are_behind_all_fronts() -> None:
    assert fronts(np.array([[1, np.inf], [1, 2], [2, 3]])).tolist() == [2, 0, 1]
    assert fronts(np.array([[1, np.inf]])).tolist() == [0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("major_faults", "left <= right"),
        ("1 <= major_faults <= 2", "left <= right"),
        ("major_fault <= 1", "did you mean"),
        ("dominance <= 1", "dominance is no number"),
        ("major_faults <= ", "neither"),
    ],
)
def test_a_bad_constraint_gives_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        parse_goal(["major_faults"], [text])
    assert "\n" not in str(error.value)
