"""A policy that knows the accesses to come: drawn for orientation, neither a bound nor a candidate."""

import jax.numpy as jnp

from jaxswap.policy.around import room
from jaxswap.policy.base import (
    BLOCK,
    ORDERS,
    Decision,
    Features,
    Mask,
    Memory,
    Param,
    Params,
    Policy,
    highest,
    offer,
)


def _needed(params: Params, seen: Features) -> Mask:
    """Orders of whose pages around the faulting one at least the share is accessed within the window."""
    soon = seen.future <= (1 << params[0])
    orders = jnp.zeros_like(seen.candidates)
    for order in ORDERS:
        folios = jnp.sum(soon.reshape(BLOCK >> order, 1 << order, -1), axis=1, dtype=jnp.int32)
        pages = jnp.take_along_axis(folios, (seen.page >> order)[None], axis=0)[0]
        enough = 100 * pages >= params[1] << order
        orders = orders | jnp.where(enough, jnp.uint32(1 << order), jnp.uint32(0))
    return orders


def _decide(params: Params, memory: Memory, seen: Features) -> Decision:
    fits = jnp.where(params[2] == 1, room(seen, jnp.zeros_like(params[2])), seen.candidates)
    top = highest(seen.candidates & seen.suitable & seen.frames & fits & _needed(params, seen))
    only = jnp.where(top < 0, jnp.uint32(0), jnp.uint32(1) << jnp.maximum(top, 0).astype(jnp.uint32))
    return offer(jnp.where(seen.first_touch, seen.candidates, only), memory)


CLAIRVOYANT = Policy(
    "clairvoyant",
    "knows the accesses to come: swap-in at the highest order that would succeed and be used enough",
    _decide,
    params=(
        Param("log2", 12, 0, 24, "log2 of the accesses ahead in which a page must be used"),
        Param("share", 50, 0, 100, "per cent of the pages that must be used"),
        Param("room", 1, 0, 1, "1: only orders that fit below memory.max without reclaim"),
    ),
    c="""\
/* no kernel can: it would have to know the accesses to come */
for_each_set_bit_from_the_top(order, &candidates)
    if (add_check_passes(order) && free_frames(order) && (!room || 1 << order <= headroom_pages) &&
        100 * pages_used_within(1 << log2, order) >= share << order)
        return BIT(order);
return 0;""",
)
