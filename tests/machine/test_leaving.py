"""Heuristics asked at swap-out do in the JAX machine what they do in the plain one; others pay nothing.

The rule of these tests weighs all it may look at, what it noted and what it learned; its weights are random.
"""

import dataclasses
import random
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxswap.machine import Lane, heuristic
from jaxswap.machine.heuristic import of_lanes
from jaxswap.machine.replay import Replay
from jaxswap.machine.step import step
from jaxswap.policy import POLICIES, Param, Policy, Verdict, offer
from jaxswap.policy.describe import splits
from jaxswap.workload import parse_workload
from tests.machine.test_against_reference import check, random_lane, reference_of, run_reference
from tests.machine.test_cgroups import NAMES, limits_for
from tests.machine.test_processes import check as check_processes
from tests.machine.workloads import random_forks, random_text
from tests.reference import policies as plain

WEIGHED = ("order", "young", "touched", "zeros", "fill", "cluster", "block", "page")
SPLITTERS = [name for name, rule in POLICIES.items() if splits(rule)]


def _leave(params, memory, leaving):
    value = memory[0] + leaving.workingset
    for weight, name in zip(params, WEIGHED, strict=True):
        value = value + weight * getattr(leaving, name)
    return value % 7 > 1


def _noted(block, first_touch, got):
    return (block * 5 + got + first_touch) & 0xFF


WEIGHER = Policy(
    "weigher",
    "leaves whole by a sum of all there is",
    lambda params, memory, seen: offer(seen.candidates, memory),
    lambda params, memory, outcome: memory.at[0].set((memory[0] + outcome.got) & 0xFF),
    tuple(Param(name, 0, 0, 9, "weight") for name in WEIGHED),
    note=lambda params, block, outcome: _noted(block, outcome.first_touch, outcome.got),
    leave_whole=lambda params, memory, leaving: Verdict(
        _leave(params, memory, leaving), leaving.young, leaving.zeros
    ),
)


def _learn(params, memory, first_touch, failed, got):
    memory[0] = memory[0] + got & 0xFF


TWIN = plain.Twin(
    plain.POLICIES["kernel"].decide,
    _learn,
    lambda params, block, first_touch, failed, got: _noted(block, first_touch, got),
    lambda params, memory, leaving: (_leave(params, memory, leaving), leaving.young, leaving.zeros),
)


@pytest.fixture(autouse=True)
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plain.POLICIES, "weigher", TWIN)


def weighing(rng: random.Random, limited: bool) -> Lane:
    weights = {name: rng.choice([0, rng.randint(1, 9)]) for name in WEIGHED}
    lane = dataclasses.replace(
        random_lane(rng, limited), policy="weigher", policy_params=weights, rule=WEIGHER
    )
    return lane if lane.mthp else dataclasses.replace(lane, mthp="16 64 2048")


