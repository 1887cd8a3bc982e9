"""The fit of the linear rule finds the optimum where that is known, and rounds it to small integers."""

import numpy as np
import pytest

from jaxswap.machine import Lane
from jaxswap.policy.linear import WEIGHTS
from jaxswap.tune.fit import COSTS, MOST, fit, parameters, proposals, quantised


def logistic(seed: int, weights: np.ndarray, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of one constant and small integers, and labels drawn by the logistic model of some weights."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-8, 9, (cases, len(weights)))
    features[:, 0] = 1
    return features, rng.random(cases) < 1 / (1 + np.exp(-features @ weights))


def newton(x: np.ndarray, good: np.ndarray, cost: float, ridge: float) -> np.ndarray:
    """The optimum by Newton's method in 64 bits."""
    share = np.where(good, 1.0, cost)
    share /= share.sum()
    w = np.zeros(x.shape[1])
    for _ in range(40):
        p = 1 / (1 + np.exp(-x @ w))
        slope = x.T @ (share * (p - good)) + ridge * w
        w -= np.linalg.solve((x.T * share * p * (1 - p)) @ x + ridge * np.eye(len(w)), slope)
    return w


TRUE = np.array([1.0, -0.5, 0.25, 0, 0.1, -0.1, 0.5, 0.05])


@pytest.mark.parametrize(("cost", "ridge"), [(1.0, 1e-3), (4.0, 1e-3), (0.25, 1e-2)])
def test_the_fit_is_the_optimum(cost: float, ridge: float) -> None:
    features, good = logistic(1, TRUE, 3000)
    found = fit(features, good, cost, ridge)
    assert np.abs(found - newton(features, good, cost, ridge)).max() < 2e-3


def test_the_fit_finds_the_weights_that_made_the_labels() -> None:
    features, good = logistic(2, TRUE, 40_000)
    whole = quantised(fit(features, good, ridge=1e-6))
    assert np.abs(whole - np.rint(TRUE * MOST)).max() <= 3
    assert whole[0] == MOST


def test_separable_labels_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    features = rng.integers(-8, 9, (2000, 8))
    score = features @ np.array([0, 3, -2, 1, 0, 0, 5, -1])
    features, good = features[score != 0], score[score != 0] > 0
    whole = quantised(fit(features, good, ridge=1e-6))
    assert ((features @ whole > 0) == good).mean() > 0.99


def test_a_dearer_mistake_offers_less() -> None:
    features, good = logistic(4, TRUE, 3000)
    offered = [int((features @ quantised(fit(features, good, cost)) > 0).sum()) for cost in sorted(COSTS)]
    assert offered == sorted(offered, reverse=True) and offered[0] > offered[-1]


def test_equal_cases_give_equal_weights_and_no_cases_none() -> None:
    features, good = logistic(5, TRUE, 500)
    assert (fit(features, good) == fit(features, good)).all()
    with pytest.raises(ValueError, match="no cases"):
        fit(features[:0], good[:0])


def test_proposals_are_parameters_of_the_linear_rule() -> None:
    features, good = logistic(6, TRUE, 500)
    found = proposals(features, good)
    assert 2 <= len(found) <= len(COSTS) and len({tuple(one.values()) for one in found}) == len(found)
    for one in found:
        assert Lane("64", "linear", one).parameters() == list(one.values())
    assert list(parameters(quantised(np.zeros(8)))) == [param.name for param in WEIGHTS]
