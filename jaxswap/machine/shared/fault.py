"""Page faults of one process among several: first touch, zero page, swap-in, copy-on-write.

Source of the rules: mm/memory.c (handle_pte_fault, do_anonymous_page, do_swap_page, do_wp_page,
wp_can_reuse_anon_folio), mm/swap_state.c (__swap_cache_add_check, swap_cache_alloc_folio), 6.18 to 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from jaxswap.machine import cgroups, frames, heuristic, lru, tables
from jaxswap.machine.counters import count, count_order
from jaxswap.machine.fault import (
    ANON_ORDERS,
    HUGE,
    NOHUGE,
    Access,
    _account,
    _add_check,
    _between,
    _choose,
    _Table,
    refault_distance,
)
from jaxswap.machine.huge import TOP, wanted
from jaxswap.machine.reclaim import fitting_orders, try_charge
from jaxswap.machine.rows import ALL, once, only
from jaxswap.machine.settings import Setting
from jaxswap.machine.shared import devices, readahead, rmap, slots
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.read import read
from jaxswap.machine.shared.registers import At, Registers, assign, select
from jaxswap.machine.shared.state import (
    BLOCK,
    CAMEBACK,
    EXCLUSIVE,
    KIND,
    LARGE,
    NONE,
    NONZERO,
    PRESENT,
    SWAPPED,
    USED,
    YOUNG,
    ZEROPAGE,
    Folio,
    has,
    kind,
    set_page,
    set_word,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask
from jaxswap.machine.work import vma_thp_gfp_mask, work_of
from jaxswap.policy import Features
from jaxswap.policy.base import near
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import load, load1, repeat, store1, surely, when


def enabled(state: MachineState, advice: Lane) -> Mask:
    """Orders that sysfs and the advice allow."""
    orders = jnp.where(advice == HUGE, state.settings[Setting.HUGE], state.settings[Setting.PLAIN])
    return only(orders, advice != NOHUGE)


def begin(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """handle_pte_fault: what it is, and the charge it asks for."""
    access = regs.access
    word, at, state = sharing.page(state, access.page)
    found, blocks = load1(state.tables, access.page >> 9)
    state = replace(state, tables=blocks)
    orders_of_vma = enabled(state, access.advice)
    bare = on & ~access.willneed & (found == tables.NONE)
    zeros = on & ~access.willneed & (found == tables.HUGE) & (kind(word) == ZEROPAGE)
    wants = wanted(params, found, access.start, access.end, orders_of_vma)
    huge = (bare | zeros) & wants
    splits = zeros & ~huge
    state = tables.split(state, access.page, splits)
    needs_table = bare & ~huge
    here = on & ~bare & ~huge
    swapped, none = here & (kind(word) == SWAPPED), here & (kind(word) == NONE)
    slot = jnp.where(swapped, at, 0)
    number, cached_folio, state = slots.slot_of(state, slot)
    cached = swapped & (cached_folio >= 0)
    swapin, touch = swapped & ~cached, none & access.write
    zeropage = here & (kind(word) == ZEROPAGE) & access.write
    protected = here & (kind(word) == PRESENT)
    # From a synchronous device; until 6.18 past the swap cache, and only slots of count 1. Others are read
    # with those around.
    faults, at_once = swapin & ~access.willneed, devices.synchronous(state, slot)
    past = faults & at_once & ~params.rules.free_after_map & (number == 1)
    around = faults & ~past & ~(at_once & params.rules.free_after_map)
    swapin = swapin & ~around
    swapin, touch = once((swapin, touch))
    # Swap-in is charged to the cgroup that paid for the slot, all else to the process's.
    owner, state = cgroups.slot_word(state, slot)
    payer = cgroups.of_process(state, access.page // sharing.room(state))
    state = cgroups.enter(state, jnp.where(swapin, owner & cgroups.OWNER, payer), on)

    large = swapin & ~access.willneed & ~devices.zswap_ever(state)
    allowed = only(orders_of_vma & ANON_ORDERS, touch | large)
    allowed = once(allowed)
    empty = jnp.zeros_like(allowed)
    found, table = lax.optimization_barrier(
        (
            lax.cond(
                jnp.any(allowed != 0),
                lambda: _candidates(state, access, word, slot, allowed, touch),
                lambda: (empty, empty, empty),
            ),
            sharing.of(state),
        )
    )
    state = replace(state, sharing=table)
    edges, aligned, candidates = found
    unread = _Table(empty, empty, empty, jnp.zeros_like(on))
    checked, words = lax.optimization_barrier(
        (
            lax.cond(
                jnp.any(swapin),
                lambda: _add_check(state.clusters, slot, only(candidates, swapin))[0],
                lambda: unread,
            ),
            state.clusters.words,
        )
    )
    state = replace(state, clusters=replace(state.clusters, words=words))
    if state.cgroups is not None:
        checked = checked._replace(suitable=checked.suitable & _of_one_cgroup(state, slot, swapin))
    suitable = once(jnp.where(touch, candidates, checked.suitable))
    offered = once(jnp.where(params.rules.filtered, suitable, candidates))

    gfp = vma_thp_gfp_mask(params.defrag, access.advice == HUGE)

    def look(state: MachineState, seen: Features) -> tuple[Features, MachineState]:
        shadow, shadows = load1(state.shadows, slot)
        distance, recent, state = refault_distance(replace(state, shadows=shadows), params, shadow, slot)
        words, pages = load(sharing.of(state).pages, access.page & -32, 32)
        state = sharing.put(state, pages=pages)
        present = kind(words) == PRESENT
        return seen._replace(
            chargeable=jnp.where(gfp.reclaims, ALL, fitting_orders(state, params)),
            distance=jnp.where(swapin, distance, 0),
            recent=swapin & recent,
            present=_set_of(present),
            swapped=_set_of(kind(words) == SWAPPED),
            young=_set_of(present & (words & np.uint32(YOUNG) != 0)),
        ), state

    seen = near(touch, offered, suitable, frames.available(state))
    state, orders = heuristic.decide(state, params, seen, access.page % sharing.room(state), look)
    tried = once(orders & suitable)
    state, top, refused = when(
        tried != 0, lambda c: _choose(c[0], params, tried, gfp.reclaims), (state, jnp.zeros_like(at), empty)
    )
    shadow, shadows = load1(state.shadows, slot)
    state = replace(state, shadows=shadows)
    plan = regs.plan._replace(
        touch=touch, swapin=swapin, zeropage=zeropage, allowed=allowed, edges=edges, aligned=aligned,
        candidates=candidates, offered=offered, orders=orders, slot=slot, shadow=shadow, table=checked,
    )  # fmt: skip
    regs = replace(regs, plan=select(on, plan, regs.plan))
    charged = needs_table | touch | swapin | zeropage | huge
    back = jnp.where(needs_table, At.TABLE, jnp.where(huge, At.HUGE, At.ARRIVE))
    top = jnp.where(huge & access.write, TOP, top)
    regs = assign(
        regs, charged, ask=top, tried=tried, refused=refused, past=past,
        at=At.CHARGE, back_charge=back,
    )  # fmt: skip
    # A read of a page that is none maps the shared zero page.
    reads = none & ~access.write
    state = set_word(state, access.page, jnp.full_like(word, ZEROPAGE), reads)
    regs = assign(regs, reads, at=At.FAULT_END)
    state = when(cached, lambda s: readahead.note_hit(s, regs, cached_folio, surely(cached)), state)
    regs = assign(regs, cached, folio=cached_folio, past=False, at=At.MAP)
    regs = assign(regs, around, at=At.READ_AROUND)
    return state, assign(regs, protected, at=At.PROTECTED)


def _candidates(
    state: MachineState, access: Access, word: Mask, slot: Lane, allowed: Mask, touch: Flag
) -> tuple[Mask, Mask, Mask]:
    """The orders of `allowed` that the VMA's edges, alignment and the PTEs leave, one after the other."""
    page, block = access.page & (BLOCK - 1), access.page & -BLOCK
    edges = once(allowed & _between(page, access.start - 1, access.end))
    agree = jnp.minimum(bits.ctz((page ^ slot).astype(jnp.uint32)), 9)
    aligned = edges & ((np.uint32(2) << agree.astype(jnp.uint32)) - np.uint32(1))
    words, _ = load(sharing.of(state).pages, block, BLOCK)
    places, _ = load(state.slots, block, BLOCK)
    place = np.arange(BLOCK, dtype=np.int32)[:, None]
    differs = (words ^ word[None]) & np.uint32(KIND | EXCLUSIVE)
    apart = (differs != 0) | (places != slot[None] + (place - page[None]))
    obstacle = jnp.where(touch[None], words & np.uint32(KIND) != NONE, apart)
    before = jnp.max(jnp.where(obstacle & (place < page[None]), place, -1), axis=0)
    behind = jnp.min(jnp.where(obstacle & (place > page[None]), place, BLOCK), axis=0)
    return edges, aligned, jnp.where(touch, edges, aligned) & _between(page, before, behind)


