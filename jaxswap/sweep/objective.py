"""What "better" means: dominance over the kernel's rule or an expression of metrics; exact Pareto front."""

import ast
import difflib
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import moocore
import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxswap.errors import InputError
from jaxswap.sweep.metrics import METRICS

AXES = ("failed_fallbacks", "major_faults", "useless_pages")
"""The metrics of the Pareto front, all to be lowered."""

Measured = Mapping[str, Float64[np.ndarray, "workloads lanes"]]


@dataclass(frozen=True)
class Ranking:
    """Candidates in order, best first.

    score: what is lowered, the mean over the workloads. violation: 0 where nothing the objective protects
    is worse than in the reference on any workload, else by how much (sum of relative excesses); inf where
    the OOM killer ended the candidate on some workload. beats: better than the reference by the objective.
    """

    order: Int64[np.ndarray, "lanes"]
    score: Float64[np.ndarray, "lanes"]
    violation: Float64[np.ndarray, "lanes"]
    beats: Bool[np.ndarray, "lanes"]


class Objective(Protocol):
    """Gives every lane a score to be lowered and a violation that must be 0 for the lane to win."""

    def judge(
        self, measured: Measured, reference: int
    ) -> tuple[Float64[np.ndarray, "lanes"], Float64[np.ndarray, "lanes"]]: ...


@dataclass(frozen=True)
class Dominance:
    """Fewer failed attempts and fallbacks, no more major faults, no more useless pages than the reference."""

    def judge(
        self, measured: Measured, reference: int
    ) -> tuple[Float64[np.ndarray, "lanes"], Float64[np.ndarray, "lanes"]]:
        """(failed_fallbacks, sum of the relative excesses over the reference), over all workloads.

        Where the reference has none of something, the excess is relative to one per 1,000 accesses."""
        violation = np.zeros(measured[AXES[0]].shape[1])
        for name in AXES[1:]:
            base = measured[name][:, [reference]]
            violation += (np.maximum(measured[name] - base, 0) / np.where(base > 0, base, 1)).sum(axis=0)
        return measured[AXES[0]].mean(axis=0), violation

    def __str__(self) -> str:
        return "dominance"


@dataclass(frozen=True)
class Expression:
    """A formula over metric names to be lowered; `ref_NAME` is the reference's value of NAME."""

    text: str
    _node: ast.expr = field(repr=False, compare=False)

    def judge(
        self, measured: Measured, reference: int
    ) -> tuple[Float64[np.ndarray, "lanes"], Float64[np.ndarray, "lanes"]]:
        """(mean of the formula over the workloads, 0). A value that is not a number counts as infinite."""
        value = self.values(measured, reference)
        return np.where(np.isnan(value), np.inf, value).mean(axis=0), np.zeros(value.shape[1])

    def values(self, measured: Measured, reference: int) -> Float64[np.ndarray, "workloads lanes"]:
        """The formula for each workload; nan where it is not a number."""
        names = dict(measured) | {f"ref_{name}": values[:, [reference]] for name, values in measured.items()}
        shape = measured[AXES[0]].shape
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(_evaluate(self._node, names), np.float64), shape)

    def __str__(self) -> str:
        return self.text


_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_CALLS: dict[str, tuple[Callable[..., Any], int]] = {
    "abs": (np.abs, 1),
    "log": (np.log, 1),
    "sqrt": (np.sqrt, 1),
    "min": (np.minimum, 2),
    "max": (np.maximum, 2),
}
_MOST_TEXT = 1000


def parse_objective(text: str) -> Objective:
    """ "dominance", or an expression of metric names, numbers, + - * / ** and min, max, abs, log, sqrt.

    Raises InputError (to be prefixed with file and key) for anything else.
    """
    if text.strip() == "dominance":
        return Dominance()
    if len(text) > _MOST_TEXT:
        raise InputError(f"the expression has {len(text)} characters; take at most {_MOST_TEXT}")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise InputError(
            f'{text!r} is neither "dominance" nor an expression such as "failed + 4 * major_faults"'
        ) from None
    try:
        _check(node)
    except RecursionError:
        raise InputError("the expression is nested too deeply; write it flatter") from None
    return Expression(text.strip(), node)


def _check(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if not abs(value) <= sys.float_info.max:
                raise InputError("a number in the expression is too large; take a smaller one")
        case ast.Name(id=name):
            known = [*METRICS, *(f"ref_{metric}" for metric in METRICS)]
            if name not in known:
                near = difflib.get_close_matches(name, [*known, "dominance"], 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METRICS)}"
                raise InputError(f"unknown name {name!r}; {hint}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(left)
            _check(right)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(operand)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
            if len(args) != _CALLS[name][1]:
                raise InputError(f"{name} takes {_CALLS[name][1]} value(s), got {len(args)}")
            for arg in args:
                _check(arg)
        case _:
            allowed = f"numbers, metric names, + - * / ** and {', '.join(sorted(_CALLS))}"
            raise InputError(f"{ast.unparse(node)!r} is not allowed here; write it with {allowed}")


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return np.float64(value)  # pyright: ignore[reportArgumentType]
        case ast.Name(id=name):
            return names[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, names), _evaluate(right, names))
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluate(operand, names)
            return -value if isinstance(op, ast.USub) else value
        case ast.Call(func=ast.Name(id=name), args=args):
            return _CALLS[name][0](*(_evaluate(arg, names) for arg in args))
    raise AssertionError("checked when parsed")


def rank(
    measured: Measured, oom: Bool[np.ndarray, "workloads lanes"], reference: int, objective: Objective
) -> Ranking:
    """Rank lanes over workloads: those without violation by score, then the others by violation.

    Ties go to fewer major faults, useless pages, pages read in, then to the first lane. Lanes that
    the OOM killer ended come last and beat nothing.
    """
    score, violation = objective.judge(measured, reference)
    dead = oom.any(axis=0)
    violation = np.where(dead, np.inf, violation)
    ties = [measured[name].mean(axis=0) for name in ("pages_in", "useless_pages", "major_faults")]
    order = np.lexsort((*ties, score, violation))
    beats = (violation == 0) & (score < score[reference]) & ~dead
    return Ranking(order.astype(np.int64), score, violation, beats)


def pareto(points: Float64[np.ndarray, "lanes axes"]) -> Bool[np.ndarray, "lanes"]:
    """Which points no other dominates (no larger on every axis, smaller on one). Equal points stay together.

    Points with an infinite coordinate are never on the front.
    """
    on_front = np.isfinite(points).all(axis=1)
    if on_front.any():
        on_front[on_front] = moocore.is_nondominated(points[on_front], keep_weakly=True)
    return on_front
