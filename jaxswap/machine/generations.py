"""The generations of the multi-gen LRU: lists, flags of folios, tiers, shadows.

A generation is a sequence number, and has its list at that number modulo MAX_NR_GENS; a folio has the number
modulo MAX_NR_GENS in two planes. Source of the rules: include/linux/mm_inline.h (lru_gen_folio_seq,
lru_gen_add_folio), mm/swap.c (folio_add_lru, lru_gen_inc_refs), mm/workingset.c (lru_gen_eviction,
lru_gen_refault), mm/vmscan.c (lru_gen_set_refs, folio_update_gen, reset_ctrl_pos), 7.3.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Int32, UInt32

from jaxswap.machine import blocks, lru, rows
from jaxswap.machine.counters import count
from jaxswap.machine.rows import only
from jaxswap.machine.state import PLANES, Flag, Generations, Lane, MachineState, Mask, Plane, pages_room
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, store1, surely, when

MIN_NR_GENS, MAX_NR_GENS, MAX_NR_TIERS = 2, 4, 4
MOST_REFS = 3  # what LRU_REFS_MASK holds
SHADOW_SEQ = (1 << 29) - 1  # of a sequence number, what a shadow keeps
ISOLATED, KEPT = 4, 5  # lists beside those of the generations: taken off for eviction, and to go back
REFAULTED, EVICTED, PROTECTED, AVERAGE_REFAULTED, AVERAGE_TOTAL = range(0, 5 * MAX_NR_TIERS, MAX_NR_TIERS)
_FLAGS = (Plane.REFERENCED, Plane.WORKINGSET, Plane.REFS0, Plane.REFS1, Plane.GEN0, Plane.GEN1)


def of(state: MachineState) -> Generations:
    """The generations of a machine that has some."""
    assert state.generations is not None
    return state.generations


def put(state: MachineState, on: Flag | None = None, **fields: Array) -> MachineState:
    """The state with fields of the generations set, in the lanes that are on."""
    lists = of(state)
    if on is not None:
        fields = {name: jnp.where(on, value, getattr(lists, name)) for name, value in fields.items()}
    return replace(state, generations=replace(lists, **fields))


# Flags of a folio


class Flags(NamedTuple):
    """Flags of a folio. refs: accesses beyond the first, while referenced. gen: modulo MAX_NR_GENS."""

    referenced: Flag
    refs: Lane
    workingset: Flag
    gen: Lane


def flags_of(row: rows.Row, page: Lane) -> Flags:
    """The flags of the folio of a page."""

    def two(low: Plane, high: Plane) -> Lane:
        return row.has(low, page).astype(jnp.int32) | row.has(high, page).astype(jnp.int32) << 1

    return Flags(
        row.has(Plane.REFERENCED, page),
        two(Plane.REFS0, Plane.REFS1),
        row.has(Plane.WORKINGSET, page),
        two(Plane.GEN0, Plane.GEN1),
    )


def flagged(row: rows.Row, pages: Mask, flags: Flags) -> rows.Row:
    """The row with the flags of the folio of some of its pages set."""
    bits = (
        flags.referenced,
        flags.workingset,
        flags.refs & 1 == 1,
        flags.refs & 2 == 2,
        flags.gen & 1 == 1,
        flags.gen & 2 == 2,
    )
    sets = [(only(pages, bit), (plane,)) for bit, plane in zip(bits, _FLAGS, strict=True)]
    return row.clear((pages, _FLAGS)).add(*sets)


def words_of(flags: Flags) -> UInt32[Array, "planes L"]:
    """The words of a row whose pages all belong to folios with these flags."""
    every = jnp.full(flags.refs.shape, rows.ALL, jnp.uint32)
    empty = rows.Row(jnp.zeros((PLANES, *flags.refs.shape), jnp.uint32))
    return flagged(empty, every, flags).words


def refs_of(flags: Flags) -> Lane:
    """folio_lru_refs."""
    return jnp.where(flags.referenced, flags.refs + 1, 0)


def tier_of(refs: Lane, workingset: Flag) -> Lane:
    """lru_tier_from_refs."""
    return jnp.where(workingset, MAX_NR_TIERS - 1, jnp.where(refs > 2, 2, jnp.where(refs > 1, 1, 0)))


def mark_accessed(flags: Flags) -> Flags:
    """lru_gen_inc_refs."""
    most = flags.referenced & (flags.refs == MOST_REFS)
    return flags._replace(
        referenced=jnp.ones_like(flags.referenced),
        refs=jnp.where(flags.referenced, jnp.minimum(flags.refs + 1, MOST_REFS), 0),
        workingset=flags.workingset | most,
    )


def set_refs(flags: Flags) -> tuple[Flags, Flag]:
    """lru_gen_set_refs, one more access through a page table: (flags, whether the folio is promoted)."""
    no = jnp.zeros_like(flags.referenced)
    fresh = ~flags.referenced & ~flags.workingset
    often = refs_of(flags) > 1
    marked = mark_accessed(flags)
    chosen = Flags(
        jnp.where(often, no, marked.referenced),
        jnp.where(often, 0, marked.refs),
        jnp.where(often, ~no, marked.workingset),
        flags.gen,
    )
    return chosen, ~fresh


def update_gen(flags: Flags, max_seq: Lane) -> Flags:
    """folio_update_gen: young in a walk."""
    again = flags.referenced | flags.workingset
    return Flags(
        ~again,
        jnp.zeros_like(flags.refs),
        again,
        jnp.where(again, gen_of(max_seq), flags.gen),
    )


# Lists


def gen_of[T: (int, Lane)](seq: T) -> T:
    """lru_gen_from_seq: a sequence number modulo MAX_NR_GENS."""
    return seq & (MAX_NR_GENS - 1)


def place(state: MachineState, active: Flag, flags: Flags, cached: Flag) -> Lane:
    """lru_gen_folio_seq: the generation a folio is added to. cached: it is in the swap cache."""
    lists = of(state)
    seen = (flags.workingset | flags.referenced).astype(jnp.int32)
    age = jnp.where(cached, MAX_NR_GENS - seen, MIN_NR_GENS)
    age = jnp.where(active, MIN_NR_GENS - flags.workingset.astype(jnp.int32), age)
    return jnp.maximum(lists.max_seq - age + 1, lists.min_anon)


def head(state: MachineState, seq: Lane | int) -> Lane:
    """Link number of the head of a generation's list."""
    return jnp.broadcast_to(pages_room(state) + gen_of(seq), of(state).max_seq.shape)


