"""Direct compaction: blocks of 2^order frames are emptied, ascending, up to one that gets empty.

It is skipped, and not counted, unless twice as many frames are free. Whether something hinders it that is
not modelled (locked pages, other processes) is drawn. Source: mm/page_alloc.c (__alloc_pages_direct_compact),
mm/compaction.c (compaction_suitable, compact_gap), 6.12 to 7.3; the rest is docs/frames.md's own.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxswap.frames import buddy
from jaxswap.frames.buddy import USED
from jaxswap.machine import frames, rows
from jaxswap.machine.counters import count
from jaxswap.machine.rows import once
from jaxswap.machine.state import Flag, Lane, MachineState, Plane, pages_room
from jaxswap.swaptable.lanes import load1, repeat, store1, surely, when

_EMPTIED = -3  # kind of a part of 2^o frames that has been emptied: _EMPTIED - o


class _Part(NamedTuple):
    """What begins at a frame: a free block, a part emptied before, or a folio that can be moved; order of it.

    page: the folio's first.
    """

    free: Flag
    emptied: Flag
    folio: Flag
    order: Lane
    page: Lane


def compact(state: MachineState, none: Lane, order: Lane, on: Flag) -> tuple[MachineState, Lane]:
    """(state, first of 2^order frames that are in use now; `none` where the compaction failed)."""
    f = frames.of(state)
    size = jnp.int32(1) << order
    tries = once(on & (f.buddy.free >= size + size))
    f = replace(f, draws=f.draws + tries.astype(jnp.uint32))
    lucky = tries & ((frames.mixed(f.draws) >> np.uint32(16)).astype(jnp.int32) < f.chance)
    state = replace(state, frames=f)
    limit = buddy.frames_room(f.buddy)

    def looking(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return lucky & ~carry[2] & (carry[1] < limit)

    def look(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, first, done = carry
        here = surely(looking(carry))
        state, fits = _can_be_emptied(state, first, order, here)
        state, empty = when(fits, lambda c: _empty(c[0], first, order, surely(fits)), (state, fits))
        return state, jnp.where(here & ~empty, first + size, first), jnp.where(here, empty, done)

    start = (state, jnp.zeros_like(order), jnp.zeros_like(on))
    state, first, done = repeat(looking, look, start)
    n = count(state.n, tries, compact_stall=1, compact_success=done, compact_fail=~done)
    return replace(state, n=n), jnp.where(done, first, none)


def _part(state: MachineState, at: Lane) -> tuple[_Part, MachineState]:
    f = frames.of(state)
    kind, kinds = load1(f.buddy.kind, at)
    page, next = load1(f.buddy.next, at)
    page = once(jnp.clip(page, 0, pages_room(state) - 1))
    frame, table = load1(f.of, page)
    f = replace(f, of=table, buddy=replace(f.buddy, kind=kinds, next=next))
    row, state = rows.get(replace(state, frames=f), page)
    present, cached = row.has(Plane.PRESENT, page), row.has(Plane.INCACHE, page)
    whole = (present & ~row.has(Plane.PARTIAL, page)) | cached
    folio = (kind == USED) & (frame == at) & whole
    order = jnp.where(present, row.order(page), 0)
    order = jnp.where(kind >= 0, kind, jnp.where(kind <= _EMPTIED, _EMPTIED - kind, order))
    return once(_Part(kind >= 0, kind <= _EMPTIED, folio, order, page)), state


def _can_be_emptied(state: MachineState, first: Lane, order: Lane, on: Flag) -> tuple[MachineState, Flag]:
    """Whether a block has nothing in it but free blocks and whole folios smaller than itself."""
    size = jnp.int32(1) << order

    def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & carry[2] & (carry[1] < first + size)

    def look(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, at, ok = carry
        here = surely(going(carry))
        part, state = _part(state, at)
        ok = jnp.where(here, (part.free | part.folio) & (part.order < order), ok)
        return state, jnp.where(here, at + (jnp.int32(1) << part.order), at), ok

    state, _, ok = repeat(going, look, (state, first, jnp.ones_like(on)))
    return state, on & ok


def _mark(state: MachineState, at: Lane, kind: Lane, on: Flag) -> MachineState:
    b = frames.of(state).buddy
    return frames.with_buddy(state, replace(b, kind=store1(b.kind, at, kind, on)))


def _empty(state: MachineState, first: Lane, order: Lane, on: Flag) -> tuple[MachineState, Flag]:
    """Take the free blocks out, then move folio by folio, ascending, up to one for which there is no room:
    (state, whether all is empty, and in use now; else what is empty is free again)."""
    end = first + (jnp.int32(1) << order)

    def isolate(state: MachineState, at: Lane, part: _Part, on: Flag) -> tuple[MachineState, Flag]:
        b = buddy.unlink(frames.of(state).buddy, at, part.order, on & part.free)
        b = replace(b, free=b.free - jnp.where(on & part.free, jnp.int32(1) << part.order, 0))
        return _mark(frames.with_buddy(state, b), at, _EMPTIED - part.order, on & part.free), on

    def migrate(state: MachineState, at: Lane, part: _Part, on: Flag) -> tuple[MachineState, Flag]:
        moves = on & part.folio
        b, frame = buddy.alloc(frames.of(state).buddy, part.order, moves)
        moved = once(moves & (frame >= 0))
        state = frames.assign(frames.with_buddy(state, b), part.page, frame, part.order, moved)
        n = count(state.n, moved, pgmigrate_success=jnp.int32(1) << part.order)
        return _mark(replace(state, n=n), at, _EMPTIED - part.order, moved), on & (moved | ~moves)

    def finish(state: MachineState, at: Lane, part: _Part, on: Flag) -> tuple[MachineState, Flag]:
        emptied = on & part.emptied
        state = _mark(state, at, jnp.full_like(at, USED), emptied)
        back = emptied & ~done
        b = buddy.free(frames.of(state).buddy, at, part.order, back)
        return frames.with_buddy(state, b), on

    def each(state: MachineState, act) -> tuple[MachineState, Flag]:
        """act(state, frame, part, on) -> (state, whether to go on) for every part: and whether all were."""

        def going(carry: tuple[MachineState, Lane, Flag]) -> Flag:
            return on & carry[2] & (carry[1] < end)

        def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
            state, at, _ = carry
            here = surely(going(carry))
            part, state = _part(state, at)
            state, more = act(state, at, part, here)
            more = jnp.where(here, more, carry[2])
            return state, jnp.where(here, at + (jnp.int32(1) << part.order), at), more

        state, _, more = repeat(going, turn, (state, first, jnp.ones_like(on)))
        return state, on & more

    state, _ = each(state, isolate)
    state, done = each(state, migrate)
    state, _ = each(state, finish)
    return state, done
