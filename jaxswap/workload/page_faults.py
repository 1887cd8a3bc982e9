"""Page faults as text: `perf script` of exceptions:page_fault_user, or the trace file of tracefs.

A fault is an access that found no page; what a page does while it is in memory leaves no event. The error
code of x86-64 says what the access was (arch/x86/include/asm/trap_pf.h: bit 1 a write, bit 4 an instruction
fetch; 7.3). Where the text has PERF_RECORD_MMAP lines (perf script --show-mmap-events), faults in mapped
files are dropped too.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload.accesses import Accesses

_WRITE, _FETCH = 0x2, 0x10
EVENT = re.compile(rb"page_fault_user: +address=(\S+) +ip=\S+ +error_code=(\S+)")
# "comm 123 [001] 1.5:", "comm 123/124 [001] ..", tracefs "comm-123 [001] d..1. 1.5:"; comm may hold spaces
_PERF = re.compile(rb"^\s*.*?\s+(\d+)(?:/\d+)?\s+(?:\[\d+\]\s+)?\d+\.\d+:")
_TRACEFS = re.compile(rb"^\s*.*-(\d+)\s+(?:\(\s*[\d-]+\)\s+)?\[\d+\]\s+\S+\s+\d+\.\d+:")
_MMAP = re.compile(
    rb"PERF_RECORD_MMAP2? (-?\d+)/-?\d+: \[0x([0-9a-f]+)\(0x([0-9a-f]+)\) @ [^\]]*\]: (\S+) (.*)$"
)
_LOST = re.compile(rb"PERF_RECORD_LOST\b|\[LOST|LOST \d+ EVENTS|events lost", re.IGNORECASE)


def read_page_faults(
    lines: Iterable[bytes], where: str, pids: frozenset[int] = frozenset()
) -> tuple[Accesses, dict[str, str]]:
    """The faults of the lines, in order, as (accesses, what the header says of them).

    pids: keep only these processes; empty keeps all. Instruction fetches are dropped, and faults in mapped
    files where the mappings are known. Raises InputError with the line of a damaged event, and for lost
    events.
    """
    pages: list[int] = []
    writes: list[bool] = []
    owners: list[int] = []
    files: dict[int, _Files] = {}
    events = fetches = in_files = 0
    for number, line in enumerate(lines, 1):
        if b"page_fault_user:" not in line:
            if mapped := _MMAP.search(line):
                process = files.setdefault(int(mapped[1]), _Files())
                process.map(int(mapped[2], 16), int(mapped[3], 16), _is_file(mapped[5].strip()))
            elif _LOST.search(line):
                raise InputError(
                    f"{where}:{number}: events were lost; record again with a larger buffer (-m)"
                )
            continue
        event, head = EVENT.search(line), _PERF.match(line) or _TRACEFS.match(line)
        try:
            if not event or not head:
                raise ValueError
            pid, address, code = int(head[1]), int(event[1], 16), int(event[2], 16)
            if address >= 1 << 64:
                raise ValueError
        except ValueError:
            shown = line[:80].strip().decode("utf-8", "backslashreplace")
            raise InputError(f"{where}:{number}: damaged event {shown!r}; make the text again") from None
        if pids and pid not in pids:
            continue
        events += 1
        if code & _FETCH:
            fetches += 1
        elif pid in files and files[pid].holds(address):
            in_files += 1
        else:
            pages.append(address >> 12)
            writes.append(bool(code & _WRITE))
            owners.append(pid)
    numbers = {pid: i for i, pid in enumerate(dict.fromkeys(owners))}
    process = np.array([min(numbers[pid], 255) for pid in owners], np.uint8)
    dropped = f"{fetches} instruction fetches" + (f", {in_files} in mapped files" if files else "")
    meta = {"faults": f"user faults {events}, dropped {dropped}"}
    return Accesses(np.array(pages, np.int64), np.array(writes, bool), process), meta


class _Files:
    """Which addresses of a process are mapped files: disjoint ranges, the last mapping of a place counts."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ranges: list[tuple[int, int, bool]] = []

    def map(self, start: int, length: int, is_file: bool) -> None:
        end = start + length
        left = []
        for low, high, kind in self.ranges:
            left += [(low, min(high, start), kind), (max(low, end), high, kind)]
        self.ranges = sorted([one for one in left if one[0] < one[1]] + [(start, end, is_file)])
        self.starts = [low for low, _, _ in self.ranges]

    def holds(self, address: int) -> bool:
        at = bisect_right(self.starts, address) - 1
        return at >= 0 and address < self.ranges[at][1] and self.ranges[at][2]


def _is_file(name: bytes) -> bool:
    return name.startswith((b"/", b"[v")) and not name.startswith((b"//anon", b"/dev/zero"))
