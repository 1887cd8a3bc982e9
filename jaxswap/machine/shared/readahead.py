"""Reading ahead around a page of a VMA, where 6.18 does so even from a synchronous device.

A slot of count 2 or more is read through the swap cache, order 0, and with it the swapped pages around.
Source of the rules: mm/memory.c (do_swap_page), mm/swap_state.c (swap_vma_readahead, swap_vma_ra_win,
__swapin_nr_pages, swap_update_readahead, read_swap_cache_async), 6.18.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxswap.machine.counters import count
from jaxswap.machine.shared import slots
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.read import read
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import AHEAD, BLOCK, SWAPPED, flagged, kind
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable import clusters
from jaxswap.swaptable.lanes import load, load1, repeat, store, surely

MOST = 8  # pages of a window: page_cluster is 3
MOST_HITS, FIRST_HITS = 63, 4


def _state(state: MachineState, regs: Registers) -> tuple[Lane, Lane, Lane, MachineState]:
    """Page of the VMA's last fault (or -1), its window, hits since."""
    words, table = load(sharing.of(state).ahead, regs.window * 3, 3)
    hits = jnp.where(words[0] == 0, FIRST_HITS, words[2])
    home = regs.access.page & -sharing.room(state)
    return jnp.where(words[0] == 0, -1, home + words[0] - 1), words[1], hits, sharing.put(state, ahead=table)


def _set_state(
    state: MachineState, regs: Registers, page: Lane, size: Lane, hits: Lane, on: Flag
) -> MachineState:
    # Of the region, so that a child's copy of the state means the child's page.
    words = jnp.stack([(page & (sharing.room(state) - 1)) + 1, size, hits])
    return sharing.put(state, ahead=store(sharing.of(state).ahead, regs.window * 3, words, on))


def copy_state(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """A VMA is split or forked: the state of window `cursor` becomes that of `window` too."""
    words, table = load(sharing.of(state).ahead, regs.cursor * 3, 3)
    table = store(table, regs.window * 3, words, on)
    return sharing.put(state, ahead=table), assign(regs, on, at=At.DONE)


def note_hit(state: MachineState, regs: Registers, number: Lane, on: Flag) -> MachineState:
    """swap_update_readahead: a fault found the folio in the swap cache."""
    folio, state = sharing.folio(state, number)
    on = on & (folio.order == 0)
    ahead = on & folio.has(AHEAD)
    state = sharing.set_folio(state, number, flagged(folio, AHEAD, ~on), ahead)
    _, size, hits, state = _state(state, regs)
    hits = jnp.minimum(hits + ahead, MOST_HITS)
    state = _set_state(state, regs, regs.access.page, size, hits, on)
    return replace(state, n=count(state.n, ahead, swap_ra_hit=1))


def begin(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_vma_ra_win: which pages around are read."""
    page = regs.access.page
    previous, last, hits, state = _state(state, regs)
    near = (previous >= 0) & (jnp.abs(page - previous) == 1)
    wide = jnp.where(hits + 2 > 4, 8, 4)
    size = jnp.where(hits == 0, jnp.where(near, 2, 1), wide)
    size = jnp.maximum(jnp.minimum(size, MOST), last // 2)
    state = _set_state(state, regs, page, size, jnp.zeros_like(hits), on)
    follows, precedes = (previous >= 0) & (page == previous + 1), (previous >= 0) & (previous == page + 1)
    start = jnp.where(follows, page, jnp.where(precedes, page - size + 1, page - (size - 1) // 2))
    block = page & -BLOCK
    end = jnp.minimum(start + size, block + regs.access.end)
    start = jnp.maximum(start, block + regs.access.start)

    def more(carry: tuple[MachineState, Lane, Lane]) -> Flag:
        return on & (size > 1) & (start + carry[1] < end)

    def turn(carry: tuple[MachineState, Lane, Lane]) -> tuple[MachineState, Lane, Lane]:
        state, i, found = carry
        word, _, state = sharing.page(state, start + i)
        swapped = surely(more(carry)) & (kind(word) == SWAPPED)
        return state, i + 1, found | (swapped.astype(jnp.int32) << i)

    state, _, found = repeat(more, turn, (state, jnp.zeros_like(page), jnp.zeros_like(page)))
    return state, assign(regs, on, around=start, reading=0, left=found, at=At.READ_NEXT)


def read_next(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next page of the window that is not cached, the faulting page last: memory is charged for it."""
    target = regs.access.page

    def skip(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] <= MOST) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, i, stopped = carry
        active = surely(skip(carry))
        page = jnp.where(i == MOST, target, regs.around + i)
        chosen = active & ((i == MOST) | ((regs.left >> jnp.minimum(i, MOST)) & 1 == 1))
        _, slot, state = sharing.page(state, jnp.where(chosen, page, target))
        _, cached, state = slots.slot_of(state, slot)
        wanted = chosen & (cached < 0)
        return state, i + (active & ~wanted), stopped | wanted

    state, i, wanted = repeat(skip, turn, (state, regs.reading, jnp.zeros_like(on)))
    page = jnp.where(i == MOST, target, regs.around + i)
    wanted = on & wanted
    regs = assign(regs, on, reading=i, at=At.READ_END)
    return state, assign(
        regs, wanted, low=page, ask=0, tried=0, refused=0, reclaims=True, past=False,
        at=At.CHARGE, back_charge=At.READ,
    )  # fmt: skip


def read_one(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """__read_swap_cache_async: a small folio in the swap cache, marked if it was read ahead."""
    alive = on & ~state.oom
    page = regs.low
    _, slot, state = sharing.page(state, page)
    shadow, shadows = load1(state.shadows, slot)
    _, zeros, c = clusters.flags(state.clusters, slot)
    zero = (zeros >> (slot & 31).astype(jnp.uint32)) & np.uint32(1) == 1
    state = replace(state, shadows=shadows, clusters=c)
    state, number = read(state, params, regs, page, slot, regs.got, shadow, zero, regs.past, alive)
    ahead = alive & (page != regs.access.page)
    folio, state = sharing.folio(state, jnp.maximum(number, 0))
    state = sharing.set_folio(state, number, flagged(folio, AHEAD, ahead), ahead)
    state = replace(state, n=count(state.n, ahead, swap_ra=1))
    regs = assign(regs, on, reading=regs.reading + 1, at=At.DONE)
    return state, assign(regs, alive, at=At.READ_NEXT)


def end(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The page's own folio is mapped; where reclaim took it already the access comes again."""
    _, slot, state = sharing.page(state, regs.access.page)
    _, number, state = slots.slot_of(state, slot)
    there = on & (number >= 0)
    state = replace(state, n=count(state.n, there, pgmajfault=1))
    regs = assign(regs, on, at=At.FAULT_END)
    return state, assign(regs, there, folio=number, past=False, at=At.MAP)
