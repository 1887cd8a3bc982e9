"""One compiled operation on all lanes.

The kind of an operation is one scalar for all lanes; inside a stream of accesses each lane goes at its own
pace, from one access that changes something to the next.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Shaped, UInt32

from jaxswap.machine import blocks, fault, program, words
from jaxswap.machine.advise import advise
from jaxswap.machine.fault import Access, touched
from jaxswap.machine.program import WINDOW, Program
from jaxswap.machine.reclaim import finish, try_charge
from jaxswap.machine.release import dont_need
from jaxswap.machine.state import (
    BLOCK_WORDS,
    QUIET,
    READY,
    Flag,
    Lane,
    MachineParams,
    MachineState,
    Mask,
    Plane,
)
from jaxswap.machine.work import charge_work
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import repeat, when

_INDEX = np.arange(WINDOW, dtype=np.int32)[:, None]
_ALL = np.uint32(0xFFFF_FFFF)
_MARKED = (Plane.YOUNG, Plane.TOUCHED, Plane.NONZERO, QUIET, QUIET + 1)


class _Event(NamedTuple):
    """What a lane does next: mark pages as accessed, then perhaps fault, then stand at `cursor`.

    marks: accesses of a stream's window, one bit each. read, written: pages of the operation's block.
    """

    marks: Mask
    read: Bits
    written: Bits
    page: Lane
    write: Flag
    faults: Flag
    cursor: Lane
    vma: Lane


def step(state: MachineState, params: MachineParams, ops: Program, i: Int32[Array, ""]) -> MachineState:
    """Operation i of the program."""
    kind, start, end = ops.kind[i], ops.start[i], ops.end[i]
    lanes = state.oom.shape

    def spread(x: Array) -> Array:
        return jnp.broadcast_to(x, lanes)

    block, first, stop = spread(ops.block[i]), spread(start), spread(end)
    zero, ahead, cold = (spread(kind == k) for k in (program.ZERO, program.WILLNEED, program.COLD))
    releases = spread(kind == program.DONTNEED)
    advises = cold | (kind == program.PAGEOUT)

    def going(carry: tuple[MachineState, Lane]) -> Flag:
        state, cursor = carry
        return (cursor < end) & ~state.oom

    def advance(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, cursor = carry
        on = going(carry)
        event = lax.cond(
            kind == program.STREAM,
            lambda: _stream(state, ops, cursor, end),
            lambda: _range(state, ops, i, block, cursor, stop),
        )
        event, table = lax.optimization_barrier((event, state.blocks))
        state = replace(state, blocks=table)
        state = _mark_stream(state, ops, cursor, jnp.where(on, event.marks, jnp.uint32(0)))
        marks = on & bits.some(event.read | event.written)

        def mark(state: MachineState) -> MachineState:
            planes, state = blocks.get(state, block)
            after = touched(planes, event.read, ~marks, zero)
            return blocks.put(state, block, planes, touched(after, event.written, marks, zero), marks)

        state = when(marks, mark, state)

        release = on & releases
        state = when(release, lambda s: dont_need(s, block, first, stop, release), state)
        advised = on & advises
        heads = jnp.zeros((16, *lanes), jnp.uint32)
        state, heads = when(
            advised, lambda c: advise(c[0], block, first, stop, cold, advised), (state, heads)
        )

        faults = on & event.faults
        offset = event.page & -512
        access = Access(
            page=event.page,
            write=event.write,
            zero=zero,
            willneed=ahead,
            start=jnp.clip(jnp.take(ops.vma_start, event.vma, mode="clip") - offset, 0, 512),
            end=jnp.clip(jnp.take(ops.vma_end, event.vma, mode="clip") - offset, 0, 512),
            advice=jnp.take(ops.vma_advice, event.vma, mode="clip"),
        )

        def serve(carry: tuple[MachineState, Flag]) -> tuple[MachineState, Flag]:
            state, plan, ask = fault.begin(carry[0], params, access, faults)
            state, charged = try_charge(state, params, ask.order, ask.on, ask.on)
            unmet = ask.on & ~charged

            def insist(carry: tuple[MachineState, Lane, Mask]) -> tuple[MachineState, Lane, Mask]:
                work = charge_work(ask.order, ask.tried, ask.refused, ask.may_reclaim, unmet)
                state, work = finish(carry[0], params, replace(work, block=block, heads=heads))
                return state, work.order, work.refused

            more = unmet | bits.some(heads)
            state, got, refused = when(more, insist, (state, ask.order, ask.refused))
            return fault.end(state, params, access, plan, got, refused, faults)

        state, done = when(faults | bits.some(heads), serve, (state, jnp.zeros(lanes, bool)))
        # reclaim_pages settles neither costs nor ages: that is shrink_inactive_list's.
        keep = ~advised
        state = replace(
            state,
            age_at_end=jnp.where(keep, state.age_at_end, 0),
            cost_at_end=jnp.where(keep, state.cost_at_end, 0),
            reclaimed=jnp.where(keep, state.reclaimed, 0),
        )
        return state, jnp.where(on, event.cursor + (faults & done), cursor)

    return repeat(going, advance, (state, first))[0]


def _window(ops: Program, cursor: Lane) -> tuple[Int32[Array, "window L"], UInt32[Array, "window L"]]:
    """Pages of the next accesses of a stream, and whether each writes (1 or 0)."""
    if cursor.shape == (1,):
        window = lax.dynamic_slice(ops.accesses, (cursor[0],), (WINDOW,))[:, None]
    else:
        window = jnp.take(ops.accesses, cursor[None] + _INDEX, mode="clip")
    return (window >> 1).astype(jnp.int32), window & 1


def _pack(chosen: Bool[Array, "window L"]) -> Mask:
    """One bit for each access of a window."""
    return _gather(jnp.where(chosen, np.uint32(1) << _INDEX.astype(np.uint32), np.uint32(0)))


def _gather(words: UInt32[Array, "window L"]) -> Mask:
    flat = words.reshape(WINDOW) if words.shape[1] == 1 else words
    return lax.reduce(flat, np.uint32(0), lax.bitwise_or, (0,)).reshape(words.shape[1:])


def _pick(values: Shaped[Array, "window L"], position: Lane) -> Shaped[Array, " L"]:
    position = jnp.minimum(position, WINDOW - 1)
    if position.shape == (1,):
        return lax.dynamic_index_in_dim(values, position[0], 0, keepdims=False)
    return jnp.take_along_axis(values, position[None], axis=0)[0]


def _stream(state: MachineState, ops: Program, cursor: Lane, end: Int32[Array, ""]) -> _Event:
    """The next accesses of a stream, up to the first that faults."""
    valid = cursor[None] + _INDEX < end
    page, write = _window(ops, cursor)
    at = (page >> 9) * BLOCK_WORDS + ((page >> 5) & 15) + write.astype(jnp.int32) * 16
    lane = jnp.arange(cursor.shape[0], dtype=jnp.int32)[None]
    bit = (page & 31).astype(jnp.uint32)

    def outside(plane: int) -> Mask:
        """The accesses of the window that are not in a plane."""
        return _pack(valid & ((state.blocks[at + plane * 16, lane] >> bit) & 1 == 0))

    loud = outside(QUIET)
    faults = lax.cond(jnp.any(loud != 0), lambda: outside(READY), lambda: jnp.zeros_like(loud))
    fault_at = bits.ctz(faults)
    before = jnp.where(fault_at >= WINDOW, _ALL, (jnp.uint32(1) << (fault_at & 31).astype(jnp.uint32)) - 1)
    empty = jnp.zeros((16, *cursor.shape), jnp.uint32)
    return _Event(
        marks=loud & before,
        read=empty,
        written=empty,
        page=_pick(page, fault_at),
        write=_pick(write, fault_at) == 1,
        faults=fault_at < WINDOW,
        cursor=cursor + jnp.minimum(fault_at, jnp.minimum(end - cursor, WINDOW)),
        vma=jnp.take(ops.access_vma, cursor + jnp.minimum(fault_at, WINDOW - 1), mode="clip"),
    )


def _mark_stream(state: MachineState, ops: Program, cursor: Lane, marks: Mask) -> MachineState:
    """Mark the present pages of some accesses of the window at `cursor`, a word of 32 pages a turn."""

    def turn(carry: tuple[MachineState, Mask]) -> tuple[MachineState, Mask]:
        state, left = carry
        on = left != 0
        page, write = _window(ops, cursor)
        first = _pick(page, bits.ctz(left))
        same = (left[None] >> _INDEX.astype(np.uint32)) & 1 == 1
        same = same & (page >> 5 == first[None] >> 5)
        bit = jnp.where(same, jnp.uint32(1) << (page & 31).astype(jnp.uint32), jnp.uint32(0))
        pages, written = _gather(bit), _gather(jnp.where(write == 1, bit, jnp.uint32(0)))
        (young, touched, nonzero, quiet, quiet_write), state = words.get(state, first, _MARKED)
        nonzero = nonzero | written
        after = (young | pages, touched | pages, nonzero, quiet | pages, quiet_write | (pages & nonzero))
        state = words.put(state, first, dict(zip(_MARKED, after, strict=True)), on)
        return state, left & ~_pack(same)

    return repeat(lambda carry: carry[1] != 0, turn, (state, marks))[0]


def _range(
    state: MachineState, ops: Program, i: Int32[Array, ""], block: Lane, cursor: Lane, end: Lane
) -> _Event:
    """The next pages of an operation on a range, up to the first that faults or is to be read ahead."""
    kind = ops.kind[i]
    write = jnp.broadcast_to((kind == program.TOUCH) | (kind == program.ZERO), cursor.shape)
    planes, _ = blocks.get(state, block)
    pages = bits.span(cursor, end)
    present = planes[Plane.PRESENT]
    ready = present | jnp.where(write[None], jnp.uint32(0), planes[Plane.ZEROPAGE])
    uncached = planes[Plane.SWAPPED] & ~planes[Plane.INCACHE]
    waiting = jnp.where(kind == program.WILLNEED, uncached, ~ready) & pages
    waiting = jnp.where(kind > program.WILLNEED, jnp.uint32(0), waiting)
    at = bits.first(waiting)
    faults = at < 512
    before = pages & bits.below(at) & present
    before = jnp.where(kind >= program.WILLNEED, jnp.uint32(0), before)
    return _Event(
        marks=jnp.zeros(cursor.shape, jnp.uint32),
        read=jnp.where(write[None], jnp.uint32(0), before),
        written=jnp.where(write[None], before, jnp.uint32(0)),
        page=block * 512 + jnp.where(faults, at, 0),
        write=write,
        faults=faults,
        cursor=jnp.where(faults, at, end),
        vma=jnp.broadcast_to(ops.vma[i], cursor.shape),
    )
