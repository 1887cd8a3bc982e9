"""What chance decides in a sampled lane: 64 bits a step of an actor, and how long steps take.

The bits depend on seed, lane, actor and number of the step only (splitmix64: Steele, Lea, Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), so a lane is the same in whatever company it runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64
from scipy.special import ndtri

QUANTILES = 4096
"""A distribution is this many equally likely times."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Bits = UInt64[np.ndarray, "..."]


def mixed(x: Bits) -> Bits:
    """The output function of splitmix64."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def streams(seed: int, lanes: Int[np.ndarray, "n"], actors: int) -> UInt64[np.ndarray, "n actors"]:
    """Where the stream of each actor of each lane begins."""
    lane = mixed(np.uint64(seed) + (lanes.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return mixed(lane[:, None] + (np.arange(actors, dtype=np.uint64) + np.uint64(1)) * _GOLDEN)


def drawn(stream: Bits, number: Int[np.ndarray, "..."]) -> Bits:
    """The bits of that number (0, 1, ...) of each stream."""
    return mixed(stream + (number.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def quantile(bits: Bits) -> Int[np.ndarray, "..."]:
    """Which of the equally likely times: the 12 highest bits."""
    return (bits >> np.uint64(52)).astype(np.int64)


def share(bits: Bits) -> Float[np.ndarray, "..."]:
    """A number in [0, 1): the 32 lowest bits."""
    return (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32


@dataclass(frozen=True)
class Time:
    """How long a step takes. kind: ``constant`` (``value``), ``exponential`` (``value`` is the mean),
    ``lognormal`` (``value`` is the median, ``sigma`` the deviation of the logarithm). Nanoseconds."""

    kind: str
    value: float
    sigma: float = 0.0
    growth: float = 0.0
    """At order n it takes 2 ** (growth * n) times as long: 1 is as long as pages, 0 the same for all."""

    def most(self, orders: int) -> float:
        """The longest there is of any order."""
        return float(self._exact(orders).max())

    def table(self, orders: int) -> Int[np.ndarray, "orders quantiles"]:
        """Whole nanoseconds, at least 1, of every quantile's middle."""
        return np.maximum(1, np.rint(self._exact(orders))).astype(np.int64)

    def _exact(self, orders: int) -> Float[np.ndarray, "orders quantiles"]:
        middle = (np.arange(QUANTILES) + 0.5) / QUANTILES
        if self.kind == "constant":
            one = np.ones(QUANTILES)
        elif self.kind == "exponential":
            one = -np.log1p(-middle)
        else:
            one = np.exp(self.sigma * ndtri(middle))
        return self.value * 2.0 ** (self.growth * np.arange(orders))[:, None] * one


STEP_OF = {
    "look": ("LOOK", "LOOK_AGAIN", "LOOK_HOLDING"),
    "suit": ("SUIT",),
    "check": ("CHECK",),
    "frame": ("FRAME",),
    "insert": ("INSERT", "ADD"),
    "charge": ("CHARGE", "CHARGE_FIRST"),
    "undo": ("UNDO",),
    "read": ("READ",),
    "put": ("PUT", "DROP", "FREE", "PUT_ZAPPED", "RECLAIM", "SLOT", "UNMAP", "LEAVE"),
    "map": ("RELEASE", "LOCK", "PTL", "MAP", "BACK", "ZAP"),
}
"""Names of times, and the steps (:data:`jaxswap.race.state.PCS`) that take that long."""
LOCKED = frozenset({"CHECK", "INSERT", "ADD", "UNDO", *STEP_OF["put"]})
"""Steps under the cluster lock: their time is how long it is held."""
Times = Mapping[str, Time]
"""Of each name of :data:`STEP_OF`, and ``start``: when an actor begins."""
