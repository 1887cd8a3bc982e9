"""What a heuristic is: pure functions from its parameters, its memory and one fault to an order mask."""

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

MOST_PARAMS = 4
MEMORY_WORDS = 8


class Features(NamedTuple):
    """What a heuristic may look at.

    first_touch: an anonymous first touch, else a swap-in. candidates: the orders the kernel would offer
    (sysfs, VMA, alignment and PTE tests passed; never 0 or 1). suitable: those of them for which the add
    check of the swap table would succeed now (reading it costs slots). frames: all orders for which there is
    a free block of page frames now; all orders where frames are not modelled.
    """

    first_touch: Flag
    candidates: Mask
    suitable: Mask
    frames: Mask


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


@dataclass(frozen=True)
class Policy:
    """A heuristic: `decide` is asked once a fault that has candidates, `learn` is told what came of it."""

    name: str
    doc: str
    decide: Callable[[Params, Memory, Features], Decision]
    learn: Callable[[Params, Memory, Outcome], Memory] = forget
    params: tuple[Param, ...] = ()
    expressible_in_sysfs: bool = False


def up_to(order: Lane) -> Mask:
    """Mask of the orders 0 to `order`."""
    return (jnp.uint32(2) << order.astype(jnp.uint32)) - jnp.uint32(1)


def highest(mask: Mask) -> Lane:
    """Highest order of a mask; -1 for an empty one."""
    return 31 - lax.clz(mask).astype(jnp.int32)
