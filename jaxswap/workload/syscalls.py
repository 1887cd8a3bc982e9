"""System calls in a lackey log (valgrind --trace-syscalls=yes), and which of them matter to memory."""

import re
from dataclasses import dataclass

_CALL = re.compile(rb"SYSCALL\[(\d+),(\d+)\]\( *\d+\) ")
_NAME = re.compile(rb"(?:sys_)?(\w+) ?\(([^)]*)\)")
_RESULT = re.compile(rb"Success\((?:0x[0-9a-f]+:)?0x([0-9a-f]+)\)")
_NUMBER = re.compile(rb"0x([0-9a-f]+)|(\d+)")

# call -> (position of the buffer's address, what the kernel does to as many bytes as the result says)
BUFFERS: dict[str, tuple[int, str]] = {
    "read": (1, "write"),
    "pread64": (1, "write"),
    "recvfrom": (1, "write"),
    "getdents64": (1, "write"),
    "getrandom": (0, "write"),
    "write": (1, "read"),
    "pwrite64": (1, "read"),
    "sendto": (1, "read"),
}
MAPPING = frozenset(("mmap", "munmap", "mprotect", "mremap", "brk", "madvise"))

PROT_NONE = 0
MAP_PRIVATE, MAP_ANONYMOUS, MAP_HUGETLB = 0x2, 0x20, 0x40000
# Of the flags of an anonymous mapping these stay in the VMA and keep neighbours apart: GROWSDOWN, NORESERVE.
APART_FLAGS = 0x0100 | 0x4000
# Number of an madvise -> operation. 8 is MADV_FREE, taken for the DONTNEED it becomes under pressure; 24 is
# MADV_DONTNEED_LOCKED.
MADVICE = {
    3: "WILLNEED",
    4: "DONTNEED",
    8: "DONTNEED",
    14: "MADVHUGE",
    15: "MADVNOHUGE",
    20: "COLD",
    21: "PAGEOUT",
    24: "DONTNEED",
}


@dataclass(frozen=True)
class Call:
    """One finished, successful system call."""

    name: str
    arguments: tuple[int, ...]
    result: int


class CallReader:
    """Joins the two lines of calls that may block, per thread, and follows the first process of the log
    only."""

    def __init__(self) -> None:
        self._process: bytes | None = None
        self._waiting: dict[bytes, tuple[str, tuple[int, ...]]] = {}

    def line(self, text: bytes) -> Call | None:
        """The call this line finishes, if it is one that matters here and succeeded."""
        match = _CALL.match(text)
        if not match:
            return None
        self._process = self._process or match[1]
        if match[1] != self._process:
            return None
        thread, rest = match[2], text[match.end() :]
        if rest.startswith(b"..."):
            started = self._waiting.pop(thread, None)
        else:
            started = _start(rest)
            if b"--> [async]" in rest:
                self._waiting.pop(thread, None)
                if started:
                    self._waiting[thread] = started
                return None
        result = _RESULT.search(rest)
        if not started or not result:
            return None
        return Call(*started, int(result[1], 16))


def _start(rest: bytes) -> tuple[str, tuple[int, ...]] | None:
    match = _NAME.match(rest)
    name = match[1].decode() if match else ""
    if not match or (name not in BUFFERS and name not in MAPPING):
        return None
    numbers = _NUMBER.findall(match[2])
    return name, tuple(int(hexa, 16) if hexa else int(plain) for hexa, plain in numbers)
