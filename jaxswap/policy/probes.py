"""Faults to try a heuristic on: every highest order, both paths, free and occupied tables and frames."""

import itertools

import jax.numpy as jnp
import numpy as np

from jaxswap.policy.base import MEMORY_WORDS, Features, Memory, Outcome

ORDERS = range(2, 10)


def features() -> Features:
    """A lane a fault: candidates are the orders 2 to k, each k; suitable are all, some or none of them."""
    rows = []
    for touch, top, suits, free in itertools.product((True, False), ORDERS, (0x3FF, 0x54, 0), (0x3FF, 0x3C)):
        candidates = (2 << top) - 4
        rows.append((touch, candidates, candidates if touch else candidates & suits, free))
    touch, *masks = np.array(rows).T
    return Features(jnp.asarray(touch.astype(bool)), *(jnp.asarray(mask.astype(np.uint32)) for mask in masks))


def outcomes() -> Outcome:
    """A lane an outcome: one got at once, one after failures, none got."""
    rows = [
        (touch, failed, got)
        for touch in (True, False)
        for failed, got in ((0, 4), (0x1E0, 4), (0x3FC, 0), (0x200, 8), (0, 0))
    ]
    touch, failed, got = np.array(rows).T
    return Outcome(
        jnp.asarray(touch.astype(bool)),
        jnp.asarray(failed.astype(np.uint32)),
        jnp.asarray(got.astype(np.int32)),
    )


def memory_of(lanes: int) -> Memory:
    """The memory that a heuristic begins with."""
    return jnp.zeros((MEMORY_WORDS, lanes), jnp.int32)
