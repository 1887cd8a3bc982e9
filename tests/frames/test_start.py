"""Where frames start: as many free as said, blocks that cannot merge, and text in both directions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.frames import Frames, Start, buddyinfo_text, frames_text, parse_buddyinfo, parse_frames
from jaxswap.frames.start import MAX_PAGE_ORDER, ORDERS

LINE = "Node 0, zone   Normal   4381   1093    185   1530    567    102     61     27     12      7      3\n"


def whole(start: Start) -> None:
    """Free blocks are aligned, cover all that is not pinned once, and none lies beside a free buddy."""
    covered = np.zeros(len(start.pinned), int)
    for order, blocks in enumerate(start.lists):
        assert not (blocks & ((1 << order) - 1)).any()
        for block in blocks.tolist():
            covered[block : block + (1 << order)] += 1
        if order < MAX_PAGE_ORDER:
            assert not set(blocks.tolist()) & set((blocks ^ (1 << order)).tolist())
    assert np.array_equal(covered, ~start.pinned)


@given(
    blocks=st.integers(1, 20), unmovable=st.sampled_from([0, 0.5, 10, 33, 80, 100]), seed=st.integers(0, 99)
)
def test_an_aged_start(blocks: int, unmovable: float, seed: int) -> None:
    frames = Frames(blocks << 22, unmovable, seed=seed)
    start = frames.start()
    whole(start)
    assert len(start.pinned) == frames.count == blocks << 10
    assert start.pinned.sum() == round(frames.count * unmovable / 100)


@given(free=st.lists(st.integers(0, 9), min_size=1, max_size=ORDERS), seed=st.integers(0, 99))
def test_a_start_from_counts(free: list[int], seed: int) -> None:
    if not any(free):
        free[0] = 1
    start = Frames(free=tuple(free), seed=seed).start()
    whole(start)
    assert [len(blocks) for blocks in start.lists] == [*free, *[0] * (ORDERS - len(free))]


def test_seeds_differ_and_repeat() -> None:
    one, same, other = (Frames(16 << 20, 20, seed=seed).start().pinned for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_buddyinfo() -> None:
    free = parse_buddyinfo(LINE)
    assert free == (4381, 1093, 185, 1530, 567, 102, 61, 27, 12, 7, 3)
    assert parse_buddyinfo(LINE + LINE) == tuple(2 * blocks for blocks in free)
    assert parse_buddyinfo(buddyinfo_text(free)) == free


@pytest.mark.parametrize(
    "text", ["", "Node 0", LINE + "x", LINE.replace("3\n", "\n"), "1 2 3", LINE.replace("12", "-1")]
)
def test_what_is_no_buddyinfo(text: str) -> None:
    with pytest.raises(InputError):
        parse_buddyinfo(text)


@pytest.mark.parametrize(
    "text", ["64M", "8M unmovable 30%", "1G seed 4", "64M unmovable 2.5% seed 1 compaction 50%"]
)
def test_text(text: str) -> None:
    frames = parse_frames(text)
    assert parse_frames(frames_text(frames)) == frames
    assert frames.size >= 8 << 20


@pytest.mark.parametrize(
    "text", ["", "64", "64M seed", "unmovable 3%", "64M 30%", "seed 1", "64M seed 1 unmovable 3%"]
)
def test_what_is_no_text(text: str) -> None:
    with pytest.raises(InputError, match="does not say what page frames"):
        parse_frames(text)


def test_free_blocks_leave_no_size_to_say() -> None:
    assert parse_frames("seed 3 compaction 5%", (1, 2)) == Frames(0, 0, (1, 2), 3, 5)
    assert parse_frames("", (1,)) == Frames(free=(1,))
    with pytest.raises(InputError, match="seed 1 compaction"):
        parse_frames("64M", (1,))
