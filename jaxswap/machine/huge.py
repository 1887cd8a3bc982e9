"""2 MiB at a fault: where a block has no page table, one folio or the 2 MiB zero page for all of it.

The folio is charged first, then the page table that is laid by for the day the block is split. The
heuristic is not asked: an order 9 folio is tried before any other. Source of the rules: mm/huge_memory.c
(do_huge_pmd_anonymous_page, pgtable_trans_huge_deposit, do_huge_zero_wp_pmd, thp_vma_suitable_order),
mm/memory.c (create_huge_pmd), 6.12 to 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxswap.machine import rows
from jaxswap.machine.counters import Counts, count, count_order
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.tables import FOLIO, HUGE, NONE, TABLE
from jaxswap.swaptable.lanes import store1, when

TOP = 9  # order of a 2 MiB folio


def wanted(params: MachineParams, found: Lane, start: Lane, end: Lane, enabled: Mask) -> Flag:
    """Whether a fault in a block without a page table (`found`, as in `tables`) is for 2 MiB.

    start, end: of the VMA, cut to the block. enabled: orders that are for the VMA. A write to the 2 MiB zero
    page asks for neither.
    """
    fits = ((enabled >> np.uint32(TOP)) & 1 == 1) & (end - start == 512)
    return jnp.where(found == NONE, fits, (found == FOLIO) | ~params.rules.keep_huge_zero)


def settle_block(
    state: MachineState, page: Lane, write: Flag, asked: Flag, found: Lane, got: Lane, on: Flag
) -> MachineState:
    """What a block gets after the charge: one entry or a page table; all but the mapping of a 2 MiB folio.

    asked: 2 MiB were wanted. found: what it had, not a page table. got: order that was charged.
    """
    alive = on & ~state.oom
    first = found == NONE
    folio = asked & write & (found != FOLIO)
    charged = folio & (got == TOP)
    zeros = alive & asked & ~write
    whole = jnp.where(charged & first, FOLIO, HUGE)
    value = jnp.where(asked & ~(folio & ~charged), whole, TABLE)
    # The zero page's table was laid by before, so it waits for no memory; a folio without one goes again.
    lost = on & ~alive & (found == FOLIO)
    value = jnp.where(lost, NONE, value)
    tables = store1(state.tables, page >> 9, value, alive | (on & ~first))
    state = replace(state, tables=tables, used=state.used - jnp.where(lost, 1 << TOP, 0))

    def map_zeros(state: MachineState) -> MachineState:
        def fill(state: MachineState, at: Lane, on: Flag) -> MachineState:
            row, state = rows.get(state, at)
            every = rows.only(rows.ALL, on)
            return rows.put(state, at, row.add((every, (Plane.ZEROPAGE, Plane.QUIET))), on)

        base = page >> TOP << TOP
        return rows.each(base, base + (1 << TOP), fill, state, zeros)

    def tell(n: Counts) -> Counts:
        top, refused = jnp.full_like(page, TOP), on & folio & ~charged
        n = count_order(
            n, "anon_fault_alloc", top, alive & asked & write & ((found == FOLIO) | (charged & ~first))
        )
        n = count_order(n, "anon_fault_fallback", top, refused)
        if state.frames is not None:
            refused = refused & (state.frames.lacked >> np.uint32(TOP) & 1 == 0)
        n = count_order(n, "anon_fault_fallback_charge", top, refused)
        return count(n, zeros, faults=1)

    state = when(zeros, map_zeros, state)
    ended = state.ended + zeros
    state = replace(state, ended=ended, clock=jnp.where(zeros, ended, state.clock))
    return replace(state, n=when(on & asked, tell, state.n))
