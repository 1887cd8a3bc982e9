"""Every heuristic decides, learns and notes as its plain-Python twin does."""

import dataclasses
import random
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxswap.policy import MEMORY_WORDS, POLICIES, Features, Leaving, Outcome
from jaxswap.policy.base import MOST_PARAMS, NEAR, leave
from jaxswap.policy.describe import describe, foresees, looks_further, looks_inside, splits
from tests.reference import policies as plain

LANES, FAULTS = 64, 20
FUTURES = [
    np.where(draw.random(512) < never, 1 << 30, draw.integers(0, 1 << top, 512)).tolist()
    for draw in [np.random.default_rng(0)]
    for never in (0, 0.3, 0.6, 1)
    for top in (4, 14, 24)
]


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compile without optimisation: compiling takes longest here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def random_seen(rng: random.Random, block: int) -> plain.Seen:
    touch = rng.random() < 0.4
    candidates = rng.choice([(2 << rng.randint(2, 9)) - 4, rng.randrange(4, 1024) & ~3 or 4])
    return plain.Seen(
        touch,
        candidates,
        candidates if touch else candidates & rng.randrange(1024),
        rng.randrange(512),
        rng.choice([1 << 30, rng.randrange(3000), rng.randrange(20)]),
        rng.randrange(65),
        0
        if touch
        else rng.choice([0, rng.randrange(1 << 12), rng.randrange(1 << 30), 1 << rng.randrange(30)]),
        not touch and rng.random() < 0.5,
        present=rng.choice([0, 0xFFFF_FFFF, rng.randrange(1 << 32)]),
        swapped=rng.choice([0, 0xFFFF_FFFF, rng.randrange(1 << 32)]),
        young=rng.choice([0, 0xFFFF_FFFF, rng.randrange(1 << 32)]),
        block=block,
        frames=rng.choice([0x3FF, 0x3C]),
        chargeable=rng.choice([0x3FF, 0, 0x1F]),
        future=rng.choice(FUTURES),
    )


def stacked(seen: list[plain.Seen]) -> Features:
    columns: dict = dict(zip(plain.Seen._fields, zip(*seen, strict=True), strict=True))
    columns["future"] = np.array(columns["future"]).T
    flags, masks = (
        ("first_touch", "recent"),
        ("candidates", "suitable", "frames", "chargeable", "present", "swapped", "young"),
    )
    kinds = dict.fromkeys(flags, bool) | dict.fromkeys(masks, np.uint32)
    return Features(
        **{f: jnp.asarray(np.array(columns[f], kinds.get(f, np.int32))) for f in Features._fields}
    )


@pytest.mark.parametrize("name", POLICIES)
def test_a_heuristic_equals_its_twin(name: str) -> None:
    policy, twin, rng = POLICIES[name], plain.POLICIES[name], random.Random(name)
    chosen = [tuple(rng.randint(p.low, p.high) for p in policy.params) for _ in range(LANES)]
    params = np.zeros((MOST_PARAMS, LANES), np.int32)
    params[: len(policy.params)] = np.array(chosen, np.int32).reshape(LANES, -1).T
    memories, blocks = [[0] * MEMORY_WORDS for _ in range(LANES)], [0] * LANES
    memory = jnp.zeros((MEMORY_WORDS, LANES), jnp.int32)
    decide, learn, note = jax.jit(policy.decide), jax.jit(policy.learn), jax.jit(policy.note)
    met = set()
    for _ in range(FAULTS):
        seen = [random_seen(rng, block) for block in blocks]
        wanted = [twin.decide(p, m, s) for p, m, s in zip(chosen, memories, seen, strict=True)]
        decision = decide(params, memory, stacked(seen))
        found = np.stack([decision.orders, decision.ptes, decision.slots], 1).tolist()
        assert found == [list(row) for row in wanted]
        kept = [(row[0] & s.candidates, s.candidates) for row, s in zip(wanted, seen, strict=True)]
        met |= {orders == candidates for orders, candidates in kept}
        outcomes = []
        for one, (orders, _, _) in zip(seen, wanted, strict=True):
            tried = [o for o in range(9, 1, -1) if orders & one.candidates & 1 << o]
            got = rng.choice([*tried, 0])
            failed = sum(1 << o for o in tried if o > got) if rng.random() < 0.7 else 0
            outcomes.append((one.first_touch, failed, got))
        touch, failed, got = zip(*outcomes, strict=True)
        outcome = Outcome(jnp.array(touch), jnp.array(failed, jnp.uint32), jnp.array(got, jnp.int32))
        for p, m, told in zip(chosen, memories, outcomes, strict=True):
            twin.learn(p, m, *told)
        memory = learn(params, decision.memory, outcome)
        assert np.asarray(memory).T.tolist() == memories
        noted = note(params, jnp.array(blocks, jnp.int32), outcome)
        blocks = [twin.note(p, b, *told) for p, b, told in zip(chosen, blocks, outcomes, strict=True)]
        assert np.asarray(noted).tolist() == blocks
    assert met == ({True} if name == "kernel" or splits(policy) else {True, False})


SPLITTERS = [name for name, policy in POLICIES.items() if splits(policy)]


