"""Folios that are to go: slots, split on failure, unmapping, shadows.

Source of the rules: mm/vmscan.c (shrink_folio_list, __remove_mapping), mm/page_io.c (swap_writeout),
mm/huge_memory.c (split of a folio), mm/workingset.c (workingset_eviction), 7.3, synchronous device.
"""

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, UInt32

from jaxswap.machine import blocks, lru, places
from jaxswap.machine.blocks import Block
from jaxswap.machine.counters import count, count_order
from jaxswap.machine.state import Flag, Lane, MachineState
from jaxswap.machine.usefulness import leave
from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import repeat, when

SWAP_CLUSTER_MAX = 32
FOLIO_FLAGS = ("referenced", "active", "workingset", "partial")
ARRIVAL = ("young", "touched", "cameback", "large")


def split_pages(state: MachineState, planes: Block, folio: Bits, order: Lane, on: Flag) -> tuple[MachineState, Block, Bits]:
    """Split a folio to order 0: (state, its block, the pieces).

    Sub-pages whose content is all zero become the shared zero page and vanish; pages it had lost are freed.
    """
    folio = jnp.where(on[None], folio, 0)
    zeros, pieces = folio & ~planes.nonzero, folio & planes.nonzero
    state = leave(state, planes, zeros, on)
    planes = planes.clear(zeros, "present", "referenced", "active", "workingset", *ARRIVAL).set(zeros, "zeropage")
    planes = planes.clear(folio, "partial").with_order(folio, jnp.zeros_like(order))
    used = state.used + jnp.where(on, bits.size(pieces) - (1 << order), 0)
    return replace(state, used=used, n=count_order(state.n, "split", order, on)), planes, pieces


def shrink(state: MachineState, block: Lane, heads: Bits) -> MachineState:
    """shrink_folio_list for folios of one block, unreferenced: `heads` are their lowest pages, taken in ascending order.

    A large folio that finds no slots, or has lost pages, is split; its pieces follow at once: the first, then
    from the last down. A small folio that finds no slot is activated.
    """

    def act(carry: tuple[MachineState, Bits, Bits, Flag]) -> tuple[MachineState, Bits, Bits, Flag]:
        state, heads, pieces, fresh = carry
        piece = bits.some(pieces)
        on = piece | bits.some(heads)
        planes = blocks.get(state, block)
        nearest = jnp.where(fresh, bits.first(pieces), bits.last(pieces))
        page = jnp.where(piece, nearest, bits.first(heads))
        chosen = bits.one(page)
        cached = on & ~piece & ~bits.has(planes.present, page)
        partial = on & ~piece & bits.has(planes.partial, page)
        order = jnp.where(piece | cached, 0, planes.order(page))
        size = jnp.int32(1) << order
        folio = jnp.where((piece | cached)[None], chosen, planes.folio(page, order))
        folio = jnp.where(on[None], folio, 0)
        v = block * 512 + page
        active = bits.has(planes.active, page)
        state = lru.remove(state, v, active, size, on & ~piece)
        planes = replace(
            planes,
            workingset=planes.workingset | (planes.active & folio),
            active=planes.active & ~folio,
            referenced=planes.referenced & ~folio,
        )
        workingset = bits.has(planes.workingset, page)

        whole = on & ~cached & ~partial
        allocated, slot = clusters.alloc(state.clusters, order, whole)
        state = replace(state, clusters=allocated)
        out = whole & (slot >= 0)
        split = on & ~cached & ~out & (order > 0)
        stay = whole & ~out & (order == 0)

        state, planes = _swap_out(state, block, planes, folio, page, slot, out)
        state, planes = _drop_cached(state, planes, v, page, cached)
        gone = out | cached
        slot = jnp.where(cached, places.slot_of(state, v), slot)
        shadow = (state.age.astype(jnp.uint32) << 1) | workingset.astype(jnp.uint32)
        state = places.write(state, v, size, slot, shadow, gone)
        state = replace(
            state,
            age=state.age + jnp.where(gone, size, 0),
            used=state.used - jnp.where(gone, size, 0),
            reclaimed=state.reclaimed + jnp.where(gone, size, 0),
        )

        n = count_order(state.n, "swpout_fallback", order, split & ~partial)
        state = replace(state, n=n)
        parts = jnp.zeros_like(pieces)

        def divide(carry: tuple[MachineState, Block, Bits]) -> tuple[MachineState, Block, Bits]:
            return split_pages(carry[0], carry[1], folio, order, split)

        state, planes, parts = when(split, divide, (state, planes, parts))

        planes = planes.set(jnp.where(stay[None], chosen, 0), "active")
        state = blocks.put(state, block, planes, on)

        def activate(state: MachineState) -> MachineState:
            state = lru.add(state, v, stay, size, stay)
            return replace(
                state,
                n=count(state.n, "pgactivate", size, stay),
                age_at_end=state.age_at_end + jnp.where(stay, size, 0),
            )

        state = when(stay, activate, state)
        heads = jnp.where(piece[None], heads, heads & ~chosen)
        pieces = jnp.where(split[None], parts, pieces & ~chosen)
        return state, heads, pieces, split

    none = jnp.zeros_like(heads)
    start = (state, heads, none, jnp.zeros(heads.shape[1:], bool))
    return repeat(lambda carry: bits.some(carry[1] | carry[2]), act, start)[0]


