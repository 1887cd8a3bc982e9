"""The search methods on a problem with a known optimum, and where their randomness comes from."""

import itertools

import numpy as np
import pytest

from jaxswap.config import PolicyChoice
from jaxswap.sweep.space import Candidate
from jaxswap.tune.config import Step
from jaxswap.tune.propose import proposals
from jaxswap.tune.space import Axis, Family

PARAMS = 6
TARGET = (120, 200, 60, 150, 90, 180)
BOWL = Family("bowl", ("16",), tuple((f"x{i}", Axis(range(256))) for i in range(PARAMS)))
SMALL = Family("small", ("16", "16 32"), (("x", Axis(range(3))),))


def distance(one: Candidate, optimum: tuple[int, ...] = TARGET) -> float:
    """From the optimum, in units of the cube."""
    return float(np.linalg.norm((np.array([value for _, value in one.policy.params]) - optimum) / 256))


def search(
    method: str,
    seed: tuple[int, ...],
    candidates: int = 16,
    rounds: int = 15,
    families=(BOWL,),
    score=distance,
    start: Candidate | None = None,
):
    """The settings of each round. start: is known before."""
    step = Step(method, families, candidates, rounds, 1, (1.0,))
    known = [] if start is None else [start]

    def best(_) -> Candidate | None:
        return min(known, key=score, default=None)

    run, found = proposals(step, seed, set(known), best), []
    try:
        now = next(run)
        while True:
            found.append(now)
            known += now
            now = run.send(list(np.argsort([score(one) for one in now], kind="stable")))
    except StopIteration:
        return found


def test_evolution_comes_twice_as_near_to_the_optimum_as_random_with_the_same_budget() -> None:
    def of(method: str) -> float:
        return float(
            np.mean([min(map(distance, itertools.chain(*search(method, (seed, 0))))) for seed in range(2)])
        )

    assert of("es") < 0.5 * of("random")


def bowl(*values: int) -> Candidate:
    return Candidate("16", PolicyChoice("bowl", tuple((f"x{i}", value) for i, value in enumerate(values))))


def test_evolution_begins_at_the_best_known() -> None:
    """Near an optimum in a corner it comes nearer, in rounds that do not suffice from the middle."""
    corner = (20, 235, 30, 225, 40, 215)
    start = bowl(*(value + 12 for value in corner))

    def from_corner(one: Candidate) -> float:
        return distance(one, corner)

    def nearest(start: Candidate | None) -> float:
        found = [search("es", (seed, 0), rounds=6, score=from_corner, start=start) for seed in range(2)]
        return float(np.mean([min(map(from_corner, itertools.chain(*run))) for run in found]))

    (first,) = search("es", (0, 0), rounds=1, start=start)
    mean = np.mean([[value for _, value in one.policy.params] for one in first], axis=0)
    assert np.abs(mean - [value for _, value in start.policy.params]).max() < 10
    assert nearest(start) < from_corner(start) < nearest(None)


def test_evolution_begins_at_the_nearest_to_a_best_one_outside() -> None:
    start = bowl(*(1000 * (value > 128) for value in TARGET))
    first = search("es", (0, 0), rounds=1, start=start)[0]
    drawn = np.array([[value for _, value in one.policy.params] for one in first])
    ends = np.where(np.array(TARGET) > 128, 255, 0)
    assert (np.abs(drawn.mean(axis=0) - ends) < 32).all()


def test_neighbours_find_the_optimum_of_a_bowl_and_stop() -> None:
    small = Family("bowl", ("16",), tuple((f"x{i}", Axis(range(40, 216, 2))) for i in range(PARAMS)))
    start = bowl(*(value + 8 for value in TARGET))
    rounds = search("neighbours", (0, 0), candidates=24, rounds=99, families=(small,), start=start)
    assert min(map(distance, itertools.chain(*rounds))) == 0
    assert len(rounds) == PARAMS * 4 + 1  # a step of 2 a round, the last round around the optimum


def test_neighbours_of_nothing_known_are_none() -> None:
    assert search("neighbours", (0, 0)) == []


@pytest.mark.parametrize("method", ["random", "sobol", "es"])
def test_the_seed_alone_decides_what_is_tried(method: str) -> None:
    first = search(method, (3, 0), rounds=2)
    assert first == search(method, (3, 0), rounds=2)
    assert first != search(method, (4, 0), rounds=2)
    assert first != search(method, (3, 1), rounds=2)


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_drawing_finds_every_setting_once_and_then_stops(method: str) -> None:
    rounds = search(method, (0, 0), candidates=4, rounds=9, families=(SMALL,), score=lambda _: 0.0)
    assert [len(one) for one in rounds] == [4, 2]
    assert set(itertools.chain(*rounds)) == set(SMALL.every())


def test_exhaustive_is_one_round_of_every_setting() -> None:
    other = Family("other", ("16",), (("x", Axis(range(5))),))
    (found,) = search("exhaustive", (0, 0), families=(SMALL, other), score=lambda _: 0.0)
    assert found == [*SMALL.every(), *other.every()]


def test_families_draw_apart_from_each_other() -> None:
    twin = Family("twin", BOWL.masks, BOWL.params)
    (found,) = search("random", (0, 0), rounds=1, families=(BOWL, twin))
    drawn = [[one.policy.params for one in found if one.policy.name == name] for name in ("bowl", "twin")]
    assert len(drawn[0]) == len(drawn[1]) == 8 and not set(drawn[0]) & set(drawn[1])
