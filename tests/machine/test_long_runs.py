"""A replay of 10^10 accesses: what is counted on the way does not wrap, or may.

No test replays so many; the numbers of the state are set to where such a replay has them.
"""

import functools
from dataclasses import replace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.machine import Lane, future, generations, lru, program
from jaxswap.machine import replay as machine
from jaxswap.machine.mglru import _highest_unprotected
from jaxswap.machine.replay import Replay
from jaxswap.machine.state import LEAST_PAGES, MachineState, init
from jaxswap.swaptable.clusters import Device, swapon
from jaxswap.workload import Workload, parse_workload
from tests.machine.workloads import random_text
from tests.reference import mglru
from tests.reference.folio import Folio
from tests.reference.lru import Batches

CLOCKS = ("clock", "ended", "last_flush", "last_switch")
ACTIVATIONS = ("activations", "refaults_seen", "flushed_activations")
SEQUENCES = ("max_seq", "min_anon", "min_file", "walked")


PLAIN = Lane("16 64", limit=700 * 4096, swap=8000 * 4096)
OFTEN = replace(PLAIN, flush=7, phase=3)


def workload_of(seed: int) -> Workload:
    return parse_workload(random_text(seed, 300) + "FILL 0 1536\nREADN 0 1536\n" * 3)


def later(state: MachineState, amounts: dict[str, int]) -> MachineState:
    """The state with amounts added to fields of one word a lane, as int32 counts."""

    def added(x: jax.Array, amount: int) -> jax.Array:
        moved = (np.asarray(x, np.int64) + amount).astype(np.uint64).astype(np.uint32).view(np.int32)
        return jax.device_put(moved, x.sharding)

    own = {name: amount for name, amount in amounts.items() if hasattr(state, name)}
    state = replace(state, **{name: added(getattr(state, name), amount) for name, amount in own.items()})
    if state.generations is None:
        return state
    lists = state.generations
    fields = {name: added(getattr(lists, name), amounts[name]) for name in SEQUENCES if name in amounts}
    return replace(state, generations=replace(lists, **fields))


def run(workload: Workload, lane: Lane, amounts: dict[str, int]) -> Replay:
    replay = Replay(workload, [lane], devices=1)
    replay.states = later(replay.states, amounts)
    replay.advance(0, replay.compiled.ops)
    return replay


@pytest.mark.parametrize("lane", [PLAIN, OFTEN, replace(OFTEN, switch=5)], ids=["plain", "flush", "switch"])
@pytest.mark.parametrize("wrap", [1 << 31, 1 << 32])
def test_clocks_ages_and_activations_may_wrap(lane: Lane, wrap: int) -> None:
    for seed in range(3):
        workload = workload_of(seed)
        begins = run(workload, lane, {})
        amounts = (
            dict.fromkeys(CLOCKS, wrap - 100) | {"age": wrap - 50} | dict.fromkeys(ACTIVATIONS, wrap - 1)
        )
        goes_on = run(workload, lane, amounts)
        assert np.array_equal(begins.result().counters, goes_on.result().counters)
        for name in ("clock", "age", "activations"):
            passed = int(np.asarray(getattr(begins.states, name)).item())
            assert passed + amounts[name] >= wrap, name


def test_shadows_keep_a_part_of_a_generation() -> None:
    workload, lane = workload_of(1), replace(PLAIN, lru="mglru")
    begins = run(workload, lane, {})
    goes_on = run(workload, lane, dict.fromkeys(SEQUENCES, (1 << 29) - 4))
    assert np.array_equal(begins.result().counters, goes_on.result().counters)
    assert begins.result().counter("workingset_restore_anon").any()
    assert begins.states.generations is not None
    assert int(jnp.max(begins.states.generations.max_seq)) > 6


TIERS = st.lists(st.integers(0, 1 << 28), min_size=20, max_size=20)


@given(TIERS, TIERS)
def test_products_of_accounts_do_not_wrap(some: list[int], others: list[int]) -> None:
    swapped_on = swapon((Device(1024),), 64, 2, cpus=1)
    lists = generations.fresh(1, 2)
    table = np.zeros(lists.tiers.shape, np.int32)
    table[:20] = np.array([some, others]).T
    state = replace(init(LEAST_PAGES, swapped_on, 2), generations=replace(lists, tiers=jnp.asarray(table)))
    wanted = []
    for values in (some, others):
        reference = mglru.Generations(Folio, Batches())
        names = ("refaulted", "evicted", "protected", "average_refaulted", "average_total")
        for number, name in enumerate(names):
            setattr(reference, name, values[4 * number : 4 * number + 4])
        wanted.append(mglru.highest_unprotected(reference))
    assert _highest_unprotected(state).tolist() == wanted


