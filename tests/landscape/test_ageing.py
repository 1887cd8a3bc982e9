"""Aged tables equal the plain-Python twin's, and those of a machine that does the same."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxswap.landscape import ageing
from jaxswap.landscape.ageing import Life, Steps, advance, begin, zero_pages
from jaxswap.machine.profile import PROFILES
from jaxswap.machine.rules import slot_rules
from jaxswap.swaptable.swapon import Device, swapon
from jaxswap.workload import parse_workload
from tests.landscape.plain import Memory, workload
from tests.reference.machine import Machine
from tests.reference.run import Runner
from tests.swaptable.slot_machine import full_sorted, of_jax, of_plain

PROFILE = PROFILES["7.3"]
CLUSTERS = 8
SLOTS = CLUSTERS * 512
LIVES = [
    Life(4, (1.0,), 0.5, 0.3, 0.9),
    Life(4, (0.0, 0, 0, 0, 1.0), 0.2, 0.1, 0.95),
    Life(6, (0.3, 0, 0.2, 0.1, 0.2, 0.1, 0.1), 0.4, 0.5, 0.97),
    Life(9, (0.2, 0, 0.2, 0, 0.2, 0, 0.2, 0, 0.2), 0.7, 0.05, 0.8),
    Life(6, (0.5, 0, 0.3, 0.2), 0.3, 0.9, 0.6),
]
SPLITTING = LIVES[1:3]


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compile without optimisation: compiling takes longest here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def wanted(life: Life) -> int:
    return round(life.occupancy * (SLOTS - 1))


def steps(life: Life, seed: int) -> Steps:
    return next(ageing.steps(life, SLOTS >> life.block, seed))


def memory(life: Life, seed: int) -> Memory:
    return Memory(PROFILE, SLOTS, life.block, zero_pages(life, SLOTS, seed).tolist(), wanted(life))


def rows(steps: Steps) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in steps), strict=True))


def aged(lives: list[Life], seed: int, goals: list[int]) -> ageing.Ageing:
    """Lives of one block size, a lane each."""
    c = swapon([Device(SLOTS)], CLUSTERS, len(lives))
    rules = slot_rules([PROFILE] * len(lives))
    zero = np.stack([zero_pages(life, SLOTS, seed) for life in lives], axis=1)
    a = begin(c, rules, zero, np.array([wanted(life) for life in lives]))
    todo = jax.tree.map(lambda *x: jnp.stack(x, axis=-1), *(steps(life, seed) for life in lives))
    start = jnp.zeros(len(lives), jnp.int32)
    a, _ = advance(a, todo, start, jnp.array(goals, jnp.int32), size=1 << lives[0].block)
    return a


def turned(life: Life, turns: float) -> int:
    """Slots taken when the device has been written so many times more."""
    return wanted(life) + int(turns * SLOTS)


@pytest.mark.parametrize("life", LIVES, ids=lambda life: f"block-{life.block}")
def test_ages_as_the_twin(life: Life) -> None:
    for seed, turns in ((1, 0.0), (2, 1.5)):
        goal = turned(life, turns)
        twin = memory(life, seed)
        for _ in twin.age(rows(steps(life, seed)), goal):
            pass
        a = aged([life], seed, [goal])
        assert int(a.written[0]) == twin.written >= goal
        assert np.asarray(a.places)[:SLOTS, 0].tolist() == twin.places()
        theirs, ours = full_sorted(of_plain(twin.plain)), full_sorted(of_jax(a.clusters, 1))
        for key, value in theirs.items():
            assert value == ours[key], key
        if life in SPLITTING and turns:
            assert twin.splits > 0 and any(twin.zero)


@pytest.mark.parametrize("life", LIVES, ids=lambda life: f"block-{life.block}")
def test_a_machine_that_does_the_same_has_the_same_page_map(life: Life) -> None:
    """The steps as FILL, ZERO, DONTNEED, PAGEOUT and sizes set in sysfs, on the reference machine."""
    goal = turned(life, 0.7)
    twin = memory(life, 3)
    text = parse_workload(workload(twin, rows(steps(life, 3)), goal))
    machine = Machine(SLOTS, swap_slots=SLOTS)
    runner = Runner(text, machine)
    for i in range(len(text)):
        runner.step(i)
    places = np.asarray(aged([life], 3, [goal]).places)[:SLOTS, 0].tolist()
    device = machine.swap.devices[0]
    for page, place in zip(machine.processes[0].pages, places, strict=True):
        assert (page.state == "swapped") == (place >= 0)
        if place >= 0:
            assert page.slot == place >> 1
            assert device.clusters[page.slot // 512].zero[page.slot % 512] == place & 1
    assert not machine.oom


def test_lanes_side_by_side_age_each_by_itself() -> None:
    lives = [life._replace(block=6) for life in LIVES[:3]]
    goals = [turned(life, turns) for life, turns in zip(lives, (0.2, 1.1, 0.6), strict=True)]
    together = aged(lives, 4, goals)
    for lane, (life, goal) in enumerate(zip(lives, goals, strict=True)):
        alone = jax.tree.map(lambda x: x[..., 0], aged([life], 4, [goal]))
        mine = jax.tree.map(lambda x, lane=lane: x[..., lane], together)
        assert (mine.places[:SLOTS] == alone.places[:SLOTS]).all()
        assert of_jax(jax.tree.map(lambda x: x[..., None], mine.clusters), 1) == of_jax(
            jax.tree.map(lambda x: x[..., None], alone.clusters), 1
        )


def test_stopped_and_gone_on_ends_the_same() -> None:
    """Ages of one table are read off on the way."""
    life, seed = LIVES[2], 5
    c = swapon([Device(SLOTS)], CLUSTERS, 1)
    zero = zero_pages(life, SLOTS, seed)[:, None]
    a = begin(c, slot_rules([PROFILE]), zero, np.array([wanted(life)]))
    at, todo = jnp.zeros(1, jnp.int32), jax.tree.map(lambda x: jnp.asarray(x)[:, None], steps(life, seed))
    for turns in (0.0, 0.3, 0.31, 1.0):
        goal = jnp.array([turned(life, turns)], jnp.int32)
        a, at = advance(a, todo, at, goal, size=1 << life.block)
    straight = aged([life], seed, [turned(life, 1.0)])
    assert (a.places[:SLOTS] == straight.places[:SLOTS]).all()


def test_steps_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block comes once in ascending order, and more blocks than a chunk holds do too."""
    monkeypatch.setattr(ageing, "CHUNK", 8)
    taken = [one.block for one in itertools.islice(ageing.steps(LIVES[0], 20, 1), 4)]
    assert np.concatenate(taken)[:20].tolist() == list(range(20))
    assert max(np.concatenate(taken)[20:]) < 20
