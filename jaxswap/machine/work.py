"""What a lane still has to do before an operation can go on: folios to write out, a charge to get through.

It is a small machine of its own, so that lanes at different points of a reclaim go through one loop together.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxswap.machine.state import Defrag, Flag, Lane, Mask
from jaxswap.swaptable.bits import Bits

# Where a lane stands: nothing to charge; try the charge; look at memory.high; begin a pass over the lists at
# one priority; take the next batch; scan the inactive list, settle its accounts, scan the active list; let
# the shrinker of the deferred split list run; end the pass, the reclaim
IDLE, CHARGE, HIGH, PASS, BATCH, INACTIVE, SETTLE, ACTIVE, SLAB, NEXT, END = range(11)
MAX_RECLAIM_RETRIES = 16


class Gfp(NamedTuple):
    """What a charge may do: reclaim (__GFP_DIRECT_RECLAIM); take a batch, as it may wait
    (gfpflags_allow_spinning); reclaim again (not __GFP_NORETRY)."""

    reclaims: Flag
    spins: Flag
    retries: Flag


def gfp_kernel(like: Flag) -> Gfp:
    """GFP_KERNEL: all of it."""
    yes = jnp.ones(like.shape, bool)
    return Gfp(yes, yes, yes)


def vma_thp_gfp_mask(defrag: Lane, advised: Flag) -> Gfp:
    """Of a large folio (include/linux/huge_mm.h), by transparent_hugepage/defrag and the VMA's advice."""
    always, both = defrag == Defrag.ALWAYS, defrag == Defrag.DEFER_MADVISE
    reclaims = always | ((both | (defrag == Defrag.MADVISE)) & advised)
    wakes = (defrag == Defrag.DEFER) | (both & ~advised)
    return Gfp(reclaims, reclaims | wakes, ~always | advised)


class Pieces(NamedTuple):
    """Pieces of a split folio that are still to go, as pages of its block: which, how many, those that
    somebody maps; `fresh` if none of them went yet."""

    block: Lane
    left: Bits
    count: Lane
    mapped: Bits
    fresh: Flag


class Leaving(NamedTuple):
    """Folios of one lane that are to be split or to go.

    pieces: what goes first. victim: lowest page of a folio that was chosen to go, or -1; alike: small folios
    from it on that go together. cut: a page of a folio to be split, or -1; listed: it is on an LRU list, else
    its pieces are to go. due: folios of the deferred split list that are to be split. at, stop: pages advice
    was given for: in those from `cutting` on folios that do not lie wholly within are to be split, then, if
    `out`, all from `at` on are to go.
    """

    pieces: Pieces
    victim: Lane
    alike: Lane
    cut: Lane
    listed: Flag
    due: Lane
    cutting: Lane
    at: Lane
    stop: Lane
    out: Flag


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Work:
    """One lane's unfinished work.

    phase: as above. order: of the charge under way; tried: orders to fall back to; refused: orders given up;
    gfp: of large charges; first: no round failed yet; drained, retries: of try_charge, or of the work for
    memory.high; high: pages beyond it, 0 where that is not what reclaim is for. The rest belongs to the
    reclaim: goal: how many pages it is to free; priority, attempt, total and skipped to all of it; left,
    left_active, done, deactivate, low, last to a pass; want, scanned, kept, want_active to a batch.
    """

    phase: Lane
    order: Lane
    tried: Mask
    refused: Mask
    gfp: Gfp
    first: Flag
    drained: Flag
    retries: Lane
    high: Lane
    goal: Lane
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


def to_write(leaving: Leaving) -> Flag:
    """Whether a lane has a folio to write out."""
    return (leaving.victim >= 0) | (leaving.pieces.count > 0)


def leaving_of(start: Lane, stop: Lane, out: Flag, on: Flag) -> Leaving:
    """Advice for the pages start .. stop - 1 in the lanes that are on, to write them out if `out`; in the
    others nothing is to go."""
    zero, none, off = jnp.zeros_like(start), jnp.zeros((16, *start.shape), jnp.uint32), jnp.zeros_like(on)
    pieces = Pieces(zero, none, zero, none, off)
    stop = jnp.where(on, stop, start)
    return Leaving(pieces, zero - 1, zero + 1, zero - 1, off, zero, start, start, stop, out)


def work_of(order: Lane, tried: Mask, refused: Mask, gfp: Gfp, on: Flag) -> Work:
    """The work of charging 2^order pages in the lanes that are on, falling back through `tried`."""
    zero, off = jnp.zeros_like(order), jnp.zeros_like(on)
    return Work(
        phase=jnp.where(on, CHARGE, IDLE),
        order=order,
        tried=tried,
        refused=refused,
        gfp=gfp,
        first=on,
        drained=off,
        retries=jnp.full_like(order, MAX_RECLAIM_RETRIES),
        high=zero,
        goal=zero,
        priority=zero,
        attempt=zero,
        total=zero,
        skipped=off,
        left=zero,
        left_active=zero,
        done=zero,
        deactivate=off,
        low=off,
        last=off,
        want=zero,
        scanned=zero,
        kept=zero,
        want_active=zero,
    )


def change(work: Work, on: Flag, **values: Lane | Flag | int | bool) -> Work:
    """The work with fields set in the lanes that are on."""
    new = {}
    for name, value in values.items():
        old = getattr(work, name)
        new[name] = jnp.where(on, jnp.asarray(value).astype(old.dtype), old)
    return replace(work, **new)
