"""Packed bit planes of a table, and which aligned blocks of every order can take a folio.

A plane is one bit a slot, 32 slots a uint32 word, 16 words a cluster: slot ``s`` is bit ``s % 32`` of word
``s // 32``. What a range check asks (mm/swap_state.c ``__swap_cache_add_check``, Linux 7.2 / 7.3) is then
AND, OR and shift on whole words, for 32 slots at once. For a target slot the aligned blocks of order 0, 1, ..
9 around it nest, so the orders that pass are the lowest ``n`` of them: a *reach* of 0 to 10, four bits a
slot, answers every order by one read.
"""

from dataclasses import dataclass
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, UInt16, UInt32

from jaxswap.swaptable.entry import BAD, COUNT_SHIFT, FOLIO, KIND_MASK, ZERO_SHIFT, SwapTable
from jaxswap.swaptable.geometry import CLUSTER, MAX_ORDER, ORDERS, WORD_BITS, WORDS

Plane = UInt32[Array, "clusters 16"]
Nibbles = UInt32[Array, "clusters 64"]

EXISTS = 15
"""Nibble of a check row: the target is in the swap cache."""
BUSY = 14
"""Nibble of a check row: the target is a bad slot."""

_LEFT_HALVES = (0x5555_5555, 0x3333_3333, 0x0F0F_0F0F, 0x00FF_00FF, 0x0000_FFFF)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Planes:
    """Bit planes of a table. ``id_edge`` has a bit where a slot's memcg id differs from that of the slot
    before it.
    """

    cached: Plane
    counted: Plane
    zero: Plane
    bad: Plane
    id_edge: Plane
    has_table: Bool[Array, "clusters"]


