"""What a search lowers, and what it must keep: one or several objectives, and constraints."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import moocore
import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxswap.errors import InputError
from jaxswap.sweep.objective import Expression, Measured, Objective, Ranking, parse_objective, rank


@dataclass(frozen=True)
class Constraint:
    """left <= right, both formulas over metrics, on every workload."""

    left: Expression
    right: Expression

    def excess(self, measured: Measured, reference: int) -> Float64[np.ndarray, " lanes"]:
        """By how much it is broken, over all workloads: relative to the right side, or to 1 where that is
        less."""
        left, right = (side.values(measured, reference) for side in (self.left, self.right))
        with np.errstate(all="ignore"):
            found = np.maximum(left - right, 0) / np.maximum(np.abs(right), 1)
        return np.where(np.isnan(found), np.inf, found).sum(axis=0)

    def __str__(self) -> str:
        return f"{self.left} <= {self.right}"


@dataclass(frozen=True)
class Goal:
    """Objectives to be lowered under constraints."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    def judge(
        self, measured: Measured, reference: int
    ) -> tuple[Float64[np.ndarray, " lanes"], Float64[np.ndarray, " lanes"]]:
        """(score, violation) of every lane. Of several objectives the score is the number of the front."""
        scores, violation = self._scores(measured, reference)
        if len(scores) == 1:
            return scores[0], violation
        keeps = np.where(violation == 0, scores, np.inf)
        return fronts(keeps.T).astype(np.float64), violation

    def rank(self, measured: Measured, oom: Bool[np.ndarray, "workloads lanes"], reference: int) -> Ranking:
        """The lanes in order, as jaxswap.sweep.objective.rank has it: those that keep the constraints first.

        Of several objectives: by fronts. beats is then: no higher than the reference by any, lower by one.
        """
        found = rank(measured, oom, reference, self)
        if len(self.objectives) == 1:
            return found
        scores, _ = self._scores(measured, reference)
        base = scores[:, [reference]]
        beats = (scores <= base).all(axis=0) & (scores < base).any(axis=0) & (found.violation == 0)
        return replace(found, beats=beats)

    def _scores(
        self, measured: Measured, reference: int
    ) -> tuple[Float64[np.ndarray, "objectives lanes"], Float64[np.ndarray, " lanes"]]:
        judged = [objective.judge(measured, reference) for objective in self.objectives]
        violation = np.sum([broken for _, broken in judged], axis=0)
        for constraint in self.constraints:
            violation = violation + constraint.excess(measured, reference)
        return np.stack([score for score, _ in judged]), violation


def fronts(points: Float64[np.ndarray, "lanes axes"]) -> Int64[np.ndarray, " lanes"]:
    """Number of each point's front, from 0: the points that none dominates once those before are taken out.

    Points with an infinite coordinate are behind all others.
    """
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        return np.zeros(len(points), np.int64)
    ranks = moocore.pareto_rank(points[finite])
    number = np.full(len(points), ranks.max() + 1, np.int64)
    number[finite] = ranks
    return number


def parse_goal(objectives: Sequence[str], constraints: Sequence[str]) -> Goal:
    """Objectives as parse_objective takes them, constraints "left <= right". Raises InputError."""
    return Goal(tuple(map(parse_objective, objectives)), tuple(map(_constraint, constraints)))


def _constraint(text: str) -> Constraint:
    sides = text.split("<=")
    if len(sides) != 2:
        raise InputError(f'{text!r} is not "left <= right", such as "major_faults <= ref_major_faults"')
    left, right = (parse_objective(side) for side in sides)
    if not isinstance(left, Expression) or not isinstance(right, Expression):
        raise InputError(f"{text!r}: dominance is no number; write metrics")
    return Constraint(left, right)
