"""Order-selection heuristics: pure functions from parameters and the features of a fault to an order mask."""

from jaxswap.policy.base import Decision, Features, Outcome, Param, Policy
from jaxswap.policy.rules import RULES

POLICIES: dict[str, Policy] = {rule.name: rule for rule in RULES}

__all__ = ["POLICIES", "Decision", "Features", "Outcome", "Param", "Policy"]
