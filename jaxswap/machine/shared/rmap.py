"""Mapping and unmapping pages of folios that several processes may map.

Source of the rules: mm/rmap.c (__folio_add_rmap, __folio_remove_rmap), include/linux/rmap.h
(folio_add_return_large_mapcount, folio_sub_return_large_mapcount), 6.15 to 7.3; include/linux/mm.h
(folio_likely_mapped_shared) of 6.12.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import cgroups, lru
from jaxswap.machine.counters import count
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.state import (
    ACTIVE,
    CAMEBACK,
    DIRTY,
    EXCLUSIVE,
    LARGE,
    LISTED,
    MARKED,
    MEMCG,
    PARTIAL,
    PRESENT,
    TOUCHED,
    USED,
    YOUNG,
    Folio,
    flagged,
    fresh_folio,
    has,
    kind,
    set_page,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask
from jaxswap.swaptable.lanes import repeat, surely


def add(folio: Folio, process: Lane, on: Flag) -> Folio:
    """One more page of the folio is mapped by a process."""
    first, second = folio.owner0 == process, folio.owner1 == process
    known = first | second
    takes0 = ~known & (folio.owner0 < 0)
    takes1 = ~known & ~takes0 & (folio.owner1 < 0)
    maps = folio.maps + on
    marks = on & (takes0 | takes1) & (maps > 1)
    return flagged(
        folio._replace(
            maps=maps,
            owner0=jnp.where(on & takes0, process, folio.owner0),
            owner1=jnp.where(on & takes1, process, folio.owner1),
            owned0=folio.owned0 + (on & (first | takes0)),
            owned1=folio.owned1 + (on & ((second & ~first) | takes1)),
        ),
        MARKED,
        folio.has(MARKED) | marks,
    )


def remove(
    state: MachineState, number: Lane, folio: Folio, process: Lane, v: Lane, on: Flag
) -> tuple[MachineState, Folio]:
    """A page of the folio is no longer mapped by a process; entry `v` says so already. Writes the folio."""
    first, second = folio.owner0 == process, folio.owner1 == process
    owned0 = folio.owned0 - (on & first)
    owned1 = folio.owned1 - (on & second & ~first)
    owner0 = jnp.where(on & first & (owned0 == 0), -1, folio.owner0)
    owner1 = jnp.where(on & second & ~first & (owned1 == 0), -1, folio.owner1)
    maps = folio.maps - on
    unknown = (owner0 != process) & (owner1 != process)
    clears = on & unknown & ((maps == owned0) | (maps == owned1))
    folio = folio._replace(maps=maps, owner0=owner0, owner1=owner1, owned0=owned0, owned1=owned1)
    folio = flagged(folio, MARKED, folio.has(MARKED) & ~clears)
    # A folio in the swap cache is not put on the deferred split list.
    partly = on & (folio.order > 0) & (maps > 0) & (folio.place < 0)
    state, someone = mapped_by_someone(state, number, v, partly)
    partial = partly & ~someone
    state, folio = sharing.defer_split(state, folio, partial & ~folio.has(PARTIAL))
    folio = flagged(folio, PARTIAL, folio.has(PARTIAL) | partial)
    return sharing.set_folio(state, number, folio, on), folio


def mapped_by_someone(state: MachineState, number: Lane, v: Lane, on: Flag) -> tuple[MachineState, Flag]:
    """Whether a process maps this folio where some process has page v."""
    pages = sharing.room(state)
    end = sharing.processes(state)

    def more(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < end) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, k, found = carry
        active = surely(more(carry))
        word, owner, state = sharing.page(state, k * pages + (v & (pages - 1)))
        return state, k + 1, found | (active & (kind(word) == PRESENT) & (owner == number))

    state, _, found = repeat(more, turn, (state, jnp.zeros_like(v), jnp.zeros_like(on)))
    return state, found


def maybe_shared(
    state: MachineState, params: MachineParams, number: Lane, folio: Folio, on: Flag
) -> tuple[Flag, MachineState]:
    """folio_maybe_mapped_shared of a large folio.

    folio_likely_mapped_shared of 6.12 guesses: more mappings than pages, or its first page mapped twice.
    """
    pages = sharing.room(state)
    several = on & (folio.maps > 1)
    guesses = several & ~params.rules.remembers_owners

    def more(carry: tuple[MachineState, Lane, Lane]) -> Flag:
        return guesses & (carry[1] < sharing.processes(state))

    def turn(carry: tuple[MachineState, Lane, Lane]) -> tuple[MachineState, Lane, Lane]:
        state, k, found = carry
        word, owner, state = sharing.page(state, k * pages + folio.base)
        mine = surely(more(carry)) & (kind(word) == PRESENT) & (owner == number)
        return state, k + 1, found + mine

    zero = jnp.zeros_like(number)
    state, _, first = repeat(more, turn, (state, zero, zero))
    guess = (folio.maps > folio.size) | (first > 1)
    return several & jnp.where(params.rules.remembers_owners, folio.has(MARKED), guess), state


def leave(state: MachineState, word: Mask, on: Flag) -> MachineState:
    """A page of a folio goes: was it of use?"""
    touched, back = has(word, TOUCHED), has(word, CAMEBACK)
    needed = touched & back
    n = count(
        state.n,
        on,
        useless_swapin=~touched & back,
        useless_touch=~touched & ~back,
        needed_pages=needed,
        covered_pages=needed & has(word, LARGE),
    )
    return replace(state, n=n)


def new_folio(state: MachineState, v: Lane, order: Lane, kept: Mask, on: Flag) -> MachineState:
    """A fresh folio of the entered cgroup over page v and those behind it, mapped exclusively; `kept`: flags
    its pages get too.
    """
    pages = sharing.room(state)
    number, state = sharing.new_number(state, on)
    zero = jnp.zeros_like(v)
    flags = zero + (DIRTY | USED | LISTED)
    folio = fresh_folio(v & (pages - 1), order, flags | cgroups.entered(state, zero) << MEMCG)
    folio = folio._replace(maps=folio.size, owner0=v // pages, owned0=folio.size)
    state = sharing.set_folio(state, number, folio, on)

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < folio.size)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        word = kept | jnp.uint32(PRESENT | EXCLUSIVE | YOUNG)
        return set_page(state, v + i, word, number, surely(more(carry))), i + 1

    state, _ = repeat(more, turn, (state, zero))
    active = folio.has(ACTIVE)
    state = lru.add(state, number, active, folio.size, on)
    return lru.wait(state, active, order > 0, jnp.ones_like(order), on)
