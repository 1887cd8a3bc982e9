"""Folios that are to go: slots, split on failure, unmapping, shadows.

Source of the rules: mm/vmscan.c (shrink_folio_list, __remove_mapping), mm/page_io.c (swap_writeout),
mm/huge_memory.c (split of a folio), mm/workingset.c (workingset_eviction), 7.3, synchronous device.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp

from jaxswap.machine import blocks, lru, places, words
from jaxswap.machine.blocks import ORDER, Block
from jaxswap.machine.counters import count, count_order
from jaxswap.machine.state import QUIET, READY, Flag, Lane, MachineState, Plane
from jaxswap.machine.usefulness import leave
from jaxswap.machine.work import Work
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import when

SWAP_CLUSTER_MAX = 32
FOLIO_FLAGS = (Plane.REFERENCED, Plane.ACTIVE, Plane.WORKINGSET, Plane.PARTIAL)
ARRIVAL = (Plane.YOUNG, Plane.TOUCHED, Plane.CAMEBACK, Plane.LARGE)


_FLAGS = (Plane.PRESENT, Plane.PARTIAL, Plane.ACTIVE, Plane.WORKINGSET, Plane.LARGE, *ORDER)
_UNMAPPED = (
    Plane.PRESENT,
    Plane.SWAPPED,
    Plane.NEXT,
    Plane.NONZERO,
    Plane.YOUNG,
    Plane.TOUCHED,
    Plane.CAMEBACK,
    Plane.LARGE,
    Plane.REFERENCED,
    QUIET,
    QUIET + 1,
    READY,
    READY + 1,
)


class _Judged(NamedTuple):
    """What the pages of a folio were good for (as usefulness.leave), and whether one is not all zero."""

    useless_swapin: Lane
    useless_touch: Lane
    needed_pages: Lane
    covered_pages: Lane
    nonzero: Flag


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
    nearest = jnp.where(work.fresh, bits.first(work.pieces), bits.last(work.pieces))
    page = jnp.clip(jnp.where(piece, nearest, bits.first(work.heads)), 0, 511)
    chosen = bits.one(page)
    v = block * 512 + page
    flags, state = words.get(state, v, _FLAGS)
    present, broken, active, workingset, large, *orders = (words.has(word, v) for word in flags)
    cached = on & ~piece & ~present
    partial = on & ~piece & broken
    single = piece | cached
    order = jnp.where(single, 0, sum(bit.astype(jnp.int32) << i for i, bit in enumerate(orders)))
    size = jnp.int32(1) << order
    state = lru.remove(state, v, active, size, on & ~piece)
    workingset = workingset | active

    whole = on & ~cached & ~partial
    allocated, slot = clusters.alloc(state.clusters, order, whole)
    state = replace(state, clusters=allocated)
    out = whole & (slot >= 0)
    split = on & ~cached & ~out & (order > 0)
    stay = whole & ~out & (order == 0)

    state = _swap_out(state, v, page, order, slot, out)
    kept, state = places.slot_of(state, v)
    state = _drop_cached(state, kept, cached)
    gone = out | cached
    shadow = (state.age.astype(jnp.uint32) << 1) | workingset.astype(jnp.uint32)
    state = places.write(state, v, size, jnp.where(cached, kept, slot), shadow, gone)
    lost = jnp.where(gone, size, 0)
    state = replace(state, age=state.age + lost, used=state.used - lost, reclaimed=state.reclaimed + lost)

    # Flags that few folios carry.
    def settle(state: MachineState) -> MachineState:
        before, state = blocks.get(state, block)
        folio = bits.only(jnp.where(single[None], chosen, before.folio(page, order)), on)
        planes = before.clear(folio, Plane.REFERENCED, Plane.ACTIVE, Plane.WORKINGSET)
        planes = planes.clear(bits.only(folio, cached), Plane.INCACHE)
        planes = planes.set(bits.only(folio, ~cached & workingset), Plane.WORKINGSET)
        planes = planes.set(bits.only(chosen, stay), Plane.ACTIVE)
        return blocks.put(state, block, before, planes, on & ~out)

    def clear(state: MachineState, at: Lane, on: Flag) -> MachineState:
        planes = (Plane.ACTIVE, Plane.WORKINGSET, Plane.LARGE, *ORDER)
        found, state = words.get(state, at, planes)
        pages = words.mask(at, order)
        return words.put(state, at, {p: word & ~pages for p, word in zip(planes, found, strict=True)}, on)

    state = words.each(v, order, clear, state, out & ((order > 0) | workingset | large))
    state = when(on & ~out, settle, state)

    def divide(carry: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        before, state = blocks.get(carry[0], block)
        state = replace(state, n=count_order(state.n, "swpout_fallback", order, split & ~partial))
        state, planes, parts = split_pages(state, before, before.folio(page, order), order, split)
        return blocks.put(state, block, before, planes, split), parts

    state, parts = when(split, divide, (state, jnp.zeros_like(chosen)))

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


def _swap_out(state: MachineState, v: Lane, page: Lane, order: Lane, slot: Lane, on: Flag) -> MachineState:
    """Unmap a whole folio that has slots from `slot` on, and write it out (swap_writeout)."""
    size = jnp.int32(1) << order
    low, state = places.slot_of(state, jnp.maximum(v - 1, 0))
    high, state = places.slot_of(state, v + size)
    (below,), state = words.get(state, jnp.maximum(v - 1, 0), (Plane.SWAPPED,))
    (above,), state = words.get(state, v + size, (Plane.SWAPPED,))
    before = on & (page > 0) & words.has(below, v - 1) & (low + 1 == slot)
    behind = on & (page + size < 512) & words.has(above, v + size) & (high == slot + size)

    def unmap(carry: tuple[MachineState, _Judged], at: Lane, on: Flag) -> tuple[MachineState, _Judged]:
        state, judged = carry
        pages = jnp.where(on, words.mask(at, order), jnp.uint32(0))
        (present, swapped, chain, nonzero, young, touched, back, large, *others), state = words.get(
            state, at, _UNMAPPED
        )
        # Every page but the first follows the one before it.
        follows = pages & ~jnp.where((at == v) & ~before, words.bit(at), jnp.uint32(0))
        judged = _Judged(
            judged.useless_swapin + words.size(pages & back & ~touched),
            judged.useless_touch + words.size(pages & ~back & ~touched),
            judged.needed_pages + words.size(pages & back & touched),
            judged.covered_pages + words.size(pages & back & touched & large),
            judged.nonzero | (pages & nonzero != 0),
        )
        after = {
            Plane.PRESENT: present & ~pages,
            Plane.SWAPPED: swapped | pages,
            Plane.NEXT: chain | follows,
            Plane.YOUNG: young & ~pages,
            Plane.TOUCHED: touched & ~pages,
            Plane.CAMEBACK: back & ~pages,
        }
        after |= {plane: word & ~pages for plane, word in zip(_UNMAPPED[8:], others, strict=True)}
        return words.put(state, at, after, on), judged

    none = jnp.zeros_like(v)
    nothing = _Judged(none, none, none, none, jnp.zeros_like(on))
    state, judged = words.each(v, order, unmap, (state, nothing), on)
    zero, written = on & ~judged.nonzero, on & judged.nonzero

    def join(state: MachineState) -> MachineState:
        (chain,), state = words.get(state, v + size, (Plane.NEXT,))
        return words.put(state, v + size, {Plane.NEXT: chain | words.bit(v + size)}, behind)

    def flag(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.ZERO, slot, size, zero, zero)

    state = when(behind, join, state)
    n = count(state.n, on, pswpout=jnp.where(zero, 0, size), swpout_zero=jnp.where(zero, size, 0))
    n = count(
        n,
        on,
        useless_swapin=judged.useless_swapin,
        useless_touch=judged.useless_touch,
        needed_pages=judged.needed_pages,
        covered_pages=judged.covered_pages,
    )
    return replace(
        state,
        n=count_order(n, "swpout", order, written),
        clusters=when(zero, flag, state.clusters),
        cost_at_end=state.cost_at_end + jnp.where(written, SWAP_CLUSTER_MAX * size, 0),
    )


def _drop_cached(state: MachineState, slot: Lane, on: Flag) -> MachineState:
    """Take a clean, unmapped folio out of the swap cache; its slot keeps its count."""

    def drop(state: MachineState) -> MachineState:
        return replace(
            state,
            clusters=clusters.set_plane(state.clusters, clusters.CACHED, slot, jnp.ones_like(slot), ~on, on),
            n=count(state.n, on, useless_swapin=1),
        )

    return when(on, drop, state)
