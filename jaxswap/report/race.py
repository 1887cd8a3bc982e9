"""What an exploration of interleavings found, as text and as JSON."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from jaxswap.race import Explored, Violation, explore, starts
from jaxswap.race.request import Request
from jaxswap.race.trace import LEGEND, trace_lines
from jaxswap.swaptable.forms import FORMS


@dataclass(frozen=True)
class Part:
    """The exploration of one set of actors."""

    actors: tuple[str, ...]
    starts: int
    explored: Explored
    seconds: float


class Progress:
    """How far it is, the rate, the time left: on one line of a terminal, else a line now and then."""

    def __init__(self, screen: TextIO) -> None:
        self.screen, self.terminal = screen, screen.isatty()
        self.every = 0.5 if self.terminal else 10.0  # seconds
        self.began = self.last = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal:
            print("\x1b[2K", end="\r", file=self.screen, flush=True)

    def __call__(self, done: int, total: int, states: int) -> None:
        """Starts done, starts in all, states so far."""
        spent = time.monotonic() - self.began
        self.say(done, total, f"start {done + 1}/{total}, {states:,} states, {states / spent / 1e3:.0f} k/s")

    def requests(self, done: int, total: int) -> None:
        """Requests sampled, and in all."""
        spent = time.monotonic() - self.began
        self.say(done, total, f"{done:,}/{total:,} requests, {done / spent / 1e3:.0f} k/s")

    def say(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        if done:
            text += f", about {(now - self.began) * (total - done) / done:.0f} s left"
        print(text, end="\x1b[K\r" if self.terminal else "\n", file=self.screen, flush=True)


def explored_parts(request: Request, report: Callable[[int, int, int], None]) -> list[Part]:
    """Explore them all. report: called often with starts done, starts in all, states so far."""
    todo = [(actors, starts(actors, request.slots, request.orders)) for actors in request.actors]
    total = sum(len(its) for _, its in todo)
    parts, done, states = [], 0, 0
    for actors, its in todo:
        began = time.perf_counter()

        def told(here: int, found: int, done: int = done, states: int = states) -> None:
            report(done + here, total, states + found)

        explored = explore(FORMS[request.variant], its, request.slots, told)
        parts.append(Part(actors, len(its), explored, time.perf_counter() - began))
        done, states = done + len(its), states + explored.states
    return parts


def violations(parts: Sequence[Part]) -> list[Violation]:
    """The shortest of each kind, of all parts."""
    together = Explored()
    for part in parts:
        for violation in part.explored.violations.values():
            together.add(violation)
    return list(together.violations.values())


def race_json(request: Request, parts: Sequence[Part], origin: Sequence[str]) -> dict[str, Any]:
    """``states`` and ``seconds`` of all parts, ``violations`` with their traces. origin: lines that say what
    made it."""
    return {
        "variant": request.variant,
        "slots": request.slots,
        "orders": [order for order in range(request.orders.bit_length()) if request.orders >> order & 1],
        "states": sum(part.explored.states for part in parts),
        "seconds": round(sum(part.seconds for part in parts), 3),
        "violations": [
            {
                "kind": one.kind,
                "steps": len(one.moves),
                "actors": [vars(actor) for actor in one.start],
                "trace": trace_lines(FORMS[request.variant], request.slots, one),
            }
            for one in violations(parts)
        ],
        "parts": [
            {
                "actors": list(part.actors),
                "starts": part.starts,
                "states": part.explored.states,
                "seconds": round(part.seconds, 3),
                "violations": list(part.explored.violations),
            }
            for part in parts
        ],
        "origin": list(origin),
    }


def race_text(request: Request, parts: Sequence[Part], origin: Sequence[str]) -> str:
    """A line a set of actors, then a trace for each kind of violation."""
    form = FORMS[request.variant]
    rows = [
        f"{' + '.join(part.actors):<32} {part.starts:>6} {part.explored.states:>11,} {part.seconds:>8.1f}  "
        + (", ".join(part.explored.violations) or "nothing")
        for part in parts
    ]
    head = f"{'actors':<32} {'starts':>6} {'states':>11} {'seconds':>8}  found"
    lines = [f"{request.variant}, a block of {request.slots} slots", head, *rows]
    found = violations(parts)
    if found:
        lines += ["", *LEGEND]
    for one in found:
        lines += ["", f"{one.kind}, after {len(one.moves)} steps", *trace_lines(form, request.slots, one)]
    return "\n".join([*lines, "", *origin])
