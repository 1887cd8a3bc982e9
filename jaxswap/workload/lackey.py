"""Import a program's memory accesses from a valgrind lackey log, streamed, as a page-granular workload.

The log comes from `valgrind --tool=lackey --trace-mem=yes --trace-syscalls=yes` and may be plain, gzip, zstd
or a FIFO. Kept are loads, stores and modifies to anonymous private memory (mmap, the brk heap, the main
stack) and what read and write calls do to their buffers; see docs/workloads.md for every rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload.accesses import BLOCK, OPERATIONS, place_blocks
from jaxswap.workload.address_space import AddressSpace, Change, Vma
from jaxswap.workload.lackey_lines import PIECE, read_pieces
from jaxswap.workload.page_filter import SMALLEST, PageFilters, collapse, drop_repeats
from jaxswap.workload.syscalls import (
    APART_FLAGS,
    BUFFERS,
    MADVICE,
    MAP_ANONYMOUS,
    MAP_HUGETLB,
    MAP_PRIVATE,
    PROT_NONE,
    Call,
    CallReader,
)
from jaxswap.workload.text import ADVICE, Kind, Workload

ENTRIES = (64, 128, 256, 512, 1024)
"""Pages in the repeat filter's list that are tried, the smallest that fits is taken."""
STACK_TOP = 0x1FFF001000 >> 12  # where valgrind ends the main stack on amd64 Linux
STACK_MOST = (16 << 20) >> 12  # its largest size there
STACK_FIRST = (132 << 10) >> 12  # pages a stack has from the start (fs/exec.c, setup_arg_pages; 7.3)


def read_lackey(
    file: BinaryIO,
    where: str,
    entries: int | Sequence[int] = ENTRIES[0],
    operations: int = OPERATIONS,
    cut: bool = False,
    name: str = "lackey",
    advice: str = "plain",
    piece_bytes: int = PIECE,
    report: Callable[[int, int], None] = lambda accesses, operations: None,
) -> Workload:
    """Read an open lackey log into a Workload; `where` names it in messages.

    entries      pages in the repeat filter's list; of several, the smallest that fits `operations` is taken
    operations   most operations of the result
    cut          if even the largest filter gives more: True keeps the first ones, False raises InputError
    advice       advice of every mapping that the program gives none ("plain", "huge" or "nohuge")
    report       called now and then with the accesses of the log and the operations so far

    Raises InputError for a file that is no lackey log or is damaged, with its line.
    """
    sizes = sorted({entries} if isinstance(entries, int) else set(entries))
    if not sizes or sizes[0] < SMALLEST:
        raise InputError(f"the repeat filter needs at least {SMALLEST} entries; given: {entries}")
    if operations < 1:
        raise InputError(f"the number of operations must be at least 1; given: {operations}")
    importer = _Importer(where, sizes, operations, cut, advice)
    for piece in read_pieces(file, where, piece_bytes):
        importer.piece(piece.key, piece.position, piece.other, piece.accesses)
        report(importer.raw, importer.outputs[0].count)
        if importer.full:
            break
    return importer.finish(name)


