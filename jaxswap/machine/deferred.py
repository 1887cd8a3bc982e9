"""The deferred split list: folios that lost pages and were not met by reclaim are split when memory is short.

Source of the rules: mm/shrinker.c (shrink_slab_memcg, do_shrink_slab), mm/huge_memory.c
(deferred_split_count, deferred_split_scan), 7.3. Whole 2 MiB folios, which the kernel lists too and lets go
when it comes by, are not on this list.

A folio on the list is known by its lowest mapped page, whose place in `MachineState.slots`, of no use while
it is mapped, holds minus its number in the order of coming.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import lax

from jaxswap.machine.rules import Rules
from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.swaptable.lanes import SPARE, load1, repeat, store1, surely

SHRINK_BATCH = 128
SEEKS = 2  # DEFAULT_SEEKS


def add(state: MachineState, name: Lane, on: Flag) -> MachineState:
    """deferred_split_folio: a folio has lost its first page."""
    come = state.deferred_come + on
    slots = store1(state.slots, name, -come, on)
    return replace(state, slots=slots, deferred=state.deferred + on, deferred_come=come)


def rename(state: MachineState, name: Lane, new: Lane, on: Flag) -> MachineState:
    """A folio on the list has another lowest mapped page."""
    number, slots = load1(state.slots, name)
    slots = store1(store1(slots, name, jnp.zeros_like(name), on), new, number, on)
    return replace(state, slots=slots)


def remove(state: MachineState, name: Lane, on: Flag) -> MachineState:
    """A folio leaves the list."""
    slots = store1(state.slots, name, jnp.zeros_like(name), on)
    return replace(state, slots=slots, deferred=state.deferred - on)


def oldest(state: MachineState) -> tuple[Lane, MachineState]:
    """The folio that came first."""
    never = jnp.iinfo(jnp.int32).min
    numbers = state.slots[:-SPARE]
    page = jnp.argmax(jnp.where(numbers < 0, numbers, never), axis=0).astype(jnp.int32)
    page, slots = lax.optimization_barrier((page, state.slots))
    return page, replace(state, slots=slots)


def to_scan(freeable: Lane, put_off: Lane, priority: Lane) -> tuple[Lane, Lane]:
    """do_shrink_slab with so many folios on the list: how many to look at after a pass at a priority, and
    what is then put off.
    """
    delta = (freeable >> priority) * 4 // SEEKS
    left = jnp.minimum((put_off >> priority) + delta, 2 * freeable)
    few = jnp.where(left >= freeable, jnp.minimum(left, SHRINK_BATCH), 0)
    # A batch that takes the last of the list is the last.
    many = jnp.minimum(left // SHRINK_BATCH, (freeable + SHRINK_BATCH - 1) // SHRINK_BATCH) * SHRINK_BATCH
    scanned = jnp.where(freeable < SHRINK_BATCH, few, many)
    after = jnp.clip(put_off + delta - scanned, 0, 2 * freeable)
    return scanned, jnp.where(freeable > 0, after, put_off)


def pass_over(
    state: MachineState, priority: Lane, idle: Callable[[Lane], Flag], on: Flag
) -> tuple[MachineState, Lane]:
    """Go down from a priority past those at which reclaim finds nothing to do and nothing is to be split;
    priority 0 is never passed over.
    """

    def nothing(carry: tuple[Lane, Lane]) -> Flag:
        put_off, priority = carry
        none = to_scan(state.deferred, put_off, priority)[0] == 0
        return on & (priority > 0) & idle(priority) & none

    def down(carry: tuple[Lane, Lane]) -> tuple[Lane, Lane]:
        put_off, priority = carry
        sure = surely(nothing(carry))
        after = to_scan(state.deferred, put_off, priority)[1]
        return jnp.where(sure, after, put_off), priority - sure

    put_off, priority = repeat(nothing, down, (state.nr_deferred, priority))
    return replace(state, nr_deferred=put_off), priority


def shrink_slab(
    state: MachineState,
    rules: Rules,
    priority: Lane,
    split: Callable[[MachineState, Rules, Lane, Flag], MachineState],
    on: Flag,
) -> MachineState:
    """After a pass at a priority, `split` (state, rules, page, on) is applied to the folios whose turn it is.
    What becomes free does not count as reclaimed.
    """
    scanned, after = to_scan(state.deferred, state.nr_deferred, priority)
    due = jnp.where(on, jnp.minimum(scanned, state.deferred), 0)
    state = replace(state, nr_deferred=jnp.where(on, after, state.nr_deferred))

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return carry[1] > 0

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, left = carry
        page, state = oldest(state)
        return split(state, rules, page, surely(left > 0)), left - 1

    return repeat(more, turn, (state, due))[0]