def random_leaving(rng: random.Random) -> plain.Leaving:
    order = rng.randint(2, 9)
    some = [rng.choice([0, 1 << order, rng.randint(0, 1 << order)]) for _ in range(3)]
    page = rng.randrange(512) >> order << order
    flags = [rng.random() < 0.5 for _ in range(2)]
    return plain.Leaving(order, page, flags[0], rng.randint(0, 64), flags[1], rng.randrange(99), *some)


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_verdict_at_swapout_equals_its_twin(name: str) -> None:
    policy, twin, rng = POLICIES[name], plain.POLICIES[name], random.Random(name)
    assert twin.leave_whole is not None
    folios = [random_leaving(rng) for _ in range(600)]
    chosen = [tuple(rng.randint(p.low, p.high) for p in policy.params) for _ in folios]
    params = np.zeros((MOST_PARAMS, len(folios)), np.int32)
    params[: len(policy.params)] = np.array(chosen, np.int32).T
    columns = zip(plain.Leaving._fields, zip(*folios, strict=True), strict=True)
    leaving = Leaving(
        **{f: jnp.array(x, bool if f in ("workingset", "cluster") else jnp.int32) for f, x in columns}
    )
    memory = np.zeros((MEMORY_WORDS, len(folios)), np.int32)
    verdict = jax.jit(policy.leave_whole)(params, memory, leaving)
    wanted = [twin.leave_whole(p, [0] * MEMORY_WORDS, f) for p, f in zip(chosen, folios, strict=True)]
    found = np.stack([verdict.whole, verdict.ptes, verdict.pages], 1).tolist()
    assert found == [list(map(int, row)) for row in wanted]
    assert {row[0] for row in found} == {0, 1}


def test_who_is_asked_at_swapout_is_found() -> None:
    assert SPLITTERS == ["keep_whole_to", "split_sparse"]
    assert [name for name, policy in POLICIES.items() if looks_inside(policy)] == ["split_sparse"]
    assert describe(POLICIES["kernel"]).swapout is describe(POLICIES["linear"]).swapout is None
    capped, sparse = (describe(POLICIES[name]).swapout for name in SPLITTERS)
    assert capped is not None and (capped.ptes, capped.pages) == ((0, 0), (0, 0))
    assert set(capped.features) == {"order", "fill", "cluster"}
    assert sparse is not None and set(sparse.features) == {"order", "young", "touched", "zeros"}
    sparse = POLICIES["split_sparse"]
    given = tuple(param._replace(default=2) if param.name == "state" else param for param in sparse.params)
    by_zeros = describe(dataclasses.replace(sparse, params=given)).swapout
    assert by_zeros is not None and (by_zeros.ptes, by_zeros.pages) == ((0, 0), (4, 512))


def test_luck_stays_in_its_four_bits() -> None:
    twin, plainly = plain.POLICIES["linear"], [0] * MEMORY_WORDS
    params, memory = jnp.zeros((MOST_PARAMS, 1), jnp.int32), jnp.zeros((MEMORY_WORDS, 1), jnp.int32)
    learn, words = jax.jit(POLICIES["linear"].learn), set()
    for failed, got in [(0x3FC, 0)] * 10 + [(0, order) for order in range(2, 10)] * 18:
        outcome = Outcome(jnp.zeros(1, bool), jnp.array([failed], jnp.uint32), jnp.array([got], jnp.int32))
        memory = learn(params, memory, outcome)
        twin.learn((), plainly, False, failed, got)
        assert np.asarray(memory)[:, 0].tolist() == plainly
        words.add(plainly[0] & 0xFFFF_FFFF)
    assert {0x8888_8888, 0x7777_7777} <= words


def test_what_a_heuristic_looks_at_is_found() -> None:
    further = [name for name, policy in POLICIES.items() if looks_further(policy)]
    far = ["density", "refault", "headroom", "ask", "zswap_rfc", "last", "window_headroom", "linear"]
    assert further == [*far, "clairvoyant"]
    assert [name for name, policy in POLICIES.items() if foresees(policy)] == ["clairvoyant"]
    seen = {name: set(describe(POLICIES[name]).features) - set(NEAR) for name in further}
    assert seen["headroom"] == {"headroom"} and seen["refault"] == {"recent", "distance"}
    assert seen["last"] == {"block"} and POLICIES["last"].note is not leave
    assert seen["linear"] == {"memory", "headroom", "fill", "recent", "present", "young"}


@pytest.mark.parametrize(
    ("name", "ptes", "slots"),
    [
        ("density", (0, 8), (0, 0)),
        ("refault", (0, 0), (0, 1)),
        ("zswap_rfc", (0, 8), (0, 1)),
        ("headroom", (0, 0), (0, 0)),
        ("ask", (0, 0), (0, 0)),
        ("last", (0, 0), (0, 0)),
        ("linear", (0, 32), (0, 1)),
    ],
)
def test_the_price_of_a_heuristic(name: str, ptes: tuple[int, int], slots: tuple[int, int]) -> None:
    described = describe(POLICIES[name])
    assert (described.ptes, described.slots) == (ptes, slots)


@pytest.mark.parametrize("name", POLICIES)
def test_every_heuristic_is_written_as_c_with_its_parameters(name: str) -> None:
    policy = POLICIES[name]
    assert policy.c
    told = [param for param in policy.params if param.name not in ("touch", "state")]
    if name not in ("window_headroom",):
        assert all(param.name in policy.c for param in told)
