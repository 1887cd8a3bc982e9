"""Forms of the path that brings a folio into the swap cache, as switches.

Sources: mm/memory.c ``alloc_swap_folio`` and mm/swap_state.c ``swapin_folio`` of Linux 7.0 / 7.1 (before
phase IV); "mm, swap: swap table phase IV" patch 04/12 as posted in v3 (21 April 2026) and v4 (May 2026), and
the squash that its author proposed in reply to v4; mm/swap_state.c ``swap_cache_alloc_folio`` of Linux 7.2 /
7.3 (merged). include/linux/huge_mm.h ``highest_order``, ``next_order`` with and without
CONFIG_TRANSPARENT_HUGEPAGE.
"""

from dataclasses import dataclass, replace

from jaxswap.errors import InputError


@dataclass(frozen=True)
class Form:
    """One form. The defaults are those of the merged form, with transparent huge pages."""

    checks_under_lock: bool = True
    """A range check under the cluster lock before and after the allocation of each order. If not: orders are
    taken out beforehand, without lock and without count, where the range looks cached, of mixed zero flags or
    of mixed memcg ids; what can be allocated and charged is then added to the cache once, and thrown away if
    that fails."""
    second_check: bool = True
    """The check is made again after the allocation (read only with ``checks_under_lock``)."""
    compares_zero: bool = True
    """A range of mixed zero flags is refused."""
    compares_memcg: bool = True
    """A range of mixed memcg ids is refused (by the second check, or beforehand)."""
    adds_order_0: bool = False
    """Order 0 is offered whatever the mask says, and an empty mask means order 0."""
    ends_at_order_0: bool = True
    """A failed order 0 ends the loop."""
    ends_at_empty_mask: bool = True
    """The loop ends when no order is left in the mask."""
    undo_keeps_shadow: bool = True
    """After a failed charge the slots get the target's shadow; if not, an empty one."""
    counts_eexist: bool = False
    """-EEXIST at an order above 0 is counted as swpin_fallback, as -EBUSY and -ENOMEM are."""
    thp: bool = True
    """CONFIG_TRANSPARENT_HUGEPAGE. Without it the highest order of every mask is 0, and a failed order stays
    in the mask."""


MERGED = Form()
_V3 = replace(MERGED, compares_zero=False, compares_memcg=False, adds_order_0=True, ends_at_empty_mask=False)
_V4 = replace(MERGED, compares_zero=False, compares_memcg=False, ends_at_order_0=False)
_SQUASH = replace(_V4, ends_at_order_0=True, ends_at_empty_mask=False)
_WITH_THP = {
    "pre-phase4": Form(checks_under_lock=False, adds_order_0=True),
    "v3": _V3,
    "v4": _V4,
    "v4-squash": _SQUASH,
    "merged": MERGED,
}
FORMS = _WITH_THP | {f"{name}-nothp": replace(form, thp=False) for name, form in _WITH_THP.items()}
"""The forms by name; ``-nothp`` is a kernel without CONFIG_TRANSPARENT_HUGEPAGE."""


def form_named(name: str) -> Form:
    """The form of that name. InputError if there is none."""
    if name not in FORMS:
        raise InputError(f"form: {name!r} is none of {', '.join(FORMS)}")
    return FORMS[name]
