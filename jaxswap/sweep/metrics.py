"""What is measured: the quantities of every table, as sums of counters per 1,000 accesses of the workload.

The denominator is the workload's own number of page accesses, which no heuristic can move.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from jaxtyping import Float64, Int64

from jaxswap.machine.counters import REASONS


@dataclass(frozen=True)
class Metric:
    """A quantity of the tables: the sum of all counters that match one of `counters` (shell patterns)."""

    name: str
    counters: tuple[str, ...]
    doc: str

    def select(self, names: Sequence[str]) -> list[str]:
        """Those of the names that this metric sums."""
        return list(_select(self.counters, tuple(names)))


@functools.cache
def _select(patterns: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that match a pattern."""
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


_FALLBACKS = ("*/swpin_fallback",)
_FAILED = ("*/frame_refused", "thrown_folios")

_ALL = (
    Metric("major_faults", ("pgmajfault",), "faults that had to read the swap device"),
    Metric("pages_in", ("pswpin",), "pages read from the swap device (zero-filled pages are not read)"),
    Metric("pages_out", ("pswpout",), "pages written to the swap device"),
    Metric("zero_in", ("swpin_zero",), "pages restored from the zero flag without a read"),
    Metric("zero_out", ("swpout_zero",), "zero-filled pages swapped out without a write"),
    Metric(
        "fallbacks",
        _FALLBACKS,
        "orders given up at swap-in, as the kernel counts them, charge failures included",
    ),
    Metric(
        "fallbacks_charge", ("*/swpin_fallback_charge",), "of the fallbacks: those whose charge was refused"
    ),
    Metric(
        "failed",
        _FAILED,
        "failed attempts at first touch and swap-in: frames asked for and not had, and folios allocated and "
        "thrown away because the charge was refused or the second check found the slots changed",
    ),
    Metric(
        "charges_refused", ("*/charge_refused",), "of the failed attempts: those whose charge was refused"
    ),
    Metric("thrown_pages", ("thrown_pages",), "pages of the folios that were allocated and thrown away"),
    Metric("failed_fallbacks", _FAILED + _FALLBACKS, "failed + fallbacks: what the default objective lowers"),
    Metric(
        "useless_pages",
        ("useless_swapin", "useless_touch"),
        "pages read in or allocated as part of a folio and never accessed before they left or the run ended",
    ),
    Metric("useless_in", ("useless_swapin",), "of the useless pages: those read in"),
    Metric("useless_touched", ("useless_touch",), "of the useless pages: those allocated at first touch"),
    Metric("needed_again", ("needed_pages",), "swapped-out pages that came back and were then accessed"),
    Metric("large_coverage", ("covered_pages",), "of needed_again: those that came back in a large folio"),
    Metric(
        "refusals",
        ("refused/*",),
        "orders that sysfs and the region allow, higher than the one got, not used: one a fault and order",
    ),
    *(
        Metric(
            f"refused_{reason}", (f"refused/*/{reason}/*",), f"of the refusals: those for the reason {reason}"
        )
        for reason in REASONS
    ),
    Metric("ptes_read", ("read_ptes",), "page-table entries the heuristic itself read"),
    Metric("slots_read", ("read_slots",), "swap-table slots the heuristic itself read"),
    Metric("pages_read", ("read_pages",), "pages whose content the heuristic itself read"),
    Metric("faults", ("faults",), "page faults of every kind"),
    Metric("evictions", ("pgsteal",), "pages reclaimed"),
    Metric("scanned", ("pgscan",), "pages scanned by reclaim"),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order of the tables."""


def measure(
    counters: Int64[np.ndarray, "lanes counters"], names: Sequence[str], accesses: int
) -> dict[str, Float64[np.ndarray, "lanes"]]:
    """Every metric of every lane, per 1,000 accesses, from raw counters with the given names."""
    at = {name: index for index, name in enumerate(names)}
    return {
        metric.name: counters[:, [at[name] for name in metric.select(names)]].sum(axis=1, dtype=np.int64)
        * (1000.0 / accesses)
        for metric in METRICS.values()
    }
