"""SET: the sysfs and sysctl files a running workload may write.

Source: mm/huge_memory.c (enabled_store, anon_enabled_store), kernel/sysctl.c (page-cluster), mm/zswap.c
(zswap_enabled_param_set), mm/swap_state.c (vma_ra_enabled_store); 6.12 to 7.3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Machine

THP = "/sys/kernel/mm/transparent_hugepage/"
PAGE_CLUSTER = "/proc/sys/vm/page-cluster"
ZSWAP = "/sys/module/zswap/parameters/enabled"
VMA_READAHEAD = "/sys/kernel/mm/swap/vma_ra_enabled"
MODES = ("always", "inherit", "madvise", "never")


def write(m: Machine, path: str, value: str) -> None:
    """Raises ValueError for a file or a value that the machine does not have."""
    size = re.fullmatch(re.escape(THP) + r"hugepages-(\d+)kB/enabled", path)
    order = int(size[1]).bit_length() - 3 if size else 0
    if size and 2 <= order <= 9 and 4 << order == int(size[1]) and value in MODES:
        masks = {"always": m.always, "inherit": m.inherit, "madvise": m.madvise, "never": 0}
        masks = {mode: mask & ~(1 << order) for mode, mask in masks.items()}
        masks[value] |= 1 << order
        m.always, m.inherit, m.madvise = masks["always"], masks["inherit"], masks["madvise"]
    elif path == THP + "enabled" and value in ("always", "madvise", "never"):
        m.thp = value
    elif path == PAGE_CLUSTER and value.isdigit() and int(value) <= 31:
        m.page_cluster = int(value)
    elif path == ZSWAP and value in ("Y", "N"):
        m.zswap = value == "Y"
        m.zswap_ever |= m.zswap
    elif path == VMA_READAHEAD and value in ("true", "false"):
        m.vma_readahead = value == "true"
    else:
        known = f"{THP}enabled, {THP}hugepages-SIZEkB/enabled, {PAGE_CLUSTER}, {ZSWAP} and {VMA_READAHEAD}"
        raise ValueError(f"SET {path} {value}: the machine has {known}")
