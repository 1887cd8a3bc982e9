"""Folios that are to go: slots, split on failure, unmapping, shadows.

Source of the rules: mm/vmscan.c (shrink_folio_list, __remove_mapping), mm/page_io.c (swap_writeout),
mm/huge_memory.c (split of a folio), mm/workingset.c (workingset_eviction), 7.3, synchronous device.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import blocks, lru, places
from jaxswap.machine.blocks import ORDER, Block
from jaxswap.machine.counters import count, count_order
from jaxswap.machine.state import Flag, Lane, MachineState, Plane
from jaxswap.machine.usefulness import leave
from jaxswap.machine.work import Work
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import when

SWAP_CLUSTER_MAX = 32
FOLIO_FLAGS = (Plane.REFERENCED, Plane.ACTIVE, Plane.WORKINGSET, Plane.PARTIAL)
ARRIVAL = (Plane.YOUNG, Plane.TOUCHED, Plane.CAMEBACK, Plane.LARGE)


def split_pages(
    state: MachineState, planes: Block, folio: Bits, order: Lane, on: Flag
) -> tuple[MachineState, Block, Bits]:
    """Split a folio to order 0: (state, its block, the pieces).

    Sub-pages whose content is all zero become the shared zero page and vanish; pages it had lost are freed.
    """
    folio = bits.only(folio, on)
    nonzero = planes[Plane.NONZERO]
    zeros, pieces = folio & ~nonzero, folio & nonzero
    state = leave(state, planes, zeros, on)
    planes = planes.clear(zeros, Plane.PRESENT, *FOLIO_FLAGS, *ARRIVAL).set(zeros, Plane.ZEROPAGE)
    planes = planes.clear(folio, Plane.PARTIAL, *ORDER)
    used = state.used + jnp.where(on, bits.size(pieces) - (1 << order), 0)
    return replace(state, used=used, n=count_order(state.n, "split", order, on)), planes, pieces


def shrink_folio(state: MachineState, work: Work) -> tuple[MachineState, Work]:
    """shrink_folio_list for the next folio of the work, unreferenced, in the lanes that have one.

    Heads go in ascending order. A large folio that finds no slots, or has lost pages, is split; its pieces
    follow at once: the first, then from the last down. A small folio that finds no slot is activated.
    """
    block = work.block
    piece = bits.some(work.pieces)
    on = piece | bits.some(work.heads)
    before, state = blocks.get(state, block)
    planes = before
    nearest = jnp.where(work.fresh, bits.first(work.pieces), bits.last(work.pieces))
    page = jnp.clip(jnp.where(piece, nearest, bits.first(work.heads)), 0, 511)
    chosen = bits.one(page)
    cached = on & ~piece & ~planes.has(Plane.PRESENT, page)
    partial = on & ~piece & planes.has(Plane.PARTIAL, page)
    active = planes.has(Plane.ACTIVE, page)
    order = jnp.where(piece | cached, 0, planes.order(page))
    size = jnp.int32(1) << order
    folio = jnp.where((piece | cached)[None], chosen, planes.folio(page, order))
    folio = bits.only(folio, on)
    v = block * 512 + page
    state = lru.remove(state, v, active, size, on & ~piece)
    workingset = planes.has(Plane.WORKINGSET, page) | active

    whole = on & ~cached & ~partial
    allocated, slot = clusters.alloc(state.clusters, order, whole)
    state = replace(state, clusters=allocated)
    out = whole & (slot >= 0)
    split = on & ~cached & ~out & (order > 0)
    stay = whole & ~out & (order == 0)

    state, planes = _swap_out(state, planes, folio, v, page, order, slot, out)
    kept, state = places.slot_of(state, v)
    state = _drop_cached(state, kept, cached)
    gone = out | cached
    shadow = (state.age.astype(jnp.uint32) << 1) | workingset.astype(jnp.uint32)
    state = places.write(state, v, size, jnp.where(cached, kept, slot), shadow, gone)
    lost = jnp.where(gone, size, 0)
    state = replace(state, age=state.age + lost, used=state.used - lost, reclaimed=state.reclaimed + lost)
    state = blocks.put(state, block, before, planes.clear(folio, Plane.REFERENCED), on)

    # Flags that few folios carry.
    def settle(state: MachineState) -> MachineState:
        before, state = blocks.get(state, block)
        planes = before.clear(folio, Plane.ACTIVE, Plane.WORKINGSET)
        planes = planes.clear(bits.only(folio, gone), Plane.PARTIAL, Plane.LARGE, Plane.INCACHE, *ORDER)
        planes = planes.set(bits.only(folio, ~gone & workingset), Plane.WORKINGSET)
        return blocks.put(state, block, before, planes.set(bits.only(chosen, stay), Plane.ACTIVE), on)

    few = ~out | (order > 0) | workingset | before.has(Plane.LARGE, page)
    state = when(on & few, settle, state)

    def divide(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        before, state = blocks.get(carry[0], block)
        state = replace(state, n=count_order(state.n, "swpout_fallback", order, split & ~partial))
        state, planes, parts = split_pages(state, before, folio, order, split)
        return blocks.put(state, block, before, planes, split), parts

    state, parts = when(split, divide, (state, jnp.zeros_like(folio)))

    def activate(state: MachineState) -> MachineState:
        state = lru.add(state, v, stay, size, stay)
        return replace(
            state,
            n=count(state.n, stay, pgactivate=size),
            age_at_end=state.age_at_end + jnp.where(stay, size, 0),
        )

    state = when(stay, activate, state)
    heads = jnp.where(piece[None], work.heads, work.heads & ~chosen)
    pieces = jnp.where(split[None], parts, work.pieces & ~chosen)
    return state, replace(work, heads=heads, pieces=pieces, fresh=split)


def _swap_out(
    state: MachineState, planes: Block, folio: Bits, v: Lane, page: Lane, order: Lane, slot: Lane, on: Flag
) -> tuple[MachineState, Block]:
    """Unmap a folio that has slots from `slot` on, and write it out (swap_writeout)."""
    pages = bits.only(folio, on)
    size = jnp.int32(1) << order
    end = page + size
    state = leave(state, planes, pages, on)
    low, state = places.slot_of(state, jnp.maximum(v - 1, 0))
    high, state = places.slot_of(state, v + size)
    swapped = planes[Plane.SWAPPED]
    before = on & bits.has(swapped, page - 1) & (low + 1 == slot)
    behind = on & bits.has(swapped, end) & (high == slot + size)
    chain = pages & ~bits.one(page)
    chain = chain | bits.only(bits.one(page), before) | bits.only(bits.one(end), behind)
    zero = on & ~bits.some(pages & planes[Plane.NONZERO])
    written = on & ~zero

    def flag(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.ZERO, slot, size, zero, zero)

    n = count(
        state.n,
        on,
        pswpout=jnp.where(zero, 0, size),
        swpout_zero=jnp.where(zero, size, 0),
    )
    state = replace(
        state,
        n=count_order(n, "swpout", order, written),
        clusters=when(zero, flag, state.clusters),
        cost_at_end=state.cost_at_end + jnp.where(written, SWAP_CLUSTER_MAX * size, 0),
    )
    planes = planes.clear(pages, Plane.PRESENT, Plane.NEXT, Plane.YOUNG, Plane.TOUCHED, Plane.CAMEBACK)
    return state, planes.set(pages, Plane.SWAPPED).set(chain, Plane.NEXT)


def _drop_cached(state: MachineState, slot: Lane, on: Flag) -> MachineState:
    """Take a clean, unmapped folio out of the swap cache; its slot keeps its count."""

    def drop(state: MachineState) -> MachineState:
        return replace(
            state,
            clusters=clusters.set_plane(state.clusters, clusters.CACHED, slot, jnp.ones_like(slot), ~on, on),
            n=count(state.n, on, useless_swapin=1),
        )

    return when(on, drop, state)
