"""A folio read from swap (mm/swap_state.c swap_cache_alloc_folio, mm/workingset.c workingset_refault)."""

import jax.numpy as jnp

from jaxswap.machine import lru
from jaxswap.machine.fault import _refault
from jaxswap.machine.shared import slots
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import Registers
from jaxswap.machine.shared.state import ACTIVE, DIRTY, LISTED, WORKINGSET, flagged, fresh_folio
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

    It is in the swap cache, unless it is read past it.
    """
    size = jnp.int32(1) << order
    access = regs.access._replace(willneed=jnp.zeros_like(on))
    plan = regs.plan._replace(shadow=shadow, table=regs.plan.table._replace(zero=zero))
    state, active, workingset = _refault(state, params, access, plan, order, size, slot, on)
    number, state = sharing.new_number(state, on)
    folio = fresh_folio(base & (sharing.room(state) - 1), order, jnp.full_like(order, LISTED))
    folio = flagged(flagged(folio, ACTIVE, active), WORKINGSET, workingset)
    folio = flagged(folio, DIRTY, past)._replace(place=jnp.where(past, -1, slot))
    state = sharing.set_folio(state, number, folio, on)
    state = slots.insert(state, number, slot, size, on & ~past)
    return lru.add(state, number, active, size, on), number
