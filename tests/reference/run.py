"""Run a workload on the reference machine; print what a recording prints."""

from __future__ import annotations

from collections.abc import Iterator

from jaxswap.workload import Kind, Workload

from .machine import Machine, Vma


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
                    piece = Vma(a, b, vma.advice)
                    if start <= a < end:
                        inside.append((piece, owner))
                    else:
                        kept.append(piece)
                        mapping[a] = owner
        self.vmas, self.mapping = kept, mapping
        return inside

    def map(self, start: int, end: int, advice: str) -> None:
        self._carve(start, end)
        self.made += 1
        self._insert([(Vma(start, end, advice), self.made)])

    def unmap(self, start: int, end: int) -> None:
        self._carve(start, end)

    def advise(self, start: int, end: int, advice: str) -> None:
        self._insert([(Vma(p.start, p.end, advice), owner) for p, owner in self._carve(start, end)])

    def _insert(self, pieces: list[tuple[Vma, int]]) -> None:
        for vma, owner in pieces:
            self.vmas.append(vma)
            self.mapping[vma.start] = owner
        self.vmas.sort(key=lambda vma: vma.start)
        merged: list[Vma] = []
        for vma in self.vmas:
            last = merged[-1] if merged else None
            if (
                last
                and last.end == vma.start
                and last.advice == vma.advice
                and self.mapping[last.start] == self.mapping[vma.start]
            ):
                last.end = vma.end
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


def step(machine: Machine, regions: Regions, kind: Kind, v: int, n: int, text: str) -> None:
    """One operation of the text form."""
    machine.vmas = regions.vmas
    if kind in (Kind.TOUCH, Kind.READ, Kind.ZERO):
        for page in range(v, v + n):
            machine.access(page, kind is not Kind.READ, kind is Kind.ZERO)
    elif kind is Kind.WILLNEED:
        for page in range(v, v + n):
            machine.will_need(page)
    elif kind is Kind.MAP:
        regions.map(v, v + n, text)
    elif kind in (Kind.MADVHUGE, Kind.MADVNOHUGE):
        regions.advise(v, v + n, "huge" if kind is Kind.MADVHUGE else "nohuge")
    else:
        pieces = list(regions.cut(v, v + n))
        act = {
            Kind.DONTNEED: machine.dont_need,
            Kind.UNMAP: machine.dont_need,
            Kind.PAGEOUT: machine.page_out,
            Kind.COLD: machine.cold,
        }[kind]
        for start, end in pieces:
            act(start, end)
        if kind is Kind.UNMAP:
            regions.unmap(v, v + n)


def dump(machine: Machine) -> list[tuple]:
    """The runs of a DUMP: (state, start, length, type, offset)."""
    runs: list[tuple] = []
    start = 0
    pages = machine.pages

    def same(a: int, b: int) -> bool:
        x, y = pages[a], pages[b]
        if "swapped" in (x.state, y.state):
            return x.state == y.state and y.slot - x.slot == b - a
        return (x.state == "none") == (y.state == "none")

    for v in range(1, len(pages) + 1):
        if v == len(pages) or not same(v - 1, v):
            page = pages[start]
            if page.state == "swapped":
                runs.append(("S", start, v - start, 0, page.slot))
            else:
                runs.append(("N" if page.state == "none" else "P", start, v - start, 0, 0))
            start = v
    return runs


def folios(machine: Machine) -> list[tuple]:
    """The runs of FOLIOS: ("F", head, mapped pages), ("TAIL", page, 1), ("s", start, length)."""
    runs: list[tuple] = []
    v, pages = 0, machine.pages

    def small(q: int) -> bool:
        page = pages[q]
        return page.state == "zero" or (page.state == "present" and page.folio.order == 0)

    while v < len(pages):
        page, end = pages[v], v + 1
        if page.state in ("none", "swapped"):
            v += 1
            continue
        if small(v):
            while end < len(pages) and small(end):
                end += 1
            runs.append(("s", v, end - v))
        elif page.folio.base == v:
            while end < len(pages) and pages[end].state == "present" and pages[end].folio is page.folio:
                end += 1
            runs.append(("F", v, end - v))
        else:
            runs.append(("TAIL", v, 1))
        v = end
    return runs


def run(workload: Workload, machine: Machine) -> Iterator[tuple[str, str, object]]:
    """Every DUMP, FOLIOS and STATS block of the workload, in order."""
    regions = Regions(workload)
    for i in range(workload.kind.size):
        kind = Kind(workload.kind[i])
        text = workload.text.get(i, "")
        if kind is Kind.DUMP:
            yield "DUMP", text, dump(machine)
        elif kind is Kind.FOLIOS:
            yield "FOLIOS", text, folios(machine)
        elif kind is Kind.STATS:
            yield "STATS", text, machine.n.copy()
        elif kind not in (Kind.ECHO, Kind.SET):
            step(machine, regions, kind, int(workload.v[i]), int(workload.n[i]), text)
