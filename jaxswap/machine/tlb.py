"""The TLB of the CPU: an access of a page whose translation it has sets no accessed bit.

Reclaim clears accessed bits and leaves translations, so that pages in use look unused until the TLB is
emptied. Here it has room for all pages; those it has are in the planes QUIET and QUIET_WRITE.

Source: arch/x86/include/asm/pgtable.h (ptep_test_and_clear_young), arch/x86/mm/tlb.c (flush_tlb_mm_range,
switch_mm_irqs_off), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxswap.machine.rows import Row, only
from jaxswap.machine.state import PLANES, Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.swaptable.lanes import surely, when

FLUSH_CEILING = 33  # pages that are flushed one by one (tlb_single_page_flush_ceiling); more: everything
_QUIET = (Plane.QUIET, Plane.QUIET_WRITE)


def make_old(row: Row, params: MachineParams, pages: Mask, *planes: Plane) -> Row:
    """The row with the accessed bits of some pages cleared, and other planes of them."""
    if params.switch is None:
        return row.clear((pages, (Plane.YOUNG, *planes, *_QUIET)))
    return row.clear((pages, (Plane.YOUNG, *planes)), (only(pages, params.switch == 0), _QUIET))


def switch(state: MachineState, params: MachineParams, on: Flag) -> MachineState:
    """A fault begins: the CPU may have gone to another process and back."""
    if params.switch is None:
        return state
    due = on & (state.clock - state.last_switch == params.switch)
    return flush(replace(state, last_switch=jnp.where(due, state.clock, state.last_switch)), params, due)


def flush(state: MachineState, params: MachineParams, on: Flag) -> MachineState:
    """It is emptied."""
    if params.switch is None:
        return state
    on = on & (params.switch > 0)

    def empty(state: MachineState) -> MachineState:
        count = state.rows.shape[0] // PLANES
        table = state.rows[: count * PLANES].reshape(count, PLANES, -1)
        quiet = np.isin(np.arange(PLANES), _QUIET)[:, None]
        there = only(table[:, Plane.PRESENT], surely(on))[:, None]
        table = table & ~jnp.where(quiet, there, np.uint32(0))
        return replace(state, rows=state.rows.at[: count * PLANES].set(table.reshape(count * PLANES, -1)))

    return when(on, empty, state)


def flush_range(state: MachineState, params: MachineParams, pages: Lane, on: Flag) -> MachineState:
    """flush_tlb_mm_range of so many pages, which lose their translations anyway."""
    return flush(state, params, on & (pages > FLUSH_CEILING))
