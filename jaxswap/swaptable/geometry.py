"""Clusters, orders, order masks and error numbers: the constants every other part shares.

Facts: include/linux/swap.h and mm/swap.h (``SWAPFILE_CLUSTER`` = 512 with ``CONFIG_THP_SWAP`` on x86-64),
include/linux/huge_mm.h (``highest_order``, ``next_order``), uapi errno; Linux 7.2 / 7.3, 4 KiB pages.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Integer, Shaped

PAGE_BYTES = 4096
CLUSTER = 512
"""Slots in a cluster, which is also the pages of a 2 MiB block."""
CLUSTER_SHIFT = 9
WORD_BITS = 32
WORDS = CLUSTER // WORD_BITS
"""uint32 words of one bit plane of one cluster."""
MAX_ORDER = 9
"""Order of a whole cluster (PMD order)."""
ORDERS = tuple(range(MAX_ORDER + 1))
ALL_ORDERS = (1 << (MAX_ORDER + 1)) - 1
"""Mask with every order from 0 to 9."""

ENOENT = 2
ENOMEM = 12
EBUSY = 16
EEXIST = 17
EINVAL = 22
ERRNO_NAMES = {0: "0", -2: "-ENOENT", -12: "-ENOMEM", -16: "-EBUSY", -17: "-EEXIST", -22: "-EINVAL"}


def round_down(x: Shaped[Array, "..."] | int, order: Shaped[Array, "..."] | int):
    """First slot (or page) of the aligned block of ``2**order`` that holds ``x``, elementwise."""
    return (x >> order) << order


def highest_order(mask: Integer[Array, "..."] | int) -> Int[Array, "..."]:
    """Index of the highest bit of an order mask (int32), -1 for an empty mask, as the kernel's with THP."""
    return 31 - lax.clz(jnp.asarray(mask).astype(jnp.int32))


def next_order(mask: Integer[Array, "..."] | np.integer, order: Integer[Array, "..."] | int):
    """Take ``order`` out of ``mask``: (mask without it, its highest order), as ``next_order`` with THP."""
    mask = jnp.asarray(mask)
    left = mask & ~(jnp.asarray(1, mask.dtype) << jnp.asarray(order, mask.dtype))
    return left, highest_order(left)


def size_name(order: int) -> str:
    """Kernel's name of a folio size: ``size_name(4) == "64kB"`` (as in hugepages-64kB)."""
    return f"{(PAGE_BYTES // 1024) << order}kB"


def size_order(name: str) -> int:
    """Order of a size name: ``size_order("64kB") == 4``. ValueError if no order from 0 to 9 has that name."""
    for order in ORDERS:
        if size_name(order) == name:
            return order
    raise ValueError(f"{name!r} is no folio size; sizes are {', '.join(map(size_name, ORDERS))}")


SIZE_NAMES = tuple(size_name(order) for order in ORDERS)
