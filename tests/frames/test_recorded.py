"""Free blocks as a recording's STATS has them: which zones give something, and how many blocks they have."""

from typing import Any

import pytest

from jaxswap.frames import free_blocks
from jaxswap.frames.start import ORDERS

# 7.3.4, 1 GiB, memory in pieces: of ZONE_DMA no fault ever took a block of 64 kB
DMA = [0, 0, 0, 0, 1, 1, 1, 2, 1, 1, 0]
DMA32 = [13035, 13177, 13168, 13164, 126, 1, 2, 0, 1, 0, 0]


def stats(free: int = 1136, dma: list[int] = DMA) -> dict[str, Any]:
    """Groups of a STATS with two zones."""
    return {
        "64kB": {"nr_anon": 1460},
        "buddyinfo-DMA": {f"{4 << order}kB": blocks for order, blocks in enumerate(dma)},
        "buddyinfo-DMA32": {f"{4 << order}kB": blocks for order, blocks in enumerate(DMA32)},
        "zoneinfo-DMA": {"free": free, "min": 175, "low": 218, "high": 261, "reserve": 946},
        "zoneinfo-DMA32": {"free": 199805, "min": 11600, "low": 14372, "high": 17144, "reserve": 0},
    }


@pytest.mark.parametrize(("free", "order", "both"), [(1136, 4, False), (1137, 4, True), (1136, 3, True)])
def test_a_zone_at_its_watermark_gives_nothing(free: int, order: int, both: bool) -> None:
    """1136 - 15 pages are just not above 175 + 946."""
    wanted = [a + b * both for a, b in zip(DMA32, DMA, strict=True)]
    assert free_blocks(stats(free), order) == tuple(wanted)


def test_without_a_zone_s_watermarks_nothing_is_known() -> None:
    said = {group: values for group, values in stats().items() if not group.startswith("zoneinfo")}
    assert free_blocks(said, 4) == free_blocks({}, 0) == ()


@pytest.mark.parametrize(
    "broken", [{"zoneinfo-DMA32": {"free": 1000}}, {"zoneinfo-DMA32": 1000}, {"buddyinfo-DMA32": 3}]
)
def test_a_zone_that_is_half_said_gives_nothing(broken: dict[str, Any]) -> None:
    assert free_blocks(stats() | broken, 4) == ()


def test_sizes_that_are_left_out_are_not_free() -> None:
    said = stats() | {"buddyinfo-DMA32": {"64kB": 3}}
    assert free_blocks(said, 4) == tuple(3 * (order == 4) for order in range(ORDERS))
