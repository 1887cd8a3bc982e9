"""MADV_PAGEOUT and MADV_COLD of part of one block.

Source of the rules: mm/madvise.c (madvise_cold_or_pageout_pte_range), mm/vmscan.c (reclaim_pages),
mm/swap.c (lru_deactivate), mm/huge_memory.c (lru_add_split_folio), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import blocks, lru
from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.machine.swapout import shrink, split_pages
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import load1, repeat


def page_out(state: MachineState, block: Lane, start: Lane, end: Lane, on: Flag) -> MachineState:
    """MADV_PAGEOUT: present folios go, in ascending order, whatever their references."""
    state, planes, pages = _whole_folios(state, block, start, end, on)
    state = blocks.put(state, block, planes, on)
    state = shrink(state, block, _heads(planes, pages))
    zero = jnp.zeros_like(block)
    # reclaim_pages settles neither costs nor ages: that is shrink_inactive_list's.
    return replace(state, age_at_end=zero, cost_at_end=zero, reclaimed=zero)


def cold(state: MachineState, block: Lane, start: Lane, end: Lane, on: Flag) -> MachineState:
    """MADV_COLD: present folios lose their references; active ones move to the head of the inactive list."""
    state, planes, pages = _whole_folios(state, block, start, end, on)
    planes = planes.clear(pages, "young", "referenced")
    active = pages & planes.active

    def deactivate(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        page = bits.first(left)
        more = bits.some(left)
        size = jnp.int32(1) << planes.order(page)
        state = lru.remove(state, block * 512 + page, more, size, more)
        state = lru.add(state, block * 512 + page, ~more, size, more)
        return replace(state, n=count(state.n, "pgdeactivate", size, more)), left & ~bits.one(page)

    heads = _heads(planes, active)
    state, _ = repeat(lambda carry: bits.some(carry[1]), deactivate, (state, heads))
    planes = planes.set(active, "workingset").clear(active, "active")
    return blocks.put(state, block, planes, on)


def _heads(planes: Block, pages: Bits) -> Bits:
    """First pages of the folios that lie wholly in `pages`."""
    heads = pages & planes.of_order(jnp.zeros(pages.shape[1:], jnp.int32))
    for order in range(2, 10):
        same = planes.of_order(jnp.full(pages.shape[1:], order, jnp.int32))
        heads = heads | (pages & same & bits.ALIGNED[order])
    return heads


def _whole_folios(
    state: MachineState, block: Lane, start: Lane, end: Lane, on: Flag
) -> tuple[MachineState, Block, Bits]:
    """Split every folio of the range that does not lie wholly in it or has lost pages.

    Returns (state, the block's planes, not yet written back, and the present pages of the range).
    """
    planes = blocks.get(state, block)
    span = jnp.where(on[None], bits.span(start, end), 0)

    def across(page: Lane, border: Lane) -> Bits:
        """Pages of the folio of `page` if it reaches over the border."""
        order = planes.order(page)
        base = page >> order << order
        folio = planes.folio(page, order)
        over = bits.has(planes.present, page) & (base < border) & (base + (1 << order) > border)
        return jnp.where(over[None], folio, 0)

    broken = planes.present & span & (planes.partial | across(start, start) | across(end - 1, end))

    def split(carry: tuple[MachineState, Block, Bits]) -> tuple[MachineState, Block, Bits]:
        state, planes, left = carry
        page, active_lane = bits.first(left), bits.some(left)
        order = planes.order(page)
        folio = jnp.where(active_lane[None], planes.folio(page, order), 0)
        name = block * 512 + bits.first(folio)
        active = bits.has(planes.active, page)
        before = load1(state.prev, name)
        state = lru.remove(state, name, active, jnp.int32(1) << order, active_lane)
        state, planes, pieces = split_pages(state, planes, folio, order, active_lane)

        def link(inner: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
            # The first piece ends up nearest to the tail.
            state, pieces = inner
            page, more = bits.first(pieces), bits.some(pieces)
            state = lru.insert(state, before, block * 512 + page, active, jnp.ones_like(page), more)
            return state, pieces & ~bits.one(page)

        state, _ = repeat(lambda inner: bits.some(inner[1]), link, (state, pieces))
        return state, planes, left & ~folio

    state, planes, _ = repeat(lambda carry: bits.some(carry[2]), split, (state, planes, broken))
    return state, planes, planes.present & span
