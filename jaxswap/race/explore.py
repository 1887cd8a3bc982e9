"""Every interleaving of one start, breadth first, and what is wrong in any of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxswap.race.reached import Reached
from jaxswap.race.rules import RULES, broken
from jaxswap.race.start import Start
from jaxswap.race.state import States, unpack
from jaxswap.race.steps import FLAWS, Steps
from jaxswap.swaptable.forms import Form

NEVER_RETURNS, DEADLOCK = "never returns", "deadlock"

Move = tuple[int, States]
"""An actor, and the one state after its step."""


@dataclass(frozen=True)
class Violation:
    """The shortest way to what is wrong, of one kind."""

    kind: str
    start: Start
    moves: tuple[Move, ...]
    """From the first state on, in which nobody has moved."""
    cycle: tuple[Move, ...] = ()
    """What then goes on for ever (:data:`NEVER_RETURNS`)."""


@dataclass
class Explored:
    """States reached, of all starts together, and the shortest violation of each kind."""

    states: int = 0
    violations: dict[str, Violation] = field(default_factory=dict)

    def add(self, violation: Violation) -> None:
        """Keep it if it is the first of its kind or shorter."""
        known = self.violations.get(violation.kind)
        if known is None or len(violation.moves) < len(known.moves):
            self.violations[violation.kind] = violation


def explore(
    form: Form,
    starts: Iterable[Start],
    slots: int,
    report: Callable[[int, int], None] = lambda start, states: None,
) -> Explored:
    """All states that can be reached from each start, and the violations.

    A state that breaks a rule is not gone on from. report: called with the starts done and the states so far,
    often. Memory: about 300 bytes a state of one start.
    """
    explored = Explored()
    for number, start in enumerate(starts):
        search = Search(Steps(form, start, slots))
        done = explored.states

        def told(states: int, number: int = number, done: int = done) -> None:
            report(number, done + states)

        for violation in search.run(told):
            explored.add(violation)
        explored.states += search.reached.n
    return explored


@dataclass
class _Edges:
    """Steps of a level: numbers of the states before and after, who moved."""

    before: Int[np.ndarray, "n"]
    after: Int[np.ndarray, "n"]
    actor: UInt8[np.ndarray, "n"]
    transient: Bool[np.ndarray, "n"]


class Search:
    """The states reached from one start: number, packed words, the state and the actor it was reached by."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.reached = Reached(steps.layout.words)
        self.parents = [np.array([-1])]
        self.movers = [np.array([0], np.uint8)]
        self.edges: list[_Edges] = []

    def run(self, told: Callable[[int], None]) -> Iterable[Violation]:
        """Go through them all, a level at a time; ``told`` hears how many there are so far."""
        first = self.steps.first()
        self.reached.add(first.pack())
        level, states = np.array([0]), first
        while level.size:
            wrong = broken(self.steps, states)
            for rule in np.unique(wrong[wrong > 0]):
                yield self._violation(RULES[rule], int(level[wrong == rule][0]))
            level, states = level[wrong == 0], states.take(wrong == 0)
            moved, (level, states) = self._expand(level, states)
            yield from moved
            told(self.reached.n)
        yield from self._never_return()

    def _expand(
        self, level: Int[np.ndarray, "n"], states: States
    ) -> tuple[list[Violation], tuple[Int[np.ndarray, "m"], States]]:
        before, after, actor, transient, flaws = [], [], [], [], []
        for a in range(len(self.steps.start)):
            at = states.pc[a]
            for pc in np.flatnonzero(np.bincount(at)[1:]) + 1 if at.size else ():
                rows = np.flatnonzero(at == pc)
                for way in self.steps.go(states.take(rows), a, int(pc)):
                    before.append(level[rows[way.rows]])
                    after.append(way.states.matrix)
                    actor.append(np.full(len(way.rows), a, np.uint8))
                    transient.append(np.full(len(way.rows), way.transient))
                    flaws.append(np.zeros(len(way.rows), np.uint8) if way.flaw is None else way.flaw)
        found = [self._deadlock(level, states, before)]
        if not before:
            nothing = np.zeros(0, np.int64)
            return [one for one in found if one], (nothing, states.take(nothing))
        matrix = np.concatenate(after, axis=1)
        sources, movers, flaw = map(np.concatenate, (before, actor, flaws))
        numbers, new = self.reached.add(States(states.layout, matrix).pack())
        self.edges.append(_Edges(sources, numbers, movers, np.concatenate(transient)))
        self.parents.append(sources[new])
        self.movers.append(movers[new])
        for kind in np.unique(flaw[flaw > 0]):
            one = int(np.flatnonzero(flaw == kind)[0])
            last = States(states.layout, matrix[:, [one]])
            found.append(self._violation(FLAWS[kind], int(sources[one]), (int(movers[one]), last)))
        return [one for one in found if one], (numbers[new], States(states.layout, matrix.take(new, axis=1)))

    def _deadlock(self, level, states: States, before: list) -> Violation | None:
        stuck = (states.pc != 0).any(0)
        if before and stuck.any():
            stuck &= ~np.isin(level, np.concatenate(before))
        return self._violation(DEADLOCK, int(level[stuck][0])) if stuck.any() else None

    def _path(self, number: int) -> tuple[Move, ...]:
        parents, movers = np.concatenate(self.parents), np.concatenate(self.movers)
        numbers = [number]
        while numbers[-1] != 0:
            numbers.append(int(parents[numbers[-1]]))
        return tuple((int(movers[n]), self._state(n)) for n in reversed(numbers[:-1]))

    def _state(self, number: int) -> States:
        return unpack(self.steps.layout, self.reached.keys[[number]])

    def _violation(self, kind: str, number: int, *last: Move) -> Violation:
        return Violation(kind, self.steps.start, (*self._path(number), *last))

    def _never_return(self) -> Iterable[Violation]:
        """A cycle that is weakly fair: every actor moves in it, or cannot move somewhere in it.

        A failure that need not come again does not make a cycle: it would end with the first success.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self.edges:
            return
        before, after, actor, transient = (
            np.concatenate([getattr(edges, name) for edges in self.edges])
            for name in ("before", "after", "actor", "transient")
        )
        n = self.reached.n
        can = np.zeros(n, np.uint8)
        for a in range(len(self.steps.start)):
            can[before[actor == a]] |= 1 << a
        before, after, actor = before[~transient], after[~transient], actor[~transient]
        graph = coo_array((np.ones(len(before), np.int8), (before, after)), shape=(n, n))
        _, part = connected_components(graph, directed=True, connection="strong")
        inside = part[before] == part[after]
        if not inside.any():
            return
        before, after, actor = before[inside], after[inside], actor[inside]
        moves = np.zeros(n, np.uint8)
        np.bitwise_or.at(moves, part[before], np.uint8(1) << actor)
        always = np.full(n, 255, np.uint8)
        np.bitwise_and.at(always, part, can)
        every = (1 << len(self.steps.start)) - 1
        fair = (moves > 0) & ((moves | ~always) & every == every)
        # numbers grow with the distance from the first state
        members = np.flatnonzero(fair[part])
        if not members.size:
            return
        enter = int(members[0])
        its = part[before] == part[enter]
        edges: dict[int, list[tuple[int, int]]] = {}
        for b, x, a in zip(before[its].tolist(), after[its].tolist(), actor[its].tolist(), strict=True):
            edges.setdefault(b, []).append((x, a))
        cycle = tuple((a, self._state(to)) for to, a in _cycle(edges, enter, int(moves[part[enter]])))
        yield Violation(NEVER_RETURNS, self.steps.start, self._path(enter), cycle)


def _cycle(edges: dict[int, list[tuple[int, int]]], enter: int, movers: int) -> list[tuple[int, int]]:
    """A shortest closed way from ``enter`` in which every mover moves: (state, actor) of each step."""
    start = (enter, 0)
    came: dict[tuple[int, int], tuple[tuple[int, int], int] | None] = {start: None}
    level = [start]
    while level:
        following = []
        for at in level:
            for to, actor in edges[at[0]]:
                there = (to, at[1] | 1 << actor)
                if there == (enter, movers):
                    steps, back = [(to, actor)], at
                    while (origin := came[back]) is not None:
                        steps.append((back[0], origin[1]))
                        back = origin[0]
                    return steps[::-1]
                if there not in came:
                    came[there] = (at, actor)
                    following.append(there)
        level = following
    raise AssertionError("a strongly connected part has a closed way through all its steps")
