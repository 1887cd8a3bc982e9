"""Faults to try a heuristic on: every highest order, both paths, free and occupied tables, frames and
surroundings."""

import itertools

import jax.numpy as jnp
import numpy as np

from jaxswap.policy.base import BLOCK, MEMORY_WORDS, ORDERS, Features, Memory, Outcome, near


def features() -> Features:
    """A lane a fault: candidates are the orders 2 to k, each k; suitable are all, some or none of them; there
    is room around it or none.
    """
    rows = []
    for touch, top, suits, free in itertools.product((True, False), ORDERS, (0x3FF, 0x54, 0), (0x3FF, 0x3C)):
        candidates = (2 << top) - 4
        rows.append((touch, candidates, candidates if touch else candidates & suits, free))
    touch, *masks = np.array(rows).T
    at = np.arange(len(rows))
    roomy = at % 2 == 0
    seen = near(jnp.asarray(touch.astype(bool)), *(jnp.asarray(mask.astype(np.uint32)) for mask in masks))
    around = {
        "page": at * 37 % 512,
        "headroom": np.where(roomy, 1 << 30, at),
        "fill": at % 65,
        "distance": np.where(touch, 0, at * at),
    }
    bitmaps = {
        "chargeable": np.where(roomy, 0x3FF, 0x00F),
        "present": np.where(roomy, 0x00FF_00FF, 0),
        "swapped": np.where(roomy, 0xFF00_FF00, 0xFFFF_FFFF),
        "young": np.where(roomy, 0x000F_000F, 0),
    }
    return seen._replace(
        **{name: jnp.asarray(value.astype(np.int32)) for name, value in around.items()},
        **{name: jnp.asarray(value.astype(np.uint32)) for name, value in bitmaps.items()},
        recent=jnp.asarray((touch == 0) & roomy),
        block=jnp.asarray((at % 7).astype(np.int32)),
        future=jnp.asarray((np.arange(BLOCK)[:, None] * at % 4096).astype(np.int32)),
    )


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
