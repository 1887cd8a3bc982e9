"""System calls of one process among several: giving pages back, advice, fork, exit.

Source of the rules: mm/memory.c (zap_pte_range, copy_page_range), mm/mmu_gather.c, mm/madvise.c
(madvise_cold_or_pageout_pte_range), mm/huge_memory.c (lru_add_split_folio), 6.18 to 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxswap.machine import cgroups, lru, tables
from jaxswap.machine.counters import count
from jaxswap.machine.shared import rmap, slots, swapout
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import (
    ACTIVE,
    BLOCK,
    EXCLUSIVE,
    KIND,
    LISTED,
    NONE,
    PRESENT,
    REFERENCED,
    SWAPPED,
    TOUCHED,
    WORKINGSET,
    YOUNG,
    flagged,
    kind,
    set_page,
    set_word,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable.lanes import load1, repeat, store1, surely


def _run(state: MachineState, v: Lane, end: Lane, on: Flag) -> tuple[Lane, MachineState]:
    """How many swap entries from page v on have consecutive slots and the same exclusive bit."""
    first, slot, state = sharing.page(state, v)

    def more(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & carry[2] & (v + carry[1] < end)

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, i, goes_on = carry
        active = surely(more(carry))
        word, at, state = sharing.page(state, v + i)
        same = ((word ^ first) & np.uint32(KIND | EXCLUSIVE) == 0) & (at == slot + i)
        return state, i + (active & same), jnp.where(active, same, goes_on)

    state, size, _ = repeat(more, turn, (state, jnp.ones_like(v), jnp.ones_like(on)))
    return size, state


def zap(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """zap_pte_range: pages become none, up to a run of swap entries, whose slots are put."""

    def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < regs.stop) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, cursor, stopped = carry
        active = surely(going(carry))
        v = regs.base + cursor
        word, number, state = sharing.page(state, v)
        swapped, present = kind(word) == SWAPPED, kind(word) == PRESENT
        mapped = active & present
        state = set_word(state, v, jnp.full_like(word, NONE), active & ~swapped)
        state = lru.drain(rmap.leave(state, word, mapped), mapped)
        number = jnp.where(mapped, number, 0)
        folio, state = sharing.folio(state, number)
        fresh = mapped & (folio.gather == -2)
        folio = folio._replace(gather=jnp.where(fresh, -1, folio.gather))
        process = v // sharing.room(state)
        state, _ = rmap.remove(state, number, folio, process, v, mapped)
        last = sharing.of(state).last
        linked = fresh & (last >= 0)
        link = sharing.Folio._fields.index("gather")
        table = store1(sharing.of(state).folios, jnp.maximum(last, 0) * sharing.FIELDS + link, number, linked)
        state = sharing.put(
            state,
            folios=table,
            first=jnp.where(fresh & (last < 0), number, sharing.of(state).first),
            last=jnp.where(fresh, number, last),
        )
        return state, cursor + (active & ~swapped), stopped | (swapped & active)

    state, cursor, stopped = repeat(going, turn, (state, regs.cursor, jnp.zeros_like(on)))
    runs = on & stopped
    v, end = regs.base + cursor, regs.base + regs.stop
    size, state = _run(state, v, end, runs)
    _, slot, state = sharing.page(state, v)
    none = jnp.full_like(regs.plan.allowed, NONE)
    state = sharing.put(state, pages=sharing.fill(sharing.of(state).pages, v, size, none, runs))
    regs = assign(regs, on, cursor=cursor + jnp.where(runs, size, 0), at=At.ZAPPED)
    return state, assign(regs, runs, put_slot=slot, put_end=slot + size, at=At.PUT, back_put=At.ZAP)


def zapped(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The range is done; a whole block may give its table back, part of one is mapped by a table."""
    start = regs.base + regs.start
    state = cgroups.enter_owner(state, start >> 9, on)
    state = tables.zap(state, start, start + regs.stop - regs.start, regs.zaps_table, on)
    return state, assign(regs, on, at=At.DONE)


