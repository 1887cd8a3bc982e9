"""Where each swapped page is: its slot and its shadow (workingset history)."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from jaxswap.machine.state import Lane, MachineState, Mask
from jaxswap.swaptable.lanes import load, load1, store, store1, surely, when

_ROW = np.arange(32, dtype=np.int32)[:, None]


def of(state: MachineState, page: Lane) -> tuple[Lane, Mask, MachineState]:
    """Slot and shadow (nonresident age << 1 | workingset) of a swapped page."""
    slot, slots = load1(state.slots, page)
    shadow, shadows = load1(state.shadows, page)
    return slot, shadow, replace(state, slots=slots, shadows=shadows)


def shadows_of(state: MachineState, page: Lane) -> UInt32[Array, "32 L"]:
    """Shadows of the pages of a page's row."""
    return load(state.shadows, page & -32, 32)[0]


def write(
    state: MachineState,
    page: Lane,
    pages: Mask,
    slot: Lane,
    up: Lane,
    age: Lane,
    step: Lane,
    workingset: Mask,
) -> MachineState:
    """Give some pages of a row (that of `page`, the first of them) slots and shadows.

    The first gets `slot` and a shadow of the age `age`; from page to page the slot changes by `up` (1 or -1),
    the age by `step`. A shadow has the workingset bit of its page's place in `workingset`.
    """
    on = pages != 0
    alone = pages & (pages - np.uint32(1)) == 0
    first = (workingset >> (page & 31).astype(jnp.uint32)) & 1
    slots = store1(state.slots, page, slot, on & alone)
    shadows = store1(state.shadows, page, age.astype(jnp.uint32) << 1 | first, on & alone)
    # Computed once, not for every page.
    before = (page & -32) - page
    base, slot, up, age, step, pages, workingset = lax.optimization_barrier(
        (page & -32, slot + up * before, up, age + step * before, step, pages, workingset)
    )
    several = on & ~alone

    def row(tables: tuple[Array, Array]) -> tuple[Array, Array]:
        slots, shadows = tables
        inside = (pages[None] >> _ROW.astype(np.uint32)) & 1 == 1
        sure = surely(several)
        old, slots = load(slots, base, 32)
        slots = store(slots, base, jnp.where(inside, slot[None] + up[None] * _ROW, old), sure)
        old, shadows = load(shadows, base, 32)
        ages = (age[None] + step[None] * _ROW).astype(jnp.uint32) << 1
        new = ages | ((workingset[None] >> _ROW.astype(np.uint32)) & 1)
        return slots, store(shadows, base, jnp.where(inside, new, old), sure)

    slots, shadows = when(several, row, (slots, shadows))
    return replace(state, slots=slots, shadows=shadows)
