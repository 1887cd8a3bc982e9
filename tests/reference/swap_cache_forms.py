"""swap_cache_alloc_folio in each of its forms, one loop each as it was written.

Sources: mm/memory.c alloc_swap_folio and mm/swap_state.c swapin_folio of 7.0 / 7.1; "swap table phase IV"
patch 04/12 in v3 and v4, and the squash proposed in reply to v4; 7.2 / 7.3. What would go on for ever stops
here after the first round that changed neither mask nor order, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.reference.swap_cache import (
    EBUSY,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    OK,
    TOP_ORDER,
    Outcome,
    Request,
    Table,
    swap_cache_alloc_order,
)

RETURNED, NEVER, BELOW_0 = "returned", "never returns", "order -1"


@dataclass
class FormOutcome(Outcome):
    fate: str = RETURNED


@dataclass
class Huge:
    """include/linux/huge_mm.h, with and without CONFIG_TRANSPARENT_HUGEPAGE."""

    thp: bool

    def highest_order(self, orders: int) -> int:
        return orders.bit_length() - 1 if self.thp else 0

    def next_order(self, orders: int, order: int) -> tuple[int, int]:
        if not self.thp:
            return orders, 0
        orders &= ~(1 << order)
        return orders, self.highest_order(orders)


def invalid(orders: int, huge: Huge) -> bool:
    """Also for the forms that do not test it: a range longer than a cluster is out of domain."""
    return huge.highest_order(orders) > TOP_ORDER


def v3(table: Table, request: Request, huge: Huge) -> FormOutcome:
    out = FormOutcome()
    orders = request.orders
    if invalid(orders, huge):
        out.error = EINVAL
        return out
    order = 0
    if orders:
        orders |= 1
        order = huge.highest_order(orders)
    while True:
        out.error = swap_cache_alloc_order(table, request, order, out, compared=())
        if out.error == OK:
            out.order = order
            return out
        if order == 0 or out.error not in (EBUSY, ENOMEM):
            return out
        out.swpin_fallback |= 1 << order
        orders, order = huge.next_order(orders, order)


def v4(table: Table, request: Request, huge: Huge) -> FormOutcome:
    out = FormOutcome()
    orders = request.orders
    if orders == 0 or invalid(orders, huge):
        out.error = EINVAL
        return out
    order = huge.highest_order(orders)
    while orders:
        out.error = swap_cache_alloc_order(table, request, order, out, compared=())
        if out.error == OK:
            out.order = order
            return out
        if out.error not in (EBUSY, ENOMEM):
            return out
        if order > 0:
            out.swpin_fallback |= 1 << order
        before = orders, order
        orders, order = huge.next_order(orders, order)
        if (orders, order) == before:
            out.fate = NEVER
            return out
    return out


def v4_squash(table: Table, request: Request, huge: Huge) -> FormOutcome:
    out = FormOutcome()
    orders = request.orders
    if orders == 0 or invalid(orders, huge):
        out.error = EINVAL
        return out
    order = huge.highest_order(orders)
    while True:
        if order < 0:
            out.fate = BELOW_0
            return out
        out.error = swap_cache_alloc_order(table, request, order, out, compared=())
        if out.error == OK:
            out.order = order
            return out
        if order == 0 or out.error not in (EBUSY, ENOMEM):
            return out
        out.swpin_fallback |= 1 << order
        orders, order = huge.next_order(orders, order)


def merged(table: Table, request: Request, huge: Huge) -> FormOutcome:
    out = FormOutcome()
    orders = request.orders
    order = huge.highest_order(orders)
    if orders == 0 or invalid(orders, huge):
        out.error = EINVAL
        return out
    while True:
        out.error = swap_cache_alloc_order(table, request, order, out)
        if out.error == OK:
            out.order = order
            return out
        if order == 0 or out.error not in (EBUSY, ENOMEM):
            return out
        out.swpin_fallback |= 1 << order
        orders, order = huge.next_order(orders, order)
        if orders == 0:
            return out


def unsuitable(table: Table, entry: int, order: int) -> set[str]:
    """Why alloc_swap_folio would not try this order: seen without the lock, never counted."""
    cluster, offset = table.find(entry)
    if cluster.slots is None:
        return set()
    first = offset >> order << order
    block = cluster.slots[first : first + (1 << order)]
    reasons = set()
    if any(slot.kind == "bad" for slot in block):
        reasons.add("bad")
    if any(slot.kind == "folio" for slot in block):
        reasons.add("cached")
    if len({slot.zero for slot in block if slot.kind != "bad"}) > 1:
        reasons.add("zero")
    if len({slot.memcg for slot in block}) > 1:
        reasons.add("memcg")
    return reasons


def swap_cache_add_folio(table: Table, request: Request, order: int) -> tuple[int, str]:
    """All slots of the range, from its start: the first that is cached or has no count decides."""
    cluster, offset = table.find(request.entry)
    if cluster.slots is None:
        return ENOENT, "no_table"
    first = offset >> order << order
    block = cluster.slots[first : first + (1 << order)]
    for slot in block:
        if slot.kind == "bad":
            return EBUSY, "bad"
        if slot.kind == "folio":
            return EEXIST, "cached"
        if slot.count == 0:
            return ENOENT, "count"
    for slot in block:
        slot.kind, slot.value = "folio", request.folio
    return OK, ""


def pre_phase4(table: Table, request: Request, huge: Huge) -> FormOutcome:
    out = FormOutcome()
    orders = request.orders
    if invalid(orders, huge):
        out.error = EINVAL
        return out
    candidates = []
    for order in range(TOP_ORDER, 0, -1):
        if huge.thp and (orders >> order) & 1:
            reasons = unsuitable(table, request.entry, order)
            for reason in reasons:
                out.refuse(reason, order)
            if not reasons:
                candidates.append(order)
    for order in [*candidates, 0]:
        if not (request.frames >> order) & 1:
            out.refuse("frame", order)
        elif not (request.charges >> order) & 1:
            out.refuse("charge", order)
            out.thrown += 1
        else:
            out.error, reason = swap_cache_add_folio(table, request, order)
            if out.error:
                out.refuse(reason, order)
                out.thrown += 1
            else:
                out.order = order
            return out
        if order > 0:
            out.swpin_fallback |= 1 << order
    out.error = ENOMEM
    return out


LOOPS: dict[str, Callable[[Table, Request, Huge], FormOutcome]] = {
    "pre-phase4": pre_phase4,
    "v3": v3,
    "v4": v4,
    "v4-squash": v4_squash,
    "merged": merged,
}


def alloc_batch(name: str, table: Table, requests: list[Request]) -> list[FormOutcome]:
    """In index order, in the form of that name (``-nothp``: without transparent huge pages)."""
    huge = Huge(not name.endswith("-nothp"))
    loop = LOOPS[name.removesuffix("-nothp")]
    return [loop(table, request, huge) for request in requests]
