"""A replay that costs nothing, for tests of what stands around one: counters drawn from the setting."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload import Workload

if TYPE_CHECKING:
    from jaxswap.machine import Lane
    from jaxswap.machine.kept import Keeper
    from jaxswap.policy import Policy


@dataclass
class FakeReplay:
    """Stands for replay_lanes. `calls` gets the workloads replayed, `shapes` how many lanes, and the
    heuristics asked for besides theirs; an mthp in `killed` means OOM.

    break_on: a workload that fails. interrupt_on: a workload, interrupt_after: a number of calls, at which
    the user presses Ctrl-C.
    """

    killed: frozenset[str] = frozenset()
    break_on: str = ""
    interrupt_on: str = ""
    interrupt_after: int | None = None
    calls: list[str] = field(default_factory=list)
    shapes: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def __call__(
        self,
        workload: Workload,
        lanes: Sequence["Lane"],
        profile: str = "7.3",
        progress: Callable[[int, int], None] | None = None,
        keeper: "Keeper | None" = None,
        share: float = 1.0,
        heuristics: Sequence["Policy"] = (),
    ) -> SimpleNamespace:
        if workload.name == self.interrupt_on or len(self.calls) == self.interrupt_after:
            raise KeyboardInterrupt
        if workload.name == self.break_on:
            raise InputError("some.t:7: cannot be replayed; mend it")
        self.calls.append(workload.name)
        self.shapes.append((len(lanes), tuple(rule.name for rule in heuristics)))
        if progress:
            progress(0, 10)
            progress(10, 10)
        return SimpleNamespace(
            counters=np.array([self.counters(workload, lane, share) for lane in lanes], np.int64),
            oom=np.array([lane.mthp in self.killed for lane in lanes]),
        )

    def counters(self, workload: Workload, lane: "Lane", share: float) -> np.ndarray:
        """The counters of a lane."""
        from jaxswap.machine import COUNTERS

        text = f"{workload.name} {lane.mthp} {lane.policy} {sorted(lane.policy_params.items())}"
        drawn = np.random.default_rng(zlib.crc32(text.encode())).integers(0, 1000, len(COUNTERS))
        drawn[COUNTERS.index("accesses")] = round(workload.accesses * share)
        return drawn


def fake_lane_bytes(workload: Workload, lane: "Lane", profile: str, heuristics: Sequence["Policy"]) -> int:
    """Stands for lane_bytes, without a state."""
    return 1 << 20
