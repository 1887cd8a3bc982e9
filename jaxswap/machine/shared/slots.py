"""Counts of slots, the swap cache, slots given back.

Source of the rules: mm/swapfile.c (swap_put_entries_direct, folio_free_swap, __try_to_reclaim_swap),
mm/swap_state.c (__swap_cache_del_folio), 6.18 to 7.3; free_swap_and_cache_nr, put_swap_folio of 6.12.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import cgroups, lru
from jaxswap.machine.counters import count
from jaxswap.machine.shared import devices
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import ACTIVE, DIRTY, LISTED, USED, Folio, fill, flagged
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable import cluster_table, clusters, slot_cache
from jaxswap.swaptable.geometry import CLUSTER_SHIFT
from jaxswap.swaptable.lanes import load1, repeat, store1, surely


def vm_swap_full(state: MachineState) -> Flag:
    """Less than half of the slots is free."""
    return cluster_table.vm_swap_full(state.clusters)


def give_back(state: MachineState, slot: Lane, size: Lane, direct: Flag, on: Flag) -> MachineState:
    """Slots of one cluster, without counts and not cached, are free; or, unless direct, in 6.12's hand."""
    freed = clusters.put(state.clusters, state.cpu, slot, size, direct, on)
    return devices.set_aside(replace(state, clusters=freed), slot >> CLUSTER_SHIFT, on)


def slot_of(state: MachineState, slot: Lane) -> tuple[Lane, Lane, MachineState]:
    """Count of a slot, and its folio in the swap cache or -1."""
    number, counts = load1(sharing.of(state).counts, slot)
    cached, cache = load1(sharing.of(state).cache, slot)
    return number, cached, sharing.put(state, counts=counts, cache=cache)


def add_count(state: MachineState, slot: Lane, change: int, on: Flag) -> MachineState:
    """Raise or lower the count of a slot."""
    number, counts = load1(sharing.of(state).counts, slot)
    return sharing.put(state, counts=store1(counts, slot, number + change, on))


def insert(state: MachineState, number: Lane, slot: Lane, size: Lane, on: Flag) -> MachineState:
    """A folio is in the swap cache over some slots; the caller sets its `place`."""
    state = sharing.put(state, cache=fill(sharing.of(state).cache, slot, size, number, on))
    table = clusters.set_plane(state.clusters, clusters.CACHED, slot, size, True, on)
    return replace(state, clusters=table)


def uncache(state: MachineState, slot: Lane, size: Lane, on: Flag) -> MachineState:
    """No folio is in the swap cache over some slots any more."""
    state = sharing.put(state, cache=fill(sharing.of(state).cache, slot, size, jnp.full_like(slot, -1), on))
    table = clusters.set_plane(state.clusters, clusters.CACHED, slot, size, False, on)
    return replace(state, clusters=table)


def has_count(state: MachineState, slot: Lane, size: Lane, on: Flag) -> tuple[Flag, MachineState]:
    """Whether one of some slots has a count."""

    def unused(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < size) & ~carry[2]

    def look(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, i, found = carry
        number, _, state = slot_of(state, slot + i)
        return state, i + 1, found | (surely(unused(carry)) & (number > 0))

    state, _, found = repeat(unused, look, (state, jnp.zeros_like(slot), jnp.zeros_like(on)))
    return found, state


def give_back_unused(state: MachineState, slot: Lane, size: Lane, direct: Flag, on: Flag) -> MachineState:
    """Of some slots of one cluster that are not cached, those without a count are free."""

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < size)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        number, _, state = slot_of(state, slot + i)
        gone = surely(more(carry)) & (number == 0)
        return give_back(state, slot + i, jnp.ones_like(slot), direct, gone), i + 1

    return repeat(more, turn, (state, jnp.zeros_like(slot)))[0]


