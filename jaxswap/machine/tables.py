"""Page tables of 2 MiB blocks.

Source of the rules: mm/memory.c (zap_pte_range, zap_empty_pte_table), mm/pt_reclaim.c, free_pgtables; 6.12 to
7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.swaptable.lanes import load1, store1

NONE, TABLE = 0, 1
"""What a block has, in MachineState.tables: nothing yet, a page table."""


def zap(state: MachineState, start: Lane, end: Lane, gives_back: Flag, on: Flag) -> MachineState:
    """Pages start .. end - 1 of a block have become none. The whole block may give its table back."""
    found, tables = load1(state.tables, start >> 9)
    gone = on & (end - start == 512) & gives_back & (found == TABLE)
    tables = store1(tables, start >> 9, jnp.full_like(found, NONE), gone)
    return replace(state, tables=tables, used=state.used - gone)
