"""One compiled operation on all lanes.

The kind of an operation is one scalar for all lanes; inside a stream of accesses each lane goes at its own pace,
from one access that changes something to the next.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int32

from jaxswap.machine import blocks, program
from jaxswap.machine.advise import cold, page_out
from jaxswap.machine.fault import Access, fault, touched
from jaxswap.machine.program import WINDOW, Program
from jaxswap.machine.release import dont_need
from jaxswap.machine.state import BLOCK_WORDS, QUIET, READY, Flag, Lane, MachineParams, MachineState, Plane
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits
from jaxswap.swaptable.lanes import repeat, when


class _Event(NamedTuple):
    """What a lane does next: mark pages of a block as accessed, then perhaps fault, then stand at `cursor`."""

    block: Lane
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
    zero, ahead = spread(kind == program.ZERO), spread(kind == program.WILLNEED)
    accesses = kind <= program.WILLNEED

    def going(carry: tuple[MachineState, Lane]) -> Flag:
        state, cursor = carry
        return accesses & (cursor < end) & ~state.oom

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
        marks = on & bits.some(event.read | event.written)

        def mark(state: MachineState) -> MachineState:
            planes, state = blocks.get(state, event.block)
            after = touched(planes, event.read, ~marks, zero)
            return blocks.put(state, event.block, planes, touched(after, event.written, marks, zero), marks)

        state = when(marks, mark, state)
        faults = on & event.faults
        offset = event.page // 512 * 512
        access = Access(
            page=event.page,
            write=event.write,
            zero=zero,
            willneed=ahead,
            start=jnp.clip(jnp.take(ops.vma_start, event.vma, mode="clip") - offset, 0, 512),
            end=jnp.clip(jnp.take(ops.vma_end, event.vma, mode="clip") - offset, 0, 512),
            advice=jnp.take(ops.vma_advice, event.vma, mode="clip"),
        )

        def serve(carry: tuple[MachineState, Bool[Array, " L"]]) -> tuple[MachineState, Flag]:
            return fault(carry[0], params, access, faults)

        state, done = when(faults, serve, (state, jnp.zeros(lanes, bool)))
        return state, jnp.where(on, event.cursor + (faults & done), cursor)

    state, _ = repeat(going, advance, (state, first))

    def only(state: MachineState, kinds: int) -> Flag:
        return spread(kind == kinds) & ~state.oom

    for number, act in (
        (program.DONTNEED, dont_need),
        (program.PAGEOUT, page_out),
        (program.COLD, cold),
    ):
        on = only(state, number)
        state = when(on, lambda s, act=act, on=on: act(s, block, first, stop, on), state)
    return state


def _stream(state: MachineState, ops: Program, cursor: Lane, end: Int32[Array, ""]) -> _Event:
    """The next accesses of a stream, up to the first that faults."""
    lanes = cursor.shape[0]
    ahead = jnp.arange(WINDOW, dtype=jnp.int32)[:, None]
    if lanes == 1:
        window = lax.dynamic_slice(ops.accesses, (cursor[0],), (WINDOW,))[:, None]
    else:
        window = jnp.take(ops.accesses, cursor[None] + ahead, mode="clip")
    valid = cursor[None] + ahead < end
    page, write = (window >> 1).astype(jnp.int32), (window & 1).astype(jnp.int32)
    block, word = page // 512, page // 32 % 16
    at = block * BLOCK_WORDS + word + write * 16
    lane = jnp.arange(lanes, dtype=jnp.int32)[None]
    bit = (page & 31).astype(jnp.uint32)

    def plane(number: int) -> Bool[Array, "window L"]:
        return (state.blocks[at + number * 16, lane] >> bit) & 1 == 1

    faults = valid & ~plane(READY)
    marks = valid & ~plane(QUIET)
    index = jnp.broadcast_to(ahead, page.shape)
    fault_at = jnp.min(jnp.where(faults, index, WINDOW), axis=0)
    marks = marks & (index < fault_at[None])
    mark_at = jnp.min(jnp.where(marks, index, WINDOW), axis=0)

    def pick(values: Array, position: Lane) -> Lane:
        return jnp.sum(jnp.where(index == position[None], values, 0), axis=0).astype(jnp.int32)

    marked = pick(block, mark_at)
    here = marks & (block == marked[None])
    elsewhere = jnp.min(jnp.where(marks & ~here, index, WINDOW), axis=0)

    def gather(chosen: Bool[Array, "window L"]) -> Bits:
        one = jnp.where(chosen, jnp.uint32(1) << bit, jnp.uint32(0))
        each = jnp.where(word[:, None] == jnp.arange(16, dtype=jnp.int32)[None, :, None], one[:, None], jnp.uint32(0))
        return lax.reduce(each, jnp.uint32(0), lax.bitwise_or, (0,))

    stop = jnp.minimum(fault_at, elsewhere)
    left = jnp.minimum(end - cursor, WINDOW)
    reached = fault_at <= elsewhere
    return _Event(
        block=marked,
        read=gather(here & (write == 0)),
        written=gather(here & (write == 1)),
        page=pick(page, fault_at),
        write=pick(write, fault_at) == 1,
        faults=reached & (fault_at < WINDOW),
        cursor=cursor + jnp.minimum(stop, left),
        vma=jnp.take(ops.access_vma, cursor + jnp.minimum(fault_at, WINDOW - 1), mode="clip"),
    )


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
    at = bits.first(waiting)
    faults = at < 512
    before = pages & bits.below(at) & present
    before = jnp.where(kind == program.WILLNEED, jnp.uint32(0), before)
    return _Event(
        block=block,
        read=jnp.where(write[None], jnp.uint32(0), before),
        written=jnp.where(write[None], before, jnp.uint32(0)),
        page=block * 512 + jnp.where(faults, at, 0),
        write=write,
        faults=faults,
        cursor=jnp.where(faults, at, end),
        vma=jnp.broadcast_to(ops.vma[i], cursor.shape),
    )
