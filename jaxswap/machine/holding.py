"""Frames for the folio of a fault: taken before it is charged, given back if the charge is refused.

Source of the rules: mm/memory.c (alloc_anon_folio), mm/swap_state.c (__swap_cache_alloc), mm/huge_memory.c
(vma_alloc_anon_folio_pmd, vma_thp_gfp_mask), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.frames import buddy
from jaxswap.machine.compact import compact
from jaxswap.machine.frames import NOTHING, assign, of, with_buddy
from jaxswap.machine.rows import once, only
from jaxswap.machine.state import Flag, Lane, MachineState, Mask
from jaxswap.machine.work import IDLE, Work
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import repeat, surely, when


def begin(state: MachineState, order: Lane, small: Flag, on: Flag) -> tuple[MachineState, Flag]:
    """Take the frames of a fault that asks for 2^order pages if there are some: (state, whether the charge
    may be tried). small: a charge of order 0 is for a page, not for a page table."""
    f = of(state)
    needs = once(on & ((order > 0) | small))
    free_lists, base = buddy.alloc(f.buddy, order, needs)
    got = once(base >= 0)
    f = replace(
        f,
        buddy=free_lists,
        held=jnp.where(got, order, f.held),
        base=jnp.where(got, base, f.base),
        small=jnp.where(on, small, f.small),
        lacked=only(f.lacked, ~on),
    )
    return replace(state, frames=f), on & (got | ~needs)


def _hold(
    state: MachineState, order: Lane, tried: Mask, may_compact: Flag, on: Flag
) -> tuple[MachineState, Lane, Flag]:
    """Hold frames of `order`, or of the highest order of `tried` below it that can be had, and no others:
    (state, the order, whether there was not even one frame, which is the end of the machine)."""

    def turn(carry: tuple[MachineState, Lane, Flag, Flag]) -> tuple[MachineState, Lane, Flag, Flag]:
        state, order, on, none = carry
        here = surely(on)
        f = of(state)
        back = here & (f.held >= 0)
        free_lists = when(
            back, lambda b: buddy.free(b, f.base, jnp.maximum(f.held, 0), surely(back)), f.buddy
        )
        needs = once(here & ((order > 0) | f.small))
        free_lists, base = buddy.alloc(free_lists, order, needs)
        held = jnp.where(here, NOTHING, f.held)
        state = replace(state, frames=replace(f, buddy=free_lists, held=held))
        tries = once(needs & (base < 0) & (order > 0) & may_compact)
        state, base = when(tries, lambda c: compact(c[0], c[1], order, surely(tries)), (state, base))
        f = of(state)
        got, large = once((needs & (base >= 0), needs & (base < 0) & (order > 0)))
        bit = jnp.uint32(1) << order.astype(jnp.uint32)
        f = replace(
            f,
            held=jnp.where(got, order, f.held),
            base=jnp.where(got, base, f.base),
            lacked=f.lacked | only(bit, large),
        )
        lacks = needs & ~got & ~large
        lower = jnp.maximum(bits.highest(tried & (bit - jnp.uint32(1))), 0)
        state = replace(state, frames=f, oom=state.oom | lacks)
        return state, jnp.where(large, lower, order), large, none | lacks

    f = of(state)
    changes = on & (f.held != jnp.where((order > 0) | f.small, order, NOTHING))
    start = (state, order, changes, jnp.zeros_like(on))
    state, order, _, none = repeat(lambda carry: carry[2], turn, start)
    return state, order, none


def follow(state: MachineState, work: Work, on: Flag) -> tuple[MachineState, Work]:
    """Before a round of a charge: hold frames of the order that is charged now."""
    state, order, none = _hold(state, work.order, work.tried, work.gfp.reclaims, on)
    return state, replace(work, order=order, phase=jnp.where(none, IDLE, work.phase))


def settle(state: MachineState, page: Lane, run: Lane, on: Flag) -> MachineState:
    """What the fault holds is the frames of the folio around `page`; `run` - 1 small pages behind it take one
    each."""
    f = of(state)
    on = once(on & (f.held >= 0))
    order = jnp.maximum(f.held, 0)
    state = assign(state, page >> order << order, f.base, order, on & ~state.oom)
    state = replace(state, frames=replace(of(state), held=jnp.where(on, NOTHING, f.held)))

    def going(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < run)

    def more(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        here, zero = surely(going(carry)), jnp.zeros_like(i)
        free_lists, frame = buddy.alloc(of(state).buddy, zero, here)
        return assign(with_buddy(state, free_lists), page + i, frame, zero, here), i + 1

    return repeat(going, more, (state, jnp.ones_like(run)))[0]


def affordable(state: MachineState, more: Lane) -> Lane:
    """How many of `more` small pages there are frames for."""
    return jnp.minimum(more, of(state).buddy.free)
