"""Reading ahead: small folios through the swap cache, the one that is wanted and some around it.

From a device that is not synchronous; in 6.18 from any, where a slot has a count of 2 or more. Around it in
its VMA, or in its device. Source of the rules: mm/memory.c (do_swap_page), mm/swap_state.c
(swap_vma_readahead, swap_vma_ra_win, swap_cluster_readahead, __swapin_nr_pages, swap_update_readahead,
read_swap_cache_async), 6.18 to 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import cgroups
from jaxswap.machine.counters import count
from jaxswap.machine.settings import Setting
from jaxswap.machine.shared import devices, slots
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.read import read
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import AHEAD, BLOCK, FIRST_HITS, SWAPPED, flagged, kind
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable import clusters
from jaxswap.swaptable.cluster_table import BASE, BEHIND, device_of, layout_of, of_device
from jaxswap.swaptable.geometry import CLUSTER, CLUSTER_SHIFT
from jaxswap.swaptable.lanes import load, load1, repeat, store, surely

CEILING = 5  # SWAP_RA_ORDER_CEILING, of a window in a VMA
MOST_HITS = 63  # of a VMA


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


def _set_around(state: MachineState, previous: Lane, size: Lane, hits: Lane, on: Flag) -> MachineState:
    """The state of swap_cluster_readahead: slot of the last fault without hits (or -1), window, hits."""
    words = jnp.stack([previous + 1, size, hits])
    return sharing.put(state, around=jnp.where(on[None], words, sharing.of(state).around))


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
    by_vma = devices.by_vma(state)
    _, size, hits, state = _state(state, regs)
    hits = jnp.minimum(hits + ahead, MOST_HITS)
    state = _set_state(state, regs, regs.access.page, size, hits, on & by_vma)
    previous, size, hits = sharing.of(state).around
    state = _set_around(state, previous - 1, size, hits + 1, ahead & ~by_vma)
    return replace(state, n=count(state.n, ahead, swap_ra_hit=1))


def _window(previous: Lane, at: Lane, hits: Lane, most: Lane, last: Lane) -> Lane:
    """__swapin_nr_pages."""
    near = (previous >= 0) & (jnp.abs(at - previous) == 1)
    power = 32 - lax.clz(jnp.maximum(hits + 1, 1))
    wide = jnp.maximum(jnp.int32(1) << power, 4)
    return jnp.maximum(jnp.minimum(jnp.where(hits == 0, jnp.where(near, 2, 1), wide), most), last // 2)


def begin(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """swap_vma_ra_win, or the start of swap_cluster_readahead: which pages, or slots, around are read."""
    page, by_vma = regs.access.page, devices.by_vma(state)
    _, slot, state = sharing.page(state, page)
    device = device_of(state.clusters, slot >> CLUSTER_SHIFT)
    device_at = of_device(layout_of(state.clusters, BASE), device) * CLUSTER
    vma_previous, vma_last, vma_hits, state = _state(state, regs)
    previous, last, hits = sharing.of(state).around
    at = jnp.where(by_vma, page, slot - device_at)
    previous = jnp.where(by_vma, vma_previous, previous - 1)
    last, hits = jnp.where(by_vma, vma_last, last), jnp.where(by_vma, vma_hits, hits)
    exponent = state.settings[Setting.PAGE_CLUSTER].astype(jnp.int32)
    most = jnp.int32(1) << jnp.minimum(exponent, jnp.where(by_vma, CEILING, 30))
    size = _window(previous, at, hits, most, last)
    keeps, zero = on & (most > 1), jnp.zeros_like(page)
    state = _set_state(state, regs, page, size, zero, keeps & by_vma)
    state = _set_around(state, jnp.where(hits == 0, at, previous), size, zero, keeps & ~by_vma)
    follows, precedes = (previous >= 0) & (page == previous + 1), (previous >= 0) & (previous == page + 1)
    start = jnp.where(follows, page, jnp.where(precedes, page - size + 1, page - (size - 1) // 2))
    block = page & -BLOCK
    end = jnp.minimum(start + size, block + regs.access.end)
    start = jnp.maximum(start, block + regs.access.start)
    # Slots without a count are passed over, so those that are none of the device's do no harm.
    first, beyond = at & ~(size - 1), (at | (size - 1)) + 1
    beyond = jnp.minimum(device_at + beyond, of_device(layout_of(state.clusters, BEHIND), device))
    start, end = jnp.where(by_vma, start, device_at + first), jnp.where(by_vma, end, beyond)
    number = jnp.where((most > 1) & (size > 1), end - start, 0)
    return state, assign(regs, on, around=start, left=number, reading=0, at=At.READ_NEXT)


def read_next(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The next page of the window that is not cached, the faulting page last: memory is charged for it."""
    target, by_vma = regs.access.page, devices.by_vma(state)
    _, wanted_slot, state = sharing.page(state, target)

    def skip(carry: tuple[MachineState, Lane, Flag, Lane]) -> Flag:
        return on & (carry[1] <= regs.left) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag, Lane]) -> tuple[MachineState, Lane, Flag, Lane]:
        state, i, stopped, slot = carry
        active = surely(skip(carry))
        last = i == regs.left
        page = jnp.where(by_vma & ~last, regs.around + i, target)
        word, at, state = sharing.page(state, page)
        chosen = active & (~by_vma | last | (kind(word) == SWAPPED))
        found = jnp.where(by_vma | last, at, regs.around + i)
        found = jnp.where(chosen, found, wanted_slot)
        number, cached, state = slots.slot_of(state, found)
        wanted = chosen & (cached < 0) & (number > 0)
        return state, i + (active & ~wanted), stopped | wanted, jnp.where(active, found, slot)

    start = (state, regs.reading, jnp.zeros_like(on), wanted_slot)
    state, i, wanted, slot = repeat(skip, turn, start)
    home, homes = load1(sharing.of(state).homes, slot)
    state = sharing.put(state, homes=homes)
    page = jnp.where(i == regs.left, target, jnp.where(by_vma, regs.around + i, home))
    wanted = on & wanted
    owner, state = cgroups.slot_word(state, slot)
    state = cgroups.enter(state, owner & cgroups.OWNER, wanted)
    regs = assign(regs, on, reading=i, at=At.READ_END)
    return state, assign(
        regs, wanted, low=page, source=slot, ask=0, tried=0, refused=0, past=False,
        at=At.CHARGE, back_charge=At.READ,
    )  # fmt: skip


def read_one(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """__read_swap_cache_async: a small folio in the swap cache, marked if it was read ahead."""
    alive = on & ~state.oom
    slot = regs.source
    _, wanted_slot, state = sharing.page(state, regs.access.page)
    shadow, shadows = load1(state.shadows, slot)
    _, zeros, c = clusters.flags(state.clusters, slot)
    zero = (zeros >> (slot & 31).astype(jnp.uint32)) & np.uint32(1) == 1
    state = replace(state, shadows=shadows, clusters=c)
    state, number = read(state, params, regs, regs.low, slot, regs.got, shadow, zero, regs.past, alive)
    ahead = alive & (slot != wanted_slot)
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
