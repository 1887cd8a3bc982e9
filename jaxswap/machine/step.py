"""One compiled operation on all lanes.

The kind of an operation is one scalar for all lanes; inside it each lane goes at its own pace, from one fault
to the next.
"""

import functools
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.machine import (
    fault,
    future,
    generations,
    holding,
    lru,
    program,
    rows,
    settings,
    tables,
    tlb,
)
from jaxswap.machine.advise import cool, over, prepare
from jaxswap.machine.fault import Access, Foresee, touched
from jaxswap.machine.finish import finish
from jaxswap.machine.layout import layout_of
from jaxswap.machine.program import WINDOW, Program
from jaxswap.machine.reclaim import at_once, try_charge, work_off
from jaxswap.machine.release import dont_need
from jaxswap.machine.rows import once
from jaxswap.machine.shared import step as shared
from jaxswap.machine.state import PLANES, Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.work import leaving_of, work_of
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import load1, repeat, store1, surely, when

_NEVER = PLANES - 1  # a spare word of a row: always empty
_FEW = 8  # words of a row that an access looks at or changes


class _Operation(NamedTuple):
    """The operation: its kind, its block, its page of place 0 (in a stream, places are those of the access
    table), where it ends, its VMA (in a stream, each access has its own); SET: the file in `block`, the value
    in `vma`. quiet: the word of a row in which pages are that an access of it passes by; for a stream that of
    reads, and the next one for writes."""

    kind: Int32[Array, ""]
    block: Int32[Array, ""]
    base: Int32[Array, ""]
    end: Int32[Array, ""]
    vma: Int32[Array, ""]
    quiet: Int32[Array, ""]

    @property
    def stream(self) -> Bool[Array, ""]:
        return self.kind == program.STREAM

    @property
    def writes(self) -> Bool[Array, ""]:
        return (self.kind == program.TOUCH) | (self.kind == program.ZERO)


def _operation(ops: Program, i: Int32[Array, ""]) -> _Operation:
    kind = ops.kind[i]
    quiet = jnp.where(
        (kind == program.STREAM) | (kind == program.READ),
        int(Plane.QUIET),
        jnp.where(kind == program.TOUCH, int(Plane.QUIET_WRITE), _NEVER),
    )
    return _Operation(kind, ops.block[i], ops.block[i] * 512, ops.end[i], ops.vma[i], quiet)


