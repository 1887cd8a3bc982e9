"""Sets of up to 512 pages or slots as 16 uint32 words a lane: `Bits = UInt32[Array, "16 L"]`."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Shaped, UInt32

WORDS = 16
SIZE = 512
Bits = UInt32[Array, "16 L"]
Scalar = Int32[Array, " L"]
_BASE = np.arange(0, SIZE, 32, dtype=np.int32)[:, None]
_ALL = np.uint32(0xFFFF_FFFF)


def _thin(x: Shaped[Array, "16 L"]) -> Shaped[Array, "..."]:
    """One lane's words without the lane axis: XLA:CPU reduces a vector twice as fast as a column."""
    return x.reshape(WORDS) if x.shape[1] == 1 else x


def once[T](value: T) -> T:
    """The same value, computed once: XLA would repeat the work in every use, for a scalar in every word."""
    return lax.optimization_barrier(value)


def below(n: Scalar) -> Bits:
    """The members smaller than n (0 to 512)."""
    n = once(n)
    k = jnp.clip(n[None] - _BASE, 0, 32)
    return jnp.where(k >= 32, _ALL, (jnp.uint32(1) << (k & 31).astype(jnp.uint32)) - jnp.uint32(1))


def span(start: Scalar, end: Scalar) -> Bits:
    """The members from start to end - 1."""
    return once(below(end) & ~below(start))


def one(i: Scalar) -> Bits:
    """The set {i}; empty for i outside 0 to 511."""
    i = once(i)
    inside = (i[None] >= _BASE) & (i[None] < _BASE + 32)
    return once(jnp.where(inside, jnp.uint32(1) << (i & 31).astype(jnp.uint32)[None], jnp.uint32(0)))


def only(bits: Bits, on: Bool[Array, " L"]) -> Bits:
    """The set in the lanes that are on, else the empty set."""
    on = once(on)
    return once(jnp.where(on[None], bits, jnp.uint32(0)))


def word(bits: Bits, at: Scalar) -> UInt32[Array, " L"]:
    """Members 32 at .. 32 at + 31, one bit each."""
    if at.shape[0] == 1:
        index = lax.squeeze(at, (0,)).astype(jnp.uint32)
        return lax.squeeze(lax.dynamic_slice(bits, (index, np.uint32(0)), (1, 1)), (0,))
    return jnp.take_along_axis(bits, at[None], axis=0)[0]


def has(bits: Bits, i: Scalar) -> Bool[Array, " L"]:
    """Whether i is a member; False for i outside 0 to 511."""
    found = word(bits, jnp.clip(i >> 5, 0, WORDS - 1))
    inside = (i >= 0) & (i < SIZE)
    return inside & ((found >> (i & 31).astype(jnp.uint32)) & 1 == 1)


def _reduce_or(words: UInt32[Array, "16 L"]) -> UInt32[Array, " L"]:
    return lax.reduce(_thin(words), np.uint32(0), lax.bitwise_or, (0,)).reshape(words.shape[1:])


def some(bits: Bits) -> Bool[Array, " L"]:
    """Whether the set has a member."""
    return _reduce_or(bits) != 0


def _words_used(bits: Bits) -> UInt32[Array, " L"]:
    """One bit for each word that has a member."""
    return _reduce_or(jnp.where(bits != 0, np.uint32(1) << np.arange(WORDS, dtype=np.uint32)[:, None], 0))


def first(bits: Bits) -> Scalar:
    """The smallest member, or 512."""
    bits = once(bits)
    used = _words_used(bits)
    at = jnp.minimum(ctz(used), WORDS - 1)
    return jnp.where(used != 0, at * 32 + ctz(word(bits, at)), SIZE)


def last(bits: Bits) -> Scalar:
    """The largest member, or -1."""
    bits = once(bits)
    at = jnp.maximum(highest(_words_used(bits)), 0)
    return at * 32 + highest(word(bits, at))


