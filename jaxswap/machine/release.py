"""Pages given back: MADV_DONTNEED and munmap.

Source of the rules: mm/memory.c (zap_pte_range), mm/swapfile.c (swap_put_entries_direct,
swap_put_entries_cluster), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import blocks, lru, places
from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.machine.usefulness import leave
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import repeat


def dont_need(state: MachineState, block: Lane, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Pages start .. end - 1 of a block become none: folios lose them, slots are freed run by run."""
    planes = blocks.get(state, block)
    pages = jnp.where(on[None], bits.span(start, end), 0)
    state = leave(state, planes, pages & planes.present, on)
    state, planes = _unmap(state, block, planes, pages)
    state = _free_slots(state, block, planes, pages)
    state = _drop_cached(state, block, planes, pages & planes.incache)
    planes = replace(planes, next=planes.next & ~bits.up(pages))
    return blocks.put(state, block, planes.clear(pages, *blocks.FIELDS), on)


def _unmap(state: MachineState, block: Lane, planes: Block, pages: Bits) -> tuple[MachineState, Block]:
    """Take pages from their folios; a folio without pages is freed, with some left it is partially mapped."""

    def folio(carry: tuple[MachineState, Bits, Bits]) -> tuple[MachineState, Bits, Bits]:
        state, left, partial = carry
        on = bits.some(left)
        page = bits.first(left)
        order = planes.order(page)
        members = jnp.where(on[None], planes.folio(page, order), 0)
        name, rest = bits.first(members), members & ~pages
        size, active = jnp.int32(1) << order, bits.has(planes.active, page)
        gone = on & ~bits.some(rest)
        renamed = on & ~gone & (bits.first(rest) != name)
        base = block * 512
        state = lru.remove(state, base + name, active, size, gone)
        state = lru.rename(state, base + name, base + bits.first(rest), renamed)
        state = replace(state, used=state.used - jnp.where(gone, size, 0))
        return state, left & ~members, partial | rest

    start = (state, pages & planes.present, planes.partial)
    state, _, partial = repeat(lambda carry: bits.some(carry[1]), folio, start)
    return state, replace(planes, partial=partial)


def _free_slots(state: MachineState, block: Lane, planes: Block, pages: Bits) -> MachineState:
    """swap_put_entries_direct for each run of consecutive slots, cut at cluster borders."""

    def run(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        on = bits.some(left)
        page = bits.first(left)
        slot = places.slot_of(state, block * 512 + page)
        end = bits.first(~(left & planes.next) & ~bits.below(page + 1))
        size = jnp.minimum(end - page, clusters.CLUSTER - slot % clusters.CLUSTER)
        state = replace(state, clusters=clusters.put(state.clusters, slot, size, on))
        return state, left & ~bits.below(page + size)

    return repeat(lambda carry: bits.some(carry[1]), run, (state, pages & planes.swapped))[0]


def _drop_cached(state: MachineState, block: Lane, planes: Block, pages: Bits) -> MachineState:
    """Free the folios that MADV_WILLNEED left in the swap cache for these pages."""

    def drop(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        on, page = bits.some(left), bits.first(left)
        one = jnp.ones_like(page)
        state = lru.remove(state, block * 512 + page, bits.has(planes.active, page), one, on)
        n = count(state.n, "useless_swapin", one, on)
        return replace(state, used=state.used - on, n=n), left & ~bits.one(page)

    return repeat(lambda carry: bits.some(carry[1]), drop, (state, pages))[0]