def split_block(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """A VMA ends inside the block: it gets a page table if one entry maps it."""
    return tables.split(state, regs.base, on), assign(regs, on, at=At.DONE)


def let_go(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """tlb_finish_mmu: what becomes of the next folio that lost a mapping in this call."""
    number = sharing.of(state).first
    some = on & (number >= 0)
    number = jnp.maximum(number, 0)
    folio, state = sharing.folio(state, number)
    state = sharing.put(
        state,
        first=jnp.where(some, folio.gather, sharing.of(state).first),
        last=jnp.where(some & (folio.gather < 0), -1, sharing.of(state).last),
    )
    # One that went with its last swap entry is no more.
    alive = some & (folio.base >= 0)
    ungathered = folio._replace(gather=jnp.full_like(number, -2))
    state = sharing.set_folio(state, number, ungathered, alive)
    unused = alive & (folio.maps == 0)
    gone = unused & (folio.place < 0)
    state = slots.forget(state, number, ungathered, gone)
    regs = assign(regs, on & ~some, at=At.DONE)
    return state, assign(regs, unused & ~gone, drop=number, at=At.DROP, back_drop=At.LET_GO)


def _batch(state: MachineState, v: Lane, end: Lane, on: Flag) -> tuple[Lane, MachineState]:
    """How many pages from v on, before `end`, map the folio of page v one behind the other."""
    _, number, state = sharing.page(state, v)

    def more(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & carry[2] & (v + carry[1] < end)

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, i, goes_on = carry
        active = surely(more(carry))
        word, other, state = sharing.page(state, v + i)
        same = (kind(word) == PRESENT) & (other == number)
        return state, i + (active & same), jnp.where(active, same, goes_on)

    state, size, _ = repeat(more, turn, (state, jnp.ones_like(v), jnp.ones_like(on)))
    return size, state


def cut(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Advice of a range: the next folio that this process maps in part here, and nobody else, is split."""

    def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < regs.stop) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, cursor, stopped = carry
        active = surely(going(carry))
        v = regs.base + cursor
        word, number, state = sharing.page(state, v)
        present = active & (kind(word) == PRESENT)
        folio, state = sharing.folio(state, jnp.where(present, number, 0))
        large = present & (folio.order > 0)
        batch, state = _batch(state, v, regs.base + regs.stop, large)
        part = large & (batch < folio.size)
        shared, state = rmap.maybe_shared(state, params, number, folio, part)
        splits = part & ~shared
        return state, cursor + jnp.where(active & ~splits, batch, 0), stopped | splits

    state = lru.drain(state, on)
    state, cursor, splits = repeat(going, turn, (state, regs.cursor, jnp.zeros_like(on)))
    splits = on & splits
    state = tables.split(state, regs.base, splits)
    _, number, state = sharing.page(state, regs.base + jnp.minimum(cursor, BLOCK - 1))
    # All of the range has been looked at: the advice itself begins.
    regs = assign(regs, on, cursor=cursor, at=regs.home)
    regs = assign(regs, on & ~splits, cursor=regs.start)
    return swapout.split_on_lru(state, regs, jnp.where(splits, number, 0), At.CUT, splits)


def cut_link(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next piece takes its place on the list: the first nearest to the tail, then from the last down (in
    6.12 up).

    One that nobody maps or counts on leaves the swap cache, but for the first (free_folio_and_swap_cache).
    """
    some = on & (regs.piece < regs.pieces)
    ascending = params.rules.ascending_pieces | (regs.piece == 0)
    at = jnp.where(ascending, regs.piece, regs.pieces - regs.piece)
    number, pieces = load1(sharing.of(state).pieces, jnp.minimum(at, BLOCK - 1))
    state = sharing.put(state, pieces=pieces)
    exists = some & (number >= 0)
    number = jnp.where(exists, number, 0)
    folio, state = sharing.folio(state, number)
    state = sharing.set_folio(state, number, flagged(folio, LISTED, exists), exists)
    state = lru.insert(state, regs.before, number, regs.active, jnp.ones_like(number), exists)
    drops = exists & (folio.maps == 0) & (regs.piece > 0)
    regs = assign(regs, on & ~some, at=regs.back_cut)
    regs = assign(regs, some, piece=regs.piece + 1)
    return state, assign(regs, drops, drop=number, at=At.DROP, back_drop=At.CUT_LINK)


def _next_whole(state: MachineState, regs: Registers, on: Flag) -> tuple[Lane, Lane, MachineState]:
    """The next folio that the range maps whole and nobody else maps, or -1; and where to go on."""

    def going(carry: tuple[MachineState, Lane, Lane]) -> Flag:
        return on & (carry[1] < regs.stop) & (carry[2] < 0)

    def turn(carry: tuple[MachineState, Lane, Lane]) -> tuple[MachineState, Lane, Lane]:
        state, cursor, found = carry
        active = surely(going(carry))
        v = regs.base + cursor
        word, number, state = sharing.page(state, v)
        present = active & (kind(word) == PRESENT)
        folio, state = sharing.folio(state, jnp.where(present, number, 0))
        batch, state = _batch(state, v, regs.base + regs.stop, present & (folio.order > 0))
        whole = present & (batch == folio.size) & (folio.maps == folio.size)
        return state, cursor + jnp.where(active, batch, 0), jnp.where(whole, number, found)

    start = (state, regs.cursor, jnp.full_like(regs.cursor, -1))
    state, cursor, number = repeat(going, turn, start)
    return number, cursor, state


def page_out(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """MADV_PAGEOUT: the next folio is to go, whatever its references."""
    number, cursor, state = _next_whole(state, regs, on)
    some = on & (number >= 0)
    number = jnp.maximum(number, 0)
    folio, state = sharing.folio(state, number)
    state = cgroups.enter(state, folio.memcg, some)
    state = lru.remove(state, number, folio.has(ACTIVE), folio.size, some)
    after = flagged(folio, WORKINGSET, folio.has(WORKINGSET) | folio.has(ACTIVE))
    after = after._replace(flags=after.flags & ~(REFERENCED | ACTIVE | LISTED))
    state = sharing.set_folio(state, number, after, some)
    # reclaim_pages settles neither costs nor ages: that is shrink_inactive_list's.
    done = on & ~some
    state = replace(
        state,
        age_at_end=jnp.where(done, 0, state.age_at_end),
        cost_at_end=jnp.where(done, 0, state.cost_at_end),
        reclaimed=jnp.where(done, 0, state.reclaimed),
    )
    regs = assign(regs, on, cursor=cursor, at=At.DONE)
    return state, assign(regs, some, shrink=number, at=At.SHRINK, back_shrink=At.PAGEOUT)


def cool(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """MADV_COLD: the next folio loses its references; an active one goes to the head of the inactive list."""
    number, cursor, state = _next_whole(state, regs, on)
    some = on & (number >= 0)
    number = jnp.maximum(number, 0)
    folio, state = sharing.folio(state, number)
    pages = regs.base + cursor - folio.size

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return some & (carry[1] < folio.size)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        word, _, state = sharing.page(state, pages + i)
        word = word & jnp.uint32(~YOUNG & 0xFFFF_FFFF)
        return set_word(state, pages + i, word, surely(more(carry))), i + 1

    state, _ = repeat(more, turn, (state, jnp.zeros_like(number)))
    active = some & folio.has(ACTIVE)
    state = cgroups.enter(state, folio.memcg, active)
    state = lru.remove(state, number, active, folio.size, active)
    state = lru.add(state, number, ~active, folio.size, active)
    after = flagged(
        flagged(folio, WORKINGSET, folio.has(WORKINGSET) | active), ACTIVE, ~active & folio.has(ACTIVE)
    )
    after = after._replace(flags=after.flags & ~REFERENCED)
    state = sharing.set_folio(state, number, after, some)
    state = replace(state, n=count(state.n, active, pgdeactivate=folio.size))
    regs = assign(regs, on, cursor=cursor)
    return state, assign(regs, on & ~some, at=At.DONE)


def fork(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """copy_page_range of one block to process `stop`: it maps what its parent maps; nothing is exclusive."""
    pages = sharing.room(state)
    child = regs.stop - 1

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < BLOCK)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        active = surely(more(carry))
        v = regs.base + i
        word, at, state = sharing.page(state, v)
        present, swapped = kind(word) == PRESENT, kind(word) == SWAPPED
        word = jnp.where(present | swapped, word & jnp.uint32(~EXCLUSIVE & 0xFFFF_FFFF), word)
        state = set_word(state, v, word, active)
        copy = (v & (pages - 1)) + child * pages
        state = set_page(state, copy, word & jnp.uint32(~TOUCHED & 0xFFFF_FFFF), at, active)
        number = jnp.where(present, at, 0)
        folio, state = sharing.folio(state, number)
        state = sharing.set_folio(state, number, rmap.add(folio, child, present), active & present)
        return slots.add_count(state, jnp.where(swapped, at, 0), 1, active & swapped), i + 1

    state, _ = repeat(more, turn, (state, jnp.zeros_like(regs.base)))
    state = cgroups.move(state, child, cgroups.of_process(state, regs.base // pages), on)
    return state, assign(regs, on, at=At.DONE)


def join(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The process goes to cgroup `stop` - 1."""
    place = regs.base // sharing.room(state)
    return cgroups.move(state, place, regs.stop - 1, on), assign(regs, on, at=At.DONE)


def charge_objects(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """obj_cgroup_charge: the first accounted object takes a page, enough for later ones."""
    state = cgroups.enter(state, cgroups.of_process(state, regs.base // sharing.room(state)), on)
    return state, assign(regs, on, ask=0, tried=0, refused=0, at=At.CHARGE, back_charge=At.DONE)


def fork_tables(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The child gets the page table of a block that its parent has or has laid by; their cgroup pays."""
    found, blocks = load1(state.tables, regs.base >> 9)
    fresh = on & (regs.cursor == 0)
    there = fresh & (found != tables.NONE)
    pages = sharing.room(state)
    copy = (regs.base & (pages - 1)) + (regs.stop - 1) * pages
    state = cgroups.enter(state, cgroups.of_process(state, regs.base // pages), there)
    state = cgroups.own_table(state, copy >> 9, there)
    state = replace(state, tables=store1(blocks, copy >> 9, found, fresh))
    regs = assign(regs, on, at=At.DONE)
    return state, assign(
        regs,
        there,
        cursor=1,
        ask=0,
        tried=0,
        refused=0,
        at=At.CHARGE,
        back_charge=At.FORK_TABLES,
    )


def leave_tables(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """exit_mmap: the page table of a block is given back."""
    found, blocks = load1(state.tables, regs.base >> 9)
    blocks = store1(blocks, regs.base >> 9, jnp.zeros_like(found), on)
    state = cgroups.enter_owner(state, regs.base >> 9, on)
    state = tables.uncharge(replace(state, tables=blocks), on & (found != tables.NONE))
    return state, assign(regs, on, at=At.DONE)
