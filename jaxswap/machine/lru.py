"""The two anonymous LRU lists of the cgroup: doubly linked by page number, eaten from the tail.

A folio is known by its lowest mapped page. Source: include/linux/mm_inline.h (lruvec_add_folio), mm/swap.c
(folio_add_lru), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import cgroups
from jaxswap.machine.state import Flag, Lane, MachineState, pages_room
from jaxswap.swaptable.bits import once
from jaxswap.swaptable.lanes import Table, load, load1, repeat, store, store1, surely, when

FOLIO_BATCH_SIZE = 31
MOST_COST = (1 << 30) - 1  # that waits for a flush or a scan, so that int32 holds it; the kernel counts on
_ROW = np.arange(32, dtype=np.int32)[:, None]


def _sized(state: MachineState, active: Flag, pages: Lane, on: Flag) -> MachineState:
    return replace(
        state,
        inactive=state.inactive + jnp.where(on & ~active, pages, 0),
        active=state.active + jnp.where(on & active, pages, 0),
    )


def sentinel(state: MachineState, active: Flag) -> Lane:
    """Link number of a list's sentinel. Those of further cgroups stand before the first's."""
    first = pages_room(state) + active.astype(jnp.int32)
    return first if state.cgroups is None else first - 2 * state.cgroups.entered


def tail(state: MachineState, active: Flag) -> tuple[Lane, MachineState]:
    """The folio at the tail; the sentinel itself where the list is empty."""
    found, prev = load1(state.prev, sentinel(state, active))
    return found, replace(state, prev=prev)


def insert(
    state: MachineState, before: Lane, folio: Lane, active: Flag, pages: Lane, on: Flag
) -> MachineState:
    """Link a folio of `pages` pages on the tail side of `before`, in the list named by `active`."""
    after, next = load1(state.next, before)
    next = store1(store1(next, before, folio, on), folio, after, on)
    prev = store1(store1(state.prev, after, folio, on), folio, before, on)
    return _sized(replace(state, next=next, prev=prev), active, pages, on)


def sizes(state: MachineState) -> tuple[Lane, Lane]:
    """Pages on the inactive and on the active list, without those that wait."""
    return state.inactive - (state.waiting - state.waiting_active), state.active - state.waiting_active


def is_active(state: MachineState, flag: Flag) -> Flag:
    """Whether a folio with this ACTIVE flag is on the active list; of the multi-gen LRU none is."""
    return flag if state.generations is None else jnp.zeros_like(flag)


def add_cost(cost: Lane, more: Lane) -> Lane:
    """Both together, at most MOST_COST."""
    return jnp.minimum(cost + more, MOST_COST)


def flush_statistics(state: MachineState, on: Flag) -> MachineState:
    """mem_cgroup_flush_stats: from now on the classic LRU decides by the numbers of now."""
    inactive, active = sizes(state)
    return replace(
        state,
        flushed_active=jnp.where(on, active, state.flushed_active),
        flushed_total=jnp.where(on, active + inactive, state.flushed_total),
        flushed_activations=jnp.where(on, state.activations, state.flushed_activations),
        flushed_cost=add_cost(state.flushed_cost, jnp.where(on, state.counted_cost, 0)),
        counted_cost=jnp.where(on, 0, state.counted_cost),
    )


def drain(state: MachineState, on: Flag) -> MachineState:
    """lru_add_drain."""
    return replace(
        cgroups.drain(state, on),
        waiting=jnp.where(on, 0, state.waiting),
        waiting_active=jnp.where(on, 0, state.waiting_active),
    )


def wait(state: MachineState, active: Flag, large: Flag, folios: Lane, on: Flag) -> MachineState:
    """folio_add_lru of new folios: small ones wait until FOLIO_BATCH_SIZE are there, or a large one comes."""
    if state.cgroups is not None:
        return _wait_together(state, active, large, on)
    total = state.waiting + folios
    rest = jnp.where(large, 0, lax.rem(total, FOLIO_BATCH_SIZE))
    of_all = state.waiting_active + jnp.where(active, folios, 0)
    of_rest = jnp.where(active, rest, 0)
    return replace(
        state,
        waiting=jnp.where(on, rest, state.waiting),
        waiting_active=jnp.where(on, jnp.where(rest < total, of_rest, of_all), state.waiting_active),
    )


def _wait_together(state: MachineState, active: Flag, large: Flag, on: Flag) -> MachineState:
    """One new folio of the entered cgroup, where several have theirs in the batch."""
    full = state.waiting + cgroups.waiting_elsewhere(state) + 1 >= FOLIO_BATCH_SIZE
    state = replace(
        state,
        waiting=state.waiting + on,
        waiting_active=state.waiting_active + (on & active),
    )
    return drain(state, on & (large | full))


def add(state: MachineState, folio: Lane, active: Flag, pages: Lane, on: Flag) -> MachineState:
    """Link a folio at the head of a list."""
    return insert(state, sentinel(state, active), folio, active, pages, on)


def add_all(
    state: MachineState, folio: Lane, active: Flag, pages: Lane, folios: Lane, on: Flag
) -> MachineState:
    """Link folios of `pages` pages at the head of a list: one, or small ones side by side in a row of pages,
    ascending."""
    state = link_all(state, sentinel(state, active), folio, folios, on)
    return _sized(state, active, pages * folios, on)


def link_all(state: MachineState, before: Lane, folio: Lane, folios: Lane, on: Flag) -> MachineState:
    """Link one folio, or small ones side by side in a row of pages, on the tail side of `before`."""
    last = once(folio + folios - 1)

    def between(links: tuple[Table, Table]) -> tuple[Table, Table]:
        """The links of several to each other."""
        base = once(folio & -32)
        page = base[None] + _ROW
        own, next = load(links[0], base, 32)
        next = store(next, base, jnp.where((page > folio) & (page <= last), page - 1, own), surely(several))
        own, prev = load(links[1], base, 32)
        return next, store(
            prev, base, jnp.where((page >= folio) & (page < last), page + 1, own), surely(several)
        )

    several = on & (folios > 1)
    next, prev = when(several, between, (state.next, state.prev))
    after, next = load1(next, before)
    next = store1(store1(next, before, last, on), folio, after, on)
    prev = store1(store1(prev, after, folio, on), last, before, on)
    return replace(state, next=next, prev=prev)


def remove(state: MachineState, folio: Lane, active: Flag, pages: Lane, on: Flag) -> MachineState:
    """Unlink a folio of `pages` pages from the list named by `active`."""
    before, prev = load1(state.prev, folio)
    after, next = load1(state.next, folio)
    next = store1(next, before, after, on)
    prev = store1(prev, after, before, on)
    return _sized(replace(state, next=next, prev=prev), active, -pages, on)


def remove_all(
    state: MachineState, folio: Lane, active: Flag, pages: Lane, folios: Lane, on: Flag
) -> MachineState:
    """Unlink folios of `pages` pages: one, or small ones side by side in a row of pages."""

    def linked() -> Flag:
        """Whether they are one behind the other as `add_all` leaves them, so that they go as one."""
        base = once(folio & -32)
        page = base[None] + _ROW
        next, _ = load(state.next, base, 32)
        return jnp.all((next == page - 1) | (page <= folio) | (page >= folio + folios), axis=0)

    together = lax.cond(jnp.any(on & (folios > 1)), linked, lambda: jnp.ones_like(on))
    together, next = lax.optimization_barrier((together, state.next))
    last = jnp.where(together, folio + folios - 1, folio)
    before, prev = load1(state.prev, last)
    after, next = load1(next, folio)
    next = store1(next, before, after, on)
    prev = store1(prev, after, before, on)
    state = _sized(replace(state, next=next, prev=prev), active, -pages * (last - folio + 1), on)

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & ~together & (carry[1] < folios)

    def one(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, i = carry
        return remove(state, folio + i, active, pages, surely(more(carry))), i + 1

    return repeat(more, one, (state, jnp.ones_like(folio)))[0]


def rotate(state: MachineState, folio: Lane, active: Flag, to: Flag, pages: Lane, on: Flag) -> MachineState:
    """Move the folio at the tail of one list to the head of one."""
    end = sentinel(state, active)
    before, prev = load1(state.prev, folio)
    next, prev = store1(state.next, before, end, on), store1(prev, end, before, on)
    state = _sized(replace(state, next=next, prev=prev), active, -pages, on)
    return add(state, folio, to, pages, on)


def rename(state: MachineState, folio: Lane, name: Lane, on: Flag) -> MachineState:
    """A folio's lowest mapped page is now `name`."""
    before, prev = load1(state.prev, folio)
    after, next = load1(state.next, folio)
    next = store1(store1(next, before, name, on), name, after, on)
    prev = store1(store1(prev, after, name, on), name, before, on)
    return replace(state, next=next, prev=prev)
