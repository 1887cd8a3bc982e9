"""Where each swapped page is: its slot and its shadow (workingset history), sixteen pages at a time."""

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, UInt32

from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.swaptable.lanes import load, load1, repeat, store

_PAGES = 16
_WORDS = 2 * _PAGES


def _word(page: Lane) -> Lane:
    return page // _PAGES * _WORDS + page % _PAGES


def slot_of(state: MachineState, page: Lane) -> tuple[Lane, MachineState]:
    """Slot of a swapped page."""
    slot, places = load1(state.places, _word(page))
    return slot.astype(jnp.int32), replace(state, places=places)


def shadow_of(state: MachineState, page: Lane) -> tuple[UInt32[Array, " L"], MachineState]:
    """Shadow of a swapped page: nonresident age << 1 | workingset."""
    shadow, places = load1(state.places, _word(page) + _PAGES)
    return shadow, replace(state, places=places)


def write(
    state: MachineState, page: Lane, size: Lane, slot: Lane, shadow: UInt32[Array, " L"], on: Flag
) -> MachineState:
    """Give pages page .. page + size - 1 the slots slot, slot + 1, .. and one shadow."""

    def chunk(carry: tuple) -> tuple:
        places, at = carry
        active = on & (at < page + size)
        words, places = load(places, at // _PAGES * _WORDS, _WORDS)
        member = at // _PAGES * _PAGES + jnp.arange(_PAGES, dtype=jnp.int32)[:, None]
        inside = (member >= page) & (member < page + size)
        slots = jnp.where(inside, (slot + member - page).astype(jnp.uint32), words[:_PAGES])
        shadows = jnp.where(inside, shadow[None], words[_PAGES:])
        places = store(places, at // _PAGES * _WORDS, jnp.concatenate([slots, shadows]), active)
        return places, jnp.where(active, (at // _PAGES + 1) * _PAGES, at)

    places, _ = repeat(lambda carry: on & (carry[1] < page + size), chunk, (state.places, page))
    return replace(state, places=places)
