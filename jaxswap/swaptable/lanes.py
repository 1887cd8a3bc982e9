"""Indexed reads and writes of tables that carry a trailing lane axis.

A table is `[words, lanes]`. One lane is read and written by dynamic slices, which XLA:CPU compiles into
the native loop around them; many lanes are read by a gather and written by a dropped scatter. Writes are
predicated by their index: a lane that is off writes to the spare words at the table's end (one lane) or
out of range (many), so the table itself never passes through a select.

A read hands the table back: whoever writes next must write to that one. It says to XLA that the read comes
first; otherwise XLA may keep a copy of the old table for it.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Shaped, UInt32

SPARE = 512  # words at the end of every table that hold nothing

Table = Shaped[Array, "words L"]


def _index(at: Int32[Array, " 1"]) -> UInt32[Array, ""]:
    """The only lane's index, unsigned: a signed one costs a test for a count from the end."""
    return lax.squeeze(at, (0,)).astype(jnp.uint32)


def load(table: Table, start: Int32[Array, " L"], size: int) -> tuple[Shaped[Array, "size L"], Table]:
    """`size` consecutive words of each lane from its own `start`, and the table."""
    if table.shape[1] == 1:
        found = lax.dynamic_slice(table, (_index(start), np.uint32(0)), (size, 1))
    else:
        rows = start[None] + jnp.arange(size, dtype=jnp.int32)[:, None]
        found = table[rows, jnp.arange(table.shape[1])[None]]
    return lax.optimization_barrier((found, table))


def load1(table: Table, at: Int32[Array, " L"]) -> tuple[Shaped[Array, " L"], Table]:
    """One word of each lane, and the table."""
    found, table = load(table, at, 1)
    return lax.squeeze(found, (0,)), table


def store(
    table: Table, start: Int32[Array, " L"], values: Shaped[Array, "size L"], on: Bool[Array, " L"]
) -> Table:
    """The table with `values` written from `start` in the lanes that are on."""
    size, lanes = values.shape
    values = values.astype(table.dtype)
    if lanes == 1:
        at = _index(jnp.where(on, start, table.shape[0] - SPARE))
        # Without the barrier a later read may be fused with this write, and then wants the table before it.
        return lax.optimization_barrier(lax.dynamic_update_slice(table, values, (at, np.uint32(0))))
    rows = start[None] + jnp.arange(size, dtype=jnp.int32)[:, None]
    rows = jnp.where(on[None], rows, table.shape[0])
    return table.at[rows, jnp.arange(lanes)[None]].set(values, mode="drop", unique_indices=True)


def store1(table: Table, at: Int32[Array, " L"], value: Shaped[Array, " L"], on: Bool[Array, " L"]) -> Table:
    """The table with one word written in the lanes that are on."""
    return store(table, at, jnp.broadcast_to(value, at.shape)[None], on)


def surely(on: Bool[Array, " L"]) -> Bool[Array, " L"]:
    """`on` inside what runs only where a lane is on (`when`, `repeat`): with one lane, that lane.

    XLA then drops what would choose between a lane that is on and one that is not.
    """
    return jnp.ones((1,), bool) if on.shape == (1,) else on


def when[T](on: Bool[Array, " L"], act: Callable[[T], T], state: T) -> T:
    """`act(state)` if any lane is on, else `state`.

    A loop of at most one turn: unlike `lax.cond` it keeps the tables of the state in place. `act` itself
    must leave the lanes that are off alone.
    """

    def body(carry: tuple[Array, T]) -> tuple[Array, T]:
        return jnp.bool_(False), act(carry[1])

    return lax.while_loop(lambda carry: carry[0], body, (jnp.any(on), state))[1]


def repeat[T](on: Callable[[T], Bool[Array, " L"]], act: Callable[[T], T], state: T) -> T:
    """`act` again and again while `on(state)` holds in any lane; `act` leaves the other lanes alone."""
    return lax.while_loop(lambda carry: jnp.any(on(carry)), act, state)