def aside(state: MachineState, which: int) -> Lane:
    """Link number of the head of ISOLATED or KEPT."""
    return jnp.full_like(of(state).max_seq, pages_room(state) + which)


def tail(state: MachineState, list: Lane) -> tuple[Lane, MachineState]:
    """The folio at a list's tail; its head where it is empty."""
    found, prev = load1(state.prev, list)
    return found, replace(state, prev=prev)


def link(state: MachineState, folio: Lane, before: Lane, on: Flag) -> MachineState:
    """Link a folio on the tail side of `before`."""
    after, next = load1(state.next, before)
    next = store1(store1(next, before, folio, on), folio, after, on)
    prev = store1(store1(state.prev, after, folio, on), folio, before, on)
    return replace(state, next=next, prev=prev)


def move(state: MachineState, folio: Lane, list: Lane, on: Flag, to_tail: bool = False) -> MachineState:
    """Move a folio to the head of a list, or to its tail. Pages on the lists stay as many."""
    before, prev = load1(state.prev, folio)
    after, next = load1(state.next, folio)
    state = replace(state, next=store1(next, before, after, on), prev=store1(prev, after, before, on))
    if to_tail:
        list, state = tail(state, list)
    return link(state, folio, list, on)


def change(
    state: MachineState, folio: Lane, order: Lane, broken: Flag, flags: Flags, isolated: bool, on: Flag
) -> MachineState:
    """Give all mapped pages of a folio, or the only page of one in the swap cache, its flags.

    broken: it has lost pages. isolated: whether it is off the lists of the generations.
    """
    members = blocks.members(state, folio, order, broken)

    def write(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = only(blocks.in_row(members, at, order, broken), on)
        row = flagged(row, pages, flags).clear((pages, (Plane.ISOLATED,)))
        if isolated:
            row = row.add((pages, (Plane.ISOLATED,)))
        return rows.put(state, at, row, on)

    base = folio >> order << order
    return rows.each(base, base + (jnp.int32(1) << order), write, state, on)


class Found(NamedTuple):
    """A folio on a list, and what its row says. cached: it is in the swap cache, and nobody maps it."""

    page: Lane
    order: Lane
    size: Lane
    broken: Flag
    cached: Flag
    isolated: Flag
    flags: Flags


def look(state: MachineState, page: Lane) -> tuple[Found, MachineState]:
    """The folio that is listed by a page."""
    row, state = rows.get(state, page)
    mapped = row.has(Plane.PRESENT, page)
    order = jnp.where(mapped, row.order(page), 0)
    return rows.once(
        Found(
            page,
            order,
            jnp.int32(1) << order,
            mapped & row.has(Plane.PARTIAL, page),
            ~mapped,
            row.has(Plane.ISOLATED, page),
            flags_of(row, page),
        )
    ), state


def add(state: MachineState, folio: Found, active: Flag, on: Flag) -> MachineState:
    """lru_gen_add_folio for a folio that is linked somewhere: to the head of the list it belongs to."""
    seq = place(state, active, folio.flags, folio.cached)
    flags = folio.flags._replace(gen=gen_of(seq))
    state = change(state, folio.page, folio.order, folio.broken, flags, False, on)
    return move(state, folio.page, head(state, seq), on)


def add_new(state: MachineState, page: Lane, on: Flag) -> MachineState:
    """folio_activate of a small mapped folio that is on no list."""
    folio, state = look(state, page)
    state = link(state, page, head(state, 0), on)
    state = replace(state, inactive=state.inactive + on)
    return add(state, folio, jnp.ones_like(on), on)


# New folios, and those that wait to be activated


def lru_add_drain(state: MachineState, on: Flag) -> MachineState:
    """lru_add_drain: new folios are on the lists, and those to be activated are."""
    state = lru.drain(state, on)
    if state.generations is None:
        return state
    some = on & (state.generations.activations > 0)
    return when(some, lambda s: _activate(s, surely(some)), state)


def is_waiting(state: MachineState, folio: Lane) -> Flag:
    """Whether a folio waits to be activated."""
    lists = of(state)
    there = np.arange(lru.FOLIO_BATCH_SIZE, dtype=np.int32)[:, None] < lists.activations[None]
    return jnp.any(there & (lists.activating == folio[None]), axis=0)


def activate(state: MachineState, folio: Found, on: Flag) -> MachineState:
    """folio_activate: the folio waits until FOLIO_BATCH_SIZE do, or a large one comes."""
    lists = of(state)
    place = np.arange(lru.FOLIO_BATCH_SIZE, dtype=np.int32)[:, None] == lists.activations[None]
    state = put(
        state,
        activating=jnp.where(place & on[None], folio.page[None], lists.activating),
        activations=lists.activations + on,
    )
    full = on & ((folio.order > 0) | (of(state).activations == lru.FOLIO_BATCH_SIZE))
    return when(full, lambda s: _activate(s, surely(full)), state)


def _activate(state: MachineState, on: Flag) -> MachineState:
    """lru_activate for all that wait; those that were isolated meanwhile stay where they are."""

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < of(carry[0]).activations)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        active = surely(more(carry))
        page, activating = load1(of(state).activating, jnp.minimum(i, lru.FOLIO_BATCH_SIZE - 1))
        folio, state = look(put(state, activating=activating), jnp.where(active, page, 0))
        listed = active & ~folio.isolated
        state = add(state, folio, jnp.ones_like(on), listed)
        return replace(state, n=count(state.n, listed, pgactivate=folio.size)), i + 1

    state, _ = repeat(more, turn, (state, jnp.zeros_like(of(state).activations)))
    return put(state, on, activations=jnp.zeros_like(of(state).activations))


