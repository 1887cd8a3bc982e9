"""The free lists equal the plain-Python ones after any sequence of allocations and frees, on every lane."""

import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jaxtyping import Array

from jaxswap.frames import Frames, buddy
from jaxswap.frames.buddy import Buddy, buddy_of
from jaxswap.frames.start import MAX_PAGE_ORDER, ORDERS, Start
from jaxswap.swaptable.lanes import SPARE
from tests.reference import frames as reference

STEPS, PLACES = 200, 64


def lists_of(b: Buddy, lane: int) -> list[list[int]]:
    """First frames of the free blocks of each order, head first; forwards and backwards agree."""
    room = buddy.frames_room(b)
    next, prev, kind = (np.asarray(x)[:, lane] for x in (b.next, b.prev, b.kind))
    found = []
    for order in range(ORDERS):
        blocks, at = [], int(next[room + order])
        while at < room:
            assert kind[at] == order and next[prev[at]] == at
            blocks.append(at)
            at = int(next[at])
        found.append(blocks)
    assert np.count_nonzero(kind[:room] >= 0) == sum(map(len, found))
    assert int(b.orders[lane]) == sum(1 << o for o, blocks in enumerate(found) if blocks)
    assert int(b.free[lane]) == sum(len(blocks) << o for o, blocks in enumerate(found))
    return found


@jax.jit
def run(b: Buddy, orders: Array, places: Array) -> tuple[Buddy, Array]:
    """Each step gives back what is at a place, or takes 2^order frames to put there: (free lists, frames
    taken, -2 where given back). Arrays are [steps, lanes]."""
    lanes = jnp.arange(orders.shape[1])

    def step(i: Array, carry: tuple) -> tuple:
        b, held, sizes, taken = carry
        place, order = places[i], orders[i]
        frame, size = held[place, lanes], sizes[place, lanes]
        back = frame >= 0
        b = buddy.free(b, frame, size, back)
        b, found = buddy.alloc(b, order, ~back)
        held = held.at[place, lanes].set(jnp.where(back, -1, found))
        sizes = sizes.at[place, lanes].set(order)
        return b, held, sizes, taken.at[i].set(jnp.where(back, -2, found))

    held = jnp.full((PLACES, orders.shape[1]), -1, jnp.int32)
    carry = (b, held, jnp.zeros_like(held), jnp.full_like(orders, -2))
    b, _, _, taken = lax.fori_loop(0, STEPS, step, carry)
    return b, taken


def run_reference(start: Start, orders: list[int], places: list[int]) -> tuple[reference.Buddy, list[int]]:
    b, held, taken = reference.Buddy(start), {}, []
    for order, place in zip(orders, places, strict=True):
        if place in held:
            b.give(*held.pop(place))
            taken.append(-2)
        else:
            frame = b.take(order)
            taken.append(-1 if frame is None else frame)
            if frame is not None:
                held[place] = (frame, order)
    return b, taken


def random_start(rng: random.Random) -> Start:
    if rng.random() < 0.4:
        free = tuple(rng.choice([0, 0, 1, 2, 5]) for _ in range(ORDERS))
        return Frames(free=free if any(free) else (1,), seed=rng.randrange(9)).start()
    return Frames(
        rng.choice([4, 8, 64]) << 20, rng.choice([0, 1, 10, 30, 60, 95]), seed=rng.randrange(9)
    ).start()


def differing(lanes: int, seed: int) -> list[str]:
    """Where lists, or what was taken, differ after a random sequence."""
    rng = random.Random(seed)
    starts = [random_start(rng) for _ in range(lanes)]
    top = rng.choice([0, 3, 9, MAX_PAGE_ORDER])
    orders = [[rng.randint(0, top) for _ in range(lanes)] for _ in range(STEPS)]
    places = [[rng.randrange(PLACES) for _ in range(lanes)] for _ in range(STEPS)]
    begin = jax.tree.map(jnp.asarray, buddy_of(starts, buddy.room(1)))
    b, taken = run(begin, jnp.array(orders, jnp.int32), jnp.array(places, jnp.int32))
    found = []
    for lane, start in enumerate(starts):
        theirs, wanted = run_reference(start, *([row[lane] for row in x] for x in (orders, places)))
        if np.asarray(taken)[:, lane].tolist() != wanted:
            found.append(f"lane {lane}: frames taken")
        if lists_of(b, lane) != [list(blocks) for blocks in theirs.free]:
            found.append(f"lane {lane}: lists")
    return found


@pytest.mark.parametrize("lanes", [1, 3])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_equals_the_reference(lanes: int, seed: int) -> None:
    assert not differing(lanes, seed)


@pytest.mark.parametrize("rule", ["merge", "tail"])
def test_a_rule_left_out_is_noticed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that does not merge, or puts every block at the head, differs on most sequences."""

    def give(self: reference.Buddy, frame: int, order: int) -> None:
        if rule == "merge":
            self.add(frame, order, tail=False)
            return
        while order < MAX_PAGE_ORDER and frame ^ 1 << order in self.free[order]:
            del self.free[order][frame ^ 1 << order]
            frame, order = frame & ~(1 << order), order + 1
        self.add(frame, order, tail=False)

    monkeypatch.setattr(reference.Buddy, "give", give)
    assert sum(bool(differing(1, seed)) for seed in range(10)) >= 5


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_all_given_back_is_what_there_was(seed: int) -> None:
    """The free frames, and blocks of each order, are those of the start again."""
    rng = random.Random(seed)
    start = random_start(rng)
    b, held = reference.Buddy(start), []
    for _ in range(100):
        order = rng.randint(0, 9)
        frame = b.take(order)
        held += [] if frame is None else [(frame, order)]
    rng.shuffle(held)
    for frame, order in held:
        b.give(frame, order)
    assert [set(blocks) for blocks in b.free] == [set(blocks.tolist()) for blocks in start.lists]


def test_frames_that_are_off_change_nothing() -> None:
    begin = jax.tree.map(jnp.asarray, buddy_of([Frames(4 << 20).start()] * 2, buddy.room(1)))
    off, zero = jnp.zeros(2, bool), jnp.zeros(2, jnp.int32)
    after, frame = buddy.alloc(begin, zero, off)
    after = buddy.free(after, zero, zero, off)
    assert frame.tolist() == [-1, -1]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), after, replace(begin))
    assert all(jax.tree.leaves(same)) and begin.kind.shape[0] == buddy.LEAST_FRAMES + SPARE
