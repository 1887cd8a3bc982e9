"""The two anonymous LRU lists of the cgroup: doubly linked by page number, eaten from the tail.

A folio is known by its lowest mapped page. Source: include/linux/mm_inline.h (lruvec_add_folio), 7.3.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxswap.machine.state import Flag, Lane, MachineState, pages_room
from jaxswap.swaptable.lanes import load1, store1


def _sized(state: MachineState, active: Flag, pages: Lane, on: Flag) -> MachineState:
    return replace(
        state,
        inactive=state.inactive + jnp.where(on & ~active, pages, 0),
        active=state.active + jnp.where(on & active, pages, 0),
    )


def sentinel(state: MachineState, active: Flag) -> Lane:
    """Link number of a list's sentinel."""
    return pages_room(state) + active.astype(jnp.int32)


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


def add(state: MachineState, folio: Lane, active: Flag, pages: Lane, on: Flag) -> MachineState:
    """Link a folio at the head of a list."""
    return insert(state, sentinel(state, active), folio, active, pages, on)


def remove(state: MachineState, folio: Lane, active: Flag, pages: Lane, on: Flag) -> MachineState:
    """Unlink a folio of `pages` pages from the list named by `active`."""
    before, prev = load1(state.prev, folio)
    after, next = load1(state.next, folio)
    next = store1(next, before, after, on)
    prev = store1(prev, after, before, on)
    return _sized(replace(state, next=next, prev=prev), active, -pages, on)


def rename(state: MachineState, folio: Lane, name: Lane, on: Flag) -> MachineState:
    """A folio's lowest mapped page is now `name`."""
    before, prev = load1(state.prev, folio)
    after, next = load1(state.next, folio)
    next = store1(store1(next, before, name, on), name, after, on)
    prev = store1(store1(prev, after, name, on), name, before, on)
    return replace(state, next=next, prev=prev)
