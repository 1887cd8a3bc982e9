"""What the reference machine is made of: folios, page-table entries, VMAs, processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .cgroup import Cgroup

BLOCK = 512  # pages of a page table, 2 MiB
TOP_ORDER = 9  # of a 2 MiB folio
FLUSH_CEILING = 33  # pages that are flushed from the TLB one by one (tlb_single_page_flush_ceiling)
ORDERS = range(8, 1, -1)  # what one fault may bring in beside order 0 (order 9 is a page-table matter)


def size_name(order: int) -> str:
    """Folder name of the size in sysfs, without its prefix."""
    return f"{4 << order}kB"


@dataclass(eq=False)
class Folio:
    """2^order pages of memory, aligned in the address space to their number.

    maps: who maps it: process number -> its pages. place: (device, first slot) while it is in the swap cache.
    dirty: its slots, if any, do not hold its content. partial: some page lost its last mapping while others
    kept theirs (it waits on the deferred split list). readahead: read ahead and not used yet. used: it
    was mapped at some time. owners, owned, marked_shared: the two processes that the kernel remembers as
    mapping a large folio, how many mappings it ascribes to each, and whether it holds the folio for shared
    (_mm_id, _mm_id_mapcount, _mm_ids). refs: accesses beyond PG_referenced (LRU_REFS_MASK); gen: sequence
    number of its generation, None off the lists; both of the multi-gen LRU. waits: in a per-CPU batch on its
    way to a list. nonzero: content of a folio that is not mapped. frame: its first page frame, if that is
    modelled. memcg: the cgroup it is charged to.
    """

    base: int
    order: int
    maps: dict[int, set[int]] = field(default_factory=dict)
    place: tuple[int, int] | None = None
    dirty: bool = True
    partial: bool = False
    readahead: bool = False
    used: bool = True
    owners: list[int | None] = field(default_factory=lambda: [None, None])
    owned: list[int] = field(default_factory=lambda: [0, 0])
    marked_shared: bool = False
    active: bool = False
    referenced: bool = False
    workingset: bool = False
    refs: int = 0
    gen: Any = None
    waits: bool = False
    nonzero: bool = False
    frame: int | None = None
    memcg: Any = None
    prev: Any = None
    next: Any = None

    @property
    def nr(self) -> int:
        return 1 << self.order

    @property
    def mapcount(self) -> int:
        return sum(map(len, self.maps.values()))

    @property
    def gone(self) -> bool:
        """Nobody maps it and it is not in the swap cache."""
        return not self.maps and self.place is None

    def mapped_by_someone(self, v: int) -> bool:
        return any(v in pages for pages in self.maps.values())

    def slot(self, v: int) -> tuple[int, int]:
        """(device, slot) of page v of a folio in the swap cache."""
        assert self.place is not None
        return self.place[0], self.place[1] + v - self.base


@dataclass
class Page:
    """A page-table entry. state: none, zero (shared zero page), present or swapped.

    folio: of a present page; device, slot: of a swapped one. exclusive: the page belongs to this process
    alone (PageAnonExclusive, or the bit of the swap entry); a present page that is not exclusive is write-
    protected. nonzero: content. touched, swapped_in, large: accessed since it arrived, arrived from swap, in
    a large folio.
    """

    state: str = "none"
    folio: Folio | None = None
    device: int = 0
    slot: int = -1
    exclusive: bool = True
    nonzero: bool = False
    young: bool = False
    touched: bool = False
    swapped_in: bool = False
    large: bool = False


@dataclass
class Vma:
    """readahead: (page of the last fault, window, hits), None before the first (swap_readahead_info). anon:
    number of its anon_vma, None before the first page of its own; forked: it came with one from a fork.
    """

    start: int
    end: int
    advice: str
    readahead: tuple[int, int, int] | None = None
    anon: int | None = None
    forked: bool = False

    def mergeable(self, other: Vma) -> bool:
        """is_mergeable_anon_vma."""
        if self.anon is not None and other.anon is not None:
            return self.anon == other.anon
        return not self.forked and not other.forked


@dataclass
class Process:
    """One address space, in a cgroup.

    tables: 2 MiB blocks with a page table, and the cgroup that is charged for it. huge: blocks mapped by one
    entry instead (a 2 MiB folio or the 2 MiB zero page), likewise with the page table laid by; a block is in
    at most one of the two. used_tables: blocks accessed since a walk looked.
    tlb: pages whose translation the CPU has: an access of one sets no accessed bit.
    """

    number: int
    pages: list[Page]
    cgroup: Cgroup
    vmas: list[Vma] = field(default_factory=list)
    tables: dict[int, Cgroup] = field(default_factory=dict)
    huge: dict[int, Cgroup] = field(default_factory=dict)
    used_tables: set[int] = field(default_factory=set)
    tlb: set[int] = field(default_factory=set)

    def vma(self, v: int) -> Vma:
        return next(vma for vma in self.vmas if vma.start <= v < vma.end)

    def split_huge(self, block: int) -> None:
        """__split_huge_pmd: the block gets a page table; its pages stay."""
        if block in self.huge:
            self.tables[block] = self.huge.pop(block)

    def flush_tlb(self, start: int, end: int) -> None:
        """flush_tlb_range: page by page, or everything."""
        if end - start > FLUSH_CEILING:
            self.tlb.clear()
        elif self.tlb:
            self.tlb.difference_update(range(start, end))