def _set_of(pages: Bool[Array, "32 L"]) -> Mask:
    """The set of those of 32 pages."""
    place = np.uint32(1) << np.arange(32, dtype=np.uint32)[:, None]
    return jnp.sum(jnp.where(pages, place, np.uint32(0)), axis=0, dtype=jnp.uint32)


def _of_one_cgroup(state: MachineState, slot: Lane, on: Flag) -> Mask:
    """Orders whose aligned slots around this one are charged to one cgroup, as the target is."""
    assert state.cgroups is not None
    words = state.cgroups.of_slot

    def look() -> Mask:
        owners, _ = load(words, slot & -BLOCK, BLOCK)
        at, place = slot & (BLOCK - 1), np.arange(BLOCK, dtype=np.int32)[:, None]
        own = jnp.sum(jnp.where(place == at[None], owners, 0), axis=0)
        other = (owners ^ own[None]) & cgroups.OWNER != 0
        before = jnp.max(jnp.where(other & (place < at[None]), place, -1), axis=0)
        behind = jnp.min(jnp.where(other & (place > at[None]), place, BLOCK), axis=0)
        return _between(at, before, behind)

    return lax.cond(jnp.any(on), look, lambda: jnp.full(slot.shape, 0xFFFF_FFFF, jnp.uint32))


