"""One folio at a time into the swap cache: what mm/swap_state.c of Linux 7.2 / 7.3 decides, in plain Python.

Twin of jaxswap.swaptable (entry, planes, check, alloc). Names follow the kernel's where there is one; nothing
here imports the code it judges. A bad slot inside a checked range never happens in the kernel; here it gives
-EBUSY.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SLOTS = 512
TOP_ORDER = 9
OK, ENOENT, ENOMEM, EBUSY, EEXIST, EINVAL = 0, -2, -12, -16, -17, -22


@dataclass
class Slot:
    kind: str = "free"  # free, shadow, folio, bad
    count: int = 0
    zero: bool = False
    value: int = 0
    memcg: int = 0


def slot_from_word(word: int, memcg: int = 0) -> Slot:
    kind = ("free", "shadow", "folio", "bad")[word % 4]
    return Slot(kind, word >> 28, bool((word >> 27) & 1), (word >> 2) % (1 << 25), memcg)


def word_from_slot(slot: Slot) -> int:
    number = ("free", "shadow", "folio", "bad").index(slot.kind)
    if slot.kind in ("free", "bad"):
        return number
    return (slot.count << 28) | (int(slot.zero) << 27) | ((slot.value % (1 << 25)) << 2) | number


@dataclass
class Cluster:
    """512 slots; ``slots`` is None where the kernel has freed the table."""

    slots: list[Slot] | None


@dataclass
class Table:
    clusters: list[Cluster]

    def find(self, entry: int) -> tuple[Cluster, int]:
        return self.clusters[entry // SLOTS], entry % SLOTS


def table_from_words(words, memcg, has_table) -> Table:
    """From rows of 512 words and ids."""
    clusters = []
    for row, ids, has in zip(words, memcg, has_table, strict=True):
        slots = [slot_from_word(int(w), int(m)) for w, m in zip(row, ids, strict=True)]
        clusters.append(Cluster(slots if has else None))
    return Table(clusters)


@dataclass
class Checked:
    error: int
    shadow: int = 0  # the target's, 0 if the check ended before it was read
    memcg: int = 0
    reasons: set[str] = field(default_factory=set)


def swap_cache_add_check(
    cluster: Cluster, offset: int, nr: int, second: bool, compared: Sequence[str] = ("zero", "memcg")
) -> Checked:
    """``second``: the form used after the folio exists, which also hands out shadow and memcg id and compares
    ids. ``compared``: what must be the same over the range.
    """
    if cluster.slots is None:
        return Checked(ENOENT, reasons={"no_table"})
    target = cluster.slots[offset]
    if target.kind == "bad":
        return Checked(EBUSY, reasons={"bad"})
    if target.kind == "folio":
        return Checked(EEXIST, reasons={"cached"})
    if target.count == 0:
        return Checked(ENOENT, reasons={"count"})
    result = Checked(OK)
    if second:
        result.shadow = target.value
        result.memcg = target.memcg
    if nr == 1:
        return result
    first = offset - offset % nr
    for slot in cluster.slots[first : first + nr]:
        # the kernel leaves at the first slot that fails any of these; all reasons of the range are gathered
        # here
        if slot.kind == "bad":
            result.reasons.add("bad")
            continue
        if slot.kind == "folio":
            result.reasons.add("cached")
        if slot.count == 0:
            result.reasons.add("count")
        if "zero" in compared and slot.zero != target.zero:
            result.reasons.add("zero")
        if "memcg" in compared and second and slot.memcg != target.memcg:
            result.reasons.add("memcg")
    if result.reasons:
        result.error = EBUSY
    return result


@dataclass
class Request:
    entry: int
    orders: int  # mask offered to the loop
    frames: int = (1 << 10) - 1  # orders for which a page frame can be had
    charges: int = (1 << 10) - 1  # orders whose memcg charge succeeds
    folio: int = 0  # value written to the slots


@dataclass
class Outcome:
    error: int = OK
    order: int = -1
    swpin_fallback: int = 0  # mask of orders counted
    refused: dict[str, int] = field(default_factory=dict)  # reason -> mask of orders
    thrown: int = 0  # folios allocated and given back

    def refuse(self, reason: str, order: int) -> None:
        self.refused[reason] = self.refused.get(reason, 0) | (1 << order)


def swap_cache_alloc_order(
    table: Table,
    request: Request,
    order: int,
    outcome: Outcome,
    compared: Sequence[str] = ("zero", "memcg"),
) -> int:
    """One attempt: check, frame, check again, insert, charge."""
    nr = 1 << order
    cluster, offset = table.find(request.entry)
    checked = swap_cache_add_check(cluster, offset, nr, False, compared)
    if checked.error:
        for reason in checked.reasons:
            outcome.refuse(reason, order)
        return checked.error
    if not (request.frames >> order) & 1:
        outcome.refuse("frame", order)
        return ENOMEM
    checked = swap_cache_add_check(cluster, offset, nr, True, compared)
    if checked.error:
        for reason in checked.reasons:
            outcome.refuse(reason, order)
        outcome.thrown += 1
        return checked.error
    assert cluster.slots is not None
    first = offset - offset % nr
    block = cluster.slots[first : first + nr]
    for slot in block:
        slot.kind, slot.value = "folio", request.folio
    if not (request.charges >> order) & 1:
        outcome.refuse("charge", order)
        outcome.thrown += 1
        for slot in block:
            slot.kind, slot.value = "shadow", checked.shadow
        return ENOMEM
    return OK


def swap_cache_alloc_folio(table: Table, request: Request) -> Outcome:
    """The merged loop: from the highest order down until one works, order 0 is reached, or the target is
    hopeless.
    """
    outcome = Outcome()
    orders = request.orders
    order = orders.bit_length() - 1
    if orders == 0 or order > TOP_ORDER:
        outcome.error = EINVAL
        return outcome
    while True:
        error = swap_cache_alloc_order(table, request, order, outcome)
        outcome.error = error
        if error == OK:
            outcome.order = order
            return outcome
        if order == 0 or error not in (EBUSY, ENOMEM):
            return outcome
        outcome.swpin_fallback |= 1 << order
        orders &= ~(1 << order)
        if orders == 0:
            return outcome
        order = orders.bit_length() - 1


def swap_cache_alloc_batch(table: Table, requests: list[Request]) -> list[Outcome]:
    """In index order."""
    return [swap_cache_alloc_folio(table, request) for request in requests]
