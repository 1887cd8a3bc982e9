"""A folio read from swap (mm/swap_state.c swap_cache_alloc_folio, mm/workingset.c workingset_refault)."""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import cgroups, lru
from jaxswap.machine.counters import count
from jaxswap.machine.fault import _refault
from jaxswap.machine.shared import devices, slots
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import Registers
from jaxswap.machine.shared.state import (
    ACTIVE,
    CONTENT,
    DIRTY,
    LISTED,
    MEMCG,
    WORKINGSET,
    flagged,
    fresh_folio,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask


def read(
    state: MachineState,
    params: MachineParams,
    regs: Registers,
    base: Lane,
    slot: Lane,
    order: Lane,
    shadow: Mask,
    zero: Flag,
    past: Flag,
    on: Flag,
) -> tuple[MachineState, Lane]:
    """A new folio over page `base` with the content of its slots, mapped by nobody: (state, its number).

    The cgroup that is charged for the slots is entered. The folio is in the swap cache, unless it is read
    past it. What zswap gives back (zswap_load) it has no longer.
    """
    size = jnp.int32(1) << order
    access = regs.access._replace(willneed=jnp.zeros_like(on))
    plan = regs.plan._replace(shadow=shadow, table=regs.plan.table._replace(zero=zero))
    state, active, workingset = _refault(state, params, access, plan, order, size, slot, on)
    held, state = devices.stored(state, slot)
    held = held & on & ~zero
    # Counted as read from the device, which it was not.
    state = replace(state, n=count(state.n, held, pswpin=-size))
    state = devices.store_in_zswap(state, slot, size, ~held, held)
    number, state = sharing.new_number(state, on)
    folio = fresh_folio(base & (sharing.room(state) - 1), order, jnp.full_like(order, LISTED))
    folio = folio._replace(flags=folio.flags | cgroups.entered(state, order) << MEMCG)
    folio = flagged(flagged(folio, ACTIVE, active), WORKINGSET, workingset)
    folio = flagged(flagged(folio, DIRTY, past | held), CONTENT, ~zero)
    folio = folio._replace(place=jnp.where(past, -1, slot))
    state = sharing.set_folio(state, number, folio, on)
    state = slots.insert(state, number, slot, size, on & ~past)
    one = jnp.ones_like(order)
    return lru.wait(lru.add(state, number, active, size, on), active, order > 0, one, on), number
