"""MADV_PAGEOUT and MADV_COLD of part of one block.

Source of the rules: mm/madvise.c (madvise_cold_or_pageout_pte_range), mm/vmscan.c (reclaim_pages),
mm/swap.c (lru_deactivate), mm/huge_memory.c (lru_add_split_folio), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import blocks, generations, lru, rows, tables, tlb
from jaxswap.machine.counters import count
from jaxswap.machine.rows import once, only
from jaxswap.machine.rules import Rules
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.swapout import next_of_range, shrink_folio, split_folio
from jaxswap.machine.work import Pieces, no_pieces
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import load1, repeat, surely, when


def isolate(state: MachineState, rules: Rules, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Split every folio with pages in [start, end) that does not lie wholly in it, or has lost pages."""

    def broken(state: MachineState, at: Lane, on: Flag) -> tuple[Mask, MachineState]:
        row, state = rows.get(state, at)
        inside = once(rows.inside(at, start, end))

        def across(page: Lane) -> Mask:
            order = row.order(page)
            base = page >> order << order
            over = row.has(Plane.PRESENT, page) & ((base < start) | (base + (jnp.int32(1) << order) > end))
            return only(rows.bit(page) & inside, over & (page >> 5 == at >> 5))

        found = (row[Plane.PARTIAL] & row[Plane.PRESENT] & inside) | across(start) | across(end - 1)
        return once(only(found, on)), state

    def whole(state: MachineState, at: Lane, on: Flag) -> MachineState:
        left, state = broken(state, at, on)

        def split(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
            state, left = carry
            page = once((at & -32) + jnp.minimum(bits.ctz(left), 31))
            left, state = broken(split_on_lru(state, rules, page, surely(left != 0)), at, on)
            return state, left

        return repeat(lambda carry: carry[1] != 0, split, (state, left))[0]

    return rows.each(start, end, whole, generations.lru_add_drain(state, on), on)


def split_on_lru(state: MachineState, rules: Rules, page: Lane, on: Flag) -> MachineState:
    """Split the folio of a page; its pieces take its place on the list, the first nearest to the tail, then
    from the last down (6.12: ascending).
    """
    row, state = rows.get(tables.split(state, page, on), page)
    order, active = once((row.order(page), lru.is_active(state, row.has(Plane.ACTIVE, page))))
    folio, state = blocks.folio(state, page, order)
    block = page & -512
    name = once(block + jnp.minimum(bits.first(folio), 511))
    before, prev = load1(state.prev, name)
    state = lru.remove(replace(state, prev=prev), name, active, jnp.int32(1) << order, on)
    state, pieces = split_folio(state, name, order, on)

    def link(inner: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, pieces = inner
        first, more = bits.first(pieces), surely(bits.some(pieces))
        up = rules.ascending_pieces | (block + first == page >> order << order)
        piece = jnp.where(up, first, bits.last(pieces))
        state = lru.insert(state, before, block + piece, active, jnp.ones_like(piece), more)
        return state, pieces & ~bits.one(piece)

    return repeat(lambda inner: bits.some(inner[1]), link, (state, pieces))[0]


def page_out(state: MachineState, params: MachineParams, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Write out the folios wholly in [start, end), unreferenced (reclaim_pages)."""

    def left(carry: tuple[MachineState, Pieces, Lane]) -> Flag:
        _, split, at = carry
        return (on & (at < end)) | (split.count > 0)

    def turn(carry: tuple[MachineState, Pieces, Lane]) -> tuple[MachineState, Pieces, Lane]:
        state, split, at = carry
        go, at, state = next_of_range(state, params.rules, split, at, end, on)
        state, split, pages = shrink_folio(state, params, split, go)
        return state, split, jnp.where(go.on & ~go.piece, go.page + pages, at)

    def unreference(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = rows.inside(at, start, end) & row[Plane.PRESENT]
        return rows.put(state, at, row.clear((pages, (Plane.REFERENCED,))), on)

    if state.generations is not None:
        state = rows.each(start, end, unreference, state, on)
    state, *_ = repeat(left, turn, (state, no_pieces(start), start))
    # Costs and ages are shrink_inactive_list's.
    keep = jnp.where(on, 0, 1)
    return replace(
        state,
        age_at_end=state.age_at_end * keep,
        cost_at_end=state.cost_at_end * keep,
        reclaimed=state.reclaimed * keep,
    )


def cool(state: MachineState, params: MachineParams, start: Lane, end: Lane, on: Flag) -> MachineState:
    """MADV_COLD of folios wholly in [start, end): references cleared, active ones to the head of the inactive
    list."""

    def clear(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = once(only(rows.inside(at, start, end) & row[Plane.PRESENT], on))
        # With generations every folio moves.
        active = pages if state.generations is not None else once(pages & row[Plane.ACTIVE])

        def deactivate(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
            state, left = carry
            page = once((at & -32) + jnp.minimum(bits.ctz(left), 31))
            order = row.order(page)
            size = once(jnp.int32(1) << order)
            more = (left != 0) & (page & (size - 1) == 0)
            if state.generations is None:
                state = lru.remove(state, page, more, size, more)
                state = lru.add(state, page, ~more, size, more)
            else:
                folio, state = generations.look(state, page)
                flags = folio.flags._replace(referenced=jnp.zeros_like(more))
                state = generations.add(state, folio._replace(flags=flags), jnp.zeros_like(more), more)
            state = replace(state, n=count(state.n, more, pgdeactivate=size))
            return state, left & ~rows.folio(page, order)

        state, _ = repeat(lambda carry: carry[1] != 0, deactivate, (state, active))
        if state.generations is not None:
            row, state = rows.get(state, at)
        else:
            row = row.clear((active, (Plane.ACTIVE,))).add((active, (Plane.WORKINGSET,)))
        row = row.clear((pages, (Plane.YOUNG, Plane.REFERENCED, Plane.QUIET, Plane.QUIET_WRITE)))
        return rows.put(state, at, row, on)

    if params.switch is not None:
        wanted = (Plane.PRESENT, Plane.O1, Plane.O2, Plane.O3)
        (present, two, four, eight), state = blocks.planes(state, start, wanted)
        wide = bits.span(start & 511, end - (start & -512)) & present & ((two & four) | eight)
        state = tlb.flush(state, params, on & bits.some(wide))
    return when(on, lambda s: rows.each(start, end, clear, s, surely(on)), state)
