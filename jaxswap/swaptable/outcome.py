"""What became of a batch of requests, and why orders were refused: three words of masks a request."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int8, Int32, UInt8, UInt16, UInt32

from jaxswap.swaptable.geometry import ALL_ORDERS

REASONS = ("no_table", "bad", "cached", "count", "zero", "memcg", "frame", "charge")
"""Why an order was not used. The first five are found by the first check, before anything is allocated;
``memcg`` by the second check and ``charge`` after it, both at the cost of a folio thrown away."""

EXTRA, BEFOREHAND = 30, 31
"""Spare bits of the words of masks: in the first, the request never returns; in the second, it goes on with
order -1; in the third, the add threw a folio away, and memcg ids were looked at before the allocation."""


class Outcome(NamedTuple):
    """What became of every request. Masks have bit ``o`` for order ``o``; three are packed in a word of
    ``masks``.

    An order can be refused for several reasons at once, all reported: each test of the check counts if any
    slot of the block fails it (a bad slot fails only ``bad``; a target refused for itself reports that reason
    alone).
    """

    errno: Int32[Array, "n"]
    """0, or the error of the last order tried: -ENOENT, -ENOMEM, -EBUSY, -EEXIST; -EINVAL for a bad mask.
    Where the request would not have returned, the error at which it should have."""
    order: Int8[Array, "n"]
    """Order of the folio now in the cache, -1 if none."""
    masks: tuple[UInt32[Array, "n"], UInt32[Array, "n"], UInt32[Array, "n"]]

    def _mask(self, number: int) -> UInt16[Array, "n"]:
        word, place = divmod(number, 3)
        return ((self.masks[word] >> (10 * place)) & ALL_ORDERS).astype(jnp.uint16)

    def refused(self, reason: str) -> UInt16[Array, "n"]:
        """Orders refused for one of :data:`REASONS`."""
        return self._mask(REASONS.index(reason))

    @property
    def stepped(self) -> UInt16[Array, "n"]:
        """Orders given up and counted as swpin_fallback (order 0 is never counted)."""
        return self._mask(len(REASONS))

    @property
    def never_returns(self) -> Bool[Array, "n"]:
        """The form tries order 0 again for ever, as long as no frame or no charge can be had."""
        return self.masks[0] >> EXTRA != 0

    @property
    def order_below_0(self) -> Bool[Array, "n"]:
        """The form goes on with order -1 after the last order of the mask."""
        return self.masks[1] >> EXTRA != 0

    @property
    def first_check(self) -> UInt16[Array, "n"]:
        """Orders refused by the check before the allocation (before phase IV also by the one after it)."""
        no_table, bad, cached, count, zero = (self.refused(reason) for reason in REASONS[:5])
        return no_table | bad | cached | count | zero

    @property
    def second_check(self) -> UInt16[Array, "n"]:
        """Orders refused by the check after the allocation."""
        return self.refused("memcg")

    @property
    def thrown(self) -> UInt8[Array, "n"]:
        """Folios allocated and given back (where the request never returns: in the first round)."""
        beforehand = self.masks[2] >> BEFOREHAND != 0
        late = jnp.where(beforehand, 0, self.refused("memcg")) | self.refused("charge")
        by_add = self.masks[2] >> EXTRA & 1
        return (lax.population_count(late) + by_add).astype(jnp.uint8)
