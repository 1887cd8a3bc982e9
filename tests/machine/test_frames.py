"""With page frames, too, the JAX machine equals the plain-Python one: free lists, frames and counters."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.frames import Frames
from jaxswap.frames.start import ORDERS
from jaxswap.machine import Lane, replay_lanes, replay_one
from jaxswap.machine.frames import available
from jaxswap.machine.profile import PROFILES
from jaxswap.machine.replay import Replay
from jaxswap.workload import Workload, parse_workload
from tests.machine.kernels import OLDER
from tests.machine.test_against_reference import check, random_lane, reference_of, run_reference
from tests.machine.test_lanes import LANES, differing, random_lanes
from tests.machine.workloads import random_text
from tests.reference import frames as reference


def random_frames(rng: random.Random) -> Frames:
    """Often too few, or too small, blocks for all that random workloads want."""
    chance, seed = rng.choice([0, 50, 100]), rng.randrange(1 << 32)
    if rng.random() < 0.3:
        most = [600, 400, 250, 120, 60, 30, 15, 8, 4, 2, 1]
        free = [rng.randint(0, n) if rng.random() < 0.7 else 0 for n in most]
        free[0] += rng.choice([1, 400, 1200])
        return Frames(free=tuple(free), seed=seed, compaction=chance)
    return Frames(rng.choice([4, 8, 8, 12, 16]) << 20, rng.choice([0, 0, 2, 10, 30]), (), seed, chance)


def framed(seed: int, limited: bool) -> Lane:
    rng = random.Random(seed)
    return replace(random_lane(rng, limited), frames=random_frames(rng))


def crumbling(seed: int, rounds: int = 20) -> Workload:
    """Small pages come and go, and between them large folios are wanted by a region that may compact, some of
    them from swap."""
    rng = random.Random(seed)
    lines = ["REGION 1536 huge", "MADVNOHUGE 0 960"]
    if rng.random() < 0.5:
        lines += ["FILL 960 560", "PAGEOUT 960 560"]
    lines.append(f"FILL 0 {rng.choice([500, 960])}")
    for _ in range(rounds):
        for _ in range(rng.randrange(30)):
            word, v = rng.choice(["DONTNEED", "DONTNEED", "FILL", "PAGEOUT"]), rng.randrange(950)
            lines.append(f"{word} {v} {rng.choice([1, 1, 2, 7])}")
        word, v = rng.choice(["FILL", "READN", "READN", "DONTNEED", "PAGEOUT"]), 960 + 16 * rng.randrange(32)
        lines.append(f"{word} {v} {rng.choice([1, 16, 64])}")
    return parse_workload("\n".join(lines) + "\n")


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150), mapped=st.booleans())
@settings(max_examples=60)
def test_equals_the_reference(limited: bool, seed: int, operations: int, mapped: bool) -> None:
    workload = parse_workload(random_text(seed, operations, mapped=mapped))
    check(workload, framed(seed + 1, limited))


@pytest.mark.parametrize("profile", ["7.2", "7.3"])
def test_a_large_charge_that_may_not_reclaim_is_an_event_by_version(profile: str) -> None:
    """A plain region at its limit; there are always frames, so only the charge refuses."""
    workload = parse_workload("REGION 1024 plain\nINIT\nSEQ 0 1024 1 307 5\n")
    check(workload, Lane("64", limit=2 << 20, frames=Frames(64 << 20)), profile)


@pytest.mark.parametrize("profile", OLDER)
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150), limited=st.booleans())
@settings(max_examples=10)
def test_equals_the_reference_of_every_kernel(
    profile: str, seed: int, operations: int, limited: bool
) -> None:
    text = random_text(seed, operations)
    if not PROFILES[profile].free_after_map:
        text = "\n".join(line for line in text.splitlines() if not line.startswith("WILLNEED")) + "\n"
    check(parse_workload(text), framed(seed + 1, limited), profile)


COMPACTING = Lane("16 64 256", frames=Frames(4 << 20, compaction=100))
RIGID = replace(COMPACTING, frames=Frames(4 << 20, 2))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_compaction_equals_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.choice([4, 4, 8]) << 20
    frames = Frames(size, rng.choice([0, 0, 0, 1]), (), seed & 0xFFFF, rng.choice([100, 100, 50]))
    limit = rng.choice([None, rng.randint(300, 900) * 4096])
    sizes = rng.choice(["16 64 256", "64", "16 1024", "2048 128"])
    check(crumbling(seed), Lane(sizes, limit=limit, frames=frames))


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150))
@settings(max_examples=20)
def test_equals_the_reference_with_generations(seed: int, operations: int) -> None:
    workload = parse_workload(random_text(seed, operations))
    check(workload, replace(framed(seed + 1, True), lru="mglru"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_equals_the_reference_on_long_workloads(seed: int) -> None:
    text = random_text(seed, 1200, mapped=seed % 3 == 0)
    check(parse_workload(text), framed(seed, limited=seed % 2 == 0))


def counted(seeds: range) -> Counter[str]:
    """Counters of the reference machine over the workloads of these tests."""
    total: Counter[str] = Counter()
    for seed in seeds:
        for workload, lane in (
            (parse_workload(random_text(seed, 100)), framed(seed + 1, seed % 2 == 0)),
            (crumbling(seed), COMPACTING if seed % 2 else RIGID),
        ):
            machine = reference_of(workload, lane)
            run_reference(workload, machine)
            total += machine.n
    return total


def test_these_workloads_lack_frames_and_compact() -> None:
    """Orders are refused for a frame and for a charge, on both paths; compactions succeed and fail."""
    total = counted(range(30))
    for path in ("touch", "swapin"):
        assert sum(n for name, n in total.items() if name.startswith(f"refused/{path}/frame/")) > 20
    assert total["compact_success"] > 5 and total["compact_fail"] > 5 and total["pgmigrate_success"] > 50
    assert total["compact_stall"] == total["compact_success"] + total["compact_fail"]
    assert total["thrown_folios"] > 20


def no_merge(self: reference.Buddy, frame: int, order: int) -> None:
    self.add(frame, order, tail=False)


def no_release(self: reference.Frames, folio: object) -> None:
    pass


def no_compaction(self: reference.Frames, order: int) -> None:
    pass


@pytest.mark.parametrize(
    ("owner", "name", "rule"),
    [
        (reference.Buddy, "give", no_merge),
        (reference.Frames, "give", no_release),
        (reference.Frames, "release", no_release),
        (reference.Frames, "compact", no_compaction),
    ],
)
def test_a_rule_left_out_is_noticed(
    owner: type, name: str, rule: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, rule)
    noticed = 0
    for seed in range(12):
        for workload, lane in (
            (parse_workload(random_text(seed, 60)), framed(seed + 1, True)),
            (crumbling(seed), COMPACTING),
        ):
            try:
                check(workload, lane)
            except (AssertionError, TypeError):
                noticed += 1
    assert noticed >= 3


@pytest.mark.slow
@given(seed=st.integers(0, 2**31))
@settings(max_examples=5)
def test_lock_step_equals_one_by_one(seed: int) -> None:
    """Groups of one lane and of four in lock step, each lane with its own frames."""
    rng = random.Random(seed)
    workload = rng.choice([parse_workload(random_text(seed, 80)), crumbling(seed)])
    frames = [Frames(8 << 20, rng.choice([0, 2, 30]), (), seed, 70) for _ in range(LANES)]
    lanes = [replace(lane, frames=own) for lane, own in zip(random_lanes(seed), frames, strict=True)]
    alone, together = (replay_lanes(workload, lanes, width=width) for width in (1, 4))
    assert not differing(alone.counters, together.counters)
    assert (alone.oom == together.oom).all()


@pytest.mark.parametrize(("free", "orders"), [((3, 0, 1), 0b111), ((0,), 0), ((0, 0, 0, 2), 0b1111)])
def test_a_heuristic_may_see_which_orders_there_are(free: tuple[int, ...], orders: int) -> None:
    workload = parse_workload("REGION 64 plain\nREAD 0\n")
    given = Frames(free=free) if any(free) else Frames(4 << 20, 100)
    for lane, seen in ((Lane(frames=given), orders), (Lane(), (1 << 32) - 1)):
        state = Replay(workload, [lane], devices=1).lane_state()
        assert available(state).tolist() == [seen]


@pytest.mark.slow
def test_plenty_of_frames_changes_nothing() -> None:
    """Where there is always a block, a machine with frames counts what one without counts."""
    workload = parse_workload(random_text(5, 150))
    lane = Lane("16 64 256", limit=900 * 4096)
    plenty = replace(lane, frames=Frames(256 << 20))
    assert replay_one(workload, lane).counters == replay_one(workload, plenty).counters


def test_all_frames_come_back() -> None:
    """After DONTNEED of everything the free lists hold what they held, whatever came before."""
    for seed in range(6):
        lane = replace(framed(seed, False), frames=Frames(16 << 20, 10, (), seed, 100))
        workload = parse_workload(random_text(seed, 100) + "DONTNEED 0 1536\n")
        machine = reference_of(workload, lane)
        run_reference(workload, machine)
        assert isinstance(machine.frames, reference.Frames) and lane.frames is not None
        left = [set(blocks) for blocks in machine.frames.buddy.free]
        assert left == [set(blocks.tolist()) for blocks in lane.frames.start().lists]
        check(workload, lane)


def test_several_processes_have_no_frames() -> None:
    workload = parse_workload("REGION 64 plain\nFORK 1\np1 EXIT\n")
    with pytest.raises(InputError, match="one process"):
        replay_lanes(workload, [Lane(frames=Frames(4 << 20))])


def test_lanes_have_frames_all_or_none() -> None:
    workload = parse_workload("REGION 64 plain\nFILL 0 64\n")
    with pytest.raises(InputError, match="either all lanes"):
        replay_lanes(workload, [Lane(), Lane(frames=Frames(4 << 20))])


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (Frames(), "machine has 4M"),
        (Frames(5000), "whole blocks of 4M"),
        (Frames(4 << 20, 101), "unmovable"),
        (Frames(4 << 20, compaction=-1), "compaction"),
        (Frames(4 << 20, seed=-1), "seed"),
        (Frames(4 << 20, free=(1,)), "not both"),
        (Frames(free=(1,) * (ORDERS + 1)), "orders"),
        (Frames(1 << 50), "machine has 4M"),
    ],
)
def test_frames_that_cannot_be(frames: Frames, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Lane(frames=frames).check()