def _swap_out(
    state: MachineState, block: Lane, planes: Block, folio: Bits, page: Lane, slot: Lane, on: Flag
) -> tuple[MachineState, Block]:
    """Unmap a folio that has slots from `slot` on, and write it out (swap_writeout)."""
    pages = jnp.where(on[None], folio, 0)
    size, order = bits.size(pages), planes.order(page)
    order = jnp.where(size > 1, order, 0)
    end = page + size
    v = block * 512 + page
    state = leave(state, planes, pages, on)
    before = on & bits.has(planes.swapped, page - 1) & (places.slot_of(state, jnp.maximum(v - 1, 0)) + 1 == slot)
    behind = on & bits.has(planes.swapped, end) & (places.slot_of(state, v + size) == slot + size)
    next = (planes.next & ~pages) | (pages & ~bits.one(page))
    next = next | jnp.where(before[None], bits.one(page), 0) | jnp.where(behind[None], bits.one(end), 0)
    zero = on & ~bits.some(pages & planes.nonzero)
    n = count(state.n, "swpout_zero", size, zero)
    n = count(n, "pswpout", size, on & ~zero)
    n = count_order(n, "swpout", order, on & ~zero)

    def flag(c: clusters.Clusters) -> clusters.Clusters:
        return clusters.set_plane(c, clusters.ZERO, slot, size, zero, zero)

    state = replace(
        state,
        n=n,
        clusters=when(zero, flag, state.clusters),
        cost_at_end=state.cost_at_end + jnp.where(on & ~zero, SWAP_CLUSTER_MAX * size, 0),
    )
    planes = replace(planes, next=next)
    planes = planes.clear(pages, "present", "o0", "o1", "o2", "o3", *FOLIO_FLAGS, *ARRIVAL).set(pages, "swapped")
    return state, planes


def _drop_cached(state: MachineState, planes: Block, v: Lane, page: Lane, on: Flag) -> tuple[MachineState, Block]:
    """Take a clean, unmapped folio out of the swap cache; its slot keeps its count."""
    pages = jnp.where(on[None], bits.one(page), 0)

    def drop(state: MachineState) -> MachineState:
        slot = places.slot_of(state, v)
        return replace(
            state,
            clusters=clusters.set_plane(state.clusters, clusters.CACHED, slot, jnp.ones_like(slot), ~on, on),
            n=count(state.n, "useless_swapin", jnp.ones_like(slot), on),
        )

    return when(on, drop, state), planes.clear(pages, "incache", *FOLIO_FLAGS)


def shadow_parts(shadow: UInt32[Array, " L"]) -> tuple[Lane, Flag]:
    """Nonresident age (31 bits) and workingset bit of a shadow."""
    return (shadow >> 1).astype(jnp.int32), (shadow & 1) == 1
