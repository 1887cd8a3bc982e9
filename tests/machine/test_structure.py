"""What keeps the replay fast, seen in its compiled text, in how time grows, and in how often it compiles."""

import random
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxswap.frames import Frames
from jaxswap.machine import Lane, replay_lanes
from jaxswap.machine.replay import Replay, advance
from jaxswap.machine.shared import step as shared_step
from jaxswap.machine.state import LEAST_CLUSTERS, LEAST_PAGES
from jaxswap.policy import POLICIES
from jaxswap.workload import Workload, parse_workload
from tests.machine.workloads import random_text

BYTES_A_LANE = 410_000
"""State of a lane with room for 16,384 pages and 64 clusters: 361,129 measured, and 15 %."""
OPERATIONS = 15_450
"""In the program of a step before it is compiled, on which compiling hangs: 13,432 measured, and 15 %."""
FUSIONS = 1_290
"""Fusions in the program of a step, a stand-in for a GPU's kernels: 1,123 measured, and 15 %."""
COMPILED = "/jax/core/compile/backend_compile_duration"


def arguments(replay: Replay) -> tuple:
    return replay.states, replay.params, replay.program, jnp.array([0, 1], jnp.int32)


def replay_of(lanes: int, width: int, devices: int = 1) -> Replay:
    workload = parse_workload(random_text(1, 100))
    return Replay(workload, [Lane("64", swap=8000 * 4096)] * lanes, width=width, devices=devices)


@pytest.fixture(scope="module")
def one_lane() -> Replay:
    return replay_of(1, 1)


@pytest.fixture(scope="module")
def lowered(one_lane: Replay) -> Any:
    """The program of one lane before it is compiled."""
    return advance.trace(*arguments(one_lane), mesh=one_lane.mesh).lower()


@pytest.fixture(scope="module")
def text(lowered: Any) -> str:
    """The compiled program of one lane."""
    text = lowered.compile().as_text()
    assert text is not None
    return text


def test_operations_keep_to_their_budget(lowered: Any) -> None:
    operations = sum(" = " in line for line in lowered.as_text().splitlines())
    print(f"{operations} operations")
    assert 0 < operations <= OPERATIONS


def test_the_step_is_native_without_scatter_or_sort(text: str) -> None:
    assert "xla_cpu_small_call" in text
    assert " scatter(" not in text and " sort(" not in text


def test_no_table_is_copied_in_a_step(text: str, one_lane: Replay) -> None:
    """Groups' tables have a leading axis; a step's have not. Those are never copied."""
    tables = {x.shape[1] for x in jax.tree.leaves(one_lane.states) if x.ndim == 3 and x.shape[1] > 256}
    assert len(tables) >= 5
    shapes = re.compile(rf" = \w+\[(?:{'|'.join(map(str, sorted(tables)))})(?:,1)?\]\S* copy\(")
    copies = [line.strip()[:160] for line in text.splitlines() if shapes.search(line)]
    assert not copies, copies[:3]


def test_state_and_fusions_keep_to_their_budgets(text: str, one_lane: Replay) -> None:
    held = sum(x.nbytes for x in jax.tree.leaves(one_lane.states))
    fusions = text.count(" fusion(")
    print(f"state {held} bytes a lane, {fusions} fusions")
    assert held <= BYTES_A_LANE
    assert 0 < fusions <= FUSIONS


def test_the_step_of_several_processes_traces() -> None:
    """What its rules hand on is of the shape of what they have in hand, the optional parts included."""
    workload = parse_workload("REGION 64 plain\nFORK 1\nFILL 0 4\n")
    replay = Replay(workload, [Lane("16")], width=1, devices=1)
    state, params = jax.tree.map(lambda x: x[0], (replay.states, replay.params))
    after = jax.eval_shape(shared_step.step, state, params, replay.program, jnp.int32(0))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