class _Output:
    """What one filter let through: runs of accesses and mapping operations, in order, by absolute page
    number."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.parts: list[np.ndarray] = []  # int64 [4, m]: kind, first page, pages, advice of a MAP
        self.count = 0
        self.passed = 0

    def accesses(self, passed: list[int]) -> None:
        """Keys that passed the filter."""
        self.passed += len(passed)
        if passed:
            keys = np.array(passed, np.int64)
            kind = np.where(keys & 1, Kind.TOUCH, Kind.READ)
            self.add(merge_operations(np.stack([kind, keys >> 1, np.ones_like(keys), np.zeros_like(keys)])))

    def add(self, part: np.ndarray) -> None:
        self.parts.append(part)
        self.count += part.shape[1]


def merge_operations(runs: np.ndarray) -> np.ndarray:
    """Join accesses [4, m] (kind, page, pages, 0) that go on ascending in one kind; other operations stay
    apart."""
    kind, page, pages, code = runs
    joins = (kind[1:] == kind[:-1]) & (kind[1:] <= Kind.READ) & (page[1:] == page[:-1] + pages[:-1])
    first = np.flatnonzero(np.r_[True, ~joins])
    return np.stack([kind[first], page[first], np.add.reduceat(pages, first), code[first]])


class _Importer:
    def __init__(self, where: str, sizes: list[int], operations: int, cut: bool, advice: str) -> None:
        self.where, self.limit, self.cut, self.advice = where, operations, cut, advice
        self.filters = PageFilters(sizes)
        self.outputs = [_Output(size) for size in sizes]  # the first ones go when they are full
        self.space = AddressSpace()
        self.reserved = (
            AddressSpace()
        )  # anonymous, but not accessible since it was mapped: no VMA in the workload
        self.calls = CallReader()
        self.brk_start = self.brk_end = 0
        self.stack_top = self.stack_start = 0
        self.raw = self.anonymous = self.by_calls = self.moved = self.system_calls = 0
        self.command = self.version = ""
        self.lackey = self.finished = self.full = False
        self.blocks: set[int] = set()
        self.touched: set[int] = set()

    # -- the log, piece by piece

    def piece(
        self, key: np.ndarray, position: np.ndarray, other: list[tuple[int, bytes]], accesses: int
    ) -> None:
        self.raw += accesses
        done = 0
        for at, text in other:
            if text[:1] != b"S":
                self.remark(text)
                continue
            self.system_calls += 1
            call = self.calls.line(text)
            if not call:
                continue
            until = int(np.searchsorted(position, at))
            self.data(key[done:until])
            done = until
            if call.name in BUFFERS:
                self.buffer(call)
            else:
                self.mapping(call)
        self.data(key[done:])
        self.check_room()

    def remark(self, text: bytes) -> None:
        """valgrind's own lines: "==pid== ..."."""
        _, _, words = text.partition(b"== ")
        if words.startswith(b"Lackey"):
            self.lackey = True
        elif words.startswith(b"Command: ") and not self.command:
            self.command = words[9:].decode("utf-8", "replace").strip()
        elif words.startswith(b"Using Valgrind-"):
            self.version = words[15:].split(b" ")[0].decode("ascii", "replace")
        elif words.startswith(b"Exit code:"):
            self.finished = True

    def check_room(self) -> None:
        while self.outputs[0].count > self.limit:
            last = self.outputs[0]
            # Runs that go on over a border between pieces still join.
            whole = merge_operations(np.concatenate(last.parts, axis=1))
            if whole.shape[1] <= self.limit:
                last.parts, last.count = [whole], whole.shape[1]
                return
            if len(self.outputs) > 1:
                del self.outputs[0]
                continue
            if self.cut:
                self.full = True
                return
            entries = last.entries
            message = f"more than {self.limit} operations with a repeat filter of {entries} entries"
            raise InputError(
                f"{self.where}: {message}; give a smaller input, a higher --operations, or --cut to keep the "
                "first ones"
            )

    # -- accesses

    def data(self, key: np.ndarray, counted: bool = True) -> None:
        """Accesses between two system calls that matter."""
        if not len(key):
            return
        kept, index = drop_repeats(key)
        if not self.stack_top:
            self.find_stack(int(key[0]) >> 1)
        page = kept >> 1
        stack = (page >= self.stack_top - STACK_MOST) & (page < self.stack_top)
        starts = np.array([vma.start for vma in self.space.vmas] or [0])
        ends = np.array([vma.end for vma in self.space.vmas] or [0])
        at = np.searchsorted(starts, page, side="right") - 1
        anonymous = stack | ((at >= 0) & (page < ends[np.maximum(at, 0)]))
        if counted:
            self.anonymous += int(np.diff(np.r_[index, len(key)])[anonymous].sum())
        kept = kept[anonymous]
        # The stack grows where an access goes below it; what follows sees the larger mapping.
        below = np.flatnonzero(stack[anonymous] & (kept >> 1 < self.stack_start))
        done = 0
        while len(below):
            self.accesses(kept[done : below[0]])
            done = int(below[0])
            self.grow_stack(int(kept[done]) >> 1)
            below = below[kept[below] >> 1 < self.stack_start]
        self.accesses(kept[done:])

    def accesses(self, key: np.ndarray) -> None:
        if not len(key):
            return
        key = collapse(key)
        passed = self.filters.passed(key)
        for output, keys in zip(self.outputs, passed[-len(self.outputs) :], strict=True):
            output.accesses(keys)
        self.touched.update(one >> 1 for one in passed[-1])

    def find_stack(self, page: int) -> None:
        """A program's first data access is a push: it shows the main stack if it is not where valgrind puts
        it."""
        self.stack_top = STACK_TOP if STACK_TOP - STACK_MOST <= page < STACK_TOP else page + 1
        self.grow_stack(self.stack_top - STACK_FIRST)

    def grow_stack(self, start: int) -> None:
        self.stack_start = start
        self.emit(self.space.grow_down(self.stack_top, start))

    # -- system calls

    def emit(self, changes: list[Change]) -> None:
        for what, start, end, advice in changes:
            kind = Kind[what]
            if kind == Kind.MAP:
                self.blocks.update(range(start // BLOCK, (end - 1) // BLOCK + 1))
            else:
                self.untouch(start, end)
            self.operation(kind, start, end, advice)

    def buffer(self, call: Call) -> None:
        """What the kernel reads or writes in the caller's buffer: as many bytes as the result says."""
        at, access = BUFFERS[call.name]
        if not call.result or len(call.arguments) <= at:
            return
        start = call.arguments[at]
        page = np.arange(start >> 12, (start + call.result - 1 >> 12) + 1, dtype=np.int64)
        self.data(page << 1 | (access == "write"), counted=False)
        self.by_calls += len(page)

    def mapping(self, call: Call) -> None:
        arguments = call.arguments
        if call.name == "brk":
            self.brk(call.result)
        elif call.name == "mmap" and len(arguments) >= 4:
            _, length, protection, flags = arguments[:4]
            start, end = call.result >> 12, _page_end(call.result, length)
            kept = flags & MAP_ANONYMOUS and flags & 0xF == MAP_PRIVATE and not flags & MAP_HUGETLB
            if kept and protection != PROT_NONE:
                self.map(Vma(start, end, protection, flags & APART_FLAGS, self.advice))
            else:
                self.unmap(start, end)
                if kept:
                    self.reserved.map(Vma(start, end, PROT_NONE, flags & APART_FLAGS, self.advice))
        elif call.name == "munmap" and len(arguments) >= 2:
            self.unmap(arguments[0] >> 12, _page_end(*arguments[:2]))
        elif call.name == "mprotect" and len(arguments) >= 3:
            self.protect(arguments[0] >> 12, _page_end(*arguments[:2]), arguments[2])
        elif call.name == "mremap" and len(arguments) >= 3:
            self.remap(arguments[0], arguments[1], arguments[2], call.result)
        elif call.name == "madvise" and len(arguments) >= 3:
            self.advise(arguments[0] >> 12, _page_end(*arguments[:2]), arguments[2])

    def map(self, vma: Vma) -> None:
        self.reserved.unmap(vma.start, vma.end)
        self.emit(self.space.map(vma))

    def unmap(self, start: int, end: int) -> None:
        self.emit(self.space.unmap(start, end))
        self.reserved.unmap(start, end)

    def brk(self, result: int) -> None:
        end = _page_end(result, 0)
        if not self.brk_start:
            self.brk_start, self.brk_end = result >> 12, end
        elif end > self.brk_end:
            self.map(Vma(self.brk_end, end, 3, 0, self.advice))
        elif end < self.brk_end:
            self.unmap(max(end, self.brk_start), self.brk_end)
        self.brk_end = end

    def protect(self, start: int, end: int, protection: int) -> None:
        if protection != PROT_NONE:
            for vma in self.reserved.vmas.copy():
                low, high = max(vma.start, start), min(vma.end, end)
                if low < high:
                    self.map(replace(vma, start=low, end=high, protection=protection))
        self.emit(self.space.protect(start, end, protection))

    def advise(self, start: int, end: int, number: int) -> None:
        what = MADVICE.get(number)
        if what in ("MADVHUGE", "MADVNOHUGE"):
            advice = "huge" if what == "MADVHUGE" else "nohuge"
            self.reserved.advise(start, end, advice)
            self.emit(self.space.advise(start, end, advice))
        elif what:
            for low, high in self.space.inside(start, end):
                if what == "DONTNEED":
                    self.untouch(low, high)
                self.operation(Kind[what], low, high)

    def remap(self, old: int, old_length: int, new_length: int, new: int) -> None:
        """mremap. A moved mapping keeps its contents; the text form has no word for it, so its touched
        pages are written at the new place."""
        start, end = old >> 12, _page_end(old, old_length)
        vma = self.space.find(start)
        new_start, new_end = new >> 12, _page_end(new, new_length)
        if not vma:
            if new != old:
                self.unmap(new_start, new_end)
            return
        if new == old:
            if new_end < end:
                self.unmap(new_end, end)
            elif new_end > end:
                self.map(replace(vma, start=end, end=new_end))
            return
        inside = range(start, min(end, start + new_end - new_start))
        moved = (
            np.array(sorted(page for page in self.touched if page in inside), np.int64) - start + new_start
        )
        self.unmap(start, end)
        self.map(replace(vma, start=new_start, end=new_end))
        self.moved += len(moved)
        self.data(moved << 1 | 1, counted=False)

    def untouch(self, start: int, end: int) -> None:
        if end - start < len(self.touched):
            self.touched.difference_update(range(start, end))
        else:
            self.touched = {page for page in self.touched if not start <= page < end}

    def operation(self, kind: Kind, start: int, end: int, advice: str = "") -> None:
        if kind in (Kind.UNMAP, Kind.DONTNEED, Kind.PAGEOUT):
            self.filters.forget(start, end)
        code = ADVICE.index(advice) if advice else 0
        for output in self.outputs:
            output.add(np.array([[kind], [start], [end - start], [code]], np.int64))

    # -- the result

    def finish(self, name: str) -> Workload:
        if not self.raw:
            raise InputError(f"{self.where}: no accesses found; a log of {_COMMAND} was expected")
        if not self.system_calls:
            raise InputError(
                f"{self.where}: the log has no system calls; run valgrind with --trace-syscalls=yes"
            )
        output = self.outputs[0]
        rows = merge_operations(np.concatenate(output.parts, axis=1))[:, : self.limit]
        kind, page, pages, code = rows
        blocks = np.array(sorted(self.blocks), np.int64)
        places = place_blocks(blocks)
        v = places[np.searchsorted(blocks, page // BLOCK)] * BLOCK + page % BLOCK
        text = {int(i): ADVICE[int(code[i])] for i in np.flatnonzero(kind == Kind.MAP)}
        npages = (int(places[-1]) + 1) * BLOCK
        v, pages, line = (
            v.astype(np.int32),
            pages.astype(np.int32),
            np.arange(2, len(kind) + 2, dtype=np.int32),
        )
        meta = self.meta(output, name)
        return Workload(name, "", npages, self.advice, kind.astype(np.uint8), v, pages, line, text, meta)

    def meta(self, output: _Output, name: str) -> dict[str, str]:
        meta = {"program": name, "command": self.command, "valgrind": self.version}
        meta["accesses"] = f"raw {self.raw}, of these to anonymous memory {self.anonymous}"
        meta["kernel-side"] = (
            f"pages read or written by system calls {self.by_calls}, moved by mremap {self.moved}"
        )
        meta["filter"] = f"{output.entries} entries, passed {output.passed}"
        if self.full:
            meta["cut"] = f"after {self.limit} operations"
        elif not self.finished:
            meta["ended"] = "early: the log has no exit code line"
        return {key: value for key, value in meta.items() if value}


_COMMAND = "valgrind --tool=lackey --trace-mem=yes --trace-syscalls=yes"


def _page_end(address: int, length: int) -> int:
    return (address + length + 4095) >> 12
