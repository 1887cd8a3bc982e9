"""Dominance, expressions, ranking and the Pareto front, against definitions written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxswap.errors import InputError
from jaxswap.sweep.metrics import METRICS
from jaxswap.sweep.objective import AXES, Dominance, pareto, parse_objective, rank

LANES = 12
# few values, so that ties and equal points are common
POINTS = arrays(np.float64, (LANES, 3), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5]))
TABLES = arrays(np.float64, (2, LANES, 3), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5]))
NOBODY = np.zeros((2, LANES), bool)


def measured(table: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric over [workloads, lanes]: the axes from the table, the others constant."""
    return {name: np.ones(table.shape[:2]) for name in METRICS} | {
        name: table[:, :, index] for index, name in enumerate(AXES)
    }


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@given(POINTS)
def test_pareto_is_what_nothing_dominates(points: np.ndarray) -> None:
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert pareto(points).tolist() == expected


def test_pareto_leaves_out_the_infinite() -> None:
    points = np.array([[1.0, 1, 1], [np.inf, 0, 0], [np.inf, np.inf, np.inf]])
    assert pareto(points).tolist() == [True, False, False]
    assert pareto(points[1:]).tolist() == [False, False]


@given(TABLES)
def test_dominance_beats_exactly_what_it_says(table: np.ndarray) -> None:
    ranking = rank(measured(table), NOBODY, 0, Dominance())
    for lane in range(LANES):
        no_worse = all(table[w, lane, axis] <= table[w, 0, axis] for w in range(2) for axis in (1, 2))
        fewer = table[:, lane, 0].mean() < table[:, 0, 0].mean()
        assert ranking.beats[lane] == (no_worse and fewer)
        assert (ranking.violation[lane] == 0) == no_worse


@given(TABLES, st.integers(0, LANES - 1))
def test_ranking_is_total_and_puts_the_admissible_first(table: np.ndarray, killed: int) -> None:
    oom = NOBODY.copy()
    oom[1, killed] = True
    ranking = rank(measured(table), oom, 0, Dominance())
    assert sorted(ranking.order.tolist()) == list(range(LANES))
    assert ranking.order[-1] == killed
    assert not ranking.beats[killed]
    keys = [(ranking.violation[lane], ranking.score[lane]) for lane in ranking.order]
    assert keys == sorted(keys)
    if killed != 0:
        beaten = ranking.order.tolist().index(0)
        assert all(ranking.order.tolist().index(lane) < beaten for lane in np.flatnonzero(ranking.beats))


@given(TABLES)
def test_expression_equals_python(table: np.ndarray) -> None:
    text = "failed_fallbacks - 2 * min(major_faults, useless_pages) ** 2 + abs(-ref_major_faults) / 4"
    ranking = rank(measured(table), NOBODY, 3, parse_objective(text))
    for lane in range(LANES):
        values = [
            row[lane][0] - 2 * min(row[lane][1], row[lane][2]) ** 2 + abs(-row[3][1]) / 4 for row in table
        ]
        assert ranking.score[lane] == pytest.approx(sum(values) / 2)
    assert (ranking.violation == 0).all()


def test_not_a_number_never_wins() -> None:
    table = np.zeros((1, 3, 3))
    table[0, :, 1] = [1, 0, 2]
    ranking = rank(
        measured(table), np.zeros((1, 3), bool), 0, parse_objective("failed_fallbacks / major_faults")
    )
    assert ranking.order[-1] == 1
    assert not ranking.beats[1]


def test_constant_expression_and_text() -> None:
    objective = parse_objective(" 1 + 2 ")
    assert str(objective) == "1 + 2"
    assert rank(measured(np.zeros((2, LANES, 3))), NOBODY, 0, objective).score.tolist() == [3.0] * LANES


@pytest.mark.parametrize(
    "text",
    [
        "failed if 1 else 2",
        "[failed]",
        "failed @ failed",
        "'a'",
        "True",
        "1j",
        "lambda: 1",
        "failed.__class__",
        "__import__('os')",
        "min(failed, fallbacks, failed)",
        "max(failed, key=1)",
        "1" * 400,
        "failed + " * 200 + "1",
        "",
        "failed fallbacks",
        "not failed",
    ],
)
def test_refused_expressions(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_objective(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["-" * 900 + "1", "(" * 900 + "1", "(" * 400 + "1" + ")" * 400])
def test_deep_nesting_is_refused_or_right(text: str) -> None:
    try:
        objective = parse_objective(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert rank(measured(np.zeros((2, LANES, 3))), NOBODY, 0, objective).score[0] == 1