def charge(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """try_charge_memcg: without reclaim, or else with it."""
    gfp = vma_thp_gfp_mask(params.defrag, regs.access.advice == HUGE)
    state, done = try_charge(state, params, regs.ask, on, gfp, on)
    regs = assign(regs, on, got=regs.ask, at=regs.back_charge)
    unmet = on & ~done
    insists = work_of(regs.ask, regs.tried, regs.refused, gfp, unmet)
    work = select(unmet, insists, regs.work)
    return state, assign(replace(regs, work=work), unmet, at=At.CHARGE_WORK)


def huge(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """do_huge_pmd_anonymous_page: one entry for the block, a 2 MiB folio or the 2 MiB zero page.

    A page table is laid by and charged: for the zero page that is all, for a folio it comes next, unless it
    takes the place of the zero page. Where a folio was refused the fault goes on with small pages.
    """
    write, base = regs.access.write, regs.access.page & -BLOCK
    found, blocks = load1(state.tables, base >> 9)
    first = found == tables.NONE
    got, refused = on & write & (regs.got == TOP), on & write & (regs.got < TOP)
    alive = refused & ~state.oom
    # What was charged in place of the 2 MiB is for the page table, or for one page where there were zeros.
    small, zeros = alive & ~first, on & ~write & ~state.oom
    top = jnp.full_like(base, TOP)
    n = count_order(state.n, "anon_fault_fallback", top, refused)
    n = count_order(n, "anon_fault_fallback_charge", top, refused)
    laid = jnp.where(zeros, tables.HUGE, tables.TABLE)
    blocks = store1(blocks, base >> 9, laid, zeros | alive | (refused & ~first))
    state = cgroups.own_table(state, base >> 9, on & first)
    state = replace(state, n=n, tables=blocks)
    none = jnp.zeros_like(regs.plan.shadow)
    state = rmap.new_folio(state, regs.access.page, jnp.zeros_like(base), none, small)
    pages = sharing.of(state).pages
    pages = sharing.fill(pages, base, jnp.full_like(base, BLOCK), none + np.uint32(ZEROPAGE), zeros)
    state = sharing.put(state, pages=pages)
    regs = assign(regs, on, at=jnp.where(state.oom, At.DONE, At.FAULT_END))
    regs = assign(regs, alive & first, at=At.FAULT)
    regs = assign(regs, got, at=At.HUGE_FOLIO)
    return state, assign(
        regs, got & first, ask=0, tried=0, refused=0,
        at=At.CHARGE, back_charge=At.HUGE_FOLIO,
    )  # fmt: skip


def huge_folio(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The 2 MiB folio and the table laid by are paid for."""
    base, alive = regs.access.page & -BLOCK, on & ~state.oom
    top = jnp.full_like(base, TOP)
    blocks = store1(state.tables, base >> 9, jnp.full_like(base, tables.HUGE), alive)
    n = count_order(state.n, "anon_fault_alloc", top, alive)
    used = state.used - jnp.where(on & state.oom, BLOCK, 0)
    state = replace(state, tables=blocks, n=n, used=used)
    state = rmap.new_folio(state, base, top, jnp.zeros_like(regs.plan.shadow), alive)
    return state, assign(regs, on, at=jnp.where(alive, At.FAULT_END, At.DONE))


def table(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The block has a page table now; the fault goes on."""
    alive = on & ~state.oom
    blocks = store1(state.tables, regs.access.page >> 9, jnp.full_like(regs.got, tables.TABLE), alive)
    state = cgroups.own_table(state, regs.access.page >> 9, alive)
    regs = assign(regs, on, at=At.DONE)
    return replace(state, tables=blocks), assign(regs, alive, at=At.FAULT)


def arrive(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """What was charged: a new folio, mapped; or one that is read from swap."""
    access, plan, got = regs.access, regs.plan, regs.got
    asked = on & (plan.allowed != 0)

    def account(state: MachineState) -> MachineState:
        page = access.page % sharing.room(state)
        return _account(state, params, access, plan, regs.refused, got, page, surely(asked))

    state = when(asked, account, state)
    alive = on & ~state.oom
    fresh, swapin = alive & ~plan.swapin, alive & plan.swapin
    base = access.page >> got << got
    state = when(
        fresh,
        lambda s: rmap.new_folio(s, base, got, jnp.zeros_like(plan.shadow), surely(fresh)),
        state,
    )

    def bring(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        slot = plan.slot - access.page + base
        shadow, zero = plan.shadow, plan.table.zero
        return read(carry[0], params, regs, base, slot, got, shadow, zero, regs.past, surely(swapin))

    state, number = when(swapin, bring, (state, jnp.zeros_like(got)))
    major = swapin & ~access.willneed
    state = lru.drain(state, swapin & access.willneed)
    state = replace(state, n=count(state.n, major, pgmajfault=1))
    regs = assign(regs, on, at=At.DONE)
    regs = assign(regs, fresh, at=At.FAULT_END)
    regs = assign(regs, swapin & access.willneed, cursor=regs.cursor + 1, at=regs.home)
    return state, assign(regs, major, folio=number, at=At.MAP)


def map_folio(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Map all pages of the folio where all are swapped here alike, else the page; then let slots go."""
    access, rules = regs.access, params.rules
    word, slot, state = sharing.page(state, access.page)
    folio, state = sharing.folio(state, regs.folio)
    pages = sharing.room(state)
    base = (access.page & -pages) + folio.base
    first = folio.base & (BLOCK - 1)
    inside = (folio.order > 0) & (first >= access.start) & (first + folio.size <= access.end)

    def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & inside & carry[2] & (carry[1] < folio.size)

    def look(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, i, alike = carry
        active = surely(going(carry))
        other, place, state = sharing.page(state, base + i)
        differs = (other ^ word) & np.uint32(KIND | EXCLUSIVE)
        same = (differs == 0) & (place == slot + (base + i - access.page))
        return state, i + 1, alike & (same | ~active)

    state, _, alike = repeat(going, look, (state, jnp.zeros_like(slot), jnp.ones_like(on)))
    whole = inside & alike
    low, size = jnp.where(whole, base, access.page), jnp.where(whole, folio.size, 1)
    first_slot = slot + low - access.page
    alone = folio.maps == 0
    exclusive = has(word, EXCLUSIVE) | regs.past
    process = access.page // pages
    arrival = jnp.uint32(PRESENT | YOUNG | CAMEBACK) | only(jnp.uint32(LARGE), folio.order > 0)
    arrival = arrival | only(jnp.uint32(EXCLUSIVE), exclusive)

    def more(carry: tuple[MachineState, Folio, Lane]) -> Flag:
        return on & (carry[2] < size)

    def turn(carry: tuple[MachineState, Folio, Lane]) -> tuple[MachineState, Folio, Lane]:
        state, folio, i = carry
        active = surely(more(carry))
        old, _, state = sharing.page(state, low + i)
        state = slots.add_count(state, first_slot + i, -1, active)
        folio = rmap.add(folio, process, active)
        state = set_page(state, low + i, arrival | (old & np.uint32(NONZERO)), regs.folio, active)
        return state, folio, i + 1

    used = folio._replace(flags=folio.flags | USED)
    state, folio, _ = repeat(more, turn, (state, used, jnp.zeros_like(slot)))
    state = sharing.set_folio(state, regs.folio, folio, on)
    # Until 6.18: read past the swap cache, the slots go at once.
    past = on & regs.past
    state = lru.drain(state, on & ~past & access.write)
    state = slots.give_back_unused(state, first_slot, size, ~past, past)
    full = slots.vm_swap_full(state)
    early = ~past & (full | (access.write & alone))
    # should_try_to_free_swap
    late = full | devices.synchronous(state, slot) | (access.write & ~exclusive & alone)
    drops = on & jnp.where(rules.free_after_map, late, early)
    regs = assign(
        regs, on, at=At.MAPPED, low=low, pages=size, fixes=~rules.free_after_map & alone & ~exclusive
    )
    return state, assign(regs, drops, drop=regs.folio, at=At.DROP, back_drop=At.MAPPED)


def mapped(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """Until 6.18 pages are exclusive if the swap cache let go. A write goes on where they are not."""
    folio, state = sharing.folio(state, regs.folio)
    fixes = on & regs.fixes & (folio.place < 0)

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return fixes & (carry[1] < regs.pages)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        word, _, state = sharing.page(state, regs.low + i)
        return set_word(state, regs.low + i, word | jnp.uint32(EXCLUSIVE), surely(more(carry))), i + 1

    state, _ = repeat(more, turn, (state, jnp.zeros_like(regs.low)))
    word, _, state = sharing.page(state, regs.access.page)
    copies = on & regs.access.write & ~has(word, EXCLUSIVE)
    regs = assign(regs, on, at=At.FAULT_END)
    return state, assign(regs, copies, at=At.PROTECTED)


def protected(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """do_wp_page: nobody else maps the folio, perhaps; then the swap cache is to let go."""
    _, number, state = sharing.page(state, regs.access.page)
    folio, state = sharing.folio(state, number)
    found, blocks = load1(state.tables, regs.access.page >> 9)
    state = replace(state, tables=blocks)
    whole = on & (found == tables.HUGE)
    # All mappings are this process's: do_huge_pmd_wp_page reuses the folio.
    own = whole & (folio.maps == folio.size)
    pages = sharing.of(state).pages
    base = regs.access.page & -BLOCK

    def keep(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        pages, i = carry
        word, pages = load1(pages, base + i)
        return store1(pages, base + i, word | np.uint32(EXCLUSIVE), surely(own & (i < BLOCK))), i + 1

    pages, _ = repeat(lambda carry: own & (carry[1] < BLOCK), keep, (pages, jnp.zeros_like(base)))
    state = tables.split(sharing.put(state, pages=pages), base, whole & ~own)
    large = folio.order > 0
    shared, state = rmap.maybe_shared(state, params, number, folio, on & large)
    reusable = params.rules.reuse_large & (folio.maps > 1) & ~shared
    alone = jnp.where(large, reusable, folio.maps == 1)
    regs = assign(regs, on, folio=number, at=At.COPY)
    regs = assign(regs, own, at=At.FAULT_END)
    return state, assign(regs, on & alone & ~own, drop=number, at=At.DROP, back_drop=At.REUSE)


def reuse(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The page is this process's own if the swap cache let go of the folio."""
    folio, state = sharing.folio(state, regs.folio)
    own = on & (folio.place < 0)
    word, _, state = sharing.page(state, regs.access.page)
    state = set_word(state, regs.access.page, word | jnp.uint32(EXCLUSIVE), own)
    regs = assign(regs, on, at=At.COPY)
    return state, assign(regs, own, at=At.FAULT_END)


def copy(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """wp_page_copy: the charge for the copy."""
    payer = cgroups.of_process(state, regs.access.page // sharing.room(state))
    state = cgroups.enter(state, payer, on)
    return state, assign(regs, on, ask=0, tried=0, refused=0, at=At.CHARGE, back_charge=At.COPIED)


def copied(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """A small folio of its own; unless the charge threw the page out, then the fault comes again."""
    v = regs.access.page
    word, number, state = sharing.page(state, v)
    still = on & ~state.oom & (kind(word) == PRESENT) & (number == regs.folio)
    state = rmap.leave(state, word, still)
    folio, state = sharing.folio(state, jnp.maximum(regs.folio, 0))
    process = v // sharing.room(state)
    state = rmap.new_folio(state, v, jnp.zeros_like(v), word & np.uint32(NONZERO), still)
    state, folio = rmap.remove(state, regs.folio, folio, process, v, still)
    unused = still & (folio.maps == 0)
    gone = unused & (folio.place < 0)
    state = slots.forget(state, regs.folio, folio, gone)
    regs = assign(regs, on, at=jnp.where(state.oom, At.DONE, At.FAULT_END))
    return state, assign(regs, unused & ~gone, drop=regs.folio, at=At.DROP, back_drop=At.FAULT_END)


def end(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The fault is served; the access comes again."""
    return replace(state, n=count(state.n, on, faults=1)), assign(regs, on, at=regs.home)
