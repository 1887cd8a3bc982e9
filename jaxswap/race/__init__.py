"""Several CPUs on one block of swap slots: the path as atomic steps, every interleaving. See docs/race.md."""

from jaxswap.race.explore import DEADLOCK, NEVER_RETURNS, Explored, Violation, explore
from jaxswap.race.start import KINDS, Actor, Start, likeness, starts

__all__ = [
    "DEADLOCK",
    "KINDS",
    "NEVER_RETURNS",
    "Actor",
    "Explored",
    "Start",
    "Violation",
    "explore",
    "likeness",
    "starts",
]
