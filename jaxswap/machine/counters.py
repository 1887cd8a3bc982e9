"""The counters of one machine: the kernel's by the kernel's names, and those the kernel does not have.

A counter is one uint32 word a lane, a delta since the host last added it up; `SIZE/name` counters have a
word for each order. Kernel names: include/linux/huge_mm.h (enum mthp_stat_item), vm_event_item.h, mmzone.h
(workingset_*), memcontrol.h (MEMCG_MAX), 7.3.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.swaptable.geometry import size_name
from jaxswap.swaptable.lanes import SPARE, load, load1, store, store1

Table = UInt32[Array, "counters L"]
ORDERS = range(2, 10)  # sizes the kernel keeps anonymous mTHP counters for: 16kB to 2048kB
WIDTH = 16  # words a SIZE counter takes, one an order

SCALARS = (
    "faults",
    "pgmajfault",
    "pswpin",
    "pswpout",
    "swpin_zero",
    "swpout_zero",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "workingset_refault_anon",
    "workingset_activate_anon",
    "workingset_restore_anon",
    "memcg_max",
    "thrown_folios",
    "thrown_pages",
    "useless_swapin",
    "useless_touch",
    "needed_pages",
    "covered_pages",
    "read_ptes",
    "read_slots",
)
SIZED = (
    "anon_fault_alloc",
    "anon_fault_fallback",
    "anon_fault_fallback_charge",
    "swpin",
    "swpin_fallback",
    "swpin_fallback_charge",
    "swpout",
    "swpout_fallback",
    "split",
    "frame_refused",
    "charge_refused",
)
PATHS = ("touch", "swapin")
REASONS = (
    "vma_edge",
    "alignment",
    "pte_gap",
    "zero_flag",
    "cached",
    "memcg",
    "zswap",
    "frame",
    "charge",
    "policy",
)

_AT = {name: i for i, name in enumerate(SCALARS)}
_SIZED_AT = {name: 32 + WIDTH * i for i, name in enumerate(SIZED)}
_REFUSED_AT = 32 + WIDTH * len(SIZED)
_REFUSED = WIDTH * len(REASONS)
_WORDS = _REFUSED_AT + _REFUSED * len(PATHS)

COUNTERS: tuple[str, ...] = (
    "accesses",
    *SCALARS,
    *(f"{size_name(o)}/{name}" for name in SIZED for o in ORDERS),
    *(f"refused/{path}/{reason}/{size_name(o)}" for path in PATHS for reason in REASONS for o in ORDERS),
)
"""Flat names, in the order of ReplayResult.counters. `accesses` is the workload's, the same for every lane."""

POSITIONS: tuple[int, ...] = (
    *(_AT[name] for name in SCALARS),
    *(_SIZED_AT[name] + o for name in SIZED for o in ORDERS),
    *(
        _REFUSED_AT + _REFUSED * p + WIDTH * r + o
        for p in range(len(PATHS))
        for r in range(len(REASONS))
        for o in ORDERS
    ),
)
"""Word of each of COUNTERS[1:] in the table."""


def zeros(lanes: int) -> Table:
    """All counters at zero."""
    return jnp.zeros((_WORDS + SPARE, lanes), jnp.uint32)


def count(n: Table, name: str, amount: Int32[Array, " L"], on: Bool[Array, " L"]) -> Table:
    """Add to a counter without sizes."""
    at = jnp.full(on.shape, _AT[name], jnp.int32)
    return store1(n, at, load1(n, at) + jnp.broadcast_to(amount, on.shape).astype(jnp.uint32), on)


def count_order(n: Table, name: str, order: Int32[Array, " L"], on: Bool[Array, " L"]) -> Table:
    """Add one to a counter of a size; order 0 counts nothing (count_mthp_stat)."""
    at = _SIZED_AT[name] + order
    return store1(n, at, load1(n, at) + jnp.uint32(1), on & (order > 0))


def count_orders(n: Table, name: str, mask: UInt32[Array, " L"]) -> Table:
    """Add one to a counter for every order of a mask."""
    at = jnp.full(mask.shape, _SIZED_AT[name], jnp.int32)
    return store(n, at, load(n, at, WIDTH) + _unpack(mask), mask != 0)


def count_refused(n: Table, swapin: Bool[Array, " L"], reasons: dict[str, UInt32[Array, " L"]]) -> Table:
    """Add one for every order of every reason's mask, on the path's part of the table."""
    at = _REFUSED_AT + _REFUSED * swapin.astype(jnp.int32)
    none = jnp.zeros_like(swapin, jnp.uint32)
    refused = jnp.concatenate([_unpack(reasons.get(reason, none)) for reason in REASONS])
    return store(n, at, load(n, at, _REFUSED) + refused, jnp.any(refused != 0, axis=0))


def _unpack(mask: UInt32[Array, " L"]) -> UInt32[Array, "16 L"]:
    return (mask[None] >> jnp.arange(WIDTH, dtype=jnp.uint32)[:, None]) & jnp.uint32(1)
