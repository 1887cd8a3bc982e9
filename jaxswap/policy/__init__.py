"""Order-selection heuristics: pure functions from parameters and the features of a fault to an order mask."""

from jaxswap.policy.around import AROUND
from jaxswap.policy.base import (
    MEMORY_WORDS,
    Decision,
    Features,
    Memory,
    Outcome,
    Param,
    Params,
    Policy,
    highest,
    lowest,
    offer,
    size,
    up_to,
)
from jaxswap.policy.clairvoyant import CLAIRVOYANT
from jaxswap.policy.linear import LINEAR
from jaxswap.policy.outcomes import OUTCOMES
from jaxswap.policy.rules import RULES

POLICIES: dict[str, Policy] = {rule.name: rule for rule in (*RULES, *AROUND, *OUTCOMES, LINEAR, CLAIRVOYANT)}

__all__ = [
    "MEMORY_WORDS",
    "POLICIES",
    "Decision",
    "Features",
    "Memory",
    "Outcome",
    "Param",
    "Params",
    "Policy",
    "highest",
    "lowest",
    "offer",
    "size",
    "up_to",
]
