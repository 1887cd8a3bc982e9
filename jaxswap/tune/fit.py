"""The weights of the linear rule, fitted to labels: logistic loss, then rounded to small integers."""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float64, Int32, Shaped

from jaxswap.policy.linear import WEIGHTS

FITTED = "linear"  # the heuristic
MOST = WEIGHTS[0].high
"""Weights lie in -MOST .. MOST, as the parameters of `jaxswap.policy.linear`."""
_STEPS, _SMALL = 300, 1e-5


def fit(
    features: Shaped[np.ndarray, "cases weights"],
    good: Bool[np.ndarray, " cases"],
    cost: float = 1.0,
    ridge: float = 1e-3,
) -> Float64[np.ndarray, " weights"]:
    """The weights w that minimise the mean logistic loss of `good` by the sign of features @ w.

    cost: what a case that is not good counts, where a good one counts 1. ridge: times |w|^2 / 2 is added, so
    that there is one minimum whatever the cases. Full batch, L-BFGS (optax.lbfgs), from 0: equal inputs give
    equal weights. Raises ValueError if there are no cases.
    """
    if not len(good):
        raise ValueError("no cases to fit")
    x = jnp.asarray(features, jnp.float32)
    sign = jnp.where(jnp.asarray(good), 1.0, -1.0)
    counts = jnp.where(jnp.asarray(good), 1.0, cost)
    return np.asarray(_minimum(x, sign, counts / jnp.sum(counts), ridge), np.float64)


@jax.jit
def _minimum(x: Array, sign: Array, share: Array, ridge: float) -> Array:
    def loss(w: Array) -> Array:
        return jnp.sum(share * jax.nn.softplus(-sign * (x @ w))) + ridge / 2 * jnp.sum(w * w)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def going(carry: tuple[Array, optax.OptState, Array, Array]) -> Array:
        _, _, slope, step = carry
        return (step < _STEPS) & (slope > _SMALL)

    def turn(carry: tuple[Array, optax.OptState, Array, Array]) -> tuple[Array, optax.OptState, Array, Array]:
        w, state, _, step = carry
        value, gradient = value_and_grad(w, state=state)
        updates, state = solver.update(gradient, state, w, value=value, grad=gradient, value_fn=loss)
        w = cast(Array, optax.apply_updates(w, updates))
        return w, state, optax.tree.norm(gradient), step + 1

    w = jnp.zeros(x.shape[1])
    start = (w, solver.init(w), jnp.float32(jnp.inf), jnp.int32(0))
    return jax.lax.while_loop(going, turn, start)[0]


def quantised(weights: Float64[np.ndarray, " weights"]) -> Int32[np.ndarray, " weights"]:
    """The weights as integers in -MOST .. MOST, the largest at an end. What an integer rule decides depends
    on the proportions of its weights alone; those below a 128th of the largest become 0."""
    largest = np.abs(weights).max()
    scaled = weights / largest * MOST if largest > 0 else weights
    return np.rint(scaled).astype(np.int32)


def parameters(weights: Int32[np.ndarray, " weights"]) -> dict[str, int]:
    """Parameters of the heuristic `linear`."""
    return {param.name: int(weight) for param, weight in zip(WEIGHTS, weights, strict=True)}


COSTS = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0)
"""Of a case that is not good; those in the middle first, for a search that takes but a few."""


def proposals(
    features: Shaped[np.ndarray, "cases weights"],
    good: Bool[np.ndarray, " cases"],
    costs: Sequence[float] = COSTS,
) -> list[dict[str, int]]:
    """Parameters of `linear` for each cost of a case that is not good, equal ones once: to be replayed, for
    what they are worth is not what they were fitted to."""
    found = [parameters(quantised(fit(features, good, cost))) for cost in costs]
    return [one for i, one in enumerate(found) if one not in found[:i]]
