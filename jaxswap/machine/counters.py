"""The counters of one machine: the kernel's by the kernel's names, and those the kernel does not have.

A counter is one uint32 word a lane, a delta since the host last added it up; `SIZE/name` counters have a
word for each order. Kernel names: include/linux/huge_mm.h (enum mthp_stat_item), vm_event_item.h, mmzone.h
(workingset_*), memcontrol.h (MEMCG_MAX), 7.3.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.swaptable.geometry import size_name
from jaxswap.swaptable.lanes import SPARE, load, load1, store, store1, surely, when

Lane = Int32[Array, " L"]
Mask = UInt32[Array, " L"]
Flag = Bool[Array, " L"]

ORDERS = range(2, 10)  # sizes the kernel keeps anonymous mTHP counters for: 16kB to 2048kB
WIDTH = 16  # words a SIZE counter takes, one an order

SCALARS = (
    "faults",
    "pgmajfault",
    "pswpin",
    "swpin_zero",
    "pswpout",
    "swpout_zero",
    "swap_ra",
    "swap_ra_hit",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pgrefill",
    "workingset_refault_anon",
    "workingset_activate_anon",
    "workingset_restore_anon",
    "memcg_max",
    "memcg_high",
    "thrown_folios",
    "thrown_pages",
    "useless_swapin",
    "useless_touch",
    "needed_pages",
    "covered_pages",
    "read_ptes",
    "read_slots",
    "read_pages",
    "compact_stall",
    "compact_success",
    "compact_fail",
    "pgmigrate_success",
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

COUNTERS: tuple[str, ...] = (
    "accesses",
    *SCALARS,
    *(f"{size_name(o)}/{name}" for name in SIZED for o in ORDERS),
    *(f"refused/{path}/{reason}/{size_name(o)}" for path in PATHS for reason in REASONS for o in ORDERS),
)
"""Flat names, in the order of ReplayResult.counters. `accesses` are the workload's, for every lane."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counts:
    """scalars: a row each of SCALARS. sized: WIDTH rows each of SIZED. refused: WIDTH rows a path, reason."""

    scalars: UInt32[Array, "scalars L"]
    sized: UInt32[Array, "sized L"]
    refused: UInt32[Array, "refused L"]


def zeros(lanes: int) -> Counts:
    """All counters at zero."""
    rows = (len(SCALARS), WIDTH * len(SIZED) + SPARE, WIDTH * len(REASONS) * len(PATHS) + SPARE)
    return Counts(*(jnp.zeros((n, lanes), jnp.uint32) for n in rows))


def flat(counts: Counts) -> np.ndarray:
    """Counters as numpy, [..., lanes, names of COUNTERS without `accesses`]."""
    scalars, sized, refused = (
        np.moveaxis(np.asarray(x), -2, -1) for x in (counts.scalars, counts.sized, counts.refused)
    )
    sized, refused = sized[..., :-SPARE], refused[..., :-SPARE]
    sizes = slice(ORDERS.start, ORDERS.stop)

    def rows(words: np.ndarray) -> np.ndarray:
        split = words.reshape(*words.shape[:-1], -1, WIDTH)[..., sizes]
        return split.reshape(*words.shape[:-1], -1)

    return np.concatenate([scalars, rows(sized), rows(refused)], axis=-1)


def count(n: Counts, on: Flag, **amounts: Lane | int) -> Counts:
    """Add to counters without sizes.

    Word by word: a vector of them read after single ones were written would wait for the CPU's store buffer.
    """
    scalars = n.scalars
    for name, amount in amounts.items():
        at = SCALARS.index(name)
        added = jnp.where(on, jnp.broadcast_to(amount, on.shape).astype(jnp.uint32), 0)
        row = (scalars[at] + added)[None]
        scalars = lax.optimization_barrier(lax.dynamic_update_slice(scalars, row, (at, 0)))
    return replace(n, scalars=scalars)


def count_order(n: Counts, name: str, order: Lane, on: Flag) -> Counts:
    """Add one to a counter of a size; order 0 counts nothing (count_mthp_stat)."""
    value, sized = load1(n.sized, SIZED.index(name) * WIDTH + order)
    return replace(n, sized=store1(sized, SIZED.index(name) * WIDTH + order, value + 1, on & (order > 0)))


def count_orders(n: Counts, **masks: Mask) -> Counts:
    """Add one to counters of sizes for every order of a mask."""
    at = jnp.zeros(next(iter(masks.values())).shape, jnp.int32)
    return replace(n, sized=_count_masks(n.sized, at, SIZED, masks))


def count_refused(n: Counts, swapin: Flag, reasons: dict[str, Mask]) -> Counts:
    """Add one for every order of every reason's mask, on the path's rows."""
    path = swapin.astype(jnp.int32) * (WIDTH * len(REASONS))
    return replace(n, refused=_count_masks(n.refused, path, REASONS, reasons))


def _count_masks(
    table: UInt32[Array, "rows L"], at: Lane, names: tuple[str, ...], masks: dict[str, Mask]
) -> UInt32[Array, "rows L"]:
    """Add one to the rows from `at` on, WIDTH for each of the names, for every order of their masks."""
    # A loop: compiled once, and of all names at once no vector would be made.
    places = jnp.array([names.index(name) * WIDTH for name in masks], jnp.int32)
    words = lax.optimization_barrier(jnp.stack(list(masks.values())))
    order = np.arange(WIDTH, dtype=np.uint32)[:, None]

    def add(i: Int32[Array, ""], table: UInt32[Array, "rows L"]) -> UInt32[Array, "rows L"]:
        place, mask = (lax.dynamic_index_in_dim(x, i, keepdims=False) for x in (places, words))
        some = mask != 0

        def change(table: UInt32[Array, "rows L"]) -> UInt32[Array, "rows L"]:
            rows, table = load(table, at + place, WIDTH)
            return store(table, at + place, rows + ((mask[None] >> order) & np.uint32(1)), surely(some))

        return when(some, change, table)

    return lax.fori_loop(0, len(masks), add, table)
