"""The page allocator: free lists by order, split and merged as in the kernel, on lanes.

A block is known by its first frame. Lists are linked by frame number, their sentinels behind the frames.
Source of the rules: mm/page_alloc.c (__rmqueue_smallest, expand, __free_one_page, buddy_merge_likely), 6.12
to 7.3; one zone, one migrate type, no per-CPU lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.frames.start import MAX_PAGE_ORDER, ORDERS, Start
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import once
from jaxswap.swaptable.lanes import SPARE, load1, repeat, store1, surely

Lane = Int32[Array, " L"]
Mask = UInt32[Array, " L"]
Flag = Bool[Array, " L"]

USED, PINNED = -1, -2
LEAST_FRAMES = 16384


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Buddy:
    """kind: of each frame the order of the free block it begins, else USED (or inside a free block) or PINNED
    (in use for ever). next, prev: links of frames that begin a free block; of others, what the user of the
    frames keeps there. orders: those with a free block. free: frames that are free.
    """

    kind: Int32[Array, "frames L"]
    next: Int32[Array, "links L"]
    prev: Int32[Array, "links L"]
    orders: Mask
    free: Lane


def room(frames: int) -> int:
    """Frames the arrays are made for: a power of two, so that few shapes are compiled."""
    return max(LEAST_FRAMES, 1 << (frames - 1).bit_length())


def frames_room(b: Buddy) -> int:
    """Frames the arrays have room for; the sentinels follow them."""
    return b.kind.shape[0] - SPARE


def buddy_of(starts: Sequence[Start], frames: int) -> Buddy:
    """Free lists to begin with as numpy, the lane axis last; `frames` as given by `room`."""
    lanes = len(starts)
    kind = np.full((frames + SPARE, lanes), PINNED, np.int32)
    next = np.arange(frames + ORDERS + SPARE, dtype=np.int32)[:, None].repeat(lanes, axis=1)
    prev = next.copy()
    orders, free = np.zeros(lanes, np.uint32), np.zeros(lanes, np.int32)
    for lane, start in enumerate(starts):
        kind[: len(start.pinned), lane] = np.where(start.pinned, PINNED, USED)
        for order, blocks in enumerate(start.lists):
            ring = np.concatenate([[frames + order], blocks, [frames + order]]).astype(np.int32)
            kind[blocks, lane] = order
            next[ring[:-1], lane], prev[ring[1:], lane] = ring[1:], ring[:-1]
            orders[lane] |= np.uint32(bool(len(blocks)) << order)
            free[lane] += len(blocks) << order
    return Buddy(kind, next, prev, orders, free)  # type: ignore[arg-type]


def kind_of(b: Buddy, frame: Lane) -> tuple[Lane, Buddy]:
    """The kind of a frame."""
    found, kind = load1(b.kind, frame)
    return found, replace(b, kind=kind)


def _bit(order: Lane) -> Mask:
    return jnp.uint32(1) << order.astype(jnp.uint32)


def link(b: Buddy, frame: Lane, order: Lane, tail: Flag, on: Flag) -> Buddy:
    """Put a block on its list, at the head or at the tail."""
    sentinel = frames_room(b) + order
    first, next = load1(b.next, sentinel)
    last, prev = load1(b.prev, sentinel)
    before, after = once((jnp.where(tail, last, sentinel), jnp.where(tail, sentinel, first)))
    next = store1(store1(next, before, frame, on), frame, after, on)
    prev = store1(store1(prev, after, frame, on), frame, before, on)
    kind = store1(b.kind, frame, order, on)
    orders = jnp.where(on, b.orders | _bit(order), b.orders)
    return replace(b, kind=kind, next=next, prev=prev, orders=orders)


def unlink(b: Buddy, frame: Lane, order: Lane, on: Flag) -> Buddy:
    """Take a free block off its list; its frames are in use."""
    after, next = load1(b.next, frame)
    before, prev = load1(b.prev, frame)
    next = store1(next, before, after, on)
    prev = store1(prev, after, before, on)
    kind = store1(b.kind, frame, jnp.full_like(frame, USED), on)
    orders = jnp.where(on & (before == after), b.orders & ~_bit(order), b.orders)
    return replace(b, kind=kind, next=next, prev=prev, orders=orders)


def alloc(b: Buddy, order: Lane, on: Flag) -> tuple[Buddy, Lane]:
    """2^order frames: (free lists, the first of them; -1 where no block is large enough).

    The head of the list of the smallest order that fits, split; upper halves go to the heads of their lists.
    """
    fits = once(b.orders >> order.astype(jnp.uint32) << order.astype(jnp.uint32))
    found = once(on & (fits != 0))
    high = once(jnp.where(found, bits.ctz(fits), MAX_PAGE_ORDER))
    frame, next = load1(b.next, frames_room(b) + high)
    b = unlink(replace(b, next=next), frame, high, found)

    def larger(carry: tuple[Buddy, Lane]) -> Flag:
        return found & (carry[1] > order)

    def halve(carry: tuple[Buddy, Lane]) -> tuple[Buddy, Lane]:
        b, high = carry
        here = surely(larger(carry))
        half = high - 1
        b = link(b, frame + (jnp.int32(1) << half), half, jnp.zeros_like(found), here)
        return b, jnp.where(here, half, high)

    b, _ = repeat(larger, halve, (b, high))
    free = b.free - jnp.where(found, jnp.int32(1) << order, 0)
    return replace(b, free=free), jnp.where(found, frame, -1)


def free(b: Buddy, frame: Lane, order: Lane, on: Flag) -> Buddy:
    """Give 2^order frames back, merged with their buddies; to the tail where the next merge is likely."""
    b = replace(b, free=b.free + jnp.where(on, jnp.int32(1) << order, 0))

    def buddy(b: Buddy, frame: Lane, order: Lane) -> tuple[Flag, Buddy]:
        kind, b = kind_of(b, frame ^ (jnp.int32(1) << order))
        return on & (kind == order) & (order < MAX_PAGE_ORDER), b

    def merge(carry: tuple[Buddy, Lane, Lane, Flag]) -> tuple[Buddy, Lane, Lane, Flag]:
        b, frame, order, merges = carry
        here = surely(merges)
        b = unlink(b, frame ^ (jnp.int32(1) << order), order, here)
        frame = jnp.where(here, frame & ~(jnp.int32(1) << order), frame)
        order = order + here
        merges, b = buddy(b, frame, order)
        return b, frame, order, merges & here

    merges, b = buddy(b, frame, order)
    b, frame, order, _ = repeat(lambda carry: carry[3], merge, (b, frame, order, merges))
    parent = frame & ~(jnp.int32(1) << order)
    kind, b = kind_of(b, parent ^ (jnp.int32(2) << order))
    likely = (kind == order + 1) & (order < MAX_PAGE_ORDER - 1)
    return link(b, frame, order, likely, on)
