"""Folios that are to go: slots, split on failure, unmapped in every process, shadows.

Source of the rules: mm/vmscan.c (shrink_folio_list, __remove_mapping), mm/page_io.c (swap_writeout),
mm/huge_memory.c (__folio_split, remap_page), mm/rmap.c (try_to_unmap_one), 6.18 to 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import cgroups, heuristic, lru, tables
from jaxswap.machine.counters import count, count_order
from jaxswap.machine.shared import devices, rmap, slots
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import (
    ACTIVE,
    BLOCK,
    CONTENT,
    DIRTY,
    EXCLUSIVE,
    LISTED,
    MARKED,
    MEMCG,
    NONZERO,
    PARTIAL,
    REFERENCED,
    SWAPPED,
    TOUCHED,
    USED,
    WORKINGSET,
    YOUNG,
    ZEROPAGE,
    each_mapping,
    flagged,
    fresh_folio,
    has,
    set_page,
    set_word,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask
from jaxswap.machine.swapout import SWAP_CLUSTER_MAX
from jaxswap.swaptable import clusters
from jaxswap.swaptable.lanes import load1, repeat, store1, surely


def shrink(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """shrink_folio_list for one folio, taken off its list before. One that lost pages, or that the heuristic
    does not leave whole, is split before slots are looked for."""
    folio, state = sharing.folio(state, regs.shrink)
    large = on & (folio.place < 0) & (folio.order > 0)
    parts = large & folio.has(PARTIAL)
    if heuristic.asked_at_swapout(params.heuristics):
        whole = large & ~parts
        state, stays = heuristic.leave_whole(
            state,
            params,
            folio.order,
            folio.base,
            folio.has(WORKINGSET),
            lambda state: _inside(state, regs.shrink, folio, whole),
            whole,
        )
        parts = parts | ~stays
    regs = assign(regs, on, out=regs.shrink, at=At.OUT, back_out=At.SHRUNK)
    return state, assign(regs, parts, split=regs.shrink, at=At.SPLIT, back_split=At.PIECE)


def _inside(
    state: MachineState, number: Lane, folio: sharing.Folio, on: Flag
) -> tuple[dict[str, Lane], MachineState]:
    """What the heuristic may know of the pages of a folio, by their entries in all processes."""
    zero = jnp.zeros_like(number)
    full = sharing.fill(sharing.of(state).pieces, zero + BLOCK, folio.size, zero, on)

    def look(
        state: MachineState, seen: tuple, v: Lane, i: Lane, word: Mask, on: Flag
    ) -> tuple[MachineState, tuple]:
        young, touched, nonzero, full = seen
        fresh, full = load1(full, BLOCK + i)
        adds = on & has(word, NONZERO)
        full = store1(full, BLOCK + i, zero + 1, adds)
        nonzero = nonzero + (adds & (fresh == 0))
        return state, (young + (on & has(word, YOUNG)), touched + (on & has(word, TOUCHED)), nonzero, full)

    state, (young, touched, nonzero, full) = each_mapping(
        state, number, folio, look, (zero, zero, zero, full), on
    )
    found = {"young": young, "touched": touched, "zeros": folio.size - nonzero}
    return found, sharing.put(state, pieces=full)


def shrunk(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Gone; or without slots: then split, or activated if it is small."""
    folio, state = sharing.folio(state, regs.shrink)
    regs = _after_worker(regs, regs.back_shrink, on)
    fails = on & ~regs.out_done
    large = fails & (folio.order > 0)
    state = replace(state, n=count_order(state.n, "swpout_fallback", folio.order, large))
    state = activate(state, regs.shrink, fails & ~large)
    return state, assign(regs, large, split=regs.shrink, at=At.SPLIT, back_split=At.PIECE)


def _after_worker(regs: Registers, at: Lane | int, on: Flag) -> Registers:
    """Go on at a place, once the worker has run that a full device called for."""
    due = regs.due != 0
    return assign(regs, on, at=jnp.where(due, At.RECLAIM_WORK, at), back_work=at, rounds=0)


