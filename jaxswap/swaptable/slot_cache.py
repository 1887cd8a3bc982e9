"""Order-0 slots that a CPU of 6.12 takes and gives back 64 at a time (mm/swap_slots.c).

A CPU has two hands of slots, those taken ahead and those to give back. Until one is used, or freed, it
counts as taken on its device.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.swaptable.cluster_table import (
    END,
    FIRST,
    HAND,
    HANDS,
    Clusters,
    Flag,
    Lane,
    device_of,
    devices,
    free,
    notes_of,
)
from jaxswap.swaptable.geometry import CLUSTER_SHIFT
from jaxswap.swaptable.lanes import SPARE, load1, repeat, store1, surely, when

BATCH = 64  # slots of a hand
ACTIVATE, DEACTIVATE = 5, 2  # times the batch: free slots a CPU above which it starts, below which it stops


def present(c: Clusters) -> bool:
    """Whether the kernel has a slot cache; decided when the program is compiled."""
    return c.notes.shape[0] > notes_of(devices(c)).hands + SPARE


def taken[T: (int, Lane)](c: Clusters, cpu: T) -> T:
    """Where in the notes a CPU's hand of taken slots starts."""
    return notes_of(devices(c)).hands + cpu * HANDS


def given[T: (int, Lane)](c: Clusters, cpu: T) -> T:
    """Where a CPU's hand of slots to give back starts."""
    return taken(c, cpu) + HAND


def caching(c: Clusters) -> tuple[Flag, Clusters]:
    """Whether the slot cache is in use."""
    found, notes = load1(c.notes, jnp.full_like(c.total, notes_of(devices(c)).caching))
    return found != 0, replace(c, notes=notes)


def _bounds(c: Clusters, hand: Lane) -> tuple[Lane, Lane, Clusters]:
    first, notes = load1(c.notes, hand + FIRST)
    end, notes = load1(notes, hand + END)
    return first, end, replace(c, notes=notes)


def _set_bounds(c: Clusters, hand: Lane, first: Lane, end: Lane, on: Flag) -> Clusters:
    return replace(c, notes=store1(store1(c.notes, hand + FIRST, first, on), hand + END, end, on))


def empty(c: Clusters, hand: Lane) -> tuple[Flag, Clusters]:
    """Whether there is no slot in a hand."""
    first, end, c = _bounds(c, hand)
    return first == end, c


def push(c: Clusters, hand: Lane, slot: Lane, size: Lane, on: Flag) -> Clusters:
    """Put `size` slots from `slot` on into a hand that has room for them."""
    first, end, c = _bounds(c, hand)
    end = jnp.where(first == end, 0, end)
    first = jnp.where(end == 0, 0, first)

    def put(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, i = carry
        return replace(c, notes=store1(c.notes, hand + end + i, slot + i, surely(on & (i < size)))), i + 1

    c, _ = repeat(lambda carry: on & (carry[1] < size), put, (c, jnp.zeros_like(size)))
    return _set_bounds(c, hand, first, end + size, on)


def pop(c: Clusters, hand: Lane, want: Lane, on: Flag) -> tuple[Clusters, Lane, Lane]:
    """Up to `want` slots, one behind the other, out of a hand that has some: (clusters, first, number)."""
    first, end, c = _bounds(c, hand)
    slot, notes = load1(c.notes, hand + first)
    c = replace(c, notes=notes)

    def follows(carry: tuple[Clusters, Lane, Lane]) -> Flag:
        _, got, following = carry
        return on & (following == slot + got) & (got < want) & (first + got < end)

    def look(carry: tuple[Clusters, Lane, Lane]) -> tuple[Clusters, Lane, Lane]:
        c, got, following = carry
        active = surely(follows(carry))
        next, notes = load1(c.notes, hand + first + got + 1)
        return replace(c, notes=notes), got + active, jnp.where(active, next, following)

    c, got, _ = repeat(follows, look, (c, jnp.zeros_like(slot), slot))
    return _set_bounds(c, hand, first + got, end, on), slot, got


def _flush(c: Clusters, hand: Lane, on: Flag) -> Clusters:
    """Free the slots of a hand, device by device."""
    first, end, c = _bounds(c, hand)
    last = devices(c) - 1

    def going(carry: tuple[Clusters, Lane, Lane]) -> Flag:
        return on & ((carry[2] < end) | (carry[1] < last))

    def give(carry: tuple[Clusters, Lane, Lane]) -> tuple[Clusters, Lane, Lane]:
        c, device, i = carry
        active = surely(going(carry))
        slot, notes = load1(c.notes, hand + i)
        here = active & (i < end) & (device_of(c, slot >> CLUSTER_SHIFT) == device)
        c = free(replace(c, notes=notes), slot, jnp.ones_like(slot), here)
        over = active & (i + 1 >= end) & (device < last)
        return c, device + over, jnp.where(over, first, i + active)

    c, _, _ = repeat(going, give, (c, jnp.zeros_like(hand), first))
    zero = jnp.zeros_like(hand)
    return _set_bounds(c, hand, zero, zero, on)


def scarce(c: Clusters) -> Flag:
    """Whether the next check stops the slot cache."""
    return c.free < c.online * (DEACTIVATE * BATCH)


def check_active(c: Clusters, on: Flag) -> tuple[Clusters, Flag]:
    """check_cache_active: (clusters, whether the slot cache is in use).

    It starts where there is plenty, and stops and gives all back where there is little.
    """
    active, c = caching(c)
    stop = on & active & scarce(c)
    active = jnp.where(active, ~stop, c.free > c.online * (ACTIVATE * BATCH))
    at = jnp.full_like(c.total, notes_of(devices(c)).caching)
    c = replace(c, notes=store1(c.notes, at, active, on))
    hands = c.online * 2

    def drop(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, i = carry
        return _flush(c, taken(c, jnp.zeros_like(i)) + i * HAND, surely(stop & (i < hands))), i + 1

    return repeat(lambda carry: stop & (carry[1] < hands), drop, (c, jnp.zeros_like(hands)))[0], active


def give(c: Clusters, cpu: Lane, slot: Lane, size: Lane, on: Flag) -> Clusters:
    """free_swap_slot of `size` slots: a full hand is given back before the next slot is put into it."""
    hand = given(c, cpu)

    def one(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, i = carry
        active = surely(on & (i < size))
        _, end, c = _bounds(c, hand)
        full = active & (end >= BATCH)
        c = when(full, lambda c: _flush(c, hand, surely(full)), c)
        return push(c, hand, slot + i, jnp.ones_like(slot), active), i + 1

    return repeat(lambda carry: on & (carry[1] < size), one, (c, jnp.zeros_like(size)))[0]