def from_on(bits: Bits, i: Scalar) -> Scalar:
    """The smallest member that is at least i (0 to 512), or 512."""
    bits = once(bits)
    at = jnp.minimum(i >> 5, WORDS - 1)
    here = word(bits, at) & (_ALL << (i & 31).astype(jnp.uint32))
    above = _words_used(bits) & (np.uint32(0xFFFE) << at.astype(jnp.uint32))
    next = jnp.minimum(ctz(above), WORDS - 1)
    beyond = jnp.where(above != 0, next * 32 + ctz(word(bits, next)), SIZE)
    return jnp.where(i >= SIZE, SIZE, jnp.where(here != 0, at * 32 + ctz(here), beyond))


def up_to(bits: Bits, i: Scalar) -> Scalar:
    """The largest member that is at most i (-1 to 511), or -1."""
    bits = once(bits)
    at = jnp.maximum(i >> 5, 0)
    here = word(bits, at) & (_ALL >> (31 - (i & 31)).astype(jnp.uint32))
    under = _words_used(bits) & ((jnp.uint32(1) << at.astype(jnp.uint32)) - jnp.uint32(1))
    prior = jnp.maximum(highest(under), 0)
    below = jnp.where(under != 0, prior * 32 + highest(word(bits, prior)), -1)
    return jnp.where(i < 0, -1, jnp.where(here != 0, at * 32 + highest(here), below))


def size(bits: Bits) -> Scalar:
    """How many members."""
    return jnp.sum(_thin(lax.population_count(bits).astype(jnp.int32)), axis=0).reshape(bits.shape[1:])


def up(bits: Bits) -> Bits:
    """Every member plus one; 511 falls out."""
    carry = jnp.concatenate([jnp.zeros_like(bits[:1]), bits[:-1] >> jnp.uint32(31)])
    return (bits << jnp.uint32(1)) | carry


def ctz(x: UInt32[Array, "..."]) -> Int32[Array, "..."]:
    """Trailing zeros of a word; 32 for 0."""
    return lax.population_count(~x & (x - np.uint32(1))).astype(jnp.int32)


def highest(mask: UInt32[Array, "..."]) -> Int32[Array, "..."]:
    """Index of the highest bit of an order mask; -1 for 0."""
    return 31 - lax.clz(mask).astype(jnp.int32)


def free_blocks(used: Bits, order: Scalar) -> Bits:
    """First members of the aligned blocks of 2^order (0 to 9) that are wholly outside `used`."""
    free = ~used
    within = free
    for level in range(1, 6):
        free = free & (free >> jnp.uint32(1 << (level - 1)))
        within = jnp.where(order[None] >= level, free, within)
    stride = (jnp.uint32(1) << jnp.minimum(order, 5).astype(jnp.uint32))[None]
    # Bits at multiples of the stride: all ones divided by 2^stride - 1; a whole word has one.
    pattern = jnp.where(
        stride >= 32, jnp.uint32(1), _ALL // ((jnp.uint32(1) << (stride & 31)) - jnp.uint32(1))
    )

    def above_a_word() -> Bits:
        word = jnp.arange(WORDS, dtype=jnp.uint32)[:, None]
        whole = jnp.where(used == 0, jnp.uint32(1) << word, jnp.uint32(0))
        whole = jnp.sum(_thin(whole), axis=0).astype(jnp.uint32).reshape(order.shape)
        for level in range(6, 10):
            whole = jnp.where(order >= level, whole & (whole >> jnp.uint32(1 << (level - 6))), whole)
        span_words = (jnp.int32(1) << jnp.maximum(order - 5, 0)).astype(jnp.uint32)
        return jnp.where(word % span_words[None] == 0, (whole[None] >> word) & jnp.uint32(1), jnp.uint32(0))

    small = within & pattern
    large = lax.cond(jnp.any(order > 5), above_a_word, lambda: small)
    return jnp.where(order[None] <= 5, small, large)
