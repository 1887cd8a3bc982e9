"""A linear rule: at swap-in an order is offered where a sum of features times small integers is positive."""

import jax.numpy as jnp
from jaxtyping import Array, Int32

from jaxswap.policy.base import (
    ORDERS,
    Decision,
    Features,
    Lane,
    Memory,
    Outcome,
    Param,
    Params,
    Policy,
    highest,
    size,
)

WEIGHTS = (
    Param("bias", 1, -64, 64, "weight of 1"),
    Param("order", 0, -64, 64, "weight of the order, 2 to 9"),
    Param("room", 0, -64, 64, "weight of log2 of how many folios fit below memory.max, -8 to 8"),
    Param("recent", 0, -64, 64, "weight of 1 where the refault is recent (workingset_test_recent)"),
    Param("fill", 0, -64, 64, "weight of the eighths of all slots that are in use"),
    Param("present", 0, -64, 64, "weight of the eighths of the 32 aligned PTEs around that are present"),
    Param("young", 0, -64, 64, "weight of the eighths of them that are young"),
    Param("luck", 0, -64, 64, "weight of the successes less the failures of the order of late, -8 to 7"),
)


# Word 0 of the memory, four bits for each order.
def _luck(word: Lane, order: int | Lane) -> Lane:
    return ((word >> (4 * (order - 2)) & 15) ^ 8) - 8


def weighed(memory: Memory, seen: Features, order: int | Lane) -> Int32[Array, "weights L"]:
    """What the weights are of, for one order of each lane."""
    one = jnp.ones_like(seen.fill)
    left = highest(seen.headroom.astype(jnp.uint32))
    return jnp.stack(
        [
            one,
            one * order,
            jnp.clip(left - order, -8, 8),
            seen.recent.astype(jnp.int32),
            seen.fill >> 3,
            size(seen.present) >> 2,
            size(seen.young) >> 2,
            _luck(memory[0], order),
        ]
    )


def _decide(params: Params, memory: Memory, seen: Features) -> Decision:
    orders = jnp.zeros_like(seen.candidates)
    for order in ORDERS:
        score = jnp.sum(params * weighed(memory, seen, order), axis=0)
        orders = orders | jnp.where(score > 0, jnp.uint32(1 << order), jnp.uint32(0))
    read = ~seen.first_touch
    orders = jnp.where(read, seen.candidates & orders, seen.candidates)
    return Decision(orders, memory, jnp.where(read, 32, 0), read.astype(jnp.int32))


def _learn(params: Params, memory: Memory, outcome: Outcome) -> Memory:
    word = memory[0]
    for order in ORDERS:
        place = 4 * (order - 2)
        failed = (outcome.failed >> order & 1).astype(jnp.int32)
        luck = jnp.clip(_luck(word, order) + (outcome.got == order) - failed, -8, 7)
        word = word & jnp.int32(~(15 << place) if order < 9 else 0x0FFF_FFFF) | (luck & 15) << place
    return memory.at[0].set(jnp.where(outcome.first_touch, memory[0], word))


LINEAR = Policy(
    "linear",
    "swap-in at each order for which a sum of features times small integers is positive",
    _decide,
    _learn,
    WEIGHTS,
    c="""\
/* luck: static, of swap-in */
for_each_set_bit(order, &candidates, PMD_ORDER + 1) {
    room = clamp(fls(headroom_pages) - 1 - order, -8, 8);
    if (bias + w_order * order + w_room * room + w_recent * workingset_recent +
        w_fill * (8 * used_slots / total_slots) + w_present * (nr_present_of_32 / 4) +
        w_young * (nr_young_of_32 / 4) + w_luck * luck[order] <= 0)
        __clear_bit(order, &candidates);
}
return candidates;
/* after the fault */
luck[got] = min(luck[got] + 1, 7);
for_each_set_bit(order, &failed, PMD_ORDER + 1)
    luck[order] = max(luck[order] - 1, -8);""",
)
