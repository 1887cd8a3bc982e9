"""Which settings a round tries: exhaustive, random, Sobol, evolution strategies that learn from ranks, and
the neighbours of the best."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import Open_ES
from jaxtyping import Float64
from scipy.stats import qmc

from jaxswap.sweep.space import Candidate
from jaxswap.tune.config import Step
from jaxswap.tune.space import Family, Point, shares

SPREAD = (
    0.1  # of an evolution strategy, of the unit interval: twice that comes half as near in six dimensions
)
RATE = 0.1  # step of its mean, likewise
_TRIES = 16  # points drawn for each setting that is wanted
_MOST_LOOKED_AT = 100_000

Best = Callable[[Sequence[Family]], Candidate | None]
Rounds = Generator[list[Candidate], Sequence[int], None]


def proposals(step: Step, seed: Sequence[int], seen: set[Candidate], best: Best) -> Rounds:
    """The settings of each round of a step, all distinct; to be sent their indices in order, best first.

    seen: settings that were replayed before; random and Sobol give others, and add theirs. best: the best
    setting known that some families have, where evolution begins, and whose neighbours are tried. All that is
    drawn follows from seed.
    """
    match step.method:
        case "exhaustive":
            yield list(dict.fromkeys(itertools.chain(*(family.every() for family in step.families))))
        case "es":
            yield from _evolve(step, seed, best)
        case "neighbours":
            yield from _neighbours(step, best)
        case _:
            yield from _draw(step, seed, seen)


def _draw(step: Step, seed: Sequence[int], seen: set[Candidate]) -> Rounds:
    points = [
        _points(step.method, len(family.free), [*seed, number]) for number, family in enumerate(step.families)
    ]
    for _ in range(step.rounds):
        rooms = [_unseen(family, seen) for family in step.families]
        found: list[Candidate] = []
        for family, source, count in zip(step.families, points, shares(step.candidates, rooms), strict=True):
            found += _fresh(family, source, count, seen)
        if not found:
            return
        yield found


def _points(method: str, coordinates: int, seed: Sequence[int]) -> Iterator[Point]:
    """Points of a cube without end."""
    rng = np.random.default_rng(seed)
    if method == "sobol" and coordinates:
        engine = qmc.Sobol(coordinates, rng=rng)
        return (engine.random(1)[0] for _ in itertools.count())
    return (rng.random(coordinates) for _ in itertools.count())


def _unseen(family: Family, seen: set[Candidate]) -> int:
    return max(0, family.size - sum(map(family.lists, seen)))


def _fresh(family: Family, points: Iterator[Point], count: int, seen: set[Candidate]) -> list[Candidate]:
    """`count` settings that were not seen, or as many as there are: drawn, and in order where hardly any is
    left."""
    drawn = (family.candidate(next(points)) for _ in range(_TRIES * count))
    found: list[Candidate] = []
    for one in itertools.chain(drawn, itertools.islice(family.every(), _MOST_LOOKED_AT)):
        if len(found) == count:
            break
        if one not in seen:
            seen.add(one)
            found.append(one)
    return found


class _Evolution:
    """OpenAI-ES in the cube of a family, its mean moved by Adam."""

    def __init__(self, family: Family, size: int, start: Candidate | None, key: Any) -> None:
        self.family, self.key = family, key
        mean = np.full(len(family.free), 0.5) if start is None else family.point(start)
        self.strategy = Open_ES(
            size, jnp.asarray(mean), optimizer=optax.adam(RATE), std_schedule=optax.constant_schedule(SPREAD)
        )
        self.params = self.strategy.default_params
        self.state = self.strategy.init(self._next(), jnp.asarray(mean), self.params)

    def _next(self) -> Any:
        self.key, key = jax.random.split(self.key)
        return key

    def ask(self) -> list[Candidate]:
        self.points, self.state = self.strategy.ask(self._next(), self.state, self.params)
        return [self.family.candidate(point) for point in np.asarray(self.points, np.float64)]

    def tell(self, ranks: Float64[np.ndarray, " candidates"]) -> None:
        """ranks: of the candidates asked for, the best the lowest."""
        self.state, _ = self.strategy.tell(
            self._next(), self.points, jnp.asarray(ranks, jnp.float32), self.state, self.params
        )
        # outside the cube nothing changes, and a mean there would not find back
        self.state = self.state.replace(mean=jnp.clip(self.state.mean, 0, 1))


def _evolve(step: Step, seed: Sequence[int], best: Best) -> Rounds:
    seeds = np.random.SeedSequence(seed).generate_state(len(step.families))
    pairs = shares(step.candidates // 2, [step.candidates] * len(step.families))
    runs = [
        _Evolution(family, 2 * count, best([family]), jax.random.key(int(seeds[number])))
        for number, (family, count) in enumerate(zip(step.families, pairs, strict=True))
    ]
    for _ in range(step.rounds):
        asked = [run.ask() for run in runs]
        distinct = list(dict.fromkeys(itertools.chain(*asked)))
        order = yield distinct
        rank = {distinct[index]: float(place) for place, index in enumerate(order)}
        for run, settings in zip(runs, asked, strict=True):
            run.tell(np.array([rank[one] for one in settings]))


def _neighbours(step: Step, best: Best) -> Rounds:
    """A round around the best setting, again while that changes."""
    centre = None
    for _ in range(step.rounds):
        before, centre = centre, best(step.families)
        if centre is None or centre == before:
            return
        family = next(one for one in step.families if one.has(centre))
        found = family.around(centre)[: step.candidates]
        if not found:
            return
        yield found