def pack(bits: Bool[Array, "... n"]) -> UInt32[Array, "... n//32"]:
    """32 booleans of the last axis a word, lowest bit first."""
    grouped = bits.reshape(*bits.shape[:-1], bits.shape[-1] // WORD_BITS, WORD_BITS)
    weights = jnp.uint32(1) << jnp.arange(WORD_BITS, dtype=jnp.uint32)
    return jnp.sum(jnp.where(grouped, weights, jnp.uint32(0)), axis=-1, dtype=jnp.uint32)


def unpack(plane: UInt32[Array, "... words"]) -> Bool[Array, "... words*32"]:
    """Inverse of :func:`pack`."""
    bits = (plane[..., None] >> jnp.arange(WORD_BITS, dtype=jnp.uint32)) & 1
    return bits.astype(bool).reshape(*plane.shape[:-1], plane.shape[-1] * WORD_BITS)


def planes_of(
    words: UInt32[Array, "clusters 512"],
    memcg: UInt16[Array, "clusters 512"],
    has_table: Bool[Array, "clusters"],
) -> Planes:
    """Planes from the arrays of a table."""
    kind = words & KIND_MASK
    bad = kind == BAD
    edge = jnp.pad(memcg[:, 1:] != memcg[:, :-1], ((0, 0), (1, 0)))
    return Planes(
        cached=pack(kind == FOLIO),
        counted=pack((words >> COUNT_SHIFT != 0) & ~bad),
        zero=pack(((words >> ZERO_SHIFT) & 1 != 0) & ~bad),
        bad=pack(bad),
        id_edge=pack(edge),
        has_table=has_table,
    )


def _join(plane: Plane, order: int) -> Plane:
    """Blocks of ``2**order`` hold one bit each, repeated; give pairs of them the OR of both."""
    if order < 5:
        left = _LEFT_HALVES[order]
        shift = 1 << order
        return plane | ((plane & left) << shift) | ((plane >> shift) & left)
    half = 1 << (order - 5)
    pairs = plane.reshape(plane.shape[0], WORDS // (2 * half), 2, half)
    # each level would be fused into the next and evaluated again for both halves without the barrier
    both = lax.optimization_barrier(pairs[:, :, :1, :1] | pairs[:, :, 1:, :1])
    return jnp.broadcast_to(both, pairs.shape).reshape(plane.shape)


def _halves(left: Plane, right: Plane, order: int) -> Plane:
    """Left halves of the blocks of ``2**(order + 1)`` from ``left``, right halves from ``right``."""
    if order < 5:
        mask = _LEFT_HALVES[order]
        return (left & mask) | (right & ~jnp.uint32(mask))
    in_right = (jnp.arange(WORDS) >> (order - 5)) & 1
    return jnp.where(in_right.astype(bool), right, left)


def any_in_block(plane: Plane) -> list[Plane]:
    """Per order 0..9: bit set for every slot whose aligned block of that order holds a set bit."""
    levels = [plane]
    for order in range(MAX_ORDER):
        levels.append(_join(levels[-1], order))
    return levels


def mixed_zero(planes: Planes) -> list[Plane]:
    """Per order: blocks that hold both zero flags (bad slots do not count)."""
    ones = any_in_block(planes.zero)
    zeros = any_in_block(~planes.zero & ~planes.bad)
    return [a & b for a, b in zip(ones, zeros, strict=True)]


def mixed_ids(id_edge: Plane) -> list[Plane]:
    """Per order: blocks that hold more than one memcg id."""
    edges = any_in_block(id_edge)
    # an edge at the first slot of a block lies between this block and the one before
    levels = [jnp.zeros_like(id_edge)]
    for order in range(MAX_ORDER):
        levels.append(_join(_halves(levels[-1], edges[order], order), order))
    return levels


def _union(*kinds: list[Plane]) -> list[Plane]:
    return [reduce(jnp.bitwise_or, level) for level in zip(*kinds, strict=True)]


def _spread(plane: Plane) -> UInt32[Array, "clusters 16 4"]:
    """Each bit to the lowest bit of a nibble of its own: 8 slots a word."""
    byte = (plane[..., None] >> (jnp.arange(4, dtype=jnp.uint32) * 8)) & 0xFF
    byte = (byte | (byte << 12)) & 0x000F_000F
    byte = (byte | (byte << 6)) & 0x0303_0303
    return (byte | (byte << 3)) & 0x1111_1111


def reach(fails: list[Plane]) -> Nibbles:
    """How many orders from 0 up do not fail, 0..10, as four bits a slot (slot ``s``: nibble ``s % 8`` of word
    ``s // 8``).
    """
    digits = [jnp.zeros_like(fails[0]) for _ in range(4)]
    for fail in fails:
        carry = ~fail
        for position, digit in enumerate(digits):
            digits[position], carry = digit ^ carry, digit & carry
    words = jnp.uint32(0)
    for position, digit in enumerate(digits):
        words = words | (_spread(digit) << position)
    return words.reshape(fails[0].shape[0], CLUSTER // 8)


def read_nibble(nibbles: Nibbles, slots: UInt32[Array, "n"]) -> UInt32[Array, "n"]:
    """Nibble of each slot; slots must be inside the table."""
    word = nibbles.reshape(-1).at[slots >> 3].get(mode="promise_in_bounds")
    return (word >> ((slots & 7) << 2)) & 15


@partial(jax.jit, static_argnames="second")
def suits(planes: Planes, second: bool = False) -> list[Plane]:
    """Per order 0..9: bit set for every slot whose aligned block of that order can take a folio.

    That is: the cluster has a table, no slot of the block is cached, bad or has count 0, all have one zero
    flag and, in the ``second`` form, one memcg id.
    """
    unfit = any_in_block(planes.cached | planes.bad | ~planes.counted)
    kinds = [unfit, mixed_zero(planes)] + ([mixed_ids(planes.id_edge)] if second else [])
    return [jnp.where(planes.has_table[:, None], ~level, 0) for level in _union(*kinds)]


@partial(jax.jit, static_argnames="second")
def pyramid(planes: Planes, second: bool = False) -> list[UInt32[Array, "clusters _"]]:
    """:func:`suits` with one bit an aligned block: at order ``o`` a row has ``512 >> o`` bits, in max(1, 16
    >> o) words.
    """
    levels = []
    for order, level in zip(ORDERS, suits(planes, second), strict=True):
        for _ in range(order):
            level = level & 0x5555_5555
            for shift, mask in ((1, 0x3333_3333), (2, 0x0F0F_0F0F), (4, 0x00FF_00FF), (8, 0x0000_FFFF)):
                level = (level | (level >> shift)) & mask
            if level.shape[1] > 1:
                level = level[:, 0::2] | (level[:, 1::2] << 16)
        levels.append(level)
    return levels


def check_row(planes: Planes, second: bool) -> Nibbles:
    """The answer to every check, as a nibble a slot: the reach, or 0 / 14 / 15 where the target itself is
    refused.
    """
    good = suits(planes, second)
    nibbles = reach([~level for level in good])
    table = planes.has_table[:, None]
    bad = jnp.where(table, planes.bad, 0)
    exists = jnp.where(table, planes.cached, 0)
    # the reach of a refused target is 0, so codes can be laid over it; count 0 and "no table" stay 0
    # (-ENOENT)
    codes = jnp.uint32(0)
    for plane, code in ((bad, BUSY), (exists, EXISTS)):
        codes = codes | (_spread(plane) * code)
    return nibbles | codes.reshape(nibbles.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CheckPlanes:
    """Kept answers of a table: four bits a slot for each form of the check. Made by :func:`keep`; valid until
    the table changes.
    """

    first: Nibbles
    second: Nibbles

    @property
    def slots(self) -> int:
        return self.first.shape[0] * CLUSTER


@jax.jit
def table_planes(table: SwapTable) -> Planes:
    """Bit planes of a table."""
    return planes_of(table.words, table.memcg, table.has_table)


@jax.jit
def keep(table: SwapTable) -> CheckPlanes:
    """What :func:`jaxswap.swaptable.check.add_check` needs, to be used for any number of checks of this
    table.
    """
    planes = lax.optimization_barrier(table_planes(table))
    return CheckPlanes(first=check_row(planes, second=False), second=check_row(planes, second=True))