def arrive(
    state: MachineState, base: Lane, workingset: Flag, cached: Flag, pages: Lane, folios: Lane, on: Flag
) -> tuple[MachineState, UInt32[Array, "planes L"]]:
    """folio_add_lru in a page fault, of folios of `pages` pages: (state, words of a row for their flags).

    cached: the folio, or each of the several small ones, reaches the lists while it is in the swap cache.
    """
    first = Flags(~workingset, jnp.zeros_like(base), workingset, jnp.zeros_like(base))
    seq = place(state, workingset, first, cached)
    state = lru.link_all(state, head(state, seq), base, folios, on)
    state = replace(state, inactive=state.inactive + jnp.where(on, pages * folios, 0))
    words = words_of(first._replace(gen=gen_of(seq)))
    return lru.wait(state, jnp.zeros_like(on), pages > 1, folios, on), words


def use(state: MachineState, page: Lane, on: Flag) -> MachineState:
    """The page table of a page is used: a walk looks at it."""
    if state.generations is None:
        return state
    return put(state, used=store1(of(state).used, page >> 9, jnp.ones_like(page), on))


# Tiers and shadows


def tiers(state: MachineState, which: int) -> Int32[Array, "tiers L"]:
    """One of the accounts by tier."""
    return of(state).tiers[which : which + MAX_NR_TIERS]


