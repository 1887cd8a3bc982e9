"""Order-selection heuristics: pure functions from parameters and the features of a fault to an order mask."""

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
    offer,
    up_to,
)
from jaxswap.policy.rules import RULES

POLICIES: dict[str, Policy] = {rule.name: rule for rule in RULES}

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
    "offer",
    "up_to",
]
