"""Unfinished work of a lane: a charge to get through, folios to split and to write out.

All of it is one loop, so that a fault and advice share what it is compiled to, and lanes that are at
different points of it go together. The multi-gen LRU has the same phases as the classic one: in BATCH it ages
and isolates folios, in INACTIVE it looks at those, in SETTLE it puts back what stays.
"""

import jax.numpy as jnp

from jaxswap.machine import advise, deferred, holding, mglru, reclaim, swapout
from jaxswap.machine.layout import Layout
from jaxswap.machine.state import Flag, MachineParams, MachineState
from jaxswap.machine.work import (
    ACTIVE,
    BATCH,
    CHARGE,
    END,
    IDLE,
    INACTIVE,
    NEXT,
    PASS,
    SETTLE,
    SLAB,
    Leaving,
    Work,
    change,
    to_write,
)
from jaxswap.swaptable.lanes import repeat, surely, when

_Carry = tuple[MachineState, Work, Leaving]


def finish(
    state: MachineState, params: MachineParams, work: Work, leaving: Leaving, layout: Layout
) -> tuple[MachineState, Work]:
    """Get charges through and folios out. A small charge that fails sets `oom`."""
    generational = state.generations is not None

    def busy(carry: _Carry) -> Flag:
        _, work, leaving = carry
        here = _going(leaving) | (leaving.due > 0) | (work.phase == INACTIVE)
        return here | _is_cutting(leaving) | _is_choosing(leaving)

    def turn(carry: _Carry) -> _Carry:
        state, work, leaving = carry
        charging = work.phase == CHARGE
        if state.frames is not None:
            state, work = holding.follow(state, work, charging)
            charging = work.phase == CHARGE
        state, work = when(
            charging, lambda c: reclaim.charge(c[0], c[1], params, surely(charging)), (state, work)
        )
        state, work = reclaim.look_at_high(state, work, params)
        starting = (work.phase == PASS) | (work.phase == BATCH)
        state, work = when(starting, lambda c: start(*c, surely(starting)), (state, work))
        state, work, leaving = repeat(busy, lambda c: _let_go(c, params, layout), (state, work, leaving))
        settling = work.phase >= SETTLE
        return when(settling, lambda c: settle(c, surely(settling)), (state, work, leaving))

    def start(state: MachineState, work: Work, on: Flag) -> tuple[MachineState, Work]:
        if generational:
            return mglru.begin(state, params, work, layout, on)
        return reclaim.begin(state, params, work, on)

    def settle(carry: _Carry, on: Flag) -> _Carry:
        """What follows the scan: its accounts, the active list, perhaps the end of the pass."""
        state, work, leaving = carry
        settling = on & (work.phase == SETTLE)
        if generational:
            state, work = when(settling, lambda c: mglru.settle(*c, surely(settling)), (state, work))
        else:
            state, work = reclaim.settle(state, params, work, settling)
            state, work = reclaim.scan_active(state, params, work, on & (work.phase == ACTIVE))
        return when(on & (work.phase >= SLAB), stop, (state, work, leaving))

    def stop(carry: _Carry) -> _Carry:
        state, work, leaving = carry
        slab = work.phase == SLAB
        state, due = deferred.shrink_slab(state, work.priority, slab)
        work, leaving = change(work, slab, phase=NEXT), leaving._replace(due=leaving.due + due)
        # The pass ends when the folios of the deferred split list are split.
        ending = (work.phase == NEXT) & (leaving.due == 0)
        if generational:
            work = mglru.end_pass(work, ending)
        else:
            state, work = reclaim.end_pass(state, work, work.goal, ending)
        pages = jnp.int32(1) << work.order
        state, work = reclaim.end_reclaim(state, params, work, pages, work.phase == END)
        return state, work, leaving

    def left(carry: _Carry) -> Flag:
        return (carry[1].phase != IDLE) | busy(carry)

    state, work, _ = repeat(left, turn, (state, work, leaving))
    return state, work


def _going(leaving: Leaving) -> Flag:
    """Whether a folio is to be split or to go now."""
    return to_write(leaving) | (leaving.cut >= 0)


def _is_cutting(leaving: Leaving) -> Flag:
    """Whether advice has pages whose folios may have to be split."""
    return leaving.cutting < leaving.stop


def _is_choosing(leaving: Leaving) -> Flag:
    """Whether advice has pages that are to go."""
    return leaving.out & (leaving.at < leaving.stop)


def _let_go(carry: _Carry, params: MachineParams, layout: Layout) -> _Carry:
    """Find the next folio that is to be split or to go; split one; write one out."""
    finding = ~to_write(carry[2])
    state, work, leaving = when(finding, lambda c: _find(c, params, layout), carry)
    writing = to_write(leaving)

    def write(carry: tuple[MachineState, Leaving]) -> tuple[MachineState, Leaving]:
        state, leaving = carry
        go, state = swapout.next_to_go(state, params.rules, leaving)
        return swapout.shrink_folio(state, params, leaving, go)

    state, leaving = when(writing, write, (state, leaving))
    return state, work, leaving


def _find(carry: _Carry, params: MachineParams, layout: Layout) -> _Carry:
    """Of lanes that have nothing to write out: what reclaim or advice chooses, or the pieces of a folio."""
    free = ~_going(carry[2])
    scanning = free & (carry[1].phase == INACTIVE)

    def scan(carry: _Carry) -> _Carry:
        state, work, leaving = carry
        on = surely(scanning)
        if state.generations is None:
            state, work, victim = reclaim.scan_inactive(state, params, work, on)
        else:
            state, work, victim = mglru.look_at(state, params, work, layout, on)
        chosen = on & (victim >= 0)
        victim, alike = jnp.where(chosen, victim, leaving.victim), jnp.where(chosen, 1, leaving.alike)
        return state, work, leaving._replace(victim=victim, alike=alike)

    state, work, leaving = when(scanning, scan, carry)

    def seek(carry: tuple[MachineState, Leaving]) -> tuple[MachineState, Leaving]:
        state, leaving = carry
        cutting = free & _is_cutting(leaving)
        state, leaving = when(cutting, lambda c: advise.across(*c, surely(cutting)), (state, leaving))
        choosing = free & ~_is_cutting(leaving) & (leaving.cut < 0) & _is_choosing(leaving)
        state, leaving = when(
            choosing, lambda c: swapout.next_in_range(*c, surely(choosing)), (state, leaving)
        )
        due = free & (leaving.due > 0)
        leaving = leaving._replace(
            cut=jnp.where(due, state.deferred_first, leaving.cut),
            listed=leaving.listed | due,
            due=leaving.due - due,
        )
        splitting = leaving.cut >= 0
        return when(
            splitting, lambda c: advise.split(c[0], params.rules, c[1], surely(splitting)), (state, leaving)
        )

    seeking = (leaving.cut >= 0) | _is_cutting(leaving) | _is_choosing(leaving) | (leaving.due > 0)
    state, leaving = when(seeking & ~scanning, seek, (state, leaving))
    return state, work, leaving
