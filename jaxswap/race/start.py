"""Who takes part in an interleaving, and from where: actors, their targets, and starts that differ.

Actors and the kernel functions they walk, Linux 7.2 / 7.3: ``fault`` mm/memory.c ``do_swap_page`` with
mm/swap_state.c ``swapin_sync``; ``readahead`` mm/swap_state.c ``swap_cache_read_folio``; ``zswap`` mm/zswap.c
``zswap_writeback_entry``; ``shmem`` ``swapin_sync`` with one order bit, as mm/shmem.c calls it; ``freeing``
mm/memory.c ``zap_pte_range`` (exit, MADV_DONTNEED) with mm/swapfile.c ``swap_put_entries_direct``;
``swapout`` mm/swapfile.c ``folio_alloc_swap`` to mm/vmscan.c ``__remove_mapping``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from jaxswap.errors import InputError

KINDS = ("fault", "readahead", "zswap", "shmem", "freeing", "swapout")
SINGLE = ("readahead", "zswap")
"""Kinds that ask for order 0 only."""
RANGES = ("freeing", "swapout")
"""Kinds that act on a whole aligned range."""
MOST_ACTORS = 4
MOST_SLOTS = 16


@dataclass(frozen=True)
class Actor:
    """One request."""

    kind: str
    target: int
    """Slot, which is also the page; of freeing and swapout the first of its range."""
    orders: int
    """Mask of orders offered; one bit for shmem; of freeing and swapout the one bit of the order of its
    range."""

    @property
    def order(self) -> int:
        """The highest order."""
        return self.orders.bit_length() - 1


Start = tuple[Actor, ...]


def _check_size(kinds: Sequence[str], slots: int, orders: int) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"actor: {kind!r} is none of {', '.join(KINDS)}")
    if not 1 <= len(kinds) <= MOST_ACTORS:
        raise InputError(f"actors: {len(kinds)} with the faulting CPUs; give 1 to {MOST_ACTORS}")
    if slots not in (1, 2, 4, 8, 16):
        raise InputError(f"slots: {slots} is none of 1, 2, 4, 8, {MOST_SLOTS}")
    if not orders & 1 or orders.bit_length() > slots.bit_length():
        raise InputError(f"orders: need order 0 and none of more than {slots} slots")


def starts(kinds: Sequence[str], slots: int, orders: int) -> list[Start]:
    """Every choice of targets, and of orders for shmem and ranges, that differs.

    Only how targets lie to each other matters: which half of an aligned block is left and which right does
    not, nor which of two actors of a kind comes first. So of starts that are the same in that sense one is
    kept. kinds: 1 to 4 of :data:`KINDS`. slots: 1, 2, 4, 8 or 16. orders: mask with order 0. InputError.
    """
    _check_size(kinds, slots, orders)
    seen: dict[tuple, Start] = {}
    for start in product(*(_choices(kind, slots, orders) for kind in kinds)):
        seen.setdefault(likeness(start), start)
    return list(seen.values())


def likeness(start: Start) -> tuple:
    """Equal for starts that are the same but for left and right, and for the numbers of actors of a kind."""
    return min(_relations([start[i] for i in turn]) for turn in permutations(range(len(start))))


def _choices(kind: str, slots: int, orders: int) -> Iterator[Actor]:
    bits = [1 << order for order in range(orders.bit_length()) if orders >> order & 1]
    if kind == "fault":
        masks = [orders]
    elif kind in SINGLE:
        masks = [1]
    else:
        masks = bits
    for mask in masks:
        step = mask if kind in RANGES else 1
        for target in range(0, slots, step):
            yield Actor(kind, target, mask)


def _relations(start: Sequence[Actor]) -> tuple:
    """What each actor is, and the order of the smallest aligned block that holds two of them."""
    sizes = [actor.order if actor.kind in RANGES else 0 for actor in start]
    common = [
        max(sizes[a], sizes[b], (start[a].target ^ start[b].target).bit_length())
        for b in range(len(start))
        for a in range(b)
    ]
    return tuple((actor.kind, actor.orders) for actor in start), tuple(common)
