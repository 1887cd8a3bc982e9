"""The search methods on a problem with a known optimum, and where their randomness comes from."""

import itertools

import numpy as np
import pytest

from jaxswap.sweep.space import Candidate
from jaxswap.tune.config import Step
from jaxswap.tune.propose import proposals
from jaxswap.tune.space import Axis, Family

PARAMS = 6
TARGET = (120, 200, 60, 150, 90, 180)
BOWL = Family("bowl", ("16",), tuple((f"x{i}", Axis(range(256))) for i in range(PARAMS)))
SMALL = Family("small", ("16", "16 32"), (("x", Axis(range(3))),))


def distance(one: Candidate) -> float:
    """From the optimum, in units of the cube."""
    return float(np.linalg.norm((np.array([value for _, value in one.policy.params]) - TARGET) / 256))


def search(
    method: str,
    seed: tuple[int, ...],
    candidates: int = 16,
    rounds: int = 15,
    families=(BOWL,),
    score=distance,
):
    """The settings of each round."""
    step = Step(method, families, candidates, rounds, 1, (1.0,))
    run, found = proposals(step, seed, set(), lambda _: None), []
    try:
        now = next(run)
        while True:
            found.append(now)
            now = run.send(list(np.argsort([score(one) for one in now], kind="stable")))
    except StopIteration:
        return found


def test_evolution_comes_twice_as_near_to_the_optimum_as_random_with_the_same_budget() -> None:
    def nearest(method: str) -> float:
        return float(
            np.mean([min(map(distance, itertools.chain(*search(method, (seed, 0))))) for seed in range(2)])
        )

    assert nearest("es") < 0.5 * nearest("random")


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
