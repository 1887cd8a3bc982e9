"""The rules of a kernel version as values of a compiled program, so that one program serves all versions."""

from dataclasses import dataclass, fields

import jax
import numpy as np

from jaxswap.machine.profile import Profile


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rules:
    """Switches of a Profile, by its names; True or False in every lane."""

    filtered: jax.Array
    free_after_map: jax.Array
    ascending_pieces: jax.Array
    keep_huge_zero: jax.Array
    reclaim_tables: jax.Array
    counts_swpin: jax.Array
    counts_fallback: jax.Array


def rules_of(profile: Profile, lanes: int) -> Rules:
    """The rules of a profile for some lanes, as numpy: [lanes] each."""
    return Rules(**{field.name: np.full(lanes, getattr(profile, field.name)) for field in fields(Rules)})