@pytest.mark.parametrize("lru", ["classic", pytest.param("mglru", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", range(16))
def test_equals_the_reference(lru: str, seed: int) -> None:
    lane = dataclasses.replace(weighing(random.Random(seed), seed % 4 > 0 or lru == "mglru"), lru=lru)
    check(parse_workload(random_text(seed, 150, mapped=seed % 3 == 0)), lane)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_equals_the_reference_of_several_processes(seed: int) -> None:
    rng = random.Random(seed)
    lane = dataclasses.replace(weighing(rng, False), swap=rng.choice([250, 400, 2600]) * 4096)
    lane = dataclasses.replace(lane, limits=limits_for(seed, NAMES[:2]))
    check_processes(random_forks(seed, 120, places=True, cgroups=NAMES[:2]), lane, "7.3")


def asked(text: str, lane: Lane) -> list[plain.Leaving]:
    """All that the reference machine lets the rule see."""
    seen: list[plain.Leaving] = []
    twin = TWIN._replace(leave_whole=lambda params, memory, leaving: (not seen.append(leaving), 0, 0))
    workload = parse_workload(text)
    with mock.patch.dict(plain.POLICIES, {"weigher": twin}):
        run_reference(workload, reference_of(workload, lane))
    return seen


@pytest.mark.parametrize("lru", ["classic", "mglru"])
def test_reclaim_has_just_cleared_the_young_bits(lru: str) -> None:
    """So that density of young PTEs says nothing at swap-out; MADV_PAGEOUT does not clear them."""
    pages = np.random.default_rng(1).integers(0, 512, 300)
    text = "\n".join(["REGION 512 huge", "FILL 0 256", *(f"TOUCH {page}" for page in pages)]) + "\n"
    lane = Lane("16 64", "weigher", rule=WEIGHER, limit=250 * 4096, swap=4000 * 4096, lru=lru)
    seen = asked(text, lane)
    assert len(seen) > 50 and {leaving.young for leaving in seen} == {0}
    assert len({leaving.touched for leaving in seen}) > 5
    advised = asked(
        "REGION 64 huge\nTOUCH 0\nTOUCH 3\nZERO 4 8\nPAGEOUT 0 64\n", Lane("64", "weigher", rule=WEIGHER)
    )
    assert [(one.young, one.touched, one.zeros) for one in advised] == [(16, 10, 14)]


def test_what_is_split_by_choice_has_not_failed() -> None:
    """It counts as split, takes slots one by one, and zeros take none; nothing falls back."""
    lines = [
        "REGION 512 huge",
        "FILL 0 256",
        "ZERO 4 4",
        *(f"ZERO {at} 16" for at in (64, 96)),
        "PAGEOUT 0 256",
    ]
    chosen = [("kernel", {}), ("keep_whole_to", {}), ("keep_whole_to", {"order": 1})]
    chosen += [("split_sparse", {"least": 16, "state": 2}), ("split_sparse", {"least": 16, "state": 0})]
    workload = parse_workload("\n".join(lines) + "\n")
    found = []
    for name, given in chosen:
        machine = reference_of(workload, Lane("64", name, given, swap=3000 * 4096))
        run_reference(workload, machine)
        found.append(machine.final_counters())
    counted = {name: [n[name] for n in found] for name in found[0].keys() | found[2].keys()}
    assert counted["64kB/swpout"] == [14, 14, 0, 13, 14]
    assert counted["64kB/split"] == [0, 0, 16, 3, 0]
    assert "64kB/swpout_fallback" not in counted
    assert counted["pswpout"] == [224, 224, 220, 220, 224]
    assert counted["swpout_zero"] == [32, 32, 0, 0, 32]
    assert [n["read_pages"] for n in found] == [0, 0, 0, 256, 0]
    assert [n["read_ptes"] for n in found] == [0, 0, 0, 0, 256]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_what_jaxswap_has_equals_the_reference(seed: int) -> None:
    lane = random_lane(random.Random(seed), seed % 4 > 0, SPLITTERS)
    lane = lane if lane.mthp else dataclasses.replace(lane, mthp="16 64 2048")
    check(parse_workload(random_text(seed, 150, mapped=seed % 3 == 0)), lane)


def test_who_is_not_asked_has_no_part_of_it() -> None:
    """Programs of other heuristics do not hold those, nor a step of theirs what asks them."""
    for name, rule in POLICIES.items():
        assert any(splits(one) for one in of_lanes([rule])) == (name in SPLITTERS)
    assert of_lanes([POLICIES["split_sparse"]]) == of_lanes([POLICIES["keep_whole_to"]])
    for lane, is_asked in ((Lane("16"), False), (Lane("16", "keep_whole_to"), True)):
        replay = Replay(parse_workload("REGION 64 plain\n"), [lane], width=1, devices=1)
        state, params = jax.tree.map(lambda x: x[0], (replay.states, replay.params))
        with mock.patch.object(heuristic, "leave_whole", wraps=heuristic.leave_whole) as asks:
            jax.eval_shape(step, state, params, replay.program, jnp.int32(0))
        assert asks.called == is_asked
