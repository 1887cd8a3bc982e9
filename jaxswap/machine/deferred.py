"""The deferred split list: folios that lost pages and were not met by reclaim are split when memory is short.

Source of the rules: mm/shrinker.c (shrink_slab_memcg, do_shrink_slab), mm/huge_memory.c
(deferred_split_count, deferred_split_scan), 7.3. Whole 2 MiB folios, which the kernel lists too and lets go
when it comes by, are not on this list.

A folio on the list is known by its lowest mapped page. The list is linked through that page's places in
`MachineState.slots` and `shadows`, of no use while the page is mapped: -2 - the next folio, so that no slot
looks like it, and 1 + the one before; the end of the list is -1.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.swaptable.lanes import load1, repeat, store1, surely

SHRINK_BATCH = 128  # a power of two
SEEKS = 2  # DEFAULT_SEEKS


def _join(state: MachineState, before: Lane, after: Lane, on: Flag) -> MachineState:
    """`after` comes behind `before`; -1 is the end of the list."""
    slots = store1(state.slots, jnp.maximum(before, 0), -2 - after, on & (before >= 0))
    shadows = store1(state.shadows, jnp.maximum(after, 0), (before + 1).astype(jnp.uint32), on & (after >= 0))
    return replace(
        state,
        slots=slots,
        shadows=shadows,
        deferred_first=jnp.where(on & (before < 0), after, state.deferred_first),
        deferred_last=jnp.where(on & (after < 0), before, state.deferred_last),
    )


def _take_out(state: MachineState, name: Lane, on: Flag) -> tuple[Lane, Lane, MachineState]:
    """The neighbours of a folio on the list, and the state without a link of its own."""
    after, slots = load1(state.slots, name)
    before, shadows = load1(state.shadows, name)
    slots = store1(slots, name, jnp.zeros_like(name), on)
    state = replace(state, slots=slots, shadows=shadows)
    return before.astype(jnp.int32) - 1, -2 - after, state


def remove(state: MachineState, name: Lane, on: Flag) -> MachineState:
    """A folio leaves the list."""
    before, after, state = _take_out(state, name, on)
    return replace(_join(state, before, after, on), deferred=state.deferred - on)


def lose(state: MachineState, name: Lane, waits: Flag, kept: Lane, remains: Flag, on: Flag) -> MachineState:
    """A folio loses pages. If it is on the list (`waits`), it stays in its place, under its lowest page that
    remains, `kept`; else it goes behind all others (deferred_split_folio). None without pages is on the list.
    """
    before, after, state = _take_out(state, name, on & waits)
    before, after = jnp.where(waits, before, state.deferred_last), jnp.where(waits, after, -1)
    state = _join(state, before, jnp.where(remains, kept, after), on & (waits | remains))
    state = _join(state, kept, after, on & remains)
    return replace(state, deferred=state.deferred + (on & remains & ~waits) - (on & waits & ~remains))


def waits(state: MachineState, name: Lane) -> tuple[Flag, MachineState]:
    """Whether a mapped folio is on the list."""
    after, slots = load1(state.slots, name)
    return after < 0, replace(state, slots=slots)


def to_scan(freeable: Lane, put_off: Lane, priority: Lane) -> tuple[Lane, Lane]:
    """do_shrink_slab with so many folios on the list: how many to look at after a pass at a priority, and
    what is then put off.
    """
    delta = (freeable >> priority) * (4 // SEEKS)
    left = jnp.minimum((put_off >> priority) + delta, 2 * freeable)
    few = jnp.where(left >= freeable, jnp.minimum(left, SHRINK_BATCH), 0)
    # A batch that takes the last of the list is the last.
    many = jnp.minimum(left, freeable + SHRINK_BATCH - 1) & -SHRINK_BATCH
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


def shrink_slab(state: MachineState, priority: Lane, on: Flag) -> tuple[MachineState, Lane]:
    """After a pass at a priority: (state, how many folios, from the first on, are to be split now). What
    becomes free by that does not count as reclaimed.
    """
    scanned, after = to_scan(state.deferred, state.nr_deferred, priority)
    due = jnp.where(on, jnp.minimum(scanned, state.deferred), 0)
    return replace(state, nr_deferred=jnp.where(on, after, state.nr_deferred)), due
