"""Plain-Python twins of the heuristics of jaxswap.policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


def highest(mask: int) -> int:
    return mask.bit_length() - 1


class Twin(NamedTuple):
    decide: Callable[
        ..., tuple[int, int, int]
    ]  # (params, memory, first_touch, candidates, ok) -> (mask, ptes read, slots read)
    learn: Callable[..., None] = lambda params, memory, first_touch, failed, got: None


def _kernel(params, memory, first_touch, candidates, ok):
    return candidates, 0, 0


def _never(params, memory, first_touch, candidates, ok):
    return candidates if first_touch else 0, 0, 0


def _cap(params, memory, first_touch, candidates, ok):
    return candidates if first_touch else candidates & ((2 << params[0]) - 1), 0, 0


def _single(params, memory, first_touch, candidates, ok):
    return candidates if first_touch else candidates & (1 << params[0]), 0, 0


def _lookahead(params, memory, first_touch, candidates, ok):
    return (candidates, 0, 0) if first_touch else (ok, 0, 1 << highest(candidates))


def _backoff(params, memory, first_touch, candidates, ok):
    path = 0 if first_touch else 2
    if memory[path + 1]:
        memory[path + 1] -= 1
        return 0, 0, 0
    return candidates, 0, 0


def _backoff_learn(params, memory, first_touch, failed, got):
    path = 0 if first_touch else 2
    if failed:
        memory[path] = min(memory[path] + 1, params[0])
        memory[path + 1] = 1 << memory[path]
    elif got:
        memory[path] = 0


POLICIES = {
    "kernel": Twin(_kernel),
    "never": Twin(_never),
    "cap": Twin(_cap),
    "single": Twin(_single),
    "lookahead": Twin(_lookahead),
    "backoff": Twin(_backoff, _backoff_learn),
}
