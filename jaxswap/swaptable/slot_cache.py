"""Order-0 slots that a CPU of 6.12 takes and gives back 64 at a time (mm/swap_slots.c).

A CPU has two hands of slots, those taken ahead and those to give back. Until one is used, or freed, it
counts as taken on its device.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

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
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store1, surely, when

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


def by_device(c: Clusters, slots: Int32[Array, "hand L"], size: Lane, on: Flag) -> Int32[Array, "hand L"]:
    """The first `size` slots sorted by device as the kernel's sort() does it (lib/sort.c, sort_r, 6.12).

    A heapsort, so slots of one device do not keep their order: the two largest leave the heap together, of
    equal children the right one rises.
    """
    number = np.arange(slots.shape[0], dtype=np.int32)[:, None]

    def at(slots: Array, i: Lane) -> Lane:
        return jnp.take_along_axis(slots, jnp.clip(i, 0, slots.shape[0] - 1)[None], axis=0)[0]

    def key(slots: Array, i: Lane) -> Lane:
        return device_of(c, at(slots, i) >> CLUSTER_SHIFT)

    def exchange(slots: Array, i: Lane, j: Lane, on: Flag) -> Array:
        first, second = at(slots, i), at(slots, j)
        swapped = jnp.where(number == i[None], second[None], slots)
        swapped = jnp.where(number == j[None], first[None], swapped)
        return jnp.where(on[None], swapped, slots)

    def sink(slots: Array, top: Lane, size: Lane, on: Flag) -> Array:
        """Down to a leaf along the larger children, up to where the top fits; the path moves up by one."""

        def larger(i: Lane) -> Lane:
            right = 2 * i + 2
            return jnp.where(
                on & (right < size), right - (key(slots, right - 1) > key(slots, right)), i
            ).astype(jnp.int32)

        leaf = repeat(lambda i: larger(i) != i, larger, top)
        leaf = jnp.where(on & (2 * leaf + 2 == size), size - 1, leaf)

        def too_low(i: Lane) -> Flag:
            return on & (i != top) & (key(slots, top) >= key(slots, i))

        def parent(i: Lane, on: Flag) -> Lane:
            return jnp.where(on, (i - 1) // 2, i)

        place = repeat(too_low, lambda i: parent(i, too_low(i)), leaf)

        def climbing(carry: tuple[Array, Lane]) -> Flag:
            return on & (carry[1] != top)

        def climb(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
            slots, i = carry
            up = parent(i, climbing(carry))
            return exchange(slots, up, place, climbing(carry)), up

        return repeat(climbing, climb, (slots, place))[0]

    def building(carry: tuple[Array, Lane]) -> Flag:
        return on & (carry[1] > 0)

    def build(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        slots, i = carry
        here = building(carry)
        return sink(slots, jnp.where(here, i - 1, 0), size, here), i - here

    def extracting(carry: tuple[Array, Lane]) -> Flag:
        return on & (carry[1] > 3)

    def extract(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        slots, left = carry
        here = extracting(carry)
        top, one = jnp.zeros_like(left), jnp.ones_like(left)
        slots = exchange(slots, top, left - 1, here)
        second = jnp.where(key(slots, one) <= key(slots, one + 1), 2, 1)
        slots = exchange(slots, second, left - 2, here)
        left = left - jnp.where(here, 2, 0)
        return sink(sink(slots, second, left, here), top, left, here), left

    slots, _ = repeat(building, build, (slots, size // 2))
    slots, left = repeat(extracting, extract, (slots, size))
    top = jnp.zeros_like(left)
    slots = exchange(slots, top, left - 1, on & (left > 0))
    return exchange(slots, top, top + 1, on & (left == 3) & (key(slots, top) > key(slots, top + 1)))


def _flush(c: Clusters, hand: Lane, on: Flag) -> Clusters:
    """Free the slots of a hand (swapcache_free_entries); of several devices, sorted by device."""
    first, end, c = _bounds(c, hand)
    slots, notes = load(c.notes, hand + first, BATCH)
    c = replace(c, notes=notes)
    if devices(c) > 1:
        slots = by_device(c, slots, end - first, on)

    def going(carry: tuple[Clusters, Lane]) -> Flag:
        return on & (carry[1] < end - first)

    def give(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, i = carry
        active = surely(going(carry))
        slot = jnp.take_along_axis(slots, i[None], axis=0, mode="clip")[0]
        return free(c, slot, jnp.ones_like(slot), active), i + 1

    c, _ = repeat(going, give, (c, jnp.zeros_like(hand)))
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
