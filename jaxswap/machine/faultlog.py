"""What became of each fault, kept for whoever is to learn from it, in a replay that is given a log."""

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32

from jaxswap.machine.state import Flag, Lane, MachineState, Mask
from jaxswap.policy import Features, Outcome
from jaxswap.swaptable.lanes import SPARE, store, store1

if TYPE_CHECKING:
    from jaxswap.machine.fault import Access, Plan


class Word(enum.IntEnum):
    """Of a record. What the fault was: NOW: page accesses before it; PAGE; GOT: order; RUN: small pages
    mapped together; OFFERED, ORDERS: masks of the orders that the heuristic was offered and chose; SWAPIN: 1,
    else 0; FAILED: mask of the orders tried in vain. What the heuristic saw, where it was offered any:
    HEADROOM .. YOUNG as in `Features`; LUCK: word 0 of its memory, before it decided."""

    NOW = 0
    PAGE = 1
    GOT = 2
    RUN = 3
    OFFERED = 4
    ORDERS = 5
    SWAPIN = 6
    FAILED = 7
    HEADROOM = 8
    FILL = 9
    RECENT = 10
    PRESENT = 11
    YOUNG = 12
    LUCK = 13


WORDS = 16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FaultLog:
    """Records of WORDS words, one a fault that is over, in order; `count` are full."""

    words: Int32[Array, "words L"]
    count: Lane


def fresh(records: int, lanes: int) -> FaultLog:
    """An empty log with room for some records, as numpy."""
    return FaultLog(np.zeros((records * WORDS + SPARE, lanes), np.int32), np.zeros(lanes, np.int32))  # pyright: ignore[reportArgumentType]


def _bits(mask: Mask) -> Lane:
    return lax.bitcast_convert_type(mask, jnp.int32)


def saw(state: MachineState, seen: Features, on: Flag) -> MachineState:
    """Note what the heuristic sees of the fault under way."""
    log = state.log
    if log is None:
        return state
    row = [seen.headroom, seen.fill, seen.recent.astype(jnp.int32), _bits(seen.present), _bits(seen.young)]
    words = store(log.words, log.count * WORDS + Word.HEADROOM, jnp.stack([*row, state.memory[0]]), on)
    return replace(state, log=replace(log, words=words))


def came(state: MachineState, outcome: Outcome, on: Flag) -> MachineState:
    """Note which orders failed."""
    log = state.log
    if log is None:
        return state
    words = store1(log.words, log.count * WORDS + Word.FAILED, _bits(outcome.failed), on)
    return replace(state, log=replace(log, words=words))


def over(state: MachineState, access: "Access", plan: "Plan", got: Lane, run: Lane, on: Flag) -> MachineState:
    """The fault is over: its record is full."""
    log = state.log
    if log is None:
        return state
    assert access.now is not None
    swapin = (plan.swapin & ~access.willneed).astype(jnp.int32)
    row = [access.now, access.page, got, run, _bits(plan.offered), _bits(plan.orders), swapin]
    words = store(log.words, log.count * WORDS + Word.NOW, jnp.stack(row), on)
    return replace(state, log=FaultLog(words, log.count + on))