def step(state: MachineState, params: MachineParams, ops: Program, i: Int32[Array, ""]) -> MachineState:
    """Operation i of the program."""
    if state.sharing is not None:
        return shared.step(state, params, ops, i)
    op = once(_operation(ops, i))
    lanes = state.oom.shape

    def spread(x: Array) -> Array:
        return jnp.broadcast_to(x, lanes)

    first, stop = spread(ops.start[i]), spread(op.end)
    zero, ahead = spread(op.kind == program.ZERO), spread(op.kind == program.WILLNEED)
    accesses = spread(op.kind <= program.WILLNEED)

    def owing(state: MachineState) -> Flag:
        """On the way back to user mode, after a fault or WILLNEED, with something beyond memory.high."""
        if params.high is None:
            return jnp.zeros(lanes, bool)
        faulted = accesses & ~ahead & (state.clock == state.ended)
        return (faulted | (op.kind == program.RETURN)) & (state.over_high > 0)

    def going(carry: tuple[MachineState, Lane]) -> Flag:
        state, cursor = carry
        return ((cursor < op.end) | owing(state)) & ~state.oom

    def advance(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, cursor = carry
        on, owes = surely(going(carry)), once(owing(state))
        walks = on & accesses & ~owes
        state, cursor, faults = when(
            walks,
            lambda c: _walk(c[0], ops, op, c[1], ahead, zero, surely(walks)),
            (state, cursor, jnp.zeros(lanes, bool)),
        )

        begin, behind = spread(op.base) + cursor, spread(op.base) + stop
        acts = on & ~accesses & ~owes
        state = when(acts, lambda s: _act(s, params, op, begin, behind, surely(acts)), state)
        cools, goes = acts & (op.kind == program.COLD), acts & (op.kind == program.PAGEOUT)

        def ask(carry: tuple[MachineState, _Fault]) -> tuple[MachineState, _Fault]:
            access = _access_at(ops, op, cursor, stop, zero, ahead)
            foresee = None
            if ops.before is not None:
                now = ops.before[i] + jnp.where(ahead, 0, cursor - first)
                access = access._replace(now=now)
                if ops.future is not None:
                    foresee = functools.partial(future.ahead, ops.future, now)
            return _ask(carry[0], params, access, surely(faults), foresee)

        state, found = when(faults, ask, (state, _no_fault(cursor, ops)))
        asked = found.ask
        insists = found.insists | (on & owes)

        def insist(carry: tuple[MachineState, Lane, Mask]) -> tuple[MachineState, Lane, Mask]:
            state = carry[0]
            work = work_of(asked.order, asked.tried, asked.refused, asked.gfp, found.unmet)
            state, work = work_off(state, work, insists & ~found.unmet)
            leaving = leaving_of(begin, behind, goes, cools | goes)
            state, work = finish(state, params, work, leaving, layout_of(ops, i))
            state = when(cools, lambda s: cool(s, params, begin, behind, surely(cools)), state)
            return over(state, goes), work.order, work.refused

        state, got, refused = when(insists | cools | goes, insist, (state, asked.order, asked.refused))

        def end(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
            state, done = _end(carry[0], params, found, got, refused, surely(faults))
            return state, carry[1] + done

        state, cursor = when(faults, end, (state, cursor))
        return state, jnp.where(acts, stop, cursor)

    return repeat(going, advance, (state, first))[0]


def _act(
    state: MachineState, params: MachineParams, op: _Operation, begin: Lane, behind: Lane, on: Flag
) -> MachineState:
    """An operation other than accesses, on pages begin .. behind - 1; of advice what comes before folios are
    split and go."""
    unmaps = on & (op.kind == program.UNMAP)
    releases = unmaps | (on & (op.kind == program.DONTNEED))
    advised = on & ((op.kind == program.COLD) | (op.kind == program.PAGEOUT))

    def free(state: MachineState) -> MachineState:
        state = dont_need(state, begin, behind, surely(releases))
        return tables.zap(state, begin, behind, unmaps | params.rules.reclaim_tables, surely(releases))

    state = when(releases, free, state)
    state = tlb.flush_range(state, params, behind - begin, releases)
    state = prepare(state, begin, behind, advised, advised & (op.kind == program.PAGEOUT))

    def write(state: MachineState) -> MachineState:
        return replace(state, settings=settings.write(state.settings, op.block, op.vma))

    state = when(on & (op.kind == program.SET), write, state)
    state = lru.flush_statistics(state, on & (op.kind == program.FLUSH) & (params.flush != 0))
    splits = on & (op.kind == program.SPLIT)
    return when(splits, lambda s: tables.split(s, begin, surely(splits)), state)


class _Fault(NamedTuple):
    """A fault under way. unmet: its charge did not go through at once; insists: there is more to do for it,
    before its pages are mapped."""

    access: Access
    plan: fault.Plan
    ask: fault.Ask
    unmet: Flag
    insists: Flag


def _no_fault(like: Lane, ops: Program) -> _Fault:
    """Of lanes without one."""
    zero, off = jnp.zeros_like(like), jnp.zeros(like.shape, bool)
    now = None if ops.before is None else zero
    access = Access(zero, zero, off, off, off, zero, zero, zero, now)
    return _Fault(access, *fault.nothing(like), off, off)


def _ask(
    state: MachineState, params: MachineParams, access: Access, on: Flag, foresee: Foresee | None
) -> tuple[MachineState, _Fault]:
    """A fault up to its charge. foresee: as fault.begin has it."""
    state, plan, ask = fault.begin(state, params, access, on, foresee)
    before, ready = state, ask.on
    if state.frames is not None:
        small = plan.touch | plan.swapin | (plan.zeropage & access.write)
        state, ready = holding.begin(state, ask.order, small, ask.on)
    state, charged = try_charge(state, params, ask.order, ask.on, ask.gfp, ready)
    unmet = insists = once(ask.on & ~charged)
    if params.high is not None:
        insists = unmet | (charged & at_once(state, before, ask.order, ask.gfp))
    return state, _Fault(access, plan, ask, unmet, insists)


def _end(
    state: MachineState, params: MachineParams, found: _Fault, got: Lane, refused: Mask, on: Flag
) -> tuple[MachineState, Lane]:
    """A fault after its charge: (state, how many pages are done with)."""
    access, plan = found.access, found.plan
    # Pages that fault alike are charged from the stock.
    alone = found.insists | (state.over_high > 0)
    more = once(jnp.where(alone, 0, jnp.minimum(plan.run - 1, state.stock)))
    if state.frames is not None:
        more = holding.affordable(state, more)
    state = replace(state, used=state.used + more, stock=state.stock - more)
    # What was charged beyond memory.high is worked off before the access comes again.
    works = jnp.zeros_like(on) if params.high is None else once((state.over_high > 0) & ~access.willneed)
    state, done = fault.end(state, params, access, plan, got, refused, more + 1, works, on)
    if state.frames is not None:
        state = holding.settle(state, access.page, more + 1, on)
    return state, jnp.where(done & ~works, more + 1, 0)


def _place(ops: Program, op: _Operation, cursor: Lane) -> tuple[Lane, UInt32[Array, " L"]]:
    """Page of the region at a place of the operation, and whether it is written (1 or 0)."""
    at = jnp.where(op.stream, cursor, 0)
    if cursor.shape == (1,):
        word = lax.dynamic_slice(ops.accesses, (at[0].astype(jnp.uint32),), (1,))
    else:
        word = jnp.take(ops.accesses, at, mode="clip")
    page = jnp.where(op.stream, (word >> 1).astype(jnp.int32), op.base + cursor)
    return page, jnp.where(op.stream, word & 1, op.writes.astype(jnp.uint32))


def _walk(
    state: MachineState, ops: Program, op: _Operation, cursor: Lane, ahead: Flag, zero: Flag, on: Flag
) -> tuple[MachineState, Lane, Flag]:
    """Go through accesses up to the first that needs the kernel: (state, its place, whether there is one).

    One lane goes through a stream access by access; many lanes look ahead for those that change something.
    """
    alone = cursor.shape == (1,)

    def walking(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        _, cursor, stopped = carry
        return on & ~stopped & (cursor < op.end)

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, cursor, stopped = carry
        active = surely(walking(carry))
        found = _pass_range(state, op, cursor) if alone else _pass_by(state, ops, op, cursor, active)
        cursor, table = once((found, state.rows))
        here = once(active & (cursor < op.end))
        page, write = once(_place(ops, op, cursor))
        (present, swapped, cached), table = _words(table, page, (Plane.PRESENT, Plane.SWAPPED, Plane.INCACHE))
        most = jnp.where(op.stream, 1, op.end - cursor)
        run = jnp.minimum(bits.ctz(~(present >> (page & 31).astype(jnp.uint32))), most)
        run, passed = once((run, here & ahead & ~rows.has(swapped & ~cached, page)))
        marked = once(here & ~ahead & (run > 0))

        def mark(state: MachineState) -> MachineState:
            row, state = rows.get(state, page)
            pages = once(rows.only(rows.rest(page, page + run), marked))
            state = rows.put(state, page, touched(row, pages, write == 1, zero), surely(marked))
            return generations.use(state, page, surely(marked))

        state = when(marked, mark, replace(state, rows=table))
        cursor = cursor + jnp.where(marked, run, passed)
        return state, cursor, stopped | (here & ~marked & ~passed)

    start = (state, cursor, jnp.zeros_like(on))
    if not alone:
        return repeat(walking, turn, start)

    def stream(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, cursor = _pass_stream(carry[0], ops, op, carry[1])
        return state, cursor, cursor < op.end

    def pages(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        return repeat(walking, turn, carry)

    return when(~op.stream[None], pages, when(op.stream[None], stream, start))


def _words(table: Array, page: Lane, planes: tuple[Plane, ...]) -> tuple[list[Mask], Array]:
    """Some words of the row of each lane's page."""
    found = []
    for plane in planes:
        word, table = load1(table, (page >> 5) * PLANES + plane)
        found.append(word)
    return found, table


def _pass_by(state: MachineState, ops: Program, op: _Operation, cursor: Lane, on: Flag) -> Lane:
    """The first place from `cursor` on whose access changes something, or the end."""

    def window(carry: tuple[Lane, Flag]) -> tuple[Lane, Flag]:
        cursor, looking = carry
        places = jnp.minimum(cursor[None] + np.arange(WINDOW, dtype=np.int32)[:, None], op.end)
        page, write = _place(ops, op, places)
        at = (page >> 5) * PLANES + op.quiet + jnp.where(op.stream, write, 0).astype(jnp.int32)
        words = state.rows[at, jnp.arange(cursor.shape[0])[None]]
        loud = ~rows.has(words, page) | (places >= op.end)
        found = jnp.any(loud, axis=0)
        ahead = jnp.where(found, jnp.argmax(loud, axis=0).astype(jnp.int32), WINDOW)
        cursor = jnp.where(looking, cursor + ahead, cursor)
        return cursor, looking & ~found

    return repeat(lambda carry: carry[1] & (carry[0] < op.end), window, (cursor, on))[0]


_IS_QUIET_WRITE, _IS_YOUNG = (np.arange(_FEW)[:, None] == plane for plane in (Plane.QUIET_WRITE, Plane.YOUNG))
_ACCESSED = np.zeros((2, _FEW), np.uint32)
_ACCESSED[:, [Plane.YOUNG, Plane.TOUCHED, Plane.QUIET]] = rows.ALL
_ACCESSED[1, [Plane.NONZERO, Plane.QUIET_WRITE]] = rows.ALL


def _pass_stream(
    state: MachineState, ops: Program, op: _Operation, cursor: Lane
) -> tuple[MachineState, Lane]:
    """The first place from `cursor` on whose access needs the kernel; pages are marked on the way."""

    def access(cursor: Lane) -> tuple[UInt32[Array, " 1"], UInt32[Array, " 1"], UInt32[Array, " 1"]]:
        word = lax.dynamic_slice(ops.accesses, (cursor[0].astype(jnp.uint32),), (1,))
        return (word >> 6) * PLANES, jnp.uint32(1) << ((word >> 1) & 31), word & 1

    def quiet(table: Array, cursor: Lane) -> Flag:
        at, bit, write = access(cursor)
        word = lax.dynamic_slice(table, (at[0] + int(Plane.QUIET) + write[0], np.uint32(0)), (1, 1))[0]
        return (word & bit != 0) & (cursor < op.end)

    def passes(carry: tuple[Array, Lane, Array | None]) -> Flag:
        table, cursor, _ = carry
        at, bit, write = access(cursor)
        present = lax.dynamic_slice(table, (at[0] + int(Plane.PRESENT), np.uint32(0)), (1, 1))[0]
        zeropage = lax.dynamic_slice(table, (at[0] + int(Plane.ZEROPAGE), np.uint32(0)), (1, 1))[0]
        return ((present | (zeropage & (write - 1))) & bit != 0) & (cursor < op.end)

    def mark(carry: tuple[Array, Lane, Array | None]) -> tuple[Array, Lane, Array | None]:
        table, cursor, used = carry
        table, cursor = once(repeat(lambda c: quiet(*c), lambda c: (c[0], c[1] + 1), (table, cursor)))

        def change(table: Array) -> Array:
            at, bit, write = access(cursor)
            row, table = once((lax.dynamic_slice(table, (at[0], np.uint32(0)), (_FEW, 1)), table))
            bit = bit & row[Plane.PRESENT]
            chosen = jnp.where(write == 1, _ACCESSED[1], _ACCESSED[0])[:, None]
            filled = jnp.where(_IS_QUIET_WRITE, row[Plane.NONZERO], np.uint32(0))
            seen = jnp.where(_IS_YOUNG, row[Plane.QUIET], np.uint32(0))
            row = row | ((chosen & ~seen | filled) & bit)
            return once(lax.dynamic_update_slice(table, row, (at[0], np.uint32(0))))

        on, table = once((passes((table, cursor, used)), table))
        if used is not None:
            at, bit, _ = access(cursor)
            present = lax.dynamic_slice(table, (at[0] + int(Plane.PRESENT), np.uint32(0)), (1, 1))[0]
            block = (at // (16 * PLANES)).astype(jnp.int32)
            used = store1(used, block, jnp.ones_like(block), on & (present & bit != 0))
        return when(on, change, table), cursor + on, used

    used = None if state.generations is None else state.generations.used
    table, cursor, used = repeat(passes, mark, (state.rows, cursor, used))
    if used is not None:
        state = generations.put(state, used=used)
    return replace(state, rows=table), cursor


def _pass_range(state: MachineState, op: _Operation, cursor: Lane) -> Lane:
    def look(carry: tuple[Lane, Flag]) -> tuple[Lane, Flag]:
        cursor, _ = carry
        page = op.base + cursor
        at = (page >> 5) * PLANES + op.quiet
        word = lax.dynamic_slice(state.rows, (at[0].astype(jnp.uint32), np.uint32(0)), (1, 1))[0]
        loud = ~word >> (page & 31).astype(jnp.uint32)
        found = jnp.where(loud != 0, cursor + bits.ctz(loud), (cursor | 31) + 1)
        return jnp.minimum(found, op.end), loud != 0

    return repeat(
        lambda carry: ~carry[1] & (carry[0] < op.end), look, (cursor, jnp.zeros(cursor.shape, bool))
    )[0]


def _access_at(ops: Program, op: _Operation, cursor: Lane, stop: Lane, zero: Flag, ahead: Flag) -> Access:
    """The access at a place that needs the kernel."""
    page, write = once(_place(ops, op, cursor))
    vma = jnp.where(op.stream, jnp.take(ops.access_vma, jnp.where(op.stream, cursor, 0), mode="clip"), op.vma)
    offset = page & -512
    return once(
        Access(
            page=page,
            stop=jnp.where(op.stream, page + 1, op.base + stop),
            write=write == 1,
            zero=zero,
            willneed=ahead,
            start=jnp.clip(jnp.take(ops.vma_start, vma, mode="clip") - offset, 0, 512),
            end=jnp.clip(jnp.take(ops.vma_end, vma, mode="clip") - offset, 0, 512),
            advice=jnp.take(ops.vma_advice, vma, mode="clip"),
        )
    )