@pytest.mark.parametrize("lane", [OFTEN, replace(PLAIN, flush=None)], ids=["flush", "never"])
def test_cost_that_nobody_looks_at_stays_where_it_is(lane: Lane) -> None:
    states = run(workload_of(2), lane, {"counted_cost": lru.MOST_COST}).states
    costs = [
        int(np.asarray(cost).item()) for cost in (states.counted_cost, states.flushed_cost, states.anon_cost)
    ]
    assert min(costs) >= 0 and max(costs) <= lru.MOST_COST
    assert (costs[0] == lru.MOST_COST) == (lane.flush is None)


@pytest.mark.parametrize("before", [(1 << 31) - 3, (1 << 32) - 3, 10**13])
def test_totals_are_64_bits(before: int) -> None:
    workload = workload_of(0)
    replay = Replay(workload, [PLAIN], devices=1)
    replay.totals += before
    replay.advance(0, replay.compiled.ops)
    found, plain = replay.result().counters, run(workload, PLAIN, {}).result().counters
    assert found.dtype == np.int64
    assert np.array_equal(found[:, 1:], plain[:, 1:] + before)


@functools.cache
def replay_of(seed: int) -> Replay:
    return Replay(workload_of(seed), [PLAIN], devices=1)


@given(
    seed=st.integers(0, 3),
    chunk=st.integers(1, 30),
    few=st.integers(1, 3),
    pages=st.integers(1, 3000),
    data=st.data(),
)
@settings(max_examples=30)
def test_a_call_is_short_enough_for_counters_of_32_bits(
    seed: int, chunk: int, few: int, pages: int, data: st.DataObject
) -> None:
    replay = replay_of(seed)
    ops = replay.compiled.ops
    start = data.draw(st.integers(0, ops - 1))
    stop = data.draw(st.integers(start, ops))
    with mock.patch.multiple(machine, CHUNK=chunk, FEW=few, MOST_PAGES=pages):
        calls = list(replay.calls(start, stop))
    assert [i for call in calls for i in range(*call)] == list(range(start, stop))
    ops_of = replay.compiled.program
    kind, first, end = (np.asarray(x) for x in (ops_of.kind, ops_of.start, ops_of.end))
    for a, b in calls:
        assert b > a
        if b - a > 1:
            accesses = kind[a:b] <= program.COLD
            assert ((end[a:b] - first[a:b])[accesses]).sum() < pages
            assert np.where(kind[a:b] == program.STREAM, end[a:b] - first[a:b], accesses).sum() < chunk * few


def test_more_single_accesses_than_int32_numbers_are_said() -> None:
    text = "REGION 1024 plain\nTOUCH 1\nTOUCH 5\nREADN 8 2\nREADN 0 64\n"
    with mock.patch.object(program, "MOST_SINGLE", 4):
        program.compile_workload(parse_workload(text))
    with (
        mock.patch.object(program, "MOST_SINGLE", 3),
        pytest.raises(InputError, match="more than 3 accesses"),
    ):
        program.compile_workload(parse_workload(text))


def test_more_accesses_than_can_be_foreseen_are_said() -> None:
    compiled = program.compile_workload(
        parse_workload("REGION 1024 plain\nTOUCH 1\nDONTNEED 0 9\nREADN 0 64\n")
    )
    with mock.patch.object(future, "MOST_KNOWN", 65):
        before = future.accesses_before(compiled)
    assert before[: compiled.ops + 1].tolist() == [0, 1, 1, 65]
    with (
        mock.patch.object(future, "MOST_KNOWN", 64),
        pytest.raises(InputError, match="more than 64 accesses"),
    ):
        future.with_future(compiled, 1024)


def test_times_of_the_accesses_that_can_be_foreseen_fit() -> None:
    last = np.array([future.MOST_KNOWN - 1], np.int32)
    known = future.Future(jnp.array([0, 1], jnp.int32), jnp.asarray(2 * last + 1))
    ahead = functools.partial(future.ahead, known, page=jnp.zeros(1, jnp.int32))
    assert [int(ahead(jnp.asarray(now))[0, 0]) for now in (last - 5, last, last + 1)] == [5, 0, 1 << 30]
