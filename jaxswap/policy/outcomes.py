"""Heuristics that go by what came of the faults before: everywhere, or in the same 2 MiB."""

import jax.numpy as jnp

from jaxswap.policy.around import SHIFT, TOUCH, room, spared
from jaxswap.policy.base import (
    Decision,
    Features,
    Lane,
    Mask,
    Memory,
    Outcome,
    Param,
    Params,
    Policy,
    lowest,
    offer,
    up_to,
)

_LEAST, _MOST = 2, 9  # orders
_START = Param("start", 4, _LEAST, _MOST, "order of the window at first")


# Words of the window's memory, first touch then swap-in: its order, 0 before any outcome.
def _inside(start: Lane, memory: Memory, seen: Features) -> Mask:
    """The candidates in the window; the lowest always is."""
    top = jnp.where(seen.first_touch, memory[0], memory[1])
    top = jnp.where(top == 0, start, top)
    return seen.candidates & up_to(jnp.maximum(top, lowest(seen.candidates)))


def _window(params: Params, memory: Memory, seen: Features) -> Decision:
    start, touch = params[:2]
    return offer(jnp.where(spared(seen, touch), seen.candidates, _inside(start, memory, seen)), memory)


def _window_learn(params: Params, memory: Memory, outcome: Outcome) -> Memory:
    old = jnp.where(outcome.first_touch, memory[0], memory[1])
    top = jnp.where(old == 0, params[0], old)
    grown = jnp.where(outcome.got >= top, jnp.minimum(top + 1, _MOST), old)
    new = jnp.where(outcome.failed != 0, jnp.maximum(top - 1, _LEAST), grown)
    memory = memory.at[0].set(jnp.where(outcome.first_touch, new, memory[0]))
    return memory.at[1].set(jnp.where(outcome.first_touch, memory[1], new))


def _window_headroom(params: Params, memory: Memory, seen: Features) -> Decision:
    start, shift, touch = params[:3]
    inside = _inside(start, memory, seen) & room(seen, shift)
    return offer(jnp.where(spared(seen, touch), seen.candidates, inside), memory)


# A block's word, swap-in then first touch, four bits each: the order got last, plus one; 0 before any.
def _last(params: Params, memory: Memory, seen: Features) -> Decision:
    step, touch = params[:2]
    known = seen.block >> jnp.where(seen.first_touch, 4, 0) & 15
    top = jnp.maximum(jnp.where(known == 0, _MOST, known - 1 + step), lowest(seen.candidates))
    return offer(seen.candidates & jnp.where(spared(seen, touch), ~jnp.uint32(0), up_to(top)), memory)


def _last_note(params: Params, block: Lane, outcome: Outcome) -> Lane:
    shift = jnp.where(outcome.first_touch, 4, 0)
    new = block & ~(15 << shift) | (outcome.got + 1) << shift
    return jnp.where((outcome.failed != 0) | (outcome.got > 0), new, block)


OUTCOMES = (
    Policy(
        "window",
        "orders up to a window that grows by one when its order was got and shrinks by one at a failure",
        _window,
        _window_learn,
        (_START, TOUCH),
        c="""\
/* window: static, of this path: first touch or swap-in */
top = max(window ?: start, __ffs(candidates));
return candidates & GENMASK(top, 0);
/* after the fault */
if (failed)
    window = max((window ?: start) - 1, 2);
else if (got >= (window ?: start))
    window = min((window ?: start) + 1, 9);""",
    ),
    Policy(
        "last",
        "orders up to `step` above the one got last in the same 2 MiB; a byte for each of them",
        _last,
        params=(Param("step", 1, 0, 7, "orders above the last"), TOUCH),
        note=_last_note,
        c="""\
last = &last_order[addr >> PMD_SHIFT]; /* of this path; order + 1, or 0 */
known = *last;
if (!known)
    return candidates;
return candidates & GENMASK(max(known - 1 + step, __ffs(candidates)), 0);
/* after the fault */
if (failed || got)
    *last = got + 1;""",
    ),
    Policy(
        "window_headroom",
        "orders that both window and headroom offer",
        _window_headroom,
        _window_learn,
        (_START, SHIFT, TOUCH),
        c="return window(candidates) & headroom(candidates); /* as these two */",
    ),
)
