"""Order-selection heuristics: pure functions from parameters and the features of a fault to an order mask,
and from those of a folio that is to leave memory to whether it leaves whole."""

from jaxswap.policy.around import AROUND
from jaxswap.policy.base import (
    MEMORY_WORDS,
    Decision,
    Features,
    Leaving,
    Memory,
    Outcome,
    Param,
    Params,
    Policy,
    Verdict,
    highest,
    lowest,
    offer,
    size,
    unread,
    up_to,
)
from jaxswap.policy.clairvoyant import CLAIRVOYANT
from jaxswap.policy.linear import LINEAR
from jaxswap.policy.outcomes import OUTCOMES
from jaxswap.policy.rules import RULES
from jaxswap.policy.swapout import SWAPOUT

POLICIES: dict[str, Policy] = {
    rule.name: rule for rule in (*RULES, *AROUND, *OUTCOMES, LINEAR, *SWAPOUT, CLAIRVOYANT)
}

__all__ = [
    "MEMORY_WORDS",
    "POLICIES",
    "Decision",
    "Features",
    "Leaving",
    "Memory",
    "Outcome",
    "Param",
    "Params",
    "Policy",
    "Verdict",
    "highest",
    "lowest",
    "offer",
    "size",
    "unread",
    "up_to",
]
