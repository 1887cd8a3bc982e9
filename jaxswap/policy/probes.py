"""Faults to try a heuristic on: every highest order, both paths, free and occupied tables, frames and
surroundings; and folios that are to leave memory, of every order."""

import itertools

import jax.numpy as jnp
import numpy as np

from jaxswap.policy.base import BLOCK, MEMORY_WORDS, ORDERS, Features, Leaving, Memory, Outcome, near


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


def leaving() -> Leaving:
    """A lane a folio: of every order, with none, some or all of its pages in each state."""
    rows = [(order, share) for order in ORDERS for share in (0, 1, 2, 4)]
    order, share = np.array(rows).T
    at, size = np.arange(len(rows)), 1 << order
    numbers = {
        "order": order,
        "page": at * 37 % 512 >> order << order,
        "fill": at * 5 % 65,
        "block": at % 7,
        "young": size * share // 4,
        "touched": size * (4 - share) // 4,
        "zeros": size * (at % 3) // 2,
    }
    return Leaving(
        workingset=jnp.asarray(at % 2 == 0),
        cluster=jnp.asarray(at % 5 < 3),
        **{name: jnp.asarray(value.astype(np.int32)) for name, value in numbers.items()},
    )


def memory_of(lanes: int) -> Memory:
    """The memory that a heuristic begins with."""
    return jnp.zeros((MEMORY_WORDS, lanes), jnp.int32)
