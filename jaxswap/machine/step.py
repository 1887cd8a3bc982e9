"""One compiled operation on all lanes.

The kind of an operation is one scalar for all lanes; inside a stream of accesses each lane goes at its own pace,
from one access that changes something to the next.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.machine import blocks, fault, program
from jaxswap.machine.advise import advise
from jaxswap.machine.fault import Access, touched
from jaxswap.machine.program import WINDOW, Program
from jaxswap.machine.reclaim import finish
from jaxswap.machine.release import dont_need
from jaxswap.machine.state import BLOCK_WORDS, QUIET, READY, Flag, Lane, MachineParams, MachineState, Plane
from jaxswap.machine.work import nothing
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
        marks = on & bits.some(event.read | event.written)

        def mark(state: MachineState) -> MachineState:
            planes, state = blocks.get(state, event.block)
            after = touched(planes, event.read, ~marks, zero)
            return blocks.put(state, event.block, planes, touched(after, event.written, marks, zero), marks)

        state = when(marks, mark, state)

        release = on & releases
        state = when(release, lambda s: dont_need(s, block, first, stop, release), state)
        advised = on & advises
        heads = jnp.zeros((16, *lanes), jnp.uint32)
        state, heads = when(
            advised, lambda c: advise(c[0], block, first, stop, cold, advised), (state, heads)
        )

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
        state, plan, work = when(
            faults,
            lambda c: fault.begin(c[0], params, access, faults),
            (state, fault.no_plan(lanes[0]), nothing(lanes[0])),
        )
        work = replace(work, block=block, heads=heads)
        state, work = finish(state, params, work)
        state, done = when(
            faults,
            lambda c: fault.end(c[0], params, access, plan, work, faults),
            (state, jnp.zeros(lanes, bool)),
        )
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


def _stream(state: MachineState, ops: Program, cursor: Lane, end: Int32[Array, ""]) -> _Event:
    """The next accesses of a stream, up to the first that faults."""
    lanes = cursor.shape[0]
    index = np.arange(WINDOW, dtype=np.int32)[:, None]
    if lanes == 1:
        window = lax.dynamic_slice(ops.accesses, (cursor[0],), (WINDOW,))[:, None]
    else:
        window = jnp.take(ops.accesses, cursor[None] + index, mode="clip")
    valid = cursor[None] + index < end
    page, write = (window >> 1).astype(jnp.int32), (window & 1).astype(jnp.int32)
    block, word = page // 512, page // 32 % 16
    at = block * BLOCK_WORDS + word + write * 16
    lane = jnp.arange(lanes, dtype=jnp.int32)[None]
    bit = (page & 31).astype(jnp.uint32)

    def where(plane: int) -> UInt32[Array, " L"]:
        """The accesses of the window that are not in a plane, one bit each."""
        out = valid & ((state.blocks[at + plane * 16, lane] >> bit) & 1 == 0)
        members = jnp.where(out, np.uint32(1) << index.astype(np.uint32), np.uint32(0))
        members = members.reshape(WINDOW) if lanes == 1 else members
        return lax.reduce(members, np.uint32(0), lax.bitwise_or, (0,)).reshape(cursor.shape)

    def pick(values: Array, position: Lane) -> Array:
        position = jnp.minimum(position, WINDOW - 1)
        if lanes == 1:
            return lax.dynamic_index_in_dim(values, position[0], 0, keepdims=False)
        return jnp.take_along_axis(values, position[None], axis=0)[0]

    loud = where(QUIET)
    faults = lax.cond(jnp.any(loud != 0), lambda: where(READY), lambda: jnp.zeros_like(loud))
    fault_at = bits.ctz(faults)
    marks = loud & ((jnp.uint32(1) << fault_at.astype(jnp.uint32)) - jnp.uint32(1))
    marks = jnp.where(fault_at >= WINDOW, loud, marks)
    marked = pick(block, bits.ctz(marks))

    def sets() -> tuple[Bits, Bits, Lane]:
        here = ((marks[None] >> index.astype(np.uint32)) & 1 == 1) & (block == marked[None])
        each = jnp.where(here, jnp.uint32(1) << bit, jnp.uint32(0))
        own = word[:, None] == np.arange(16, dtype=np.int32)[None, :, None]

        def gather(kind: int) -> Bits:
            chosen = jnp.where(own & (write == kind)[:, None], each[:, None], jnp.uint32(0))
            return lax.reduce(chosen, np.uint32(0), lax.bitwise_or, (0,))

        left = jnp.where(here, np.uint32(0), (marks[None] >> index.astype(np.uint32)) & 1)
        elsewhere = jnp.min(jnp.where(left == 1, index, WINDOW), axis=0)
        return gather(0), gather(1), elsewhere

    def none() -> tuple[Bits, Bits, Lane]:
        empty = jnp.zeros((16, lanes), jnp.uint32)
        return empty, empty, jnp.full_like(cursor, WINDOW)

    read, written, elsewhere = lax.cond(jnp.any(marks != 0), sets, none)
    stop = jnp.minimum(fault_at, elsewhere)
    return _Event(
        block=marked,
        read=read,
        written=written,
        page=pick(page, fault_at),
        write=pick(write, fault_at) == 1,
        faults=(fault_at <= elsewhere) & (fault_at < WINDOW),
        cursor=cursor + jnp.minimum(stop, jnp.minimum(end - cursor, WINDOW)),
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
    waiting = jnp.where(kind > program.WILLNEED, jnp.uint32(0), waiting)
    at = bits.first(waiting)
    faults = at < 512
    before = pages & bits.below(at) & present
    before = jnp.where(kind >= program.WILLNEED, jnp.uint32(0), before)
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