def activate(state: MachineState, number: Lane, on: Flag) -> MachineState:
    """A folio goes to the head of the active list."""
    folio, state = sharing.folio(state, number)
    state = sharing.set_folio(state, number, folio._replace(flags=folio.flags | ACTIVE | LISTED), on)
    state = lru.add(state, number, on, folio.size, on)
    n = count(state.n, on, pgactivate=folio.size)
    return replace(state, n=n, age_at_end=state.age_at_end + jnp.where(on, folio.size, 0))


def split_on_lru(
    state: MachineState, regs: Registers, number: Lane, then: At, on: Flag
) -> tuple[MachineState, Registers]:
    """A folio is to be split, its pieces to take its place on its list; `then` comes next."""
    folio, state = sharing.folio(state, number)
    before, prev = load1(state.prev, number)
    state = cgroups.enter(state, folio.memcg, on)
    state = lru.remove(replace(state, prev=prev), number, folio.has(ACTIVE), folio.size, on)
    return state, assign(
        regs,
        on,
        split=number,
        before=before,
        active=folio.has(ACTIVE),
        at=At.SPLIT,
        back_split=At.CUT_LINK,
        back_cut=then,
    )


def split(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Order-0 folios of all pages, on no list. Pages of zeros that are mapped become the shared zero page.

    A piece that nobody maps and that is not in the swap cache is none: -1.
    """
    folio, state = sharing.folio(state, regs.split)
    zero = jnp.zeros_like(regs.split)

    def look(
        state: MachineState, table, v: Lane, i: Lane, word: Mask, on: Flag
    ) -> tuple[MachineState, object]:
        return state, store1(table, BLOCK + i, zero + 1, on & has(word, NONZERO))

    pieces = sharing.fill(sharing.of(state).pieces, zero + BLOCK, folio.size, zero, on)
    state = sharing.put(state, pieces=pieces)
    state, pieces = each_mapping(state, regs.split, folio, look, sharing.of(state).pieces, on)
    state = sharing.put(state, pieces=pieces)
    cached = folio.place >= 0
    kept = folio.flags & (DIRTY | ACTIVE | REFERENCED | WORKINGSET | -1 << MEMCG) | USED

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < folio.size)

    def make(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        active = surely(more(carry))
        mapped, pieces = load1(sharing.of(state).pieces, BLOCK + i)
        state = sharing.put(state, pieces=pieces)
        exists = active & ((mapped == 1) | cached)
        number, state = sharing.new_number(state, exists)
        new = fresh_folio(folio.base + i, zero, kept)
        new = new._replace(place=jnp.where(cached, folio.place + i, -1))
        state = sharing.set_folio(state, number, new, exists)
        pieces = store1(sharing.of(state).pieces, i, jnp.where(exists, number, -1), active)
        cache = store1(sharing.of(state).cache, folio.place + i, number, exists & cached)
        state = sharing.put(state, pieces=pieces, cache=cache)
        return replace(state, used=state.used + exists), i + 1

    state, _ = repeat(more, make, (state, zero))

    def remap(
        state: MachineState, nothing: Lane, v: Lane, i: Lane, word: Mask, on: Flag
    ) -> tuple[MachineState, Lane]:
        mapped, pieces = load1(sharing.of(state).pieces, BLOCK + i)
        number, pieces = load1(pieces, i)
        state = tables.split(sharing.put(state, pieces=pieces), v, on)
        stays, goes = on & (mapped == 1), on & (mapped == 0)
        state = rmap.leave(state, word, goes)
        state = set_word(state, v, jnp.full_like(word, ZEROPAGE), goes)
        state = set_page(state, v, word, number, stays)
        piece, state = sharing.folio(state, jnp.maximum(number, 0))
        piece = piece._replace(maps=piece.maps + 1)
        return sharing.set_folio(state, number, piece, stays), nothing

    state, _ = each_mapping(state, regs.split, folio, remap, zero, on)
    state = sharing.release_number(state, regs.split, on)
    state = replace(
        state,
        used=state.used - jnp.where(on, folio.size, 0),
        n=count_order(state.n, "split", folio.order, on),
    )
    return state, assign(regs, on, piece=0, pieces=folio.size, at=regs.back_split)


def piece(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next piece: the first, then from the last down (6.12: up). What is none takes a slot too."""
    some = on & (regs.piece < regs.pieces)
    ascending = params.rules.ascending_pieces | (regs.piece == 0)
    at = jnp.where(ascending, regs.piece, regs.pieces - regs.piece)
    number, pieces = load1(sharing.of(state).pieces, jnp.minimum(at, BLOCK - 1))
    state = sharing.put(state, pieces=pieces)
    nobodys = some & (number < 0)
    regs = assign(regs, on, at=regs.back_shrink, piece=regs.piece + 1)
    regs = assign(regs, nobodys, alloc_order=0, at=At.ALLOC, back_alloc=At.PIECE_PASSED)
    return state, assign(regs, some & ~nobodys, out=number, at=At.OUT, back_out=At.PIECE_OUT)


def piece_passed(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """A piece that only the reclaim holds gives its slot back unwritten."""
    found = on & (regs.slot >= 0)
    state = slots.give_back(state, regs.slot, jnp.ones_like(regs.slot), ~found, found)
    n = count(state.n, on & ~found, pgactivate=1)
    state = replace(state, n=n, age_at_end=state.age_at_end + (on & ~found))
    return state, _after_worker(regs, At.PIECE, on)


def piece_out(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """A piece went, or found no slot."""
    return activate(state, regs.out, on & ~regs.out_done), _after_worker(regs, At.PIECE, on)


def out(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """folio_alloc_swap, unless the folio is in the swap cache already."""
    folio, state = sharing.folio(state, regs.out)
    cached = on & (folio.place >= 0)
    state = replace(state, n=count(state.n, cached & ~folio.has(USED), useless_swapin=folio.size))
    # Counted here, not again when its memory is free.
    state = sharing.set_folio(state, regs.out, flagged(folio, USED, cached), cached)
    regs = assign(regs, on, alloc_order=folio.order, at=At.ALLOC, back_alloc=At.OUT_SLOTS)
    return state, assign(regs, cached, at=At.OUT_UNMAP)


def out_slots(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Into the swap cache over the slots found; without slots it is over."""
    folio, state = sharing.folio(state, regs.out)
    found = on & (regs.slot >= 0)
    folio = folio._replace(place=regs.slot, flags=folio.flags | DIRTY)
    state = sharing.set_folio(state, regs.out, folio, found)
    state = slots.insert(state, regs.out, regs.slot, folio.size, found)
    state = sharing.put(
        state, homes=sharing.count_up(sharing.of(state).homes, regs.slot, folio.size, folio.base, found)
    )
    regs = assign(regs, on, out_done=False, at=regs.back_out)
    return state, assign(regs, found, at=At.OUT_UNMAP)


def out_unmap(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """try_to_unmap: every entry becomes a swap entry. Folios of zeros are flagged, not written."""
    folio, state = sharing.folio(state, regs.out)

    def unmap(
        state: MachineState, nonzero: Flag, v: Lane, i: Lane, word: Mask, on: Flag
    ) -> tuple[MachineState, Flag]:
        state = tables.split(rmap.leave(state, word, on), v, on)
        slot = folio.place + i
        state = slots.add_count(state, slot, 1, on)
        kept = (word & jnp.uint32(EXCLUSIVE | NONZERO)) | jnp.uint32(SWAPPED)
        state = set_page(state, v, kept, slot, on)
        return state, nonzero | (on & has(word, NONZERO))

    state, nonzero = each_mapping(state, regs.out, folio, unmap, jnp.zeros_like(on), on)
    nonzero = jnp.where(folio.maps > 0, nonzero, folio.has(CONTENT))
    none = jnp.zeros_like(folio.maps)
    folio = folio._replace(maps=none, owner0=none - 1, owner1=none - 1, owned0=none, owned1=none)
    folio = flagged(flagged(folio, MARKED, jnp.zeros_like(on)), CONTENT, nonzero)
    state = sharing.set_folio(state, regs.out, folio, on)
    dirty = on & folio.has(DIRTY)
    regs = assign(regs, on, fixes=nonzero, out_done=True, dropped=False, at=At.OUT_WRITE)
    return state, assign(regs, dirty, drop=regs.out, at=At.DROP, back_drop=At.OUT_WRITE)


def _owned(state: MachineState, folio: sharing.Folio, by_root: Flag, on: Flag) -> MachineState:
    """The folio's cgroup pays for its slots; who evicted it is part of its shadow."""
    if (c := state.cgroups) is None:
        return state
    word = folio.memcg | jnp.where(by_root, cgroups.BY_ROOT, 0)
    table = sharing.fill(c.of_slot, folio.place, folio.size, word, on)
    return replace(state, cgroups=replace(c, of_slot=table))


def out_write(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_writeout, __remove_mapping: out of the swap cache, a shadow for every slot, the memory free.

    Nothing is left to do where nobody had the folio: then it is gone. While a device that is not synchronous
    writes, the folio stays in the swap cache and goes back to its list.
    """
    goes, nonzero = on & ~regs.dropped, regs.fixes
    folio, state = sharing.folio(state, jnp.maximum(regs.out, 0))
    size = folio.size
    written = goes & folio.has(DIRTY)
    stored = written & nonzero & devices.zswap(state)
    zero, real = written & ~nonzero, written & nonzero & ~stored
    waits = real & ~devices.synchronous(state, folio.place)
    once_stored = written & devices.zswap_ever(state)
    state = devices.store_in_zswap(state, folio.place, size, stored, once_stored)
    table = clusters.set_plane(state.clusters, clusters.ZERO, folio.place, size, ~nonzero, written)
    goes = goes & ~waits
    n = count(state.n, written, swpout_zero=jnp.where(zero, size, 0), pswpout=jnp.where(real, size, 0))
    n = count_order(n, "swpout", folio.order, real)
    # MADV_PAGEOUT reclaims for no cgroup, which is taken for the root.
    by_root = regs.back_shrink == At.PAGEOUT
    age, _ = cgroups.evictor(state, by_root)
    shadow = (age & 0x7FFF_FFFF) << 1 | folio.has(WORKINGSET)
    shadows = sharing.fill(state.shadows, folio.place, size, shadow.astype(jnp.uint32), goes)
    gone = jnp.where(goes, size, 0)
    state = _owned(cgroups.age_root(state, gone), folio, by_root, goes)
    aged = gone if state.cgroups is None else jnp.where(by_root, 0, gone)
    state = replace(
        state,
        n=n,
        clusters=table,
        shadows=shadows,
        cost_at_end=state.cost_at_end + jnp.where(real, SWAP_CLUSTER_MAX * size, 0),
        age=state.age + aged,
        used=state.used - gone,
        reclaimed=state.reclaimed + gone,
    )
    state = slots.uncache(state, folio.place, size, goes)
    used, state = slots.has_count(state, folio.place, size, goes)
    state = slots.give_back_unused(state, folio.place, size, ~used & (folio.order > 0), goes)
    state = sharing.release_number(state, regs.out, goes)
    clean = folio._replace(flags=folio.flags & ~DIRTY | LISTED)
    state = sharing.set_folio(state, regs.out, clean, waits)
    state = lru.add(state, regs.out, folio.has(ACTIVE), size, waits)
    # It is at the head of the list again: a scan under way ends where it began.
    kept = jnp.where(waits & (regs.work.kept < 0), regs.out, regs.work.kept)
    regs = replace(regs, work=replace(regs.work, kept=kept))
    return state, assign(regs, on, at=regs.back_out)
