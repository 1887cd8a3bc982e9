"""Who is called better: constructed units with known answers, and how often the interval holds the mean."""

import numpy as np
import pytest

from jaxswap.tune import compare as module
from jaxswap.tune.compare import Comparison, compare, interval


def held(
    failed: list[float], faults: list[float], useless: list[float], units: list[str] | None = None
) -> Comparison:
    """The comparison of a candidate that differs by these from a reference with 100 of everything."""
    rows = {"failed_fallbacks": failed, "major_faults": faults, "useless_pages": useless}
    measured = {name: np.array([[100.0, 100.0 + by] for by in values]) for name, values in rows.items()}
    return compare(measured, 1, 0, units or [str(i) for i in range(len(failed))])


NONE = [0.0] * 8


def test_fewer_failures_at_no_cost_dominate_on_every_unit() -> None:
    found = held([-5, -3, -6, -2, -4, -5, -1, -3], NONE, NONE)
    assert found.verdict == "dominates, on every unit" and found.dominates and found.units == 8
    failed = found.differences["failed_fallbacks"]
    assert failed.mean == pytest.approx(-29 / 8) and failed.low < failed.mean < failed.high < 0
    assert (failed.more, failed.fewer) == (0, 8)


def test_a_unit_with_more_faults_is_counted_even_where_the_mean_has_fewer() -> None:
    found = held([-5.0] * 8, [1.0] + [-1.0] * 7, NONE)
    assert found.verdict == "dominates" and found.differences["major_faults"].more == 1


@pytest.mark.parametrize("at", ["faults", "useless"])
def test_more_faults_or_useless_pages_in_the_mean_are_a_trade(at: str) -> None:
    worse = [9.0] + [-1.0] * 7
    found = held([-5.0] * 8, worse if at == "faults" else NONE, worse if at == "useless" else NONE)
    assert found.verdict == "trades" and not found.dominates


def test_one_outlier_does_not_make_a_rule_better() -> None:
    found = held([-500.0] + [0.5] * 9, [0.0] * 10, [0.0] * 10)
    assert found.differences["failed_fallbacks"].mean < -40
    assert found.verdict == "not shown"
    assert held([-500.0] + [0.0] * 9, [0.0] * 10, [0.0] * 10).verdict == "not shown"


def test_the_same_counts_are_not_better() -> None:
    assert held(NONE, NONE, NONE).verdict == "not shown"
    assert held(NONE, [-1.0] * 8, [-1.0] * 8).verdict == "not shown"


def test_seven_units_are_too_few() -> None:
    assert held([-5.0] * 7, [0.0] * 7, [0.0] * 7).verdict == "too few units"


def test_one_program_under_several_limits_is_one_unit() -> None:
    names = ["a", "a", "b", "b", "c", "c", "d", "d"]
    found = held([-4.0, -2.0, -5.0, -5.0, -1.0, -3.0, -2.0, -2.0], NONE, NONE, names)
    assert found.units == 4 and found.verdict == "too few units"
    assert found.differences["failed_fallbacks"].mean == pytest.approx(-3)


def test_rounding_of_a_division_is_no_difference() -> None:
    found = held([-5.0] * 8, [1e-13] * 8, NONE)
    assert found.verdict == "dominates, on every unit"


def test_the_interval_is_that_of_all_resamples_of_two_units() -> None:
    assert interval(np.array([1.0, 3.0])) == (1.0, 3.0)
    assert interval(np.array([2.0] * 8)) == (2.0, 2.0)
    assert interval(np.array([2.0])) == (-np.inf, np.inf)


def test_the_interval_depends_on_nothing_but_values_and_seed() -> None:
    values = np.random.default_rng(3).normal(size=9)
    assert interval(values, 4) == interval(values.copy(), 4) != interval(values, 5)


@pytest.mark.parametrize(("kind", "least"), [("normal", 0.92), ("skewed", 0.86)])
def test_the_interval_holds_the_true_mean_about_as_often_as_it_says(
    kind: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight units, 600 times. Of so few and skewed ones every interval that assumes nothing misses more."""
    monkeypatch.setattr(module, "RESAMPLES", 1000)
    random = np.random.default_rng(11)
    draw = random.normal if kind == "normal" else random.exponential
    true = 0.0 if kind == "normal" else 1.0
    inside = [low <= true <= high for low, high in (interval(draw(size=8), seed) for seed in range(600))]
    assert least <= np.mean(inside) <= 0.98
