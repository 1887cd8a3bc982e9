"""Reclaim under a memory limit, over folios that several processes may map.

Source of the rules: mm/vmscan.c (shrink_inactive_list, shrink_active_list, folio_check_references),
mm/rmap.c (folio_referenced), 7.3. Charges, passes and costs are those of jaxswap.machine.reclaim.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine import cgroups, deferred, lru
from jaxswap.machine.counters import count
from jaxswap.machine.reclaim import begin, charge, end_pass, end_reclaim, settle
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared import swapout
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import (
    ACTIVE,
    LISTED,
    PRESENT,
    REFERENCED,
    WORKINGSET,
    YOUNG,
    Folio,
    flagged,
    has,
    kind,
    set_word,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.machine.work import ACTIVE as ACTIVE_PHASE
from jaxswap.machine.work import BATCH, CHARGE, END, IDLE, INACTIVE, NEXT, PASS, SETTLE, SLAB, Work, change
from jaxswap.swaptable.lanes import repeat, surely, when


def work(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """A turn of the charge under way."""
    state = replace(state, deferred=sharing.deferred_here(state))
    carry = (state, regs.work)
    phase = regs.work.phase
    scans = on & (phase == INACTIVE)
    charging = on & (phase == CHARGE)
    carry = when(charging, lambda c: charge(c[0], c[1], params, surely(charging)), carry)
    starting = on & ((phase == PASS) | (phase == BATCH))
    carry = when(starting, lambda c: begin(c[0], params, c[1], surely(starting)), carry)
    settling = on & (phase == SETTLE)
    carry = when(settling, lambda c: settle(c[0], params, c[1], surely(settling)), carry)
    ageing = on & (phase == ACTIVE_PHASE)
    carry = when(ageing, lambda c: scan_active(c[0], c[1], surely(ageing)), carry)

    def stop(carry: tuple[MachineState, Work]) -> tuple[MachineState, Work]:
        state, work = carry
        ending = on & (work.phase == NEXT)
        state, work = end_pass(state, work, work.goal, ending)
        pages = jnp.int32(1) << work.order
        return end_reclaim(state, params, work, pages, on & (work.phase == END))

    carry = when(on & (phase >= NEXT), stop, carry)
    state, done = carry
    # The pass ends when the shrinker is done with the deferred split list.
    slab = on & (done.phase == SLAB)
    state, due = deferred.shrink_slab(state, done.priority, slab)
    done = change(done, slab, phase=NEXT)
    regs = assign(regs, due > 0, deferred=due, at=At.SPLIT_DEFERRED)
    state, done, victim = when(
        scans, lambda c: scan_inactive(c[0], c[1], surely(scans)), (state, done, jnp.full_like(phase, -1))
    )
    regs = replace(regs, work=done)
    regs = assign(regs, on & (victim >= 0), shrink=victim, at=At.SHRINK, back_shrink=At.CHARGE_WORK)
    over = on & (done.phase == IDLE)
    return state, assign(regs, over, got=done.order, refused=done.refused, at=regs.back_charge)


def split_deferred(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """deferred_split_scan: the first folio of the deferred split list, whose pieces take its place."""
    some = on & (regs.deferred > 0)
    first, state = sharing.first_deferred(state)
    state = lru.drain(state, some)
    regs = assign(regs, on, at=At.CHARGE_WORK)
    regs = assign(regs, some, deferred=regs.deferred - 1)
    return swapout.split_on_lru(state, regs, jnp.where(some, first, 0), At.SPLIT_DEFERRED, some)


def references(state: MachineState, number: Lane, folio: Folio, on: Flag) -> tuple[Lane, MachineState]:
    """folio_referenced: processes with a young page of the folio; young bits are cleared. Processes of other
    cgroups are not looked at (invalid_folio_referenced_vma).
    """
    pages = sharing.room(state)

    def more(carry: tuple) -> Flag:
        return on & (carry[1] < sharing.processes(state))

    def turn(carry: tuple) -> tuple:
        state, process, i, found, young = carry
        active = surely(more(carry))
        word, owner, state = sharing.page(state, process * pages + folio.base + i)
        mine = active & (kind(word) == PRESENT) & (owner == number) & cgroups.mine(state, process)
        mine = mine & has(word, YOUNG)
        state = set_word(
            state, process * pages + folio.base + i, word & jnp.uint32(~YOUNG & 0xFFFF_FFFF), mine
        )
        young = young | mine
        last = i == folio.size - 1
        found = found + (active & last & young)
        return state, process + last, jnp.where(last, 0, i + 1), found, young & ~last

    zero = jnp.zeros_like(number)
    state, _, _, found, _ = repeat(more, turn, (state, zero, zero, zero, jnp.zeros_like(on)))
    return found, state


def scan_inactive(state: MachineState, work: Work, on: Flag) -> tuple[MachineState, Work, Lane]:
    """shrink_inactive_list: rotate or activate folios at the tail, up to one that is to go; -1 if none is."""
    no = jnp.zeros_like(on)
    sentinel = lru.sentinel(state, no)

    def tail(state: MachineState, work: Work, victim: Lane) -> tuple[Lane, Flag, MachineState]:
        v, state = lru.tail(state, no)
        more = (work.scanned < work.want) & (v != sentinel) & (v != work.kept)
        return v, on & more & (victim < 0), state

    def visit(carry: tuple[MachineState, Work, Lane]) -> tuple[MachineState, Work, Lane]:
        state, work, victim = carry
        number, more, state = tail(*carry)
        more = surely(more)
        folio, state = sharing.folio(state, number)
        found, state = references(state, number, folio, more)
        young = more & (found > 0)
        activates = young & (folio.has(REFERENCED) | (found > 1))
        state = lru.remove(state, number, no, folio.size, more)
        state = lru.add(state, number, activates, folio.size, young)
        after = flagged(flagged(folio, REFERENCED, young), ACTIVE, activates)
        state = sharing.set_folio(state, number, flagged(after, LISTED, young), more)
        n = count(state.n, activates, pgactivate=folio.size)
        grown = jnp.where(activates, folio.size, 0)
        state = replace(state, n=n, age_at_end=state.age_at_end + grown)
        work = replace(
            work,
            scanned=work.scanned + jnp.where(more, folio.size, 0),
            kept=jnp.where(young & ~activates & (work.kept < 0), number, work.kept),
        )
        return state, work, jnp.where(more & ~young, number, victim)

    start = (state, work, jnp.full_like(work.want, -1))
    state, work, victim = repeat(lambda carry: tail(*carry)[1], visit, start)
    return state, change(work, on & (victim < 0), phase=SETTLE), victim


def scan_active(state: MachineState, work: Work, on: Flag) -> tuple[MachineState, Work]:
    """shrink_active_list: move folios from the tail to the head of the inactive list, to the batch's end."""
    yes = jnp.ones_like(on)
    sentinel = lru.sentinel(state, yes)

    def tail(state: MachineState, scanned: Lane) -> tuple[Lane, Flag, MachineState]:
        v, state = lru.tail(state, yes)
        return v, on & (scanned < work.want_active) & (v != sentinel), state

    def visit(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, scanned = carry
        number, more, state = tail(state, scanned)
        more = surely(more)
        folio, state = sharing.folio(state, number)
        _, state = references(state, number, folio, more)
        state = lru.remove(state, number, yes, folio.size, more)
        state = lru.add(state, number, ~yes, folio.size, more)
        after = flagged(flagged(folio, ACTIVE, ~yes), WORKINGSET, yes)
        state = sharing.set_folio(state, number, after, more)
        state = replace(state, n=count(state.n, more, pgdeactivate=folio.size, pgrefill=folio.size))
        return state, scanned + jnp.where(more, folio.size, 0)

    state, _ = repeat(lambda carry: tail(*carry)[1], visit, (state, jnp.zeros_like(work.want)))
    return state, change(work, on, phase=jnp.where(work.last, SLAB, BATCH))
