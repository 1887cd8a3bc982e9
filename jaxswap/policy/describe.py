"""What a heuristic looks at and what it reads for that, found by tracing and trying it, not by its word."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxswap.policy.base import (
    INSIDE,
    MOST_PARAMS,
    NEAR,
    Features,
    Leaving,
    Param,
    Params,
    Policy,
    always_whole,
    forget,
    leave,
)
from jaxswap.policy.probes import features, leaving, memory_of

Span = tuple[int, int]


@dataclass(frozen=True)
class AtSwapout:
    """features: those of Leaving that the verdict depends on, "memory" too. ptes, pages: the least and the
    most PTEs and pages of content read for one, as in Description."""

    features: tuple[str, ...]
    ptes: Span
    pages: Span


@dataclass(frozen=True)
class Description:
    """features: those of Features that its answer depends on, "memory" too. learns: it is told outcomes.
    c: the rule as C.
    ptes, slots: the least and the most read for one decision, over the faults of jaxswap.policy.probes and
    with default parameters. swapout: None where folios leave whole, as the kernel has it.
    """

    name: str
    doc: str
    params: tuple[Param, ...]
    features: tuple[str, ...]
    learns: bool
    ptes: Span
    slots: Span
    swapout: AtSwapout | None
    c: str


def describe(policy: Policy) -> Description:
    """Trace a heuristic and try it on every probe."""
    seen = features()
    lanes = seen.candidates.shape[0]
    decision = jax.device_get(jax.jit(policy.decide)(_defaults(policy, lanes), memory_of(lanes), seen))
    return Description(
        policy.name,
        policy.doc,
        policy.params,
        _features(policy.decide, seen),
        policy.learn is not forget or policy.note is not leave,
        _span(decision.ptes),
        _span(decision.slots),
        _at_swapout(policy) if splits(policy) else None,
        policy.c,
    )


def _at_swapout(policy: Policy) -> AtSwapout:
    folios = leaving()
    lanes = folios.order.shape[0]
    verdict = jax.device_get(jax.jit(policy.leave_whole)(_defaults(policy, lanes), memory_of(lanes), folios))
    return AtSwapout(_features(policy.leave_whole, folios), _span(verdict.ptes), _span(verdict.pages))


def _defaults(policy: Policy, lanes: int) -> Params:
    values = [param.default for param in policy.params]
    values += [0] * (MOST_PARAMS - len(values))
    return jnp.broadcast_to(jnp.array(values, jnp.int32)[:, None], (MOST_PARAMS, lanes))


def _span(values: np.ndarray) -> Span:
    return int(values.min()), int(values.max())


def splits(policy: Policy) -> bool:
    """Whether it is asked at swap-out; the kernel splits only what finds no slots."""
    return policy.leave_whole is not always_whole


def looks_inside(policy: Policy) -> bool:
    """Whether it looks at the pages of a folio that is to leave memory."""
    return splits(policy) and bool(set(_looked_at_leaving(policy)) & set(INSIDE))


def looks_further(policy: Policy) -> bool:
    """Whether it looks at more than the fault handler has found anyway, or notes something of a block."""
    looks_at = set(_looked_at(policy)) - {"memory", *NEAR}
    return bool(looks_at) or policy.note is not leave


def foresees(policy: Policy) -> bool:
    """Whether it looks at the accesses to come, which no kernel knows."""
    return "future" in _looked_at(policy)


@functools.cache
def _looked_at(policy: Policy) -> tuple[str, ...]:
    return _features(policy.decide, features())


@functools.cache
def _looked_at_leaving(policy: Policy) -> tuple[str, ...]:
    return _features(policy.leave_whole, leaving())


def _features(function: Callable, seen: Features | Leaving) -> tuple[str, ...]:
    """Names of the inputs that reach an output; a memory that is handed on untouched does not count."""
    lanes = seen[-1].shape[-1]
    params = jnp.zeros((MOST_PARAMS, lanes), jnp.int32)
    traced = jax.make_jaxpr(function)(params, memory_of(lanes), seen).jaxpr
    names = dict(zip(traced.invars, ("params", "memory", *seen._fields), strict=True))
    handed_on = [var for var in traced.invars if names[var] == "memory"]
    live = {id(var) for var in traced.outvars if var not in handed_on}
    for equation in reversed(traced.eqns):
        if any(id(var) in live for var in equation.outvars):
            live |= {id(var) for var in equation.invars}
    return tuple(name for var, name in names.items() if id(var) in live and name != "params")
