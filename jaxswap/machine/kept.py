"""A replay between two calls, as it is kept so that one that was killed goes on from there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class Halfway:
    """Operations 0 .. at - 1 are done. totals: counters by then, without `accesses`. arrays: of the states,
    in the order of their tree.
    """

    at: int
    totals: Int64[np.ndarray, "lanes counters"]
    arrays: Sequence[jax.Array | np.ndarray]


class Keeper(Protocol):
    """Who keeps it."""

    def read(self, like: Halfway) -> Halfway | None:
        """What is kept, with arrays of the shapes and types of `like`; None where there is no such thing."""
        ...

    def offer(self, now: Halfway) -> None:
        """Keep this, or do not; the arrays are gone after the next call."""
        ...
