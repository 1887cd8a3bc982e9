"""The rules of a kernel version as values of a compiled program, so that one program serves all versions."""

from dataclasses import dataclass, fields

import jax
import numpy as np

from jaxswap.machine.profile import Profile
from jaxswap.swaptable.clusters import SlotRules

_TYPES = {bool: bool, int: np.int32}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rules:
    """Switches of a Profile, by its names, in every lane. slots: those of the slot allocator."""

    filtered: jax.Array
    free_after_map: jax.Array
    ascending_pieces: jax.Array
    counts_swpin: jax.Array
    counts_fallback: jax.Array
    slots: SlotRules


def rules_of(profile: Profile, lanes: int) -> Rules:
    """The rules of a profile for some lanes, as numpy: [lanes] each."""

    def named[T](kind: type[T], **more: object) -> T:
        names = [field.name for field in fields(kind) if field.name not in more]  # pyright: ignore[reportArgumentType]
        return kind(
            **{
                name: np.full(lanes, getattr(profile, name), _TYPES[type(getattr(profile, name))])
                for name in names
            },
            **more,
        )

    return named(Rules, slots=named(SlotRules))
