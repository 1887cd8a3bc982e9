"""Page tables of 2 MiB blocks, and blocks that one entry maps instead.

Source of the rules: mm/memory.c (zap_pte_range), mm/pt_reclaim.c, mm/huge_memory.c (zap_huge_pmd,
__split_huge_pmd), mm/vma.c (free_pgtables); 6.12 to 7.3; mm/memcontrol.c (refill_stock), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine.state import MEMCG_CHARGE_BATCH, Flag, Lane, MachineState
from jaxswap.swaptable.lanes import load1, store1

NONE, TABLE, HUGE, FOLIO = range(4)
"""What a block has, in MachineState.tables: nothing yet; a page table; one entry for all of it, which maps a
2 MiB folio or the 2 MiB zero page, and a page table laid by; a 2 MiB folio that is charged and waits for the
charge of that table."""


def split(state: MachineState, page: Lane, on: Flag) -> MachineState:
    """The block of a page gets a page table if one entry maps it; its pages stay (__split_huge_pmd)."""
    found, tables = load1(state.tables, page >> 9)
    tables = store1(tables, page >> 9, jnp.full_like(found, TABLE), on & (found == HUGE))
    return replace(state, tables=tables)


def lose_entry(state: MachineState, page: Lane, on: Flag) -> MachineState:
    """The block of a 2 MiB folio that goes has a page table, whatever mapped the folio."""
    return replace(state, tables=store1(state.tables, page >> 9, jnp.full_like(page, TABLE), on))


def zap(state: MachineState, start: Lane, end: Lane, gives_back: Flag, on: Flag) -> MachineState:
    """Pages start .. end - 1 of a block have become none. The whole block may give its table back."""
    found, tables = load1(state.tables, start >> 9)
    whole = end - start == 512
    huge = on & (found == HUGE)
    back = on & whole & (huge | (gives_back & (found == TABLE)))
    tables = store1(tables, start >> 9, jnp.where(whole, NONE, TABLE), back | huge)
    return uncharge(replace(state, tables=tables), back)


def uncharge(state: MachineState, on: Flag) -> MachineState:
    """obj_cgroup_uncharge_pages, refill_stock: the page goes to the stock, all of which goes back where it is
    too much."""
    stock = jnp.where(state.stock >= MEMCG_CHARGE_BATCH, 0, state.stock + 1)
    return replace(state, used=state.used - on, stock=jnp.where(on, stock, state.stock))
