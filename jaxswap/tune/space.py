"""The settings that are searched: families of heuristics, each a typed space that maps to a unit cube."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from jaxswap.config import PolicyChoice
from jaxswap.policy import Policy
from jaxswap.sweep.space import Candidate

Point = Float64[np.ndarray, " coordinates"]
NEIGHBOURS = 4
"""Most values of a parameter that Family.around tries."""


@dataclass(frozen=True)
class Axis:
    """The values of a parameter, or the masks. log: positive whole numbers without a gap, the low ones wider.

    Each value has a piece of the unit interval, in order: pieces of the same length, or with log as long as
    the value's piece of the logarithm.
    """

    values: Sequence[int] | tuple[str, ...]
    log: bool = False

    def value(self, at: float) -> int | str:
        """The value at a coordinate; those outside [0, 1] have the first and the last one."""
        last = len(self.values) - 1
        at = min(max(float(at), 0.0), 1.0)
        if self.log:
            low, high = self._ends()
            place = math.floor(low * (high / low) ** at) - low
        else:
            place = math.floor(at * (last + 1))
        return self.values[min(place, last)]

    def coordinate(self, value: int | str) -> float:
        """The middle of the piece of the value, or of the number next to it where it is none of these."""
        place = self.values.index(value if value in self.values else self._nearest(int(value)))
        if not self.log:
            return (place + 0.5) / len(self.values)
        low, high = self._ends()
        return math.log((low + place + 0.5) / low) / math.log(high / low)

    def _nearest(self, value: int) -> int | str:
        return min(self.values, key=lambda one: abs(int(one) - value))

    def _ends(self) -> tuple[int, int]:
        return int(self.values[0]), int(self.values[-1]) + 1


@dataclass(frozen=True)
class Family:
    """A heuristic, the masks it is tried with, and the values of its parameters in their order."""

    name: str
    masks: tuple[str, ...]
    params: tuple[tuple[str, Axis], ...] = ()
    rule: Policy | None = field(default=None, compare=False, repr=False)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Of the mask, then of the parameters."""
        return (Axis(self.masks), *(axis for _, axis in self.params))

    @property
    def free(self) -> tuple[int, ...]:
        """Which axes have more than one value: the coordinates of the cube."""
        return tuple(i for i, axis in enumerate(self.axes) if len(axis.values) > 1)

    @property
    def free_params(self) -> bool:
        """Whether a parameter has more than one value."""
        return any(len(axis.values) > 1 for _, axis in self.params)

    @property
    def size(self) -> int:
        """How many combinations of values there are."""
        return math.prod(len(axis.values) for axis in self.axes)

    def every(self) -> Iterator[Candidate]:
        """Every combination, the last parameter fastest."""
        return (self._candidate(values) for values in itertools.product(*(axis.values for axis in self.axes)))

    def candidate(self, point: Point) -> Candidate:
        """The setting at a point of the cube; a point outside it is moved to its surface."""
        values = [axis.values[0] for axis in self.axes]
        for at, axis in zip(point, self.free, strict=True):
            values[axis] = self.axes[axis].value(at)
        return self._candidate(values)

    def has(self, candidate: Candidate) -> bool:
        """Whether it is of this heuristic and one of the masks; its parameters may have any values."""
        return candidate.policy.name == self.name and candidate.mthp in self.masks

    def lists(self, candidate: Candidate) -> bool:
        """Whether it is one of `every`."""
        given = candidate.policy.params
        return self.has(candidate) and all(
            value in axis.values for (_, value), (_, axis) in zip(given, self.params, strict=True)
        )

    def point(self, candidate: Candidate) -> Point:
        """The point of a setting that the family has: the middle of what maps to it, or to the nearest
        setting there is, each value apart, where a value is on no axis. Raises ValueError for any other.
        """
        if not self.has(candidate):
            raise ValueError(f"{candidate} is no setting of {self.name}")
        values = (candidate.mthp, *(value for _, value in candidate.policy.params))
        return np.array([self.axes[i].coordinate(values[i]) for i in self.free])

    def around(self, candidate: Candidate) -> list[Candidate]:
        """The settings that differ from one that the family has in one parameter: by the next values of its
        axis on either side, then by those an eighth of the axis away, or two values where that is more."""
        given, found = dict(candidate.policy.params), []
        for far in (False, True):
            for name, axis in self.params:
                values = sorted(map(int, axis.values))
                distance = max(2, len(values) // 8) if far else 1
                below = [value for value in values if value < given[name]][-distance::-1][:1]
                above = [value for value in values if value > given[name]][distance - 1 :][:1]
                for value in below + above:
                    params = tuple({**given, name: value}.items())
                    found.append(Candidate(candidate.mthp, PolicyChoice(self.name, params, self.rule)))
        return found

    def _candidate(self, values: Sequence[int | str]) -> Candidate:
        """Without an enabled size no heuristic has a choice: that is the kernel's rule."""
        mask = str(values[0])
        if not mask:
            return Candidate(mask, PolicyChoice("kernel"))
        named = zip((name for name, _ in self.params), map(int, values[1:]), strict=True)
        return Candidate(mask, PolicyChoice(self.name, tuple(named), self.rule))


def shares(count: int, rooms: Sequence[int]) -> list[int]:
    """`count` shared out to places that hold so many each: evenly, what does not fit goes to the others."""
    given = [0] * len(rooms)
    while count and (open_ := [i for i, room in enumerate(rooms) if given[i] < room]):
        even = max(1, count // len(open_))
        for i in open_:
            part = min(even, rooms[i] - given[i], count)
            given[i] += part
            count -= part
    return given
