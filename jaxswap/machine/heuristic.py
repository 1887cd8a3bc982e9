"""Asking each lane's own heuristic. One lane takes a real branch; many lanes compute all and select."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxswap.machine.counters import Counts, count
from jaxswap.machine.state import POLICY_WORDS, Flag, Lane, MachineParams, MachineState, Mask
from jaxswap.policy import POLICIES, Features, Outcome
from jaxswap.policy.base import MEMORY_WORDS, MOST_PARAMS, forget
from jaxswap.swaptable.lanes import surely, when

assert POLICY_WORDS == MEMORY_WORDS

RULES = tuple(POLICIES.values())
PARAMS = MOST_PARAMS


def _each(number: Lane, branches: list[Callable]) -> Any:
    if number.shape == (1,):
        return lax.switch(number[0], branches)
    answers = [branch() for branch in branches]

    def pick(*choices: jax.Array) -> jax.Array:
        chosen = choices[0]
        for i, choice in enumerate(choices[1:], 1):
            chosen = jnp.where(number == i, choice, chosen)
        return chosen

    return jax.tree.map(pick, *answers)


def decide(state: MachineState, params: MachineParams, seen: Features) -> tuple[MachineState, Mask]:
    """The orders a fault tries; asked only where there is a candidate."""
    asked = seen.candidates != 0
    rule_params, memory = params.policy_params, state.memory

    def ask(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
        state, _ = carry
        asked = surely(seen.candidates != 0)
        asking = [lambda r=rule: r.decide(rule_params, memory, seen) for rule in params.heuristics]
        decision = _each(params.policy, asking)
        state = replace(state, memory=jnp.where(asked[None], decision.memory, memory))

        def tell(n: Counts) -> Counts:
            return count(n, surely(read), read_ptes=decision.ptes, read_slots=decision.slots)

        read = asked & ((decision.ptes | decision.slots) != 0)
        state = replace(state, n=when(read, tell, state.n))
        return state, jnp.where(asked, decision.orders & seen.candidates, 0)

    return when(asked, ask, (state, jnp.zeros_like(seen.candidates)))


def learn(state: MachineState, params: MachineParams, outcome: Outcome, on: Flag) -> MachineState:
    """Tell the heuristics that learn what became of a fault."""
    rule_params, memory = params.policy_params, state.memory
    learns = jnp.asarray(np.array([rule.learn is not forget for rule in params.heuristics]))[params.policy]

    def tell(memory: Array) -> Array:
        learned = _each(
            params.policy,
            [lambda r=rule: r.learn(rule_params, memory, outcome) for rule in params.heuristics],
        )
        return jnp.where(on[None], learned, memory)

    return replace(state, memory=when(on & learns, tell, memory))