@pytest.mark.slow
def test_page_frames_keep_the_step_native() -> None:
    lane = Lane("64", swap=8000 * 4096, frames=Frames(8 << 20))
    replay = Replay(parse_workload(random_text(1, 100)), [lane], width=1, devices=1)
    text = advance.trace(*arguments(replay), mesh=replay.mesh).lower().compile().as_text()
    assert text is not None
    test_the_step_is_native_without_scatter_or_sort(text)
    test_no_table_is_copied_in_a_step(text, replay)


@pytest.mark.parametrize(("lanes", "width"), [(1, 1), (64, 64)], ids=["one-lane", "lock-step"])
def test_the_replay_lowers_for_cuda(lanes: int, width: int) -> None:
    replay = replay_of(lanes, width)
    traced = advance.trace(*arguments(replay), mesh=replay.mesh)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Names of the programs compiled while a test runs."""
    found: list[str] = []

    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            found.append(str(kwargs.get("fun_name", event)))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield found
    jax.monitoring.unregister_event_duration_listener(note)


def test_workloads_lanes_and_kernels_of_one_shape_compile_once(compilations: list[str]) -> None:
    """Contents of any kind are values: three workloads, sets of lanes, of heuristics, and both profiles make
    one program.
    """
    jitted: Any = advance
    before = jitted._cache_size()
    further = (POLICIES["lookahead"], POLICIES["linear"])
    for seed, profile, asked in ((11, "7.3", "backoff"), (12, "7.2", "lookahead"), (13, "7.3", "linear")):
        rng = random.Random(seed)
        lanes = [
            Lane(
                rng.choice(["16 64", "32m", ""]),
                rng.choice(["kernel", asked, "never"]),
                {},
                limit,
                swap=5000 * 4096,
            )
            for limit in (None, rng.randint(100, 900) * 4096, *[1 << 30] * 9)
        ]
        workload = parse_workload(random_text(seed, 60 + seed))
        replay_lanes(workload, lanes, profile=profile, heuristics=further)
    # No other test has eleven lanes, so exactly one program is made here.
    assert jitted._cache_size() - before == 1
    assert sum("advance" in name for name in compilations) == 1


def scattered(pages: int, span: int) -> Workload:
    """The same 1,200 operations on the first `span` pages of a region, all of them in swap to begin with."""
    rng = random.Random(9)
    lines = [f"REGION {pages} plain", f"FILL 0 {span}", f"PAGEOUT 0 {span}"]
    for _ in range(400):
        v = rng.randrange(span // 16) * 16
        lines += [f"READN {v} 16", f"PAGEOUT {v} 16", f"DONTNEED {rng.randrange(span - 4)} 2"]
    return parse_workload("\n".join(lines) + "\n")


def test_a_step_costs_the_same_in_tables_16_times_as_large() -> None:
    """Operations spread over 16 times the pages and slots take at most four times as long, in one call."""
    times, sizes = [], set()
    for scale in (1, 16):
        workload = scattered(LEAST_PAGES * scale, 16_000 * scale)
        lane = Lane("64", swap=LEAST_CLUSTERS * 512 * 4096 * scale)
        best = float("inf")
        for _ in range(5):
            replay = Replay(workload, [lane], devices=1)
            sizes.add((replay.states.slots.shape[1], replay.states.clusters.words.shape[1]))
            start = next(i for i, kind in enumerate(replay.compiled.program.kind.tolist()) if kind == 2)
            replay.advance(0, start)
            jax.block_until_ready(replay.states)
            begin = time.perf_counter()
            replay.advance(start, replay.compiled.ops)
            jax.block_until_ready(replay.states)
            best = min(best, (time.perf_counter() - begin) / (replay.compiled.ops - start))
        times.append(best)
    (pages, clusters), (more_pages, more_clusters) = sorted(sizes)
    assert more_pages > 15 * pages and more_clusters > 13 * clusters
    print(f"{1e9 * times[0]:.0f} and {1e9 * times[1]:.0f} ns an operation")
    assert times[1] / times[0] < 4
