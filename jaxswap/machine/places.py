"""Where each swapped page is: its slot and its shadow (workingset history)."""

from dataclasses import replace

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.swaptable.lanes import load, load1, repeat, store, store1

_CHUNK = 16  # pages written together


def slot_of(state: MachineState, page: Lane) -> tuple[Lane, MachineState]:
    """Slot of a swapped page."""
    slot, slots = load1(state.slots, page)
    return slot, replace(state, slots=slots)


def shadow_of(state: MachineState, page: Lane) -> tuple[UInt32[Array, " L"], MachineState]:
    """Shadow of a swapped page: nonresident age << 1 | workingset."""
    shadow, shadows = load1(state.shadows, page)
    return shadow, replace(state, shadows=shadows)


def write(
    state: MachineState, page: Lane, size: Lane, slot: Lane, shadow: UInt32[Array, " L"], on: Flag
) -> MachineState:
    """Give pages page .. page + size - 1 the slots slot, slot + 1, .. and one shadow; size is a 2^order."""
    one = on & (size == 1)
    slots, shadows = store1(state.slots, page, slot, one), store1(state.shadows, page, shadow, one)
    end = jnp.where(on & (size > 1), page + size, page)
    # Computed once, not for every page of a chunk.
    first, end, shift, value = lax.optimization_barrier((page, end, slot - page, shadow))

    def chunk(carry: tuple) -> tuple:
        slots, shadows, at = carry
        active = at < end
        base = lax.optimization_barrier(at & -_CHUNK)
        member = base[None] + jnp.arange(_CHUNK, dtype=jnp.int32)[:, None]
        inside = (member >= first[None]) & (member < end[None])
        old, slots = load(slots, base, _CHUNK)
        slots = store(slots, base, jnp.where(inside, member + shift[None], old), active)
        old, shadows = load(shadows, base, _CHUNK)
        shadows = store(shadows, base, jnp.where(inside, value[None], old), active)
        return slots, shadows, jnp.where(active, base + _CHUNK, at)

    slots, shadows, _ = repeat(lambda carry: carry[2] < end, chunk, (slots, shadows, page))
    return replace(state, slots=slots, shadows=shadows)
