"""Heuristics that go by what the fault handler knows anyway, ten lines each."""

import jax.numpy as jnp

from jaxswap.policy.base import (
    Decision,
    Features,
    Memory,
    Outcome,
    Param,
    Params,
    Policy,
    highest,
    offer,
    up_to,
)


def _kernel(params: Params, memory: Memory, seen: Features) -> Decision:
    return offer(seen.candidates, memory)


def _never(params: Params, memory: Memory, seen: Features) -> Decision:
    return offer(jnp.where(seen.first_touch, seen.candidates, 0), memory)


def _cap(params: Params, memory: Memory, seen: Features) -> Decision:
    return offer(jnp.where(seen.first_touch, seen.candidates, seen.candidates & up_to(params[0])), memory)


def _single(params: Params, memory: Memory, seen: Features) -> Decision:
    only = jnp.uint32(1) << params[0].astype(jnp.uint32)
    return offer(jnp.where(seen.first_touch, seen.candidates, seen.candidates & only), memory)


def _lookahead(params: Params, memory: Memory, seen: Features) -> Decision:
    orders = jnp.where(seen.first_touch, seen.candidates, seen.suitable)
    slots = jnp.where(seen.first_touch, 0, jnp.int32(1) << highest(seen.candidates))
    return Decision(orders, memory, jnp.zeros_like(slots), slots)


# Words of backoff's memory, first touch then swap-in: level, faults still to sit out.
def _backoff(params: Params, memory: Memory, seen: Features) -> Decision:
    wait = jnp.where(seen.first_touch, memory[1], memory[3])
    less = jnp.maximum(wait - 1, 0)
    memory = memory.at[1].set(jnp.where(seen.first_touch, less, memory[1]))
    memory = memory.at[3].set(jnp.where(seen.first_touch, memory[3], less))
    return offer(jnp.where(wait > 0, 0, seen.candidates), memory)


def _backoff_learn(params: Params, memory: Memory, outcome: Outcome) -> Memory:
    touch, failed = outcome.first_touch, outcome.failed != 0
    level = jnp.where(touch, memory[0], memory[2])
    wait = jnp.where(touch, memory[1], memory[3])
    raised = jnp.minimum(level + 1, params[0])
    level = jnp.where(failed, raised, jnp.where(outcome.got > 0, 0, level))
    wait = jnp.where(failed, jnp.int32(1) << raised, wait)
    memory = memory.at[0].set(jnp.where(touch, level, memory[0]))
    memory = memory.at[1].set(jnp.where(touch, wait, memory[1]))
    memory = memory.at[2].set(jnp.where(touch, memory[2], level))
    return memory.at[3].set(jnp.where(touch, memory[3], wait))


_ORDER = Param("order", 4, 2, 8, "folio order: 2 is 16 kB, 4 is 64 kB, 8 is 1 MiB")

RULES = (
    Policy(
        "kernel",
        "every order sysfs and the tests of the fault allow, from the top",
        _kernel,
        expressible_in_sysfs=True,
        c="return candidates;",
    ),
    Policy("never", "swap-in at order 0 only; first touch as the kernel", _never, c="return 0;"),
    Policy(
        "cap",
        "swap-in at orders up to `order`; first touch as the kernel",
        _cap,
        params=(_ORDER,),
        c="return candidates & GENMASK(order, 0);",
    ),
    Policy(
        "single",
        "swap-in at `order` or 0; first touch as the kernel",
        _single,
        params=(_ORDER,),
        c="return candidates & BIT(order);",
    ),
    Policy(
        "backoff",
        "after a failure sit out 2, 4 .. 2^limit faults of that path at order 0, until a large folio is got",
        _backoff,
        _backoff_learn,
        (Param("limit", 6, 1, 16, "log2 of the longest wait, in faults"),),
        c="""\
/* wait, level: static, of this path: first touch or swap-in */
if (wait) {
    wait--;
    return 0;
}
return candidates;
/* after the fault */
if (failed) {
    level = min(level + 1, limit);
    wait = 1 << level;
} else if (got) {
    level = 0;
}""",
    ),
    Policy(
        "lookahead",
        "read the swap table first and offer only orders the add check would pass",
        _lookahead,
        c="""\
for_each_set_bit(order, &candidates, PMD_ORDER)
    if (__swap_cache_add_check(si, round_down(slot, 1 << order), 1 << order))
        __clear_bit(order, &candidates);
return candidates;""",
    ),
)
