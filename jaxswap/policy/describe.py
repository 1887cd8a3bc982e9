"""What a heuristic looks at and what it reads for that, found by tracing and trying it, not by its word."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxswap.policy.base import MOST_PARAMS, NEAR, Features, Param, Policy, forget, leave
from jaxswap.policy.probes import features, memory_of


@dataclass(frozen=True)
class Description:
    """features: those of Features that its answer depends on, "memory" too. learns: it is told outcomes.
    c: the rule as C.
    ptes, slots: the least and the most read for one decision, over the faults of jaxswap.policy.probes and
    with default parameters.
    """

    name: str
    doc: str
    params: tuple[Param, ...]
    features: tuple[str, ...]
    learns: bool
    ptes: tuple[int, int]
    slots: tuple[int, int]
    c: str


def describe(policy: Policy) -> Description:
    """Trace a heuristic and try it on every probe."""
    seen = features()
    lanes = seen.candidates.shape[0]
    values = [param.default for param in policy.params]
    values += [0] * (MOST_PARAMS - len(values))
    params = jnp.broadcast_to(jnp.array(values, jnp.int32)[:, None], (MOST_PARAMS, lanes))
    decision = jax.device_get(jax.jit(policy.decide)(params, memory_of(lanes), seen))
    return Description(
        policy.name,
        policy.doc,
        policy.params,
        _features(policy, seen),
        policy.learn is not forget or policy.note is not leave,
        (int(decision.ptes.min()), int(decision.ptes.max())),
        (int(decision.slots.min()), int(decision.slots.max())),
        policy.c,
    )


def looks_further(policy: Policy) -> bool:
    """Whether it looks at more than the fault handler has found anyway, or notes something of a block."""
    looks_at = set(_looked_at(policy)) - {"memory", *NEAR}
    return bool(looks_at) or policy.note is not leave


def foresees(policy: Policy) -> bool:
    """Whether it looks at the accesses to come, which no kernel knows."""
    return "future" in _looked_at(policy)


@functools.cache
def _looked_at(policy: Policy) -> tuple[str, ...]:
    return _features(policy, features())


def _features(policy: Policy, seen: Features) -> tuple[str, ...]:
    """Names of the inputs that reach an output; a memory that is handed on untouched does not count."""
    lanes = seen.candidates.shape[0]
    params = jnp.zeros((MOST_PARAMS, lanes), jnp.int32)
    traced = jax.make_jaxpr(policy.decide)(params, memory_of(lanes), seen).jaxpr
    names = dict(zip(traced.invars, ("params", "memory", *Features._fields), strict=True))
    handed_on = [var for var in traced.invars if names[var] == "memory"]
    live = {id(var) for var in traced.outvars if var not in handed_on}
    for equation in reversed(traced.eqns):
        if any(id(var) in live for var in equation.outvars):
            live |= {id(var) for var in equation.invars}
    return tuple(name for var, name in names.items() if id(var) in live and name != "params")
