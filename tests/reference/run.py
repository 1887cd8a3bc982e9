"""Run a workload on the reference machine; print what a recording prints."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jaxswap.errors import InputError
from jaxswap.workload import Kind, Workload

from . import fault, fork, madvise, memcg, readahead, settings, zap
from .folio import Process, Vma
from .future import Future
from .machine import Machine


class Regions:
    """The VMAs of a workload: mappings, cut where the advice changes."""

    def __init__(self, workload: Workload):
        whole = workload.kind.size == 0 or Kind(workload.kind[0]) is not Kind.MAP
        self.vmas = [Vma(0, workload.npages, workload.advice)] if whole else []
        self.mapping = {0: 0} if whole else {}  # VMA start -> mapping it belongs to
        self.made = 0

    def _carve(self, start: int, end: int) -> list[tuple[Vma, int]]:
        """Cut the VMAs at both borders; take out and return those inside."""
        inside, kept, mapping = [], [], {}
        for vma in self.vmas:
            owner = self.mapping[vma.start]
            for a, b in (
                (vma.start, min(vma.end, start)),
                (max(vma.start, start), min(vma.end, end)),
                (max(vma.start, end), vma.end),
            ):
                if a < b:
                    piece = replace(vma, start=a, end=b)
                    if start <= a < end:
                        inside.append((piece, owner))
                    else:
                        kept.append(piece)
                        mapping[a] = owner
        self.vmas, self.mapping = kept, mapping
        return inside

    def map(self, start: int, end: int, advice: str) -> None:
        """One VMA. Pages that were mapped before stay: it has grown over them and keeps their anon_vma."""
        anon = next((vma.anon for vma, _ in self._carve(start, end) if vma.anon is not None), None)
        self.made += 1
        self._insert([(Vma(start, end, advice, anon=anon), self.made)])

    def unmap(self, start: int, end: int) -> None:
        self._carve(start, end)

    def advise(self, start: int, end: int, advice: str) -> None:
        self._insert([(replace(p, advice=advice), owner) for p, owner in self._carve(start, end)])

    def _insert(self, pieces: list[tuple[Vma, int]]) -> None:
        """Put pieces in and merge what has become alike: into the VMA before, else into the one after
        (vma_merge); the VMA that grows keeps its readahead.
        """
        for vma, owner in pieces:
            self.vmas.append(vma)
            self.mapping[vma.start] = owner
        fresh = {id(vma) for vma, _ in pieces}
        self.vmas.sort(key=lambda vma: vma.start)
        merged: list[Vma] = []
        for vma in self.vmas:
            last = merged[-1] if merged else None
            if (
                last
                and last.end == vma.start
                and last.advice == vma.advice
                and self.mapping[last.start] == self.mapping[vma.start]
                and last.mergeable(vma)
            ):
                last.end = vma.end
                last.anon = vma.anon if last.anon is None else last.anon
                if id(last) in fresh and id(vma) not in fresh:
                    last.readahead = vma.readahead
                fresh.discard(id(last))
            else:
                merged.append(vma)
        self.vmas = merged

    def cut(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Pieces of a range inside one VMA and one 2 MiB block."""
        for vma in self.vmas:
            at = max(vma.start, start)
            while at < min(vma.end, end):
                stop = min((at // 512 + 1) * 512, vma.end, end)
                yield at, stop
                at = stop


class Runner:
    """A workload on a machine, operation by operation. regions: the VMAs of each process."""

    def __init__(self, workload: Workload, machine: Machine):
        self.workload, self.machine = workload, machine
        if machine.policy == "clairvoyant":
            machine.future = Future(workload)
        self.regions = {0: Regions(workload)}
        self.update(0)

    def update(self, process: int) -> None:
        """Hand the machine the VMAs of a process."""
        self.machine.processes[process].vmas = self.regions[process].vmas

    def step(self, i: int) -> None:
        """Operation i, then the work it left to the kernel."""
        self._step(i)
        memcg.handle_over_high(self.machine, self.machine.running.cgroup)
        for device in self.machine.swap.devices:
            device.discard_pending()

    def _step(self, i: int) -> None:
        workload, m = self.workload, self.machine
        kind, v, n = Kind(workload.kind[i]), int(workload.v[i]), int(workload.n[i])
        number, m.cpu = int(workload.process[i]), int(workload.cpu[i])
        if kind is Kind.STATS and m.flush != 0:
            m.flush_all_statistics()
        if m.oom or kind in (Kind.DUMP, Kind.FOLIOS, Kind.STATS, Kind.ECHO):
            return
        process, regions = m.processes[number], self.regions[number]
        m.running = process
        if kind in (Kind.TOUCH, Kind.READ, Kind.ZERO):
            for page in range(v, v + n):
                if not m.oom:
                    fault.access(m, process, page, kind is not Kind.READ, kind is Kind.ZERO)
                m.now += 1
        elif kind is Kind.WILLNEED:
            for page in range(v, v + n):
                if not m.oom:
                    readahead.will_need(m, process, page)
        elif kind is Kind.SET:
            try:
                settings.write(m, *workload.text[i].split())
            except ValueError as wrong:
                where = f"{workload.path or workload.name}:{int(workload.line[i])}"
                raise InputError(f"{where}: {wrong}") from None
        elif kind is Kind.FORK:
            fork.fork(m, process, v)
            self.regions[v] = copy.deepcopy(regions)
            for vma in self.regions[v].vmas:
                if vma.anon is not None:
                    vma.anon, vma.forked = m.new_anon_vma(), True
            self.update(v)
        elif kind is Kind.CGROUP:
            m.move(process, workload.text[i])
        elif kind is Kind.EXIT:
            fork.exit_process(m, process)
        elif kind is Kind.MAP:
            regions.map(v, v + n, workload.text[i])
            self.update(number)
        elif kind in (Kind.MADVHUGE, Kind.MADVNOHUGE):
            memcg.charge_objects(m, process.cgroup)
            regions.advise(v, v + n, "huge" if kind is Kind.MADVHUGE else "nohuge")
            self.split_at_borders(process)
            self.update(number)
        else:
            gathered = zap.Gathered()
            for start, end in list(regions.cut(v, v + n)):
                if m.oom:
                    break
                if kind is Kind.PAGEOUT:
                    madvise.page_out(m, process, start, end)
                elif kind is Kind.COLD:
                    madvise.cold(m, process, start, end)
                else:
                    whole = kind is Kind.UNMAP or m.profile.reclaim_tables
                    if (
                        not m.profile.gathers_calls
                        and kind is Kind.DONTNEED
                        and start == process.vma(start).start
                    ):
                        gathered.finish(m)
                    zap.zap(m, process, start, end, whole, gathered)
            gathered.finish(m)
            if kind is Kind.UNMAP:
                regions.unmap(v, v + n)
                self.split_at_borders(process)
                self.update(number)

    def split_at_borders(self, process: Process) -> None:
        """vma_adjust_trans_huge: a VMA that ends inside a block mapped by one entry splits it."""
        for vma in self.regions[process.number].vmas:
            for at in (vma.start, vma.end):
                if at % 512:
                    process.split_huge(at // 512)

    def blocks(self) -> Iterator[tuple[str, str, Any]]:
        """Run everything; every DUMP, FOLIOS, STATS and ECHO as a recording has it."""
        for i in range(len(self.workload)):
            self.step(i)
            kind, text = Kind(self.workload.kind[i]), self.workload.text.get(i, "")
            process = self.machine.processes.get(int(self.workload.process[i]))
            if kind is Kind.DUMP and process:
                yield "DUMP", text, dump(process)
            elif kind is Kind.FOLIOS and process:
                yield "FOLIOS", text, folios(process)
            elif kind is Kind.STATS:
                yield "STATS", text, stats(self.machine.n)
            elif kind is Kind.ECHO:
                yield "ECHO", text, None


def stats(n: Counter[str]) -> dict[str, dict[str, int]]:
    """The groups of a STATS block."""
    groups: dict[str, dict[str, int]] = {"vmstat": {}}
    for name, value in n.items():
        size, slash, counter = name.partition("/")
        if not slash:
            groups["vmstat"][name] = value
        elif size.endswith("kB"):
            groups.setdefault(size, {})[counter] = value
    return groups


def dump(process: Process) -> list[tuple]:
    """The runs of a DUMP: (state, start, length, type, offset)."""
    runs: list[tuple] = []
    start = 0
    pages = process.pages

    def same(a: int, b: int) -> bool:
        x, y = pages[a], pages[b]
        if "swapped" in (x.state, y.state):
            return x.state == y.state and x.device == y.device and y.slot - x.slot == b - a
        return (x.state == "none") == (y.state == "none")

    for v in range(1, len(pages) + 1):
        if v == len(pages) or not same(v - 1, v):
            page = pages[start]
            if page.state == "swapped":
                runs.append(("S", start, v - start, page.device, page.slot))
            else:
                runs.append(("N" if page.state == "none" else "P", start, v - start, 0, 0))
            start = v
    return runs


def folios(process: Process) -> list[tuple]:
    """The runs of FOLIOS: ("F", head, mapped pages), ("TAIL", page, 1), ("s", start, length)."""
    runs: list[tuple] = []
    v, pages = 0, process.pages

    def small(q: int) -> bool:
        page = pages[q]
        return page.state == "zero" or (page.folio is not None and page.folio.order == 0)

    while v < len(pages):
        page, end = pages[v], v + 1
        if page.state in ("none", "swapped"):
            v += 1
            continue
        if page.state == "zero" and v >> 9 in process.huge:
            end = v + 512
            runs.append(("F", v, 512))
        elif small(v):
            while end < len(pages) and small(end) and end >> 9 not in process.huge:
                end += 1
            runs.append(("s", v, end - v))
        elif page.folio is not None and page.folio.base == v:
            while end < len(pages) and pages[end].state == "present" and pages[end].folio is page.folio:
                end += 1
            runs.append(("F", v, end - v))
        else:
            runs.append(("TAIL", v, 1))
        v = end
    return runs
