"""Spaces of settings: every value has its piece of the cube, every setting is listed once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.config import PolicyChoice
from jaxswap.sweep.space import Candidate
from jaxswap.tune.space import NEIGHBOURS, Axis, Family, shares

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


def of(a: int, one: int, b: int, mask: str = "16") -> Candidate:
    return Candidate(mask, PolicyChoice("f", (("a", a), ("one", one), ("b", b))))


def test_a_setting_of_another_heuristic_or_mask_has_no_point() -> None:
    for other in (Candidate("16", PolicyChoice("g")), of(0, 7, 1, "64")):
        assert not family().has(other) and not family().lists(other)
        with pytest.raises(ValueError, match="no setting of f"):
            family().point(other)


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_a_setting_outside_has_the_point_of_the_nearest(a: int, one: int, b: int) -> None:
    some, given_ = family(), of(a, one, b, "16 32")
    nearest = of(min(max(a, 0), 2), 7, min(max(b, 1), 4), "16 32")
    assert some.has(given_) and some.lists(given_) == (given_ == nearest)
    assert some.candidate(some.point(given_)) == nearest


def test_the_nearest_of_values_with_gaps() -> None:
    axis = Axis((9, 2, 4))
    assert [axis.value(axis.coordinate(value)) for value in (-5, 3, 5, 7, 99)] == [2, 2, 4, 9, 9]


def test_on_a_long_axis_the_farther_neighbours_are_an_eighth_of_it_away() -> None:
    some = Family("f", ("16",), (("a", Axis(range(-64, 65))), ("one", Axis((7,))), ("b", Axis((1,)))))
    assert [dict(one.policy.params)["a"] for one in some.around(of(60, 7, 1))] == [59, 61, 44]


def test_neighbours_differ_in_one_parameter() -> None:
    some = Family(
        "f", ("16",), (("a", Axis(range(5))), ("one", Axis((7,))), ("b", Axis((8, 1, 2, 4), log=False)))
    )
    assert some.around(of(2, 7, 8)) == [
        of(1, 7, 8), of(3, 7, 8), of(2, 7, 4), of(0, 7, 8), of(4, 7, 8), of(2, 7, 2),
    ]  # fmt: skip
    # outside the axes, too: the next values there are
    assert some.around(of(9, 6, 3)) == [
        of(4, 6, 3), of(9, 7, 3), of(9, 6, 2), of(9, 6, 4), of(3, 6, 3), of(9, 6, 1), of(9, 6, 8),
    ]  # fmt: skip


@given(st.integers(0, 4), st.integers(0, 7))
def test_the_neighbours_of_a_setting_are_settings(a: int, b: int) -> None:
    some = family(5, 8)
    found = some.around(of(a, 7, b + 1))
    assert len(found) == len(set(found)) <= NEIGHBOURS * len(some.params)
    assert all(some.lists(one) for one in found) and of(a, 7, b + 1) not in found


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
