"""MADV_PAGEOUT and MADV_COLD of part of one block.

Source of the rules: mm/madvise.c (madvise_cold_or_pageout_pte_range), mm/vmscan.c (reclaim_pages),
mm/swap.c (lru_deactivate), mm/huge_memory.c (lru_add_split_folio), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import blocks, lru
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, Lane, MachineState, Plane
from jaxswap.machine.swapout import split_pages
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import load1, repeat


def advise(
    state: MachineState, block: Lane, start: Lane, end: Lane, cold: Flag, on: Flag
) -> tuple[MachineState, Bits]:
    """MADV_COLD where `cold`, else MADV_PAGEOUT: (state, folios to page out, by lowest page).

    PAGEOUT takes present folios in ascending order, whatever their references. COLD clears those and moves
    active folios to the head of the inactive list.
    """
    state = _split_across(state, block, start, end, on)
    planes, state = blocks.get(state, block)
    pages = bits.only(bits.span(start, end), on) & planes[Plane.PRESENT]
    cooled = bits.only(pages, cold)
    active = cooled & planes[Plane.ACTIVE]
    heads = bits.once(planes.heads(pages))

    def deactivate(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        page, more = jnp.minimum(bits.first(left), 511), bits.some(left)
        size = jnp.int32(1) << planes.order(page)
        state = lru.remove(state, block * 512 + page, more, size, more)
        state = lru.add(state, block * 512 + page, ~more, size, more)
        return replace(state, n=count(state.n, more, pgdeactivate=size)), left & ~bits.one(page)

    state, _ = repeat(lambda carry: bits.some(carry[1]), deactivate, (state, heads & active))
    after = planes.clear(cooled, Plane.YOUNG, Plane.REFERENCED)
    after = after.set(active, Plane.WORKINGSET).clear(active, Plane.ACTIVE)
    return blocks.put(state, block, planes, after, on & cold), bits.only(heads, ~cold)


def _split_across(state: MachineState, block: Lane, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Split every folio with pages in the range that does not lie wholly in it, or has lost pages."""
    planes, state = blocks.get(state, block)
    span = bits.only(bits.span(start, end), on)

    def across(page: Lane, border: Lane) -> Bits:
        """Pages of the folio of `page` if it reaches over the border."""
        order = planes.order(page)
        base = page >> order << order
        over = planes.has(Plane.PRESENT, page) & (base < border) & (base + (1 << order) > border)
        return bits.only(planes.folio(page, order), over)

    broken = planes[Plane.PARTIAL] | across(start, start) | across(end - 1, end)
    broken = broken & planes[Plane.PRESENT] & span

    def split(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        page, on = jnp.minimum(bits.first(left), 511), bits.some(left)
        planes, state = blocks.get(state, block)
        order, active = planes.order(page), planes.has(Plane.ACTIVE, page)
        folio = bits.only(planes.folio(page, order), on)
        name = block * 512 + jnp.minimum(bits.first(folio), 511)
        before, prev = load1(state.prev, name)
        state = lru.remove(replace(state, prev=prev), name, active, jnp.int32(1) << order, on)
        state, after, pieces = split_pages(state, planes, folio, order, on)
        state = blocks.put(state, block, planes, after, on)

        def link(inner: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
            # The first piece ends up nearest to the tail.
            state, pieces = inner
            page, more = bits.first(pieces), bits.some(pieces)
            state = lru.insert(state, before, block * 512 + page, active, jnp.ones_like(page), more)
            return state, pieces & ~bits.one(page)

        state, _ = repeat(lambda inner: bits.some(inner[1]), link, (state, pieces))
        return state, left & ~folio

    return repeat(lambda carry: bits.some(carry[1]), split, (state, broken))[0]
