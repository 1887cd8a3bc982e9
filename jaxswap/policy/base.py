"""What a heuristic is: pure functions from its parameters, its memory and one fault to an order mask; and
from one large folio that is to leave memory to whether it leaves whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

Lane = Int32[Array, " L"]
Mask = UInt32[Array, " L"]
Flag = Bool[Array, " L"]
Memory = Int32[Array, "words L"]
Params = Int32[Array, "params L"]

MOST_PARAMS = 8
MEMORY_WORDS = 8
BLOCK = 512  # pages of 2 MiB
ORDERS = range(2, 10)  # of large folios
NEVER = 1 << 30


class Features(NamedTuple):
    """What a heuristic may look at.

    first_touch: an anonymous first touch, else a swap-in. candidates: the orders the kernel would offer
    (sysfs, VMA, alignment and PTE tests passed; never 0 or 1). suitable: those of them for which the add
    check of the swap table would succeed now (reading it costs slots). frames: all orders for which there is
    a free block of page frames now; all orders where frames are not modelled.

    page: of its 2 MiB block, 0 to 511. headroom: pages that memory.max leaves the cgroup that is charged, at
    swap-in the one that paid for the slot (memory.max - memory.current), at least 0; 2^30 where there is no
    limit. chargeable: orders that can be charged now without reclaim, from what the CPU has charged ahead
    (memcg_stock) or below memory.max; every order where the charge may reclaim (vma_thp_gfp_mask). fill:
    slots of all swap devices in use, in 64ths. distance: refault distance of the slot (in pages evicted
    since; with the multi-gen LRU in generations), 0 at a first touch; recent: whether the kernel calls it so
    (workingset_test_recent). Both cost the shadow, one slot. present, swapped, young: of the 32 aligned PTEs
    around the page, bit i for the i-th; a PTE looked at is a PTE read. block: what the heuristic noted of the
    2 MiB block (`Policy.note`), of the same address in all processes; 0 at first.

    future: of each page of the 2 MiB block, how many accesses there will be before it is accessed, 0 for the
    faulting one; NEVER if it is not, or released or paged out by advice before that. No kernel knows it: what
    looks at it is drawn for orientation and never wins.
    """

    first_touch: Flag
    candidates: Mask
    suitable: Mask
    frames: Mask
    page: Lane
    headroom: Lane
    chargeable: Mask
    fill: Lane
    distance: Lane
    recent: Flag
    present: Mask
    swapped: Mask
    young: Mask
    block: Lane
    future: Int32[Array, "512 L"]


NEAR = ("first_touch", "candidates", "suitable", "frames")
"""The features that the fault handler has found anyway; what only these decide needs no others computed."""


def near(first_touch: Flag, candidates: Mask, suitable: Mask, frames: Mask) -> Features:
    """Features of which only the near ones are known; the others are 0, the future NEVER."""
    none, no = jnp.zeros(candidates.shape, jnp.int32), jnp.zeros(candidates.shape, bool)
    empty = jnp.zeros(candidates.shape, jnp.uint32)
    future = jnp.full((BLOCK, *candidates.shape), NEVER, jnp.int32)
    around = (none, none, empty, none, none, no, empty, empty, empty, none, future)
    return Features(first_touch, candidates, suitable, frames, *around)


class Decision(NamedTuple):
    """The orders to try (others are refused as "policy"), the memory afterwards, PTEs and slots read for
    it."""

    orders: Mask
    memory: Memory
    ptes: Lane
    slots: Lane


class Outcome(NamedTuple):
    """What became of a fault: its path, orders that failed, order got."""

    first_touch: Flag
    failed: Mask
    got: Lane


class Leaving(NamedTuple):
    """What a heuristic may look at of a large folio that is about to get slots, to leave memory whole.

    Asked where the kernel would call folio_alloc_swap for it (mm/vmscan.c shrink_folio_list, 6.12 to 7.3):
    not for folios that lost pages, which are split anyway, and not again for pieces.

    order: 2 to 9. page: its first page, of the 2 MiB block, 0 to 511. workingset: PG_workingset. fill: slots
    of all swap devices in use, in 64ths. cluster: some device has a cluster on its list of free ones. block:
    what the heuristic noted of the 2 MiB block (`Policy.note`), so of the faults before.

    Nearly always all its pages are present. young: PTEs that map it and are young; looking costs a PTE each.
    Reclaim comes from folio_check_references, which has just found none: it is 0 but for MADV_PAGEOUT and for
    what processes of other cgroups map. touched: PTEs that map it and were used since they were mapped. No
    kernel keeps that: it would map the folio's pages old and gather their accessed bits, a bit a page,
    wherever they are cleared. zeros: its pages that are all zero, or mapped by nobody; looking costs the
    content of a page each.
    """

    order: Lane
    page: Lane
    workingset: Flag
    fill: Lane
    cluster: Flag
    block: Lane
    young: Lane
    touched: Lane
    zeros: Lane


INSIDE = ("young", "touched", "zeros")
"""The fields of Leaving for which the pages of the folio are looked at."""


class Verdict(NamedTuple):
    """Whether a folio leaves whole, else it is split; PTEs and pages of content read to decide."""

    whole: Flag
    ptes: Lane
    pages: Lane


class Param(NamedTuple):
    """One integer parameter of a heuristic and its range, both ends included."""

    name: str
    default: int
    low: int
    high: int
    doc: str


def offer(orders: Mask, memory: Memory) -> Decision:
    """A decision that read nothing."""
    none = jnp.zeros(orders.shape, jnp.int32)
    return Decision(orders, memory, none, none)


def forget(params: Params, memory: Memory, outcome: Outcome) -> Memory:
    """Learn nothing."""
    return memory


def leave(params: Params, block: Lane, outcome: Outcome) -> Lane:
    """Note nothing of the block."""
    return block


def unread(whole: Flag) -> Verdict:
    """A verdict that read nothing."""
    none = jnp.zeros(whole.shape, jnp.int32)
    return Verdict(whole, none, none)


def always_whole(params: Params, memory: Memory, leaving: Leaving) -> Verdict:
    """The kernel's rule: a folio is split only if there are no slots for it whole."""
    return unread(jnp.ones(leaving.order.shape, bool))


@dataclass(frozen=True)
class Policy:
    """A heuristic: `decide` is asked once a fault that has candidates, `learn` is told what came of it.

    note: likewise told; returns the word of the fault's 2 MiB block (`Features.block`). leave_whole: asked
    once for a large folio that is to leave memory; one that it does not leave whole is split to order 0
    before slots are looked for. c: the rule as C, to read, not to compile.
    """

    name: str
    doc: str
    decide: Callable[[Params, Memory, Features], Decision]
    learn: Callable[[Params, Memory, Outcome], Memory] = forget
    params: tuple[Param, ...] = ()
    expressible_in_sysfs: bool = False
    note: Callable[[Params, Lane, Outcome], Lane] = leave
    leave_whole: Callable[[Params, Memory, Leaving], Verdict] = always_whole
    c: str = ""


def up_to(order: Lane) -> Mask:
    """Mask of the orders 0 to `order`."""
    return (jnp.uint32(2) << order.astype(jnp.uint32)) - jnp.uint32(1)


def highest(mask: Mask) -> Lane:
    """Highest order of a mask; -1 for an empty one."""
    return 31 - lax.clz(mask).astype(jnp.int32)


def lowest(mask: Mask) -> Lane:
    """Lowest order of a mask; -1 for an empty one."""
    return highest(mask & -mask)


def size(mask: Mask) -> Lane:
    """How many a mask has."""
    return lax.population_count(mask).astype(jnp.int32)
