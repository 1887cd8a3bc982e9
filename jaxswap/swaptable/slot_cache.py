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
    Clusters,
    Flag,
    Lane,
    SlotRules,
    device_of,
    devices,
    free,
)
from jaxswap.swaptable.geometry import CLUSTER_SHIFT
from jaxswap.swaptable.lanes import load1, repeat, store1, surely, when

ACTIVATE, DEACTIVATE = 5, 2  # times the batch: free slots a CPU above which it starts, below which it stops


def taken(cpu: Lane) -> Lane:
    """Where a CPU's hand of taken slots starts."""
    return cpu * (2 * HAND)


def given(cpu: Lane) -> Lane:
    """Where a CPU's hand of slots to give back starts."""
    return cpu * (2 * HAND) + HAND


def _bounds(c: Clusters, hand: Lane) -> tuple[Lane, Lane, Clusters]:
    first, hands = load1(c.hands, hand + FIRST)
    end, hands = load1(hands, hand + END)
    return first, end, replace(c, hands=hands)


def _set_bounds(c: Clusters, hand: Lane, first: Lane, end: Lane, on: Flag) -> Clusters:
    return replace(c, hands=store1(store1(c.hands, hand + FIRST, first, on), hand + END, end, on))


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
        return replace(c, hands=store1(c.hands, hand + end + i, slot + i, surely(on & (i < size)))), i + 1

    c, _ = repeat(lambda carry: on & (carry[1] < size), put, (c, jnp.zeros_like(size)))
    return _set_bounds(c, hand, first, end + size, on)


def pop(c: Clusters, hand: Lane, want: Lane, on: Flag) -> tuple[Clusters, Lane, Lane]:
    """Up to `want` slots, one behind the other, out of a hand that has some: (clusters, first, number)."""
    first, end, c = _bounds(c, hand)
    slot, hands = load1(c.hands, hand + first)
    c = replace(c, hands=hands)

    def follows(carry: tuple[Clusters, Lane, Lane]) -> Flag:
        _, got, following = carry
        return on & (following == slot + got) & (got < want) & (first + got < end)

    def look(carry: tuple[Clusters, Lane, Lane]) -> tuple[Clusters, Lane, Lane]:
        c, got, following = carry
        active = surely(follows(carry))
        next, hands = load1(c.hands, hand + first + got + 1)
        return replace(c, hands=hands), got + active, jnp.where(active, next, following)

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
        slot, hands = load1(c.hands, hand + i)
        here = active & (i < end) & (device_of(c, slot >> CLUSTER_SHIFT) == device)
        c = free(replace(c, hands=hands), slot, jnp.ones_like(slot), here)
        over = active & (i + 1 >= end) & (device < last)
        return c, device + over, jnp.where(over, first, i + active)

    c, _, _ = repeat(going, give, (c, jnp.zeros_like(hand), first))
    zero = jnp.zeros_like(hand)
    return _set_bounds(c, hand, zero, zero, on)


def scarce(c: Clusters, rules: SlotRules) -> Flag:
    """Whether the next check stops the slot cache."""
    return c.free < c.cpus * DEACTIVATE * rules.slot_cache


def check_active(c: Clusters, rules: SlotRules, on: Flag) -> Clusters:
    """check_cache_active: start where there is plenty, stop and give all back where there is little."""
    stop = on & c.caching & scarce(c, rules)
    start = on & ~c.caching & (c.free > c.cpus * ACTIVATE * rules.slot_cache)
    c = replace(c, caching=(c.caching & ~stop) | start)
    hands = c.cpus * 2

    def drop(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, i = carry
        return _flush(c, i * HAND, surely(stop & (i < hands))), i + 1

    return repeat(lambda carry: stop & (carry[1] < hands), drop, (c, jnp.zeros_like(hands)))[0]


def give(c: Clusters, rules: SlotRules, cpu: Lane, slot: Lane, size: Lane, on: Flag) -> Clusters:
    """free_swap_slot of `size` slots: a full hand is given back before the next slot is put into it."""
    hand = given(cpu)

    def one(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, i = carry
        active = surely(on & (i < size))
        _, end, c = _bounds(c, hand)
        full = active & (end >= rules.slot_cache)
        c = when(full, lambda c: _flush(c, hand, surely(full)), c)
        return push(c, hand, slot + i, jnp.ones_like(slot), active), i + 1

    return repeat(lambda carry: on & (carry[1] < size), one, (c, jnp.zeros_like(size)))[0]
