"""The lackey importer once more, a line at a time over plain dictionaries: the oracle of the bulk one."""

import re

import numpy as np

from jaxswap.workload.text import Kind

STACK_TOP, STACK_MOST, STACK_FIRST = 0x1FFF001, 4096, 33
WRITES = {"read": 1, "pread64": 1, "recvfrom": 1, "getdents64": 1, "getrandom": 0}
READS = {"write": 1, "pwrite64": 1, "sendto": 1}
ADVICE_OPERATIONS = {3: Kind.WILLNEED, 4: Kind.DONTNEED, 8: Kind.DONTNEED, 20: Kind.COLD, 21: Kind.PAGEOUT}
ADVICE_OPERATIONS[24] = Kind.DONTNEED


class Twin:
    """Import `log`; the operations are in .operations as (kind, page space v, n, advice)."""

    def __init__(self, log: str, entries: int) -> None:
        self.entries = entries
        self.attributes: dict[
            int, tuple
        ] = {}  # page -> (protection, flags, advice); a VMA is a run of equal ones
        self.reserved: dict[int, tuple] = {}
        self.recent: list[int] = []
        self.written: set[int] = set()
        self.touched: set[int] = set()
        self.blocks: set[int] = set()
        self.rows: list[list] = []  # [kind, page, n, advice]
        self.raw = self.anonymous = self.passed = 0
        self.stack_top = self.brk_end = self.brk_start = 0
        self.waiting: dict[str, tuple[str, list[int]]] = {}
        self.process = ""
        for line in log.splitlines():
            access = re.fullmatch(r" ([LSM]) ([0-9a-f]+),(\d+)", line)
            if access:
                address, size = int(access[2], 16), int(access[3])
                self.raw += 1
                for page in range(address >> 12, (address + size - 1 >> 12) + 1):
                    self.access(page, access[1] != "L", counted=True)
            elif line.startswith("SYSCALL"):
                self.call(line)
        self.place()

    def access(self, page: int, write: bool, counted: bool) -> None:
        if not self.stack_top:
            self.stack_top = STACK_TOP if STACK_TOP - STACK_MOST <= page < STACK_TOP else page + 1
            self.stack_start = self.stack_top
            self.grow_stack(self.stack_top - STACK_FIRST)
        stack = self.stack_top - STACK_MOST <= page < self.stack_top
        if not stack and page not in self.attributes:
            return
        self.anonymous += counted
        if stack and page < self.stack_start:
            self.grow_stack(page)
        if page in self.recent:
            self.recent.remove(page)
            hit = not write or page in self.written
        else:
            self.written.discard(page)
            hit = False
        self.recent.append(page)
        if write:
            self.written.add(page)
        if len(self.recent) > self.entries:
            self.written.discard(self.recent.pop(0))
        if hit:
            return
        self.passed += 1
        self.touched.add(page)
        last = self.rows[-1] if self.rows else [None, 0, 0, ""]
        kind = Kind.TOUCH if write else Kind.READ
        if last[0] == kind and last[1] + last[2] == page:
            last[2] += 1
        else:
            self.rows.append([kind, page, 1, ""])

    def grow_stack(self, start: int) -> None:
        before = self.vmas()
        self.attributes.update((page, (3, 0x100, "plain")) for page in range(start, self.stack_start))
        self.stack_start = start
        self.tell(before)

    def vmas(self) -> list[tuple[int, int, str]]:
        runs: list[tuple[int, int, str]] = []
        last = None
        for page in sorted(self.attributes):
            if runs and runs[-1][1] == page and last == self.attributes[page]:
                runs[-1] = (runs[-1][0], page + 1, runs[-1][2])
            else:
                runs.append((page, page + 1, self.attributes[page][2]))
            last = self.attributes[page]
        return runs

    def tell(self, before: list[tuple[int, int, str]]) -> None:
        for start, end, advice in self.vmas():
            if (start, end, advice) not in before:
                self.rows.append([Kind.MAP, start, end - start, advice])
                self.blocks.update(page >> 9 for page in range(start, end))

    def map(self, start: int, end: int, attributes: tuple) -> None:
        self.unmap(start, end)
        before = self.vmas()
        self.attributes.update((page, attributes) for page in range(start, end))
        self.tell(before)

    def unmap(self, start: int, end: int) -> None:
        for low, high in self.parts(start, end):
            self.forget(low, high)
            self.rows.append([Kind.UNMAP, low, high - low, ""])
        for page in range(start, end):
            self.attributes.pop(page, None)
            self.reserved.pop(page, None)

    def parts(self, start: int, end: int) -> list[tuple[int, int]]:
        parts: list[tuple[int, int]] = []
        for page in range(start, end):
            if page in self.attributes:
                if parts and parts[-1][1] == page:
                    parts[-1] = (parts[-1][0], page + 1)
                else:
                    parts.append((page, page + 1))
        return parts

    def forget(self, start: int, end: int) -> None:
        self.recent = [page for page in self.recent if not start <= page < end]
        self.touched -= set(range(start, end))

    def call(self, line: str) -> None:
        head = re.match(r"SYSCALL\[(\d+),(\d+)\]\( *\d+\) (.*)", line)
        assert head
        self.process = self.process or head[1]
        if head[1] != self.process:
            return
        if head[3].startswith("..."):
            started = self.waiting.pop(head[2], None)
        else:
            name = re.match(r"(?:sys_)?(\w+) ?\(([^)]*)\)", head[3])
            started = (
                (name[1], [int(a, 0) for a in re.findall(r"0x[0-9a-f]+|\d+", name[2])]) if name else None
            )
            self.waiting.pop(head[2], None)
            if "[async]" in head[3]:
                if started:
                    self.waiting[head[2]] = started
                return
        result = re.search(r"Success\(0x([0-9a-f]+)\)", head[3])
        if started and result:
            self.done(*started, int(result[1], 16))

    def done(self, name: str, a: list[int], result: int) -> None:
        def span(address: int, length: int) -> tuple[int, int]:
            return address >> 12, -(-(address + length) // 4096)

        if name in WRITES or name in READS:
            at = {**WRITES, **READS}[name]
            if result:
                for page in range(*span(a[at], result)):
                    self.access(page, name in WRITES, counted=False)
        elif name == "mmap":
            start, end = span(result, a[1])
            kept = a[3] & 0x20 and a[3] & 0xF == 2 and not a[3] & 0x40000
            if kept and a[2]:
                self.map(start, end, (a[2], a[3] & 0x4100, "plain"))
            else:
                self.unmap(start, end)
                if kept:
                    self.reserved.update((page, (0, a[3] & 0x4100, "plain")) for page in range(start, end))
        elif name == "munmap":
            self.unmap(*span(a[0], a[1]))
        elif name == "brk":
            end = -(-result // 4096)
            if not self.brk_start:
                self.brk_start, self.brk_end = result >> 12, end
            elif end > self.brk_end:
                self.map(self.brk_end, end, (3, 0, "plain"))
            elif end < self.brk_end:
                self.unmap(max(end, self.brk_start), self.brk_end)
            self.brk_end = end
        elif name == "mprotect":
            pages = range(*span(a[0], a[1]))
            if a[2]:
                for low, high in _runs([page for page in pages if page in self.reserved], self.reserved):
                    attributes = self.reserved[low]
                    self.map(low, high, (a[2], *attributes[1:]))
            before = self.vmas()
            for page in pages:
                if page in self.attributes:
                    self.attributes[page] = (a[2], *self.attributes[page][1:])
            self.tell(before)
        elif name == "mremap":
            self.remap(span(a[0], a[1]), span(result, a[2]))
        elif name == "madvise":
            self.advise(*span(a[0], a[1]), a[2])

    def remap(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        attributes = self.attributes.get(old[0])
        if not attributes:
            if old[0] != new[0]:
                self.unmap(*new)
        elif old[0] == new[0]:
            if new[1] < old[1]:
                self.unmap(new[1], old[1])
            elif new[1] > old[1]:
                self.map(old[1], new[1], attributes)
        else:
            count = min(old[1] - old[0], new[1] - new[0])
            moved = [page - old[0] for page in sorted(self.touched) if old[0] <= page < old[0] + count]
            self.unmap(*old)
            self.map(*new, attributes)
            for offset in moved:
                self.access(new[0] + offset, True, counted=False)

    def advise(self, start: int, end: int, number: int) -> None:
        if number in (14, 15):
            before = self.vmas()
            for pages in (self.attributes, self.reserved):
                for page in range(start, end):
                    if page in pages:
                        pages[page] = (*pages[page][:2], "huge" if number == 14 else "nohuge")
            self.tell(before)
        elif number in ADVICE_OPERATIONS:
            kind = ADVICE_OPERATIONS[number]
            for low, high in self.parts(start, end):
                if kind == Kind.DONTNEED:
                    self.forget(low, high)
                if kind == Kind.PAGEOUT:
                    self.recent = [page for page in self.recent if not low <= page < high]
                self.rows.append([kind, low, high - low, ""])

    def place(self) -> None:
        places, at, last = {}, -1, None
        for block in sorted(self.blocks):
            at += 1 if last is None or block == last + 1 else 2
            places[block] = at
            last = block
        self.npages = (at + 1) * 512
        self.operations = [
            (int(kind), places[page >> 9] * 512 + page % 512, n, advice)
            for kind, page, n, advice in self.rows
        ]


def _runs(pages: list[int], attributes: dict[int, tuple]) -> list[tuple[int, int]]:
    if not pages:
        return []
    array = np.array(pages)
    cuts = [
        i
        for i in range(1, len(pages))
        if pages[i] != pages[i - 1] + 1 or attributes[pages[i]] != attributes[pages[i - 1]]
    ]
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(array, cuts)]
