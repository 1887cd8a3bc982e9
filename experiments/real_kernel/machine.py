"""The machine a workload is recorded on: mTHP sizes, swap devices, CPUs, memory, limits."""

import re
from dataclasses import dataclass

from jaxswap.workload.processes import split_limits

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""mTHP sizes of anonymous memory in kB."""
DEFRAG = ("always", "defer", "defer+madvise", "madvise", "never")
"""Words of transparent_hugepage/defrag."""


LIMITS = ("memory.max", "memory.high", "memory.swap.max")
"""Files of a cgroup's limits."""


@dataclass(frozen=True)
class SwapDevice:
    """One swap device. kind: zram or virtio. size: bytes, as text with its unit. priority: None for default.

    rotational and discard are flags that the kernel sees on the block device and at swapon."""

    kind: str
    size: str
    priority: int | None = None
    rotational: bool = False
    discard: bool = False

    def __str__(self) -> str:
        text = f"{self.kind} {self.size}"
        text += "" if self.priority is None else f" pri {self.priority}"
        return text + " rotational" * self.rotational + " discard" * self.discard


@dataclass(frozen=True)
class Machine:
    """mthp: sizes in kB, m for madvise. limit, high, swap_max: memory.max, memory.high and memory.swap.max,
    "" for none: of the cgroup the workload starts in (32M) or of those it names (web=24M, db=16M). lru:
    classic or mglru. swappiness: vm.swappiness. defrag: a word of DEFRAG.

    fragment: memory that is free in pieces of 64 kB, all else being in smaller ones; "" for whole memory.

    memory, the limits, fragment and the sizes of devices are texts such as 128M."""

    mthp: str = ""
    swap: tuple[SwapDevice, ...] = (SwapDevice("zram", "128M"),)
    cpus: int = 1
    memory: str = "1024M"
    limit: str = ""
    lru: str = "mglru"
    zswap: bool = False
    page_cluster: int = 3
    high: str = ""
    swap_max: str = ""
    swappiness: int = 60
    defrag: str = "madvise"
    fragment: str = ""

    @property
    def limits(self) -> dict[str, dict[str, str]]:
        """For each cgroup with limits, "" being the one the workload starts in: file and size."""
        found: dict[str, dict[str, str]] = {}
        for file, text in zip(LIMITS, (self.limit, self.high, self.swap_max), strict=True):
            for name, size in parse_limits(text).items() if text else ():
                found.setdefault(name, {})[file] = size
        return found

    @property
    def limited(self) -> bool:
        """Whether the workload starts in a cgroup of its own."""
        return "" in self.limits

    def header(self, kernel: str, workload: str) -> dict[str, str]:
        """The header of a recording; keys at their default beyond the usual five are left out."""
        lines = {
            "kernel": kernel,
            "workload": workload,
            "mthp": self.mthp or "-",
            "swap": ", ".join(map(str, self.swap)),
            "cpus": f"{self.cpus}  memory {self.memory}",
        }
        for key, text in zip(LIMITS, (self.limit, self.high, self.swap_max), strict=True):
            if text:
                lines[key] = text
        if self.limits:
            lines["lru"] = self.lru
        if self.swappiness != 60:
            lines["swappiness"] = str(self.swappiness)
        if self.defrag != "madvise":
            lines["defrag"] = self.defrag
        if self.fragment:
            lines["fragment"] = self.fragment
        if self.zswap:
            lines["zswap"] = "on"
        if self.page_cluster != 3:
            lines["page-cluster"] = str(self.page_cluster)
        return lines


def size_in_bytes(text: str) -> int:
    """Bytes of a size such as 128M or 29380K. Raises ValueError unless it is whole 4 KiB pages."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not size or size % 4096:
        raise ValueError(f"{text!r} is not a size in whole 4 KiB pages; write for example 128M or 29380K")
    return size


def parse_limits(text: str) -> dict[str, str]:
    """The sizes of "32M", "web=24M, db=16M" or both, by cgroup. Raises ValueError."""
    limits = split_limits(text)
    for size in limits.values():
        size_in_bytes(size)
    return limits


def free_whole(text: str) -> int:
    """Bytes of a size that may be 0. Raises ValueError."""
    return 0 if text == "0" else size_in_bytes(text)


def parse_swap(text: str) -> tuple[SwapDevice, ...]:
    """The devices of "zram 8M pri 5, virtio 128M rotational". Raises ValueError."""
    return tuple(_device(part.split()) for part in text.split(","))


def _device(words: list[str]) -> SwapDevice:
    if len(words) < 2 or words[0] not in ("zram", "virtio"):
        raise ValueError(
            f'{" ".join(words)!r} is not a swap device; write "zram 128M" or "virtio 128M", '
            "then if wanted: pri N, rotational, discard"
        )
    size_in_bytes(words[1])
    priority, flags = None, {"rotational": False, "discard": False}
    rest = words[2:]
    while rest:
        word = rest.pop(0)
        if word == "pri" and rest and re.fullmatch(r"\d{1,5}", rest[0]):
            priority = int(rest.pop(0))
        elif word in flags:
            flags[word] = True
        else:
            raise ValueError(f"{word!r} after {words[0]} {words[1]}: pri N, rotational or discard expected")
    if flags["rotational"] and words[0] == "zram":
        raise ValueError("a zram device is never rotational")
    return SwapDevice(words[0], words[1], priority, flags["rotational"], flags["discard"])


def parse_mthp(text: str) -> str:
    """The sizes of "16 64m", ascending. Raises ValueError."""
    found: dict[int, str] = {}
    for word in text.replace("-", "").split():
        match = re.fullmatch(r"(\d+)m?", word)
        if not match or int(match[1]) not in SIZES or int(match[1]) in found:
            raise ValueError(
                f"{text!r} is not a set of mTHP sizes; write kB out of {', '.join(map(str, SIZES))}, "
                'm for madvise: "16 64m"'
            )
        found[int(match[1])] = word
    return " ".join(found[size] for size in sorted(found))
