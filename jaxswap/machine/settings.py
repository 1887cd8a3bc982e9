"""Files of sysfs and sysctl that a running workload may write (SET): which sizes of folios are enabled.

Source: mm/huge_memory.c (enabled_store, anon_enabled_store), include/linux/huge_mm.h
(thp_vma_allowable_orders), kernel/sysctl.c (page-cluster), mm/zswap.c; 6.12 to 7.3.
"""

import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Shaped, UInt32

THP = "/sys/kernel/mm/transparent_hugepage/"
PAGE_CLUSTER = "/proc/sys/vm/page-cluster"
ZSWAP = "/sys/module/zswap/parameters/enabled"
MODES = ("never", "madvise", "always", "inherit")
NEVER, MADVISE, ALWAYS, INHERIT = range(4)
# Numbers of the files: hugepages-*kB/enabled has its order, then come THP enabled and page-cluster.
SIZES = {4 << order: order for order in range(2, 10)}
GLOBAL, CLUSTER = 16, 17


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settings:
    """What the files say, one value a lane.

    always, madvise, inherit: masks of the orders that are so. thp: what `inherit` follows, a number of MODES.
    page_cluster: the exponent of the readahead window. plain, huge: orders enabled for VMAs without advice
    and for those with MADV_HUGEPAGE, which follow from the others.
    """

    always: UInt32[Array, "*lanes"]
    madvise: UInt32[Array, "*lanes"]
    inherit: UInt32[Array, "*lanes"]
    thp: Int32[Array, "*lanes"]
    page_cluster: Int32[Array, "*lanes"]
    plain: UInt32[Array, "*lanes"]
    huge: UInt32[Array, "*lanes"]


def start(always: Shaped[Array, "*lanes"], madvise: Shaped[Array, "*lanes"]) -> Settings:
    """As booted, but for sizes that are `always` and `madvise`."""
    none, one = jnp.zeros_like(always), jnp.ones(always.shape, jnp.int32)
    return _settled(Settings(always, madvise, none, ALWAYS * one, 3 * one, none, none))


def _settled(s: Settings) -> Settings:
    """With `plain` and `huge` worked out."""
    plain = s.always | jnp.where(s.thp == ALWAYS, s.inherit, 0)
    return replace(s, plain=plain, huge=plain | s.madvise | jnp.where(s.thp != NEVER, s.inherit, 0))


def number(path: str, value: str) -> tuple[int, int] | None:
    """(number of a file, value to write); None where nothing changes.

    Raises ValueError for what a machine does not have, saying what it has.
    """
    size = re.fullmatch(re.escape(THP) + r"hugepages-(\d+)kB/enabled", path)
    if size and int(size[1]) in SIZES and value in MODES:
        return SIZES[int(size[1])], MODES.index(value)
    if path == THP + "enabled" and value in MODES[:INHERIT]:
        return GLOBAL, MODES.index(value)
    if path == PAGE_CLUSTER and re.fullmatch(r"[0-9]|[12][0-9]|3[01]", value):
        return CLUSTER, int(value)
    if path == ZSWAP and value == "N":
        return None
    raise ValueError(
        f"SET {path} {value}: a machine can set {THP}hugepages-SIZEkB/enabled (SIZE {min(SIZES)} to "
        f"{max(SIZES)}; {', '.join(MODES)}), {THP}enabled ({', '.join(MODES[:INHERIT])}), "
        f"{PAGE_CLUSTER} (0 to 31) and {ZSWAP} (N)"
    )


def write(s: Settings, file: Int32[Array, ""], value: Int32[Array, ""]) -> Settings:
    """Write a value to a file, both numbers as `number` gives them, in all lanes."""
    bit = jnp.where(file < GLOBAL, jnp.uint32(1) << (file & 15).astype(jnp.uint32), 0).astype(jnp.uint32)

    def mask(old: UInt32[Array, " L"], mode: int) -> UInt32[Array, " L"]:
        return old & ~bit | jnp.where(value == mode, bit, 0).astype(jnp.uint32)

    return _settled(
        replace(
            s,
            always=mask(s.always, ALWAYS),
            madvise=mask(s.madvise, MADVISE),
            inherit=mask(s.inherit, INHERIT),
            thp=jnp.where(file == GLOBAL, value, s.thp),
            page_cluster=jnp.where(file == CLUSTER, value, s.page_cluster),
        )
    )
