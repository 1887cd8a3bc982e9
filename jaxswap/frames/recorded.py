"""The free blocks that a recording says there were: buddyinfo and zoneinfo of a STATS."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxswap.frames.start import ORDERS

_BLOCKS, _ZONE = "buddyinfo-", "zoneinfo-"


def free_blocks(stats: Mapping[str, Any], order: int) -> tuple[int, ...]:
    """Free blocks of each order in the zones that have a block of 2^order pages for a user's fault; () where
    the STATS do not say it.

    stats: groups of one STATS. A zone whose free pages would fall to its lowest watermark and what it keeps
    for requests that can be had nowhere else gives nothing (mm/page_alloc.c, __zone_watermark_ok; 6.12 to
    7.3): so it is with the 16 MiB of ZONE_DMA.
    """
    total = np.zeros(ORDERS, np.int64)
    for group, blocks in stats.items():
        zone = stats.get(_ZONE + group.removeprefix(_BLOCKS))
        if not group.startswith(_BLOCKS) or not isinstance(blocks, dict):
            continue
        if not isinstance(zone, dict) or not zone.keys() >= {"free", "min", "reserve"}:
            continue
        if zone["free"] - (1 << order) + 1 > zone["min"] + zone["reserve"]:
            total += [blocks.get(f"{4 << o}kB", 0) for o in range(ORDERS)]
    return tuple(total.tolist()) if total.any() else ()
