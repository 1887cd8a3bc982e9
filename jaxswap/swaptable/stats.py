"""What state a swap table is in: free aligned blocks of each order, clusters by list, a fragmentation index.

Source of the rules: mm/swapfile.c (struct swap_cluster_info, the lists of struct swap_info_struct), and
mm/vmstat.c (unusable_free_index), whose measure of free page frames is here one of free slots; 7.3.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxswap.swaptable import bits
from jaxswap.swaptable.cluster_table import (
    COUNT,
    FLAG,
    FRAG,
    FREE,
    FULL,
    NONFULL,
    ORDER,
    ROW,
    STRIDE,
    USED,
    Clusters,
)
from jaxswap.swaptable.geometry import MAX_ORDER, ORDERS, WORDS

Lane = Int32[Array, " L"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TableStats:
    """Of all devices of each lane together.

    free_slots: slots nobody has. free_blocks: aligned blocks of 2^order slots that are wholly free.
    free_clusters, full_clusters, nonfull, frag: clusters by list, the last two by order; one that a CPU is
    filling counts where it was. in_use: clusters with a slot in use, or a bad one, which have a table.
    """

    free_slots: Lane
    free_blocks: Int32[Array, "orders L"]
    free_clusters: Lane
    full_clusters: Lane
    nonfull: Int32[Array, "orders L"]
    frag: Int32[Array, "orders L"]
    in_use: Lane

    @property
    def unusable_free_index(self) -> Float32[Array, "orders L"]:
        """Share of the free slots that lie in no free block of the order: 0 (all are of use) to 1 (none is,
        or none is free).
        """
        usable = self.free_blocks << np.arange(MAX_ORDER + 1, dtype=np.int32)[:, None]
        return jnp.where(self.free_slots > 0, 1 - usable / jnp.maximum(self.free_slots, 1), 1.0)


@jax.jit
def table_stats(clusters: Clusters) -> TableStats:
    """The state of a table, of up to 2^31 slots a lane."""
    count = clusters.words.shape[0] // STRIDE
    table = clusters.words[: count * STRIDE].reshape(count, STRIDE, -1)
    flag = table[:, FLAG]
    there = flag != 0
    used = table[:, : WORDS * ROW].reshape(count, WORDS, ROW, -1)[:, :, USED]
    used = jnp.where(there[:, None], used, np.uint32(0xFFFF_FFFF))
    # All clusters of all lanes at once, as so many sets.
    sets = jnp.moveaxis(used, 0, 1).reshape(WORDS, -1)

    def free_blocks(order: int) -> Lane:
        blocks = bits.free_blocks(sets, jnp.full(sets.shape[1:], order, jnp.int32))
        return jnp.sum(bits.size(blocks).reshape(there.shape), axis=0)

    blocks = [free_blocks(order) for order in ORDERS]

    def by_order(state: int) -> Int32[Array, "orders L"]:
        on, orders = flag == state, np.array(ORDERS, np.uint32)[:, None, None]
        return jnp.sum(on[None] & (table[:, ORDER][None] == orders), axis=1, dtype=jnp.int32)

    def of_state(state: int) -> Lane:
        return jnp.sum(flag == state, axis=0, dtype=jnp.int32)

    return TableStats(
        free_slots=blocks[0],
        free_blocks=jnp.stack(blocks),
        free_clusters=of_state(FREE),
        full_clusters=of_state(FULL),
        nonfull=by_order(NONFULL),
        frag=by_order(FRAG),
        in_use=jnp.sum(there & (table[:, COUNT] != 0), axis=0, dtype=jnp.int32),
    )
