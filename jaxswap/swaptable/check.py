"""Range checks of many (slot, order) pairs at once.

Rule: mm/swap_state.c ``__swap_cache_add_check``, Linux 7.2 / 7.3. In this order: no table in the cluster ->
-ENOENT; target cached -> -EEXIST; target count 0 -> -ENOENT; order 0 -> 0; then over the aligned block around
the target, a slot that is cached, has count 0 or another zero flag than the target, and in the second form
another memcg id -> -EBUSY; 0. A bad slot in the range, or as target, gives -EBUSY: the kernel never asks
that, so this is a convention of ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, Integer, UInt16, UInt32

from jaxswap.errors import InputError
from jaxswap.swaptable.entry import VALUE_MAX, VALUE_SHIFT, SwapTable
from jaxswap.swaptable.geometry import CLUSTER, CLUSTER_SHIFT, EBUSY, EEXIST, ENOENT, MAX_ORDER
from jaxswap.swaptable.planes import (
    BUSY,
    EXISTS,
    CheckPlanes,
    Nibbles,
    Planes,
    check_row,
    planes_of,
    read_nibble,
)


class SecondCheck(NamedTuple):
    """What the second form returns. ``shadow`` and ``memcg`` are the target's, 0 where the target itself is
    refused.
    """

    errno: Int32[Array, "n"]
    shadow: UInt32[Array, "n"]
    memcg: UInt16[Array, "n"]


@jax.jit
def check_kept(kept: Nibbles, slots: UInt32[Array, "n"], orders: Int32[Array, "n"]) -> Int32[Array, "n"]:
    """The check on kept answers; for use inside other jitted code. Slots and orders must be in range (not
    tested).
    """
    code = read_nibble(kept, slots).astype(jnp.int32)
    refused = jnp.where(code == 0, -ENOENT, -EBUSY)
    return jnp.where(code == EXISTS, -EEXIST, jnp.where((orders < code) & (code < BUSY), 0, refused))


@jax.jit(static_argnames="second")
def check_table(
    table: SwapTable, slots: UInt32[Array, "n"], orders: Int32[Array, "n"], *, second: bool = False
) -> Int32[Array, "n"]:
    """The check on raw words; for use inside other jitted code. Slots and orders must be in range (not
    tested).
    """
    if slots.shape[0] < table.clusters // 2:
        # fewer pairs than clusters: only the clusters they name are read
        cluster = slots >> CLUSTER_SHIFT
        table = SwapTable(table.words[cluster], table.memcg[cluster], table.has_table[cluster])
        slots = jnp.arange(slots.shape[0], dtype=jnp.uint32) * CLUSTER + slots % CLUSTER
    planes: Planes = lax.optimization_barrier(planes_of(table.words, table.memcg, table.has_table))
    return check_kept(lax.optimization_barrier(check_row(planes, second)), slots, orders)


@jax.jit
def check_second_kept(
    table: SwapTable, slots: UInt32[Array, "n"], orders: Int32[Array, "n"], kept: Nibbles
) -> SecondCheck:
    """:func:`add_check_second` on ``CheckPlanes.second`` of this table, for use inside jitted code."""
    errno = check_kept(kept, slots, orders)
    code = read_nibble(kept, slots)
    reached = (code != 0) & (code < BUSY)
    words = table.words.reshape(-1)[slots]
    shadow = jnp.where(reached, (words >> VALUE_SHIFT) & VALUE_MAX, 0)
    memcg = jnp.where(reached, table.memcg.reshape(-1)[slots], 0)
    return SecondCheck(errno, shadow, memcg)


@jax.jit
def check_second_table(table: SwapTable, slots: UInt32[Array, "n"], orders: Int32[Array, "n"]) -> SecondCheck:
    """:func:`add_check_second` on raw words, for use inside jitted code."""
    planes = lax.optimization_barrier(planes_of(table.words, table.memcg, table.has_table))
    return check_second_kept(table, slots, orders, lax.optimization_barrier(check_row(planes, second=True)))


def checked_integers(name: str, values, length: int | None, high: int, dtype) -> Array:
    """One-dimensional integers in 0 .. high as ``dtype``, or InputError that names the first wrong one."""
    given = values if isinstance(values, jax.Array) else np.asarray(values)
    if given.dtype.kind not in "iu":
        raise InputError(f"{name}: need an integer dtype, got {given.dtype}")
    if given.ndim != 1 or (length is not None and given.shape[0] != length):
        need = "[n]" if length is None else f"[{length}]"
        raise InputError(f"{name}: need shape {need}, got {list(given.shape)}")
    if given.shape[0]:
        if isinstance(given, np.ndarray):
            wrong = given.min() < 0 or given.max() > high
        else:
            most = np.asarray(min(high, np.iinfo(given.dtype).max), given.dtype)
            wrong = int(_outside(given, most)) > 0
        if wrong:
            at = int(np.argmax((np.asarray(given) < 0) | (np.asarray(given) > high)))
            raise InputError(f"{name}: entry {at} is {int(given[at])}, outside 0 .. {high}")
    return jnp.asarray(given.astype(dtype))


@jax.jit
def _outside(values: Integer[Array, "n"], most: Integer[Array, ""]) -> Int32[Array, ""]:
    """How many lie outside 0 .. most. A sum: XLA:CPU adds side by side, but takes a maximum one by one."""
    return jnp.sum(((values < 0) | (values > most)).astype(jnp.int32))


def _inputs(slots_in_table: int, slots, orders) -> tuple[Array, Array]:
    asked = checked_integers("slots", slots, None, slots_in_table - 1, jnp.uint32)
    return asked, checked_integers("orders", orders, asked.shape[0], MAX_ORDER, jnp.int32)


def add_check(source: SwapTable | CheckPlanes, slots, orders, second: bool = False) -> Int32[Array, "n"]:
    """errno of every pair: 0, -ENOENT (-2), -EEXIST (-17) or -EBUSY (-16).

    source: a table (its words are read) or what :func:`jaxswap.swaptable.planes.keep` made of one (faster
    when a table is asked more than once). slots, orders: integers [n]; orders 0 .. 9; the block is the
    aligned one around the slot. second: also compare memcg ids (the check after the folio was allocated).
    InputError on wrong dtype, shape or range.
    """
    if not isinstance(source, SwapTable | CheckPlanes):
        raise InputError(f"source: need a SwapTable or CheckPlanes, got {type(source).__name__}")
    asked, sizes = _inputs(source.slots, slots, orders)
    if isinstance(source, CheckPlanes):
        return check_kept(source.second if second else source.first, asked, sizes)
    return check_table(source, asked, sizes, second=second)


def add_check_second(table: SwapTable, slots, orders, kept: CheckPlanes | None = None) -> SecondCheck:
    """Second form with what it hands out: errno, the target's shadow and memcg id.

    kept: planes kept of this very table, to save reading it whole. Errors as :func:`add_check`.
    """
    if not isinstance(table, SwapTable):
        raise InputError(f"table: need a SwapTable, got {type(table).__name__}")
    asked, sizes = _inputs(table.slots, slots, orders)
    if kept is None:
        return check_second_table(table, asked, sizes)
    if kept.slots != table.slots:
        raise InputError(
            f"kept: planes of {kept.slots} slots, the table has {table.slots}; keep(table) makes them"
        )
    return check_second_kept(table, asked, sizes, kept.second)
