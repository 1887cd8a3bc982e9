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
from jaxswap.machine.swapout import split_folio
from jaxswap.machine.work import Leaving, Pieces
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import load1, repeat, surely, when


def prepare(state: MachineState, start: Lane, end: Lane, on: Flag, out: Flag) -> MachineState:
    """Advice begins: new folios are on the lists; with generations those that are to go are unreferenced."""
    state = generations.lru_add_drain(state, on)
    if state.generations is None:
        return state

    def unreference(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = rows.inside(at, start, end) & row[Plane.PRESENT]
        return rows.put(state, at, row.clear((pages, (Plane.REFERENCED,))), on)

    return rows.each(start, end, unreference, state, out)


def over(state: MachineState, on: Flag) -> MachineState:
    """MADV_PAGEOUT is over: costs and ages are shrink_inactive_list's only."""
    keep = jnp.where(on, 0, 1)
    return replace(
        state,
        age_at_end=state.age_at_end * keep,
        cost_at_end=state.cost_at_end * keep,
        reclaimed=state.reclaimed * keep,
    )


def across(state: MachineState, leaving: Leaving, on: Flag) -> tuple[MachineState, Leaving]:
    """The next folio to be split for advice: one with pages in [at, stop) that does not lie wholly in it, or
    has lost pages."""
    start, end = leaving.at, leaving.stop

    def going(carry: tuple[MachineState, Lane, Lane]) -> Flag:
        _, at, cut = carry
        return on & (cut < 0) & (at < end)

    def look(carry: tuple[MachineState, Lane, Lane]) -> tuple[MachineState, Lane, Lane]:
        state, at, cut = carry
        sure = surely(going(carry))
        row, state = rows.get(state, at)
        inside = once(only(rows.inside(at, start, end), sure))

        def reaches_out(page: Lane) -> Mask:
            order = row.order(page)
            base = page >> order << order
            over = (base < start) | (base + (jnp.int32(1) << order) > end)
            return only(rows.bit(page) & inside & row[Plane.PRESENT], over & (page >> 5 == at >> 5))

        broken = row[Plane.PARTIAL] & row[Plane.PRESENT] & inside
        found = once(broken | reaches_out(start) | reaches_out(end - 1))
        some, base = found != 0, at & -32
        cut = jnp.where(some, base + bits.ctz(found), cut)
        return state, jnp.where(sure & ~some, base + 32, at), cut

    state, cutting, cut = repeat(going, look, (state, leaving.cutting, leaving.cut))
    return state, leaving._replace(cutting=cutting, cut=cut, listed=leaving.listed | (on & (cut >= 0)))


def split(state: MachineState, rules: Rules, leaving: Leaving, on: Flag) -> tuple[MachineState, Leaving]:
    """Split the folio of the page `cut`. Its pieces take its place on the list, the first nearest to the
    tail, then from the last down (6.12: ascending); or are to go, where it is on none.
    """
    page, listed = jnp.where(on, leaving.cut, 0), on & leaving.listed
    row, state = rows.get(tables.split(state, page, listed), page)
    order, active = once((row.order(page), lru.is_active(state, row.has(Plane.ACTIVE, page))))
    size = jnp.int32(1) << order
    folio, state = blocks.folio(state, page, order)
    block = page & -512
    name = once(block + jnp.minimum(bits.first(folio), 511))
    before, prev = load1(state.prev, name)
    state = lru.remove(replace(state, prev=prev), name, active, size, listed)
    state, pieces = split_folio(state, name, order, on)
    base = once(page >> order << order)

    def link(inner: tuple[MachineState, Bits]) -> tuple[MachineState, Bits]:
        state, left = inner
        first, more = bits.first(left), surely(bits.some(left))
        up = rules.ascending_pieces | (block + first == base)
        piece = jnp.where(up, first, bits.last(left))
        state = lru.insert(state, before, block + piece, active, jnp.ones_like(piece), more)
        return state, left & ~bits.one(piece)

    state, _ = repeat(lambda inner: bits.some(inner[1]), link, (state, bits.only(pieces, listed)))
    goes, old = on & ~listed, leaving.pieces
    at = base & 511
    return state, leaving._replace(
        pieces=Pieces(
            block=jnp.where(goes, page >> 9, old.block),
            left=jnp.where(goes[None], bits.span(at, at + size), old.left),
            count=jnp.where(goes, size, old.count),
            mapped=jnp.where(goes[None], pieces, old.mapped),
            fresh=goes | old.fresh,
        ),
        cut=jnp.where(on, -1, leaving.cut),
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
