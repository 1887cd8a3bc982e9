"""The rules in which kernel versions differ, as values that a compiled machine is handed.

One compiled program thus serves all versions.
"""

from dataclasses import dataclass, fields

import jax
import numpy as np
from jaxtyping import Array, Bool

from jaxswap.machine.profile import Profile

Flag = Bool[Array, " L"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rules:
    """Fields of Profile, one value a lane."""

    keep_huge_zero: Flag
    reclaim_tables: Flag


def rules_of(profile: Profile) -> Rules:
    """The rules of one version, without a lane axis."""
    return Rules(**{field.name: np.asarray(getattr(profile, field.name)) for field in fields(Rules)})