def account(state: MachineState, which: int, tier: Lane, pages: Lane, on: Flag) -> MachineState:
    """Add pages to an account."""
    value, table = load1(of(state).tiers, which + tier)
    return put(state, tiers=store1(table, which + tier, value + pages, on))


def position(state: MachineState) -> tuple[Int32[Array, "tiers L"], Int32[Array, "tiers L"]]:
    """read_ctrl_pos of every tier: pages that came back, pages that went or were protected."""
    back = tiers(state, AVERAGE_REFAULTED) + tiers(state, REFAULTED)
    return back, tiers(state, AVERAGE_TOTAL) + tiers(state, PROTECTED) + tiers(state, EVICTED)


def begin_oldest(state: MachineState, seq: Lane, on: Flag) -> MachineState:
    """The oldest generation is now `seq` (reset_ctrl_pos)."""
    back, total = position(state)
    none = jnp.zeros_like(back)
    fresh = jnp.concatenate([none, none, none, back // 2, total // 2])
    old, table = load(of(state).tiers, jnp.zeros_like(seq), 5 * MAX_NR_TIERS)
    table = store(table, jnp.zeros_like(seq), jnp.where(on[None], fresh, old), on)
    return put(put(state, tiers=table), on, min_anon=seq)


def shadow_of(state: MachineState, flags: Flags) -> Mask:
    """lru_gen_eviction: what a shadow has besides the workingset bit."""
    refs = jnp.where(flags.referenced, flags.refs, 0)
    return (of(state).min_anon << 2 | refs).astype(jnp.uint32)


def evicted(state: MachineState, flags: Flags, pages: Lane, workingset: Lane, on: Flag) -> MachineState:
    """Account for `pages` pages that go, `workingset` of them with that bit."""
    tier = tier_of(refs_of(flags), jnp.zeros_like(on))
    state = account(state, EVICTED, tier, pages - workingset, on)
    return account(state, EVICTED, jnp.full_like(tier, MAX_NR_TIERS - 1), workingset, on)


def distance(state: MachineState, shadow: Mask) -> tuple[Lane, Flag]:
    """Generations since the eviction that left a shadow, and lru_gen_test_recent."""
    passed = (of(state).max_seq - (shadow >> 3).astype(jnp.int32)) & SHADOW_SEQ
    return passed, passed < MAX_NR_GENS


def refault(state: MachineState, shadow: Mask, pages: Lane, on: Flag) -> tuple[MachineState, Flag]:
    """lru_gen_refault: (state, whether the folio carries the workingset flag)."""
    refs, before = (shadow >> 1).astype(jnp.int32) & 3, shadow & 1 == 1
    recent = on & distance(state, shadow)[1]
    state = account(state, REFAULTED, tier_of(refs + 1, before), pages, recent)
    restored = recent & before
    grown = jnp.where(restored, pages, 0)
    n = count(
        state.n,
        on,
        workingset_refault_anon=pages,
        workingset_activate_anon=grown,
        workingset_restore_anon=grown,
    )
    return replace(state, n=n), restored


def fresh(blocks: int, lanes: int) -> Generations:
    """Generations of a machine that has just booted, for `blocks` words of a table of blocks."""

    def lane(value: int, dtype: DTypeLike = jnp.int32) -> Array:
        return jnp.full((lanes,), value, dtype)

    return Generations(
        max_seq=lane(MIN_NR_GENS + 1),
        min_anon=lane(0),
        min_file=lane(0),
        walked=lane(MIN_NR_GENS),
        walking=lane(False, bool),
        known=lane(False, bool),
        ran=lane(False, bool),
        live=lane(0, jnp.uint32),
        used=jnp.zeros((blocks, lanes), jnp.int32),
        filters=jnp.zeros((blocks, lanes), jnp.int32),
        tiers=jnp.zeros((5 * MAX_NR_TIERS + SPARE, lanes), jnp.int32),
        activating=jnp.zeros((lru.FOLIO_BATCH_SIZE, lanes), jnp.int32),
        activations=lane(0),
    )
