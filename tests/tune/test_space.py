"""Spaces of settings: every value has its piece of the cube, every setting is listed once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.config import PolicyChoice
from jaxswap.sweep.space import Candidate
from jaxswap.tune.space import Axis, Family, shares

LINEAR = st.builds(lambda low, count: Axis(range(low, low + count)), st.integers(-50, 50), st.integers(1, 60))
LOG = st.builds(
    lambda low, count: Axis(range(low, low + count), True), st.integers(1, 50), st.integers(1, 600)
)


@given(st.one_of(LINEAR, LOG))
def test_each_value_comes_back_from_the_middle_of_its_piece(axis: Axis) -> None:
    assert [axis.value(axis.coordinate(value)) for value in axis.values] == list(axis.values)


@given(st.one_of(LINEAR, LOG), st.floats(-2, 3), st.floats(-2, 3))
def test_values_follow_the_order_of_the_coordinates(axis: Axis, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert axis.value(low) <= axis.value(high)  # pyright: ignore[reportOperatorIssue]
    assert axis.value(-1) == axis.values[0] and axis.value(2) == axis.values[-1]


def test_a_log_axis_gives_each_doubling_the_same_share() -> None:
    axis = Axis(range(1, 256), log=True)
    drawn = np.array([axis.value(at) for at in (np.arange(8000) + 0.5) / 8000])
    counts = [((drawn >= 2**k) & (drawn < 2 ** (k + 1))).sum() for k in range(8)]
    assert counts == [1000] * 8


def family(a: int = 3, b: int = 4) -> Family:
    return Family(
        "f", ("16", "16 32"), (("a", Axis(range(a))), ("one", Axis((7,))), ("b", Axis(range(1, b + 1), True)))
    )


def test_every_combination_is_listed_once_and_comes_back_from_its_point() -> None:
    some = family()
    every = list(some.every())
    assert len(every) == len(set(every)) == some.size == 24
    assert some.free == (0, 1, 3)
    assert [some.candidate(some.point(one)) for one in every] == every


@given(st.lists(st.floats(-1, 2), min_size=3, max_size=3))
def test_every_point_is_one_of_the_settings(point: list[float]) -> None:
    assert family().candidate(np.array(point)) in set(family().every())


def test_a_setting_of_another_family_has_no_point() -> None:
    for policy in (PolicyChoice("g"), PolicyChoice("f", (("a", 9), ("one", 7), ("b", 1)))):
        with pytest.raises(ValueError, match="no setting of f"):
            family().point(Candidate("16", policy))


def test_without_a_size_a_heuristic_is_the_kernels_rule() -> None:
    assert set(Family("f", ("",), (("a", Axis(range(3))),)).every()) == {
        Candidate("", PolicyChoice("kernel"))
    }


@given(st.integers(0, 100), st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_a_budget_is_shared_out_whole_and_evenly(count: int, rooms: list[int]) -> None:
    given_ = shares(count, rooms)
    assert sum(given_) == min(count, sum(rooms))
    assert all(0 <= part <= room for part, room in zip(given_, rooms, strict=True))
    # who has room left has no less than anyone else but one
    open_ = [part for part, room in zip(given_, rooms, strict=True) if part < room]
    assert not open_ or min(open_) >= max(given_) - 1
