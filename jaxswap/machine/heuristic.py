"""Asking each lane's own heuristic. One lane takes a real branch; many lanes compute all and select."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxswap.machine import cgroups, faultlog
from jaxswap.machine.counters import Counts, count
from jaxswap.machine.rows import once
from jaxswap.machine.state import (
    NO_LIMIT,
    POLICY_WORDS,
    Flag,
    Lane,
    MachineParams,
    MachineState,
    Mask,
)
from jaxswap.policy import POLICIES, Features, Leaving, Outcome
from jaxswap.policy.base import INSIDE, MEMORY_WORDS, MOST_PARAMS, Policy, forget, leave
from jaxswap.policy.describe import foresees, looks_further, looks_inside, splits
from jaxswap.swaptable.cluster_table import has_free_cluster
from jaxswap.swaptable.lanes import load1, store1, surely, when

assert POLICY_WORDS == MEMORY_WORDS

RULES = tuple(POLICIES.values())
PARAMS = MOST_PARAMS


def of_lanes(asked: Sequence[Policy]) -> tuple[Policy, ...]:
    """The heuristics that a program has whose lanes ask these: those that look no further, for they cost
    nothing; all of jaxswap's that know no future, if one of the others is asked; all that are asked at
    swap-out, if one of them is; and those that know the future, and the user's own, if they are asked.
    """
    present = [rule for rule in RULES if not foresees(rule)]
    further = any(rule in present and looks_further(rule) for rule in asked)
    leaving = any(rule in present and splits(rule) for rule in asked)
    known = [
        rule for rule in present if (further or not looks_further(rule)) and (leaving or not splits(rule))
    ]
    return tuple(dict.fromkeys([*known, *asked]))


def remembers(heuristics: Sequence[Policy]) -> bool:
    """Whether one of them notes something of each 2 MiB block."""
    return any(rule.note is not leave for rule in heuristics)


def asked_at_swapout(heuristics: Sequence[Policy]) -> bool:
    """Whether one of them may split a folio that is to leave memory; a program without has no part of it."""
    return any(splits(rule) for rule in heuristics)


def where(params: MachineParams, holds: Callable[[Policy], bool]) -> Flag:
    """The lanes whose heuristic something holds of."""
    return jnp.asarray(np.array([holds(rule) for rule in params.heuristics]))[params.policy]


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


Look = Callable[[MachineState, Features], tuple[Features, MachineState]]


def decide(
    state: MachineState, params: MachineParams, seen: Features, page: Lane, look: Look
) -> tuple[MachineState, Mask]:
    """The orders a fault tries; asked only where there is a candidate.

    seen: the near features. page: of the region, the same in all processes. look: adds to them what depends
    on the machine; only a program with a heuristic that looks further asks it.
    """
    asked = seen.candidates != 0
    near = seen
    rule_params, memory = params.policy_params, state.memory

    def ask(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
        state, _ = carry
        asked, seen = surely(near.candidates != 0), near
        if any(looks_further(rule) for rule in params.heuristics):
            seen, state = look(state, near)
            seen = once(seen._replace(page=page & 511, **_room(state, params)))
        if state.noted is not None:
            block, noted = load1(state.noted, page >> 9)
            seen, state = seen._replace(block=block), replace(state, noted=noted)
        state = faultlog.saw(state, seen, asked)
        asking = [lambda r=rule: r.decide(rule_params, memory, seen) for rule in params.heuristics]
        decision = _each(params.policy, asking)
        state = replace(state, memory=jnp.where(asked[None], decision.memory, memory))

        def tell(n: Counts) -> Counts:
            return count(n, surely(read), read_ptes=decision.ptes, read_slots=decision.slots)

        read = asked & ((decision.ptes | decision.slots) != 0)
        state = replace(state, n=when(read, tell, state.n))
        return state, jnp.where(asked, decision.orders & seen.candidates, 0)

    return when(asked, ask, (state, jnp.zeros_like(seen.candidates)))


def _room(state: MachineState, params: MachineParams) -> dict[str, Lane]:
    """Features of the cgroup that will be charged, and of the devices."""
    limit = cgroups.limit_of(state, params.limit, params.limits)
    left = jnp.maximum(limit - state.used - state.stock, 0)
    return {
        "headroom": jnp.where(limit == NO_LIMIT, NO_LIMIT, left),
        "fill": _fill(state),
    }


def _fill(state: MachineState) -> Lane:
    used, total = state.clusters.total - state.clusters.free, state.clusters.total
    return lax.div(used * 64, jnp.maximum(total, 1))


Inside = Callable[[MachineState], tuple[dict[str, Lane], MachineState]]


def leave_whole(
    state: MachineState,
    params: MachineParams,
    order: Lane,
    page: Lane,
    workingset: Flag,
    inside: Inside,
    on: Flag,
) -> tuple[MachineState, Flag]:
    """Whether large folios that are to leave memory leave whole; of a program with a heuristic that splits.

    page: their first, as for `decide`. inside: the fields of Leaving for which their pages are looked at;
    only a program with a heuristic that looks at one asks it.
    """
    asked = where(params, splits) & on

    def ask(carry: tuple[MachineState, Flag]) -> tuple[MachineState, Flag]:
        state, _ = carry
        sure = surely(asked)
        none = jnp.zeros_like(order)
        block, found = none, dict.fromkeys(INSIDE, none)
        cluster, swap = has_free_cluster(state.clusters)
        state = replace(state, clusters=swap)
        if any(looks_inside(rule) for rule in params.heuristics):
            found, state = inside(state)
        if state.noted is not None:
            block, noted = load1(state.noted, page >> 9)
            state = replace(state, noted=noted)
        folio = once(Leaving(order, page & 511, workingset, _fill(state), cluster, block, **found))
        asking = [
            lambda r=rule: r.leave_whole(params.policy_params, state.memory, folio)
            for rule in params.heuristics
        ]
        verdict = once(_each(params.policy, asking))

        def tell(n: Counts) -> Counts:
            return count(n, surely(read), read_ptes=verdict.ptes, read_pages=verdict.pages)

        read = sure & ((verdict.ptes | verdict.pages) != 0)
        return replace(state, n=when(read, tell, state.n)), ~sure | verdict.whole

    return when(asked, ask, (state, jnp.ones_like(on)))


def learn(state: MachineState, params: MachineParams, outcome: Outcome, page: Lane, on: Flag) -> MachineState:
    """Tell the heuristics that learn what became of a fault. page: as for `decide`."""
    state = faultlog.came(_note(state, params, outcome, page, on), outcome, on)
    rule_params, memory = params.policy_params, state.memory
    learns = where(params, lambda rule: rule.learn is not forget)

    def tell(memory: Array) -> Array:
        learned = _each(
            params.policy,
            [lambda r=rule: r.learn(rule_params, memory, outcome) for rule in params.heuristics],
        )
        return jnp.where(on[None], learned, memory)

    return replace(state, memory=when(on & learns, tell, memory))


def _note(state: MachineState, params: MachineParams, outcome: Outcome, page: Lane, on: Flag) -> MachineState:
    """Let those that note something of a block do so."""
    if state.noted is None:
        return state
    notes = where(params, lambda rule: rule.note is not leave) & on

    def tell(noted: Array) -> Array:
        block, noted = load1(noted, page >> 9)
        new = _each(
            params.policy,
            [lambda r=rule: r.note(params.policy_params, block, outcome) for rule in params.heuristics],
        )
        return store1(noted, page >> 9, new, surely(notes))

    return replace(state, noted=when(notes, tell, state.noted))