def forget(state: MachineState, number: Lane, folio: Folio, on: Flag) -> MachineState:
    """The folio's memory is free."""
    listed = on & folio.has(LISTED)

    def give_up(state: MachineState) -> MachineState:
        state = lru.remove(state, number, folio.has(ACTIVE), folio.size, listed)
        return replace(state, used=state.used - jnp.where(on, folio.size, 0))

    state = cgroups.within(lru.drain(state, on), folio.memcg, on, give_up)
    n = count(state.n, on & ~folio.has(USED), useless_swapin=folio.size)
    return sharing.release_number(replace(state, n=n), number, on)


def drop(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """folio_free_swap of `drop`: out of the swap cache, unless some slot of the folio has a count."""
    folio, state = sharing.folio(state, regs.drop)
    cached = on & (folio.place >= 0)
    used, state = has_count(state, folio.place, folio.size, cached)
    freed = cached & ~used
    state = uncache(state, folio.place, folio.size, freed)
    # What the allocator reclaims goes past 6.12's hands, like large folios.
    reclaimed = (regs.back_drop == At.ALLOC_RECLAIMED) | (regs.back_drop == At.FULL_CLUSTER)
    state = give_back(state, folio.place, folio.size, reclaimed | (folio.order > 0), freed)
    gone = freed & (folio.maps == 0)
    after = flagged(folio._replace(place=jnp.full_like(regs.drop, -1)), DIRTY, freed)
    state = sharing.set_folio(state, regs.drop, after, freed & ~gone)
    state = forget(state, regs.drop, folio, gone)
    return state, assign(regs, on, at=regs.back_drop, dropped=freed)


def put(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_put_entries_direct of put_slot .. put_end - 1: swapped entries in a row are gone.

    The counts first, cluster by cluster; then folios of the swap cache that nobody counts on any more. In
    6.12 only a whole run inside one cluster, of count 1 and not cached, goes past the CPU's hand.
    """
    last = regs.put_end - 1
    whole = on & (regs.put_slot < last) & (regs.put_slot >> CLUSTER_SHIFT == last >> CLUSTER_SHIFT)

    def alike(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return carry[2] & (carry[1] < regs.put_end)

    def compare(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, slot, direct = carry
        number, cached, state = slot_of(state, slot)
        same = ((number == 1) & (cached < 0)) | ~surely(alike(carry))
        return state, slot + 1, direct & same

    direct = whole
    if slot_cache.present(state.clusters):
        state, _, direct = repeat(alike, compare, (state, regs.put_slot, whole))

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < regs.put_end)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, slot = carry
        active = surely(more(carry))
        number, cached, state = slot_of(state, slot)
        state = add_count(state, slot, -1, active)
        gone = active & (number == 1) & (cached < 0)
        return give_back(state, slot, jnp.ones_like(slot), direct, gone), slot + 1

    state, _ = repeat(more, turn, (state, regs.put_slot))
    return state, assign(regs, on, at=At.PUT_CACHED)


def put_cached(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next folio of the swap cache among the slots whose entries are gone."""

    def passes(carry: tuple[MachineState, Lane, Lane]) -> Flag:
        _, slot, found = carry
        return on & (slot < regs.put_end) & (found < 0)

    def turn(carry: tuple[MachineState, Lane, Lane]) -> tuple[MachineState, Lane, Lane]:
        state, slot, found = carry
        active = surely(passes(carry))
        number, cached, state = slot_of(state, slot)
        here = active & (cached >= 0) & (number == 0)
        folio, state = sharing.folio(state, jnp.maximum(cached, 0))
        beyond = (slot // folio.size + 1) * folio.size
        goes = here & ((folio.maps == 0) | vm_swap_full(state))
        slot = jnp.where(active, jnp.where(here, beyond, slot + 1), slot)
        return state, slot, jnp.where(goes, cached, found)

    state, slot, found = repeat(passes, turn, (state, regs.put_slot, jnp.full_like(regs.put_slot, -1)))
    some = on & (found >= 0)
    regs = assign(regs, on, put_slot=slot, at=regs.back_put)
    return state, assign(regs, some, drop=found, at=At.DROP, back_drop=At.PUT_CACHED)
