"""A heuristic of one's own, named in own_policy.toml: the order climbs after successes, falls at failures."""

import jax.numpy as jnp

from jaxswap.policy import Decision, Features, Memory, Outcome, Param, Params, Policy, offer, up_to

LEAST, MOST = 2, 9  # orders: 16 kB, 2 MiB

# Words of the memory, which begins at 0: how far the cap is above LEAST, successes at it since it last moved.


def decide(params: Params, memory: Memory, seen: Features) -> Decision:
    capped = seen.candidates & up_to(LEAST + memory[0])
    return offer(jnp.where(seen.first_touch, seen.candidates, capped), memory)


def learn(params: Params, memory: Memory, outcome: Outcome) -> Memory:
    level, wins = memory[0], memory[1]
    failed = outcome.failed != 0
    wins = jnp.where(failed, 0, wins + (outcome.got >= LEAST + level))
    climbs = wins >= params[0]
    level = jnp.where(failed, level - 1, level + climbs)
    learned = memory.at[0].set(jnp.clip(level, 0, MOST - LEAST)).at[1].set(jnp.where(climbs, 0, wins))
    return jnp.where(outcome.first_touch, memory, learned)


climb = Policy(
    "climb",
    "swap-in up to a cap that rises by an order after `wins` folios at it and falls at a failure",
    decide,
    learn,
    (Param("wins", 8, 1, 1000, "folios got at the cap before it rises"),),
)
