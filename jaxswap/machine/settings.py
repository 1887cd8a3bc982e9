"""Files of sysfs and sysctl that a running workload may write (SET): which sizes of folios are enabled.

Source: mm/huge_memory.c (enabled_store, anon_enabled_store), include/linux/huge_mm.h
(thp_vma_allowable_orders), kernel/sysctl.c (page-cluster), mm/zswap.c (zswap_enabled_param_set),
mm/swap_state.c (vma_ra_enabled_store); 6.12 to 7.3.
"""

import enum
import re

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped, UInt32

THP = "/sys/kernel/mm/transparent_hugepage/"
PAGE_CLUSTER = "/proc/sys/vm/page-cluster"
ZSWAP = "/sys/module/zswap/parameters/enabled"
VMA_READAHEAD = "/sys/kernel/mm/swap/vma_ra_enabled"
MODES = ("never", "madvise", "always", "inherit")
NEVER, MADVISE, ALWAYS, INHERIT = range(4)
# Numbers of the files: hugepages-*kB/enabled has its order, then come THP enabled and page-cluster. Those
# behind change nothing but for the machine of machine.shared.
SIZES = {4 << order: order for order in range(2, 10)}
GLOBAL, CLUSTER = 16, 17
ZSWAP_FILE, VMA_READAHEAD_FILE = 18, 19


class Setting(enum.IntEnum):
    """Words of what a machine has set.

    ALWAYS, MADVISE, INHERIT: masks of the orders that are so. THP: what `inherit` follows, a number of MODES.
    PAGE_CLUSTER: exponent of the readahead window. PLAIN, HUGE: orders enabled for VMAs without advice and
    for those with MADV_HUGEPAGE, which follow from the others.
    """

    PLAIN = 0
    HUGE = 1
    ALWAYS = 2
    MADVISE = 3
    INHERIT = 4
    THP = 5
    PAGE_CLUSTER = 6


Settings = UInt32[Array, "settings *lanes"]


def start(
    always: Shaped[Array, "*lanes"],
    madvise: Shaped[Array, "*lanes"],
    page_cluster: Shaped[Array | np.ndarray, "*lanes"] | int = 3,
) -> Settings:
    """As booted, but for sizes that are `always` and `madvise`, and page-cluster."""
    none = jnp.zeros_like(always)
    cluster = none + jnp.asarray(page_cluster, jnp.uint32)
    return _settled([none, none, always, madvise, none, none + np.uint32(ALWAYS), cluster])


def _settled(words: list[UInt32[Array, "*lanes"]]) -> Settings:
    """With PLAIN and HUGE worked out."""
    thp, inherit = words[Setting.THP], words[Setting.INHERIT]
    plain = words[Setting.ALWAYS] | jnp.where(thp == ALWAYS, inherit, np.uint32(0))
    huge = plain | words[Setting.MADVISE] | jnp.where(thp != NEVER, inherit, np.uint32(0))
    return jnp.stack([plain, huge, *words[2:]])


def number(path: str, value: str) -> tuple[int, int]:
    """(number of a file, value to write).

    Raises ValueError for what a machine does not have, saying what it has.
    """
    size = re.fullmatch(re.escape(THP) + r"hugepages-(\d{2,4})kB/enabled", path)
    if size and int(size[1]) in SIZES and value in MODES:
        return SIZES[int(size[1])], MODES.index(value)
    if path == THP + "enabled" and value in MODES[:INHERIT]:
        return GLOBAL, MODES.index(value)
    if path == PAGE_CLUSTER and re.fullmatch(r"[0-9]|[12][0-9]|3[01]", value):
        return CLUSTER, int(value)
    if path == ZSWAP and value in ("N", "Y"):
        return ZSWAP_FILE, int(value == "Y")
    if path == VMA_READAHEAD and value in ("false", "true"):
        return VMA_READAHEAD_FILE, int(value == "true")
    raise ValueError(
        f"SET {path} {value}: a machine can set {THP}hugepages-SIZEkB/enabled (SIZE {min(SIZES)} to "
        f"{max(SIZES)}; {', '.join(MODES)}), {THP}enabled ({', '.join(MODES[:INHERIT])}), "
        f"{PAGE_CLUSTER} (0 to 31), {ZSWAP} (N, Y) and {VMA_READAHEAD} (false, true)"
    )


def write(settings: Settings, file: Int32[Array, ""], value: Int32[Array, ""]) -> Settings:
    """Write a value to a file, both numbers as `number` gives them, in all lanes."""
    words = list(settings)
    bit = jnp.uint32(1) << (file & 15).astype(jnp.uint32)
    for word, mode in ((Setting.ALWAYS, ALWAYS), (Setting.MADVISE, MADVISE), (Setting.INHERIT, INHERIT)):
        size = words[word] & ~bit | jnp.where(value == mode, bit, np.uint32(0))
        words[word] = jnp.where(file < GLOBAL, size, words[word])
    for word, number in ((Setting.THP, GLOBAL), (Setting.PAGE_CLUSTER, CLUSTER)):
        words[word] = jnp.where(file == number, value.astype(jnp.uint32), words[word])
    return _settled(words)
