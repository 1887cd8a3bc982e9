"""One simulated machine on many lanes: page faults, swap, reclaim, as the kernel's rules have it."""

from jaxswap.machine.compare import Comparison, Difference, compare
from jaxswap.machine.counters import COUNTERS
from jaxswap.machine.lane import Lane
from jaxswap.machine.profile import PROFILES, Profile, model_version
from jaxswap.machine.replay import OneReplay, ReplayResult, lane_bytes, replay_lanes, replay_one

__all__ = [
    "COUNTERS",
    "PROFILES",
    "Comparison",
    "Difference",
    "Lane",
    "OneReplay",
    "Profile",
    "ReplayResult",
    "compare",
    "lane_bytes",
    "model_version",
    "replay_lanes",
    "replay_one",
]
