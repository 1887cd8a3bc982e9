"""One compiled operation on a machine of several processes.

Each lane goes from place to place (registers.At) until it is done. All lanes have the same operation, each
its own places.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from jaxswap.machine import program, settings
from jaxswap.machine.fault import Access
from jaxswap.machine.program import Program
from jaxswap.machine.shared import alloc, calls, devices, fault, readahead, reclaim, slots, swapout
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign, registers, select
from jaxswap.machine.shared.state import (
    DIRTY,
    EXCLUSIVE,
    NONZERO,
    PRESENT,
    SWAPPED,
    TOUCHED,
    YOUNG,
    ZEROPAGE,
    has,
    kind,
    set_word,
)
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable.lanes import repeat, surely, when

Rule = Callable[[MachineState, MachineParams, Registers, Flag], tuple[MachineState, Registers]]

RULES: dict[At, Rule] = {
    At.ZAP: calls.zap,
    At.LET_GO: calls.let_go,
    At.CUT: calls.cut,
    At.CUT_LINK: calls.cut_link,
    At.SPLIT_DEFERRED: reclaim.split_deferred,
    At.PAGEOUT: calls.page_out,
    At.COOL: calls.cool,
    At.FORK: calls.fork,
    At.FORK_TABLES: calls.fork_tables,
    At.JOIN: calls.join,
    At.OBJECTS: calls.charge_objects,
    At.EXIT: calls.leave_tables,
    At.SPLIT_BLOCK: calls.split_block,
    At.ZAPPED: calls.zapped,
    At.HUGE: fault.huge,
    At.HUGE_FOLIO: fault.huge_folio,
    At.FAULT: fault.begin,
    At.READ_AROUND: readahead.begin,
    At.READ_NEXT: readahead.read_next,
    At.CHARGE: fault.charge,
    At.CHARGE_WORK: reclaim.work,
    At.SHRINK: swapout.shrink,
    At.OUT: swapout.out,
    At.PIECE: swapout.piece,
    At.ALLOC: alloc.begin,
    At.ALLOC_HINT: alloc.hint,
    At.ALLOC_LIST: alloc.next_list,
    At.ALLOC_FIND: alloc.find,
    At.ALLOC_RECLAIM: alloc.reclaim,
    At.ALLOC_RECLAIMED: alloc.reclaimed,
    At.FULL_CLUSTER: alloc.turn_full,
    At.ALLOC_DRAW: alloc.draw,
    At.PIECE_PASSED: swapout.piece_passed,
    At.OUT_SLOTS: swapout.out_slots,
    At.OUT_UNMAP: swapout.out_unmap,
    At.TABLE: fault.table,
    At.ARRIVE: fault.arrive,
    At.READ: readahead.read_one,
    At.READ_END: readahead.end,
    At.MAP: fault.map_folio,
    At.PUT: slots.put,
    At.PUT_CACHED: slots.put_cached,
    At.DROP: slots.drop,
    At.MAPPED: fault.mapped,
    At.PROTECTED: fault.protected,
    At.WINDOW_COPY: readahead.copy_state,
    At.WORKER: devices.work,
    At.REUSE: fault.reuse,
    At.COPY: fault.copy,
    At.COPIED: fault.copied,
    At.FAULT_END: fault.end,
    At.OUT_WRITE: swapout.out_write,
    At.PIECE_OUT: swapout.piece_out,
    At.SHRUNK: swapout.shrunk,
    At.RECLAIM_WORK: alloc.reclaim_work,
    At.SPLIT: swapout.split,
}

OF_CGROUPS = (At.JOIN, At.OBJECTS)
"""Places that only a machine with several cgroups has."""

_BEGINS = np.zeros(program.KINDS, np.int32)
for _kind, _at in (
    (program.STREAM, At.ACCESS),
    (program.TOUCH, At.ACCESS),
    (program.READ, At.ACCESS),
    (program.ZERO, At.ACCESS),
    (program.WILLNEED, At.AHEAD),
    (program.DONTNEED, At.ZAP),
    (program.UNMAP, At.ZAP),
    (program.SET, At.SET),
    (program.SPLIT, At.SPLIT_BLOCK),
    (program.PAGEOUT, At.PAGEOUT),
    (program.COLD, At.COOL),
    (program.DROP, At.LET_GO),
    (program.FORK, At.FORK),
    (program.FORK_TABLE, At.FORK_TABLES),
    (program.EXIT, At.EXIT),
    (program.JOIN, At.JOIN),
    (program.OBJECTS, At.OBJECTS),
    (program.WINDOW_COPY, At.WINDOW_COPY),
    (program.WORKER, At.WORKER),
):
    _BEGINS[_kind] = _at


def step(state: MachineState, params: MachineParams, ops: Program, i: Int32[Array, ""]) -> MachineState:
    """Operation i of the program."""
    kind_ = ops.kind[i]
    lanes = state.oom.shape

    def spread(x: Array) -> Array:
        return jnp.broadcast_to(x, lanes)

    begins = spread(jnp.asarray(_BEGINS)[kind_])
    gives_table = spread(kind_ == program.UNMAP) | params.rules.reclaim_tables
    advises = spread((kind_ == program.PAGEOUT) | (kind_ == program.COLD))
    regs = registers(lanes)
    on = ~state.oom
    if ops.cpu is not None:
        state = replace(state, cpu=spread(ops.cpu[i]))
    regs = assign(
        regs, on, at=jnp.where(advises, At.CUT, begins), home=begins, cursor=spread(ops.start[i]),
        start=spread(ops.start[i]), stop=spread(ops.end[i]), base=spread(ops.block[i] * 512),
        window=spread(ops.vma[i]), zaps_table=gives_table,
    )  # fmt: skip

    def going(carry: tuple[MachineState, Registers]) -> Flag:
        return carry[1].at != At.DONE

    def turn(carry: tuple[MachineState, Registers]) -> tuple[MachineState, Registers]:
        accessing = carry[1].at == At.ACCESS
        carry = when(accessing, lambda c: _access(c[0], c[1], ops, i, surely(accessing)), carry)
        sets = carry[1].at == At.SET

        def write(c: tuple[MachineState, Registers]) -> tuple[MachineState, Registers]:
            state = replace(c[0], settings=settings.write(c[0].settings, ops.block[i], ops.vma[i]))
            return devices.set_switch(state, ops.block[i], ops.vma[i]), assign(c[1], sets, at=At.DONE)

        carry = when(sets, write, carry)
        ahead = carry[1].at == At.AHEAD
        carry = when(ahead, lambda c: _ahead(c[0], c[1], ops, i, surely(ahead)), carry)
        for place, rule in RULES.items():
            if state.cgroups is None and place in OF_CGROUPS:
                continue
            here = carry[1].at == place

            def act(c: tuple[MachineState, Registers], rule=rule, here=here):
                return rule(c[0], params, c[1], surely(here))

            carry = when(here, act, carry)
        return carry

    return repeat(going, turn, (state, regs))[0]


def _place(ops: Program, i: Int32[Array, ""], cursor: Lane) -> tuple[Lane, Flag, Lane]:
    """Page at a place of the operation, whether it is written, its VMA."""
    kind_ = ops.kind[i]
    stream = kind_ == program.STREAM
    at = jnp.where(stream, cursor, 0)
    word = jnp.take(ops.accesses, at, mode="clip")
    page = jnp.where(stream, (word >> 1).astype(jnp.int32), ops.block[i] * 512 + cursor)
    writes = (kind_ == program.TOUCH) | (kind_ == program.ZERO)
    write = jnp.where(stream, word & 1 == 1, writes)
    vma = jnp.where(stream, jnp.take(ops.access_vma, at, mode="clip"), ops.vma[i])
    return page, write, vma


def _access(
    state: MachineState, regs: Registers, ops: Program, i: Int32[Array, ""], on: Flag
) -> tuple[MachineState, Registers]:
    """Accesses up to the first that needs the kernel. A store to a page with content loads it first."""
    zero = jnp.broadcast_to(ops.kind[i] == program.ZERO, on.shape)

    def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < regs.stop) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, cursor, stopped = carry
        active = surely(going(carry))
        v, write, _ = _place(ops, i, cursor)
        word, number, state = sharing.page(state, v)
        present = kind(word) == PRESENT
        passes = (present & (~write | has(word, EXCLUSIVE))) | ((kind(word) == ZEROPAGE) & ~write)
        marks = active & passes & present
        stored = marks & write
        new = word | jnp.uint32(YOUNG | TOUCHED)
        new = jnp.where(stored & ~zero, new | jnp.uint32(NONZERO), new)
        new = jnp.where(stored & zero, new & jnp.uint32(~NONZERO & 0xFFFF_FFFF), new)
        state = set_word(state, v, new, marks)

        def soil(state: MachineState) -> MachineState:
            folio, state = sharing.folio(state, jnp.where(stored, number, 0))
            return sharing.set_folio(state, number, folio._replace(flags=folio.flags | DIRTY), stored)

        state = when(stored, soil, state)
        return state, cursor + (active & passes), stopped | (active & ~passes)

    state, cursor, stopped = repeat(going, turn, (state, regs.cursor, jnp.zeros_like(on)))
    begun = regs.begun & (cursor == regs.cursor)
    regs = assign(regs, on, cursor=cursor, begun=begun, at=At.DONE)
    return _begin_fault(state, regs, ops, i, zero, jnp.zeros_like(on), on & stopped)


def _begin_fault(
    state: MachineState, regs: Registers, ops: Program, i: Int32[Array, ""], zero: Flag, ahead: Flag, on: Flag
) -> tuple[MachineState, Registers]:
    v, write, vma = _place(ops, i, regs.cursor)
    word, _, state = sharing.page(state, v)
    loads = (kind(word) == SWAPPED) & has(word, NONZERO) & ~zero & ~regs.begun
    offset = v & -512
    access = Access(
        page=v,
        stop=v + 1,
        write=write & ~loads,
        zero=zero,
        willneed=ahead,
        start=jnp.clip(jnp.take(ops.vma_start, vma, mode="clip") - offset, 0, 512),
        end=jnp.clip(jnp.take(ops.vma_end, vma, mode="clip") - offset, 0, 512),
        advice=jnp.take(ops.vma_advice, vma, mode="clip"),
    )
    window = jnp.take(ops.vma_window, vma, mode="clip")
    return state, assign(
        replace(regs, access=select(on, access, regs.access)), on, begun=True, window=window, at=At.FAULT
    )


def _ahead(
    state: MachineState, regs: Registers, ops: Program, i: Int32[Array, ""], on: Flag
) -> tuple[MachineState, Registers]:
    """MADV_WILLNEED: the next page that is in swap and not in the swap cache."""

    def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < regs.stop) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, cursor, stopped = carry
        active = surely(going(carry))
        word, slot, state = sharing.page(state, regs.base + cursor)
        swapped = active & (kind(word) == SWAPPED)
        _, cached, state = slots.slot_of(state, jnp.where(swapped, slot, 0))
        wanted = swapped & (cached < 0)
        return state, cursor + (active & ~wanted), stopped | wanted

    state, cursor, wanted = repeat(going, turn, (state, regs.cursor, jnp.zeros_like(on)))
    regs = assign(regs, on, cursor=cursor, at=At.DONE)
    no = jnp.zeros_like(on)
    return _begin_fault(state, regs, ops, i, no, ~no, on & wanted)
