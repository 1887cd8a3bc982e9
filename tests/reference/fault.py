"""Page faults of an access: first touch, the shared zero page; swap-in and copy-on-write have their own
files.

Source: mm/memory.c (handle_pte_fault, do_anonymous_page, alloc_anon_folio), mm/huge_memory.c
(do_huge_pmd_anonymous_page, do_huge_zero_wp_pmd, thp_vma_allowable_orders, thp_vma_suitable_orders); 6.12 to
7.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import memcg, rmap, swapin
from .folio import BLOCK, ORDERS, TOP_ORDER, Page, Process, Vma, size_name

if TYPE_CHECKING:
    from .machine import Machine


def access(m: Machine, process: Process, v: int, write: bool, zero: bool) -> None:
    """One access of page v; `zero` overwrites it with zeros.

    A write to a page with content changes one byte of it: a load, then a store. So a swapped page is read in
    first. A fault is repeated where the charge for it threw the page out.
    """
    m.n["accesses"] += 1
    page = process.pages[v]
    if write and not zero and page.nonzero and page.state == "swapped":
        handle(m, process, v, False)
        m.n["faults"] += not m.oom
        page = process.pages[v]
    while not m.oom and (
        page.state in ("none", "swapped") or (write and (page.state == "zero" or not page.exclusive))
    ):
        handle(m, process, v, write)
        m.n["faults"] += not m.oom
        page = process.pages[v]
    if m.oom:
        return
    if page.state == "present":
        page.touched = True
        if v not in process.tlb:
            page.young = True
            process.used_tables.add(v // BLOCK)
            if m.switch:
                process.tlb.add(v)
        if write:
            page.nonzero = not zero
            assert page.folio is not None
            page.folio.dirty = True


def handle(m: Machine, process: Process, v: int, write: bool) -> None:
    """A page fault, to the return to user mode."""
    m.tick()
    handle_mm_fault(m, process, v, write)
    memcg.handle_over_high(m, process.cgroup)


def handle_mm_fault(m: Machine, process: Process, v: int, write: bool) -> None:
    """Of an anonymous VMA."""
    page, vma = process.pages[v], process.vma(v)
    block = v >> TOP_ORDER
    if write and vma.anon is None:
        vma.anon = m.new_anon_vma()
        memcg.charge_objects(m, process.cgroup)
    if block in process.huge and page.state == "zero":
        if huge_zero_write(m, process, vma, block):
            return
        page = process.pages[v]
    elif block not in process.tables and block not in process.huge:
        if huge_fault(m, process, vma, block, write):
            return
        if not memcg.charge(m, process.cgroup, 1):
            return
        process.tables[block] = process.cgroup
    if page.state == "none" and not write:
        process.pages[v] = Page("zero")
    elif page.state == "none":
        first_touch(m, process, v, vma)
    elif page.state == "zero":
        if (frame := m.small_folio(process.cgroup)) is not None:
            rmap.new_folio(m, process, v, 0, frame)
    elif page.state == "swapped":
        swapin.fault(m, process, v, vma, write)
        page = process.pages[v]
        if not m.oom and write and page.state == "present" and not page.exclusive:
            rmap.write_protect_fault(m, process, v)
    else:
        rmap.write_protect_fault(m, process, v)


# Which orders a VMA may have


def allowed(m: Machine, vma: Vma, orders: int = 0b1_1111_1100) -> int:
    """thp_vma_allowable_orders."""
    if vma.advice == "nohuge":
        return 0
    huge = vma.advice == "huge"
    mask = m.always | (m.madvise if huge else 0)
    if m.thp == "always" or (m.thp == "madvise" and huge):
        mask |= m.inherit
    return mask & orders


def inside(vma: Vma, v: int, order: int) -> bool:
    """thp_vma_suitable_order: the aligned range lies in the VMA."""
    base = v >> order << order
    return vma.start <= base and base + (1 << order) <= vma.end


def edges(vma: Vma, v: int) -> int:
    """thp_vma_suitable_orders."""
    return sum(1 << o for o in ORDERS if inside(vma, v, o))


# 2 MiB


def huge_fault(m: Machine, process: Process, vma: Vma, block: int, write: bool) -> bool:
    """do_huge_pmd_anonymous_page, where no page table is yet. False: go on with small pages.

    A page table is laid by for the day the block is split (pgtable_trans_huge_deposit), and charged like any.
    """
    if not allowed(m, vma, 1 << TOP_ORDER) or not inside(vma, block * BLOCK, TOP_ORDER):
        return False
    if not write:
        if not memcg.charge(m, process.cgroup, 1):
            return True
        process.huge[block] = process.cgroup
        for q in range(block * BLOCK, (block + 1) * BLOCK):
            process.pages[q] = Page("zero")
        return True
    return new_huge_folio(m, process, vma, block, 1)


def new_huge_folio(m: Machine, process: Process, vma: Vma, block: int, tables: int) -> bool:
    """False: there was no memory for it. tables: page tables to lay by."""
    size = size_name(TOP_ORDER)
    frame, why = m.large_folio(TOP_ORDER, vma, process.cgroup)
    if frame is None:
        m.n[f"{size}/anon_fault_fallback"] += 1
        m.n[f"{size}/anon_fault_fallback_charge"] += why == "charge"
        return False
    if tables and not memcg.charge(m, process.cgroup, tables):
        process.cgroup.usage -= BLOCK
        return True
    rmap.new_folio(m, process, block * BLOCK, TOP_ORDER, frame)
    process.huge.setdefault(block, process.cgroup)
    m.n[f"{size}/anon_fault_alloc"] += 1
    return True


def huge_zero_write(m: Machine, process: Process, vma: Vma, block: int) -> bool:
    """do_huge_pmd_wp_page on the 2 MiB zero page. True: a 2 MiB folio took its place."""
    if not m.profile.keep_huge_zero and new_huge_folio(m, process, vma, block, 0):
        return True
    process.split_huge(block)
    return False


# First touch


def first_touch(m: Machine, process: Process, v: int, vma: Vma) -> None:
    """alloc_anon_folio."""
    pages, permitted = process.pages, allowed(m, vma)
    within = permitted & edges(vma, v)
    gaps = 0
    for o in ORDERS:
        base = v >> o << o
        if within >> o & 1 and any(q.state != "none" for q in pages[base : base + (1 << o)]):
            gaps |= 1 << o
    mask = m.decide(process, v, process.cgroup, True, within & ~gaps, within & ~gaps)
    got, frame, failed = 0, None, {"frame": 0, "charge": 0}
    for o in ORDERS:
        if mask >> o & 1:
            frame, why = m.large_folio(o, vma, process.cgroup)
            if frame is not None:
                got = o
                break
            m.n[f"{size_name(o)}/anon_fault_fallback"] += 1
            m.n[f"{size_name(o)}/anon_fault_fallback_charge"] += why == "charge"
            m.give_up(o, why)
            failed[why] |= 1 << o
    if frame is None:
        frame = m.small_folio(process.cgroup)
    if permitted:
        m.learn(v, True, failed["frame"] | failed["charge"], got)
    reasons = {
        "vma_edge": permitted & ~within,
        "pte_gap": gaps,
        "policy": within & ~gaps & ~mask,
        **failed,
    }
    m.refused("touch", reasons, got)
    if frame is None or m.oom:
        return
    if got:
        m.n[f"{size_name(got)}/anon_fault_alloc"] += 1
    rmap.new_folio(m, process, v >> got << got, got, frame)
