"""fork and exit.

Source: mm/memory.c (copy_page_range, copy_present_ptes, copy_nonpresent_pte), mm/huge_memory.c
(copy_huge_pmd); 6.12 to 7.3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import memcg, rmap, zap
from .folio import BLOCK, Process

if TYPE_CHECKING:
    from .machine import Machine


def fork(m: Machine, parent: Process, number: int) -> None:
    """The child maps what the parent maps; nothing is exclusive any more, on either side. The
    parent's cgroup is its too, and pays for its page tables.
    """
    parent.tlb.clear()
    cgroup = parent.cgroup
    tables, huge = dict.fromkeys(parent.tables, cgroup), dict.fromkeys(parent.huge, cgroup)
    child = Process(number, [], cgroup, [], tables, huge)
    for v, page in enumerate(parent.pages):
        if page.state in ("present", "swapped"):
            page.exclusive = False
        copy = replace(page, touched=False, young=page.young)
        child.pages.append(copy)
        if page.state == "present":
            assert page.folio is not None
            rmap.add(page.folio, child, v)
        elif page.state == "swapped":
            m.swap.raise_count((page.device, page.slot))
    m.processes[number] = cgroup.processes[number] = child
    for _ in (*child.tables, *child.huge):
        memcg.charge(m, cgroup, 1)


def exit_process(m: Machine, process: Process) -> None:
    """exit_mmap: every page, ascending, VMA by VMA."""
    gathered = zap.Gathered()
    for vma in process.vmas:
        at = vma.start
        while at < vma.end:
            end = min(at // BLOCK * BLOCK + BLOCK, vma.end)
            zap.zap(m, process, at, end, True, gathered)
            at = end
    gathered.finish(m)
    for cgroup in (*process.tables.values(), *process.huge.values()):
        memcg.uncharge_table(cgroup)
    if m.lru == "mglru":
        for cgroup in m.cgroups.values():
            cgroup.lists.forget(process.number, exits=True)
    del m.processes[process.number], process.cgroup.processes[process.number]
