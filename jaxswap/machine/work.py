"""What a lane still has to do before an operation can go on: folios to write out, a charge to get through.

It is a small machine of its own, so that lanes at different points of a reclaim go through one loop together.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxswap.machine.state import Flag, Lane, Mask
from jaxswap.swaptable.bits import Bits

# Where a lane stands: nothing to charge; try the charge; begin a pass over the lists at one priority; take the next
# batch; scan the inactive, then the active list; end the pass; end the reclaim.
IDLE, CHARGE, PASS, BATCH, INACTIVE, ACTIVE, NEXT, END = range(8)
MAX_RECLAIM_RETRIES = 16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Work:
    """One lane's unfinished work.

    block, heads, pieces, fresh: folios of one block to write out, by lowest page; pieces of a split folio, which come
    first, `fresh` if none of them went yet. phase: as above. order: of the charge under way; tried: orders to
    fall back to; refused: orders given up; may_reclaim: large charges may reclaim; first: no round failed yet;
    drained, retries: of try_charge. The rest belongs to the reclaim: priority, attempt, total and skipped to all of
    it; left, left_active, done, deactivate, low, last to a pass; want, scanned, kept, want_active
    to a batch.
    """

    block: Lane
    heads: Bits
    pieces: Bits
    fresh: Flag
    phase: Lane
    order: Lane
    tried: Mask
    refused: Mask
    may_reclaim: Flag
    first: Flag
    drained: Flag
    retries: Lane
    priority: Lane
    attempt: Lane
    total: Lane
    skipped: Flag
    left: Lane
    left_active: Lane
    done: Lane
    deactivate: Flag
    low: Flag
    last: Flag
    want: Lane
    scanned: Lane
    kept: Lane
    want_active: Lane


def nothing(lanes: int) -> Work:
    """No work."""

    def zero(dtype: type = jnp.int32) -> Array:
        return jnp.zeros((lanes,), dtype)

    flags = {"fresh", "may_reclaim", "first", "drained", "skipped", "deactivate", "low", "last"}
    values = {}
    for name in Work.__dataclass_fields__:
        if name in ("heads", "pieces"):
            values[name] = jnp.zeros((16, lanes), jnp.uint32)
        elif name in ("tried", "refused"):
            values[name] = zero(jnp.uint32)
        else:
            values[name] = zero(bool) if name in flags else zero()
    return Work(**values)
