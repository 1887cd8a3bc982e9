"""Pages given back: MADV_DONTNEED and munmap.

Source of the rules: mm/memory.c (zap_pte_range), mm/swapfile.c (swap_put_entries_direct,
swap_put_entries_cluster), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import blocks, lru, places
from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, Lane, MachineState, Plane
from jaxswap.machine.usefulness import leave
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import repeat


def dont_need(state: MachineState, block: Lane, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Pages start .. end - 1 of a block become none: folios lose them, slots are freed run by run."""
    planes, state = blocks.get(state, block)
    pages = bits.only(bits.span(start, end), on)
    state = leave(state, planes, pages & planes[Plane.PRESENT], on)
    state, partial = _unmap(state, block, planes, pages)
    state = _free_slots(state, block, planes, pages)
    state = _drop_cached(state, block, planes, pages & planes[Plane.INCACHE])
    after = planes.set(partial, Plane.PARTIAL).clear(bits.up(pages), Plane.NEXT).clear(pages, *Plane)
    return blocks.put(state, block, planes, after, on)


def _unmap(state: MachineState, block: Lane, planes: Block, pages: Bits) -> tuple[MachineState, Bits]:
    """Take pages from their folios and free empty ones: (state, pages left in folios that lost some)."""

    def folio(carry: tuple[MachineState, Bits, Bits]) -> tuple[MachineState, Bits, Bits]:
        state, left, partial = carry
        on = bits.some(left)
        page = jnp.minimum(bits.first(left), 511)
        order, active = planes.order(page), planes.has(Plane.ACTIVE, page)
        members = bits.only(planes.folio(page, order), on)
        name, rest = bits.first(members), members & ~pages
        size = jnp.int32(1) << order
        gone = on & ~bits.some(rest)
        renamed = on & ~gone & (bits.first(rest) != name)
        base = block * 512
        state = lru.remove(state, base + name, active, size, gone)
        state = lru.rename(state, base + name, base + bits.first(rest), renamed)
        state = replace(state, used=state.used - jnp.where(gone, size, 0))
        return state, left & ~members, partial | rest

    start = (state, pages & planes[Plane.PRESENT], jnp.zeros_like(pages))
    state, _, partial = repeat(lambda carry: bits.some(carry[1]), folio, start)
    return state, partial


def _free_slots(state: MachineState, block: Lane, planes: Block, pages: Bits) -> MachineState:
    """swap_put_entries_direct for each run of consecutive slots, cut at cluster borders."""

    def run(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        on = bits.some(left)
        page = bits.first(left)
        slot, state = places.slot_of(state, block * 512 + page)
        end = bits.from_on(~(left & planes[Plane.NEXT]), jnp.minimum(page + 1, 512))
        size = jnp.minimum(end - page, clusters.CLUSTER - slot % clusters.CLUSTER)
        state = replace(state, clusters=clusters.put(state.clusters, slot, size, on))
        return state, left & ~bits.below(page + size)

    return repeat(lambda carry: bits.some(carry[1]), run, (state, pages & planes[Plane.SWAPPED]))[0]


def _drop_cached(state: MachineState, block: Lane, planes: Block, pages: Bits) -> MachineState:
    """Free the folios that MADV_WILLNEED left in the swap cache for these pages."""

    def drop(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = carry
        on, page = bits.some(left), jnp.minimum(bits.first(left), 511)
        active = planes.has(Plane.ACTIVE, page)
        state = lru.remove(state, block * 512 + page, active, jnp.ones_like(page), on)
        n = count(state.n, on, useless_swapin=1)
        return replace(state, used=state.used - on, n=n), left & ~bits.one(page)

    return repeat(lambda carry: bits.some(carry[1]), drop, (state, pages))[0]
