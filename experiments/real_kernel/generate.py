"""Random workloads and the machines they run on: a seed gives the operations, the mTHP sizes, the devices.

The same seed gives the same case for good: new variations get a kind of their own.
"""

import random
from dataclasses import dataclass

from experiments.real_kernel.machine import Machine, SwapDevice

KINDS = ("basic", "flags", "fork", "devices", "cpus")
"""What a case can be made of.

basic    touch, read, DONTNEED, PAGEOUT on one zram device
flags    the same with ZERO, WILLNEED, COLD and changes of advice
fork     flags with processes that fork, share, write and exit
devices  flags on two zram devices, of equal or of different priority
cpus     flags with operations on two CPUs in turn
"""

_BASIC = {"READ": 20, "READN": 15, "TOUCH": 10, "FILL": 15, "DONTNEED": 20, "PAGEOUT": 20}
_FLAGS = {
    "READ": 20,
    "READN": 12,
    "TOUCH": 10,
    "FILL": 12,
    "DONTNEED": 14,
    "PAGEOUT": 18,
    "ZERO": 6,
    "WILLNEED": 8,
    "COLD": 2,
    "MADVHUGE": 0.5,
    "MADVNOHUGE": 0.5,
}
_ONE_PAGE = ("READ", "TOUCH")
_FEW_PAGES = ("ZERO", "WILLNEED")
_ADVICE = ("MADVHUGE", "MADVNOHUGE")
_PAGE_KB = 4


@dataclass(frozen=True)
class Case:
    """One random workload and its machine. name: kind and seed, as in fork-17."""

    name: str
    kind: str
    workload: str
    machine: Machine
    pages: int
    operations: int


def random_case(seed: int, kinds: tuple[str, ...] = KINDS) -> Case:
    """The case of a seed; its kind is one of `kinds`. Two seeds give unlike sizes, devices and lengths."""
    rng = random.Random(seed)
    kind = kinds[seed % len(kinds)]
    pages = rng.choice([600, 1500, 3000, 4100, 8000, 12000, 20000, 30000]) - rng.randrange(90)
    operations = rng.choice([300, 1000, 2000, 4000, 8000, 12000])
    if kind == "fork":  # each process may come to have pages of its own
        pages = min(pages, 6000)
    mthp = random_sizes(rng)
    swap = random_devices(rng, pages, 2 if kind == "devices" else 1)
    machine = Machine(mthp, swap, cpus=2 if kind == "cpus" else 1)
    workload = random_operations(rng, kind, pages, operations)
    return Case(f"{kind}-{seed}", kind, workload, machine, pages, operations)


def random_sizes(rng: random.Random) -> str:
    """One to five sizes, or all; some for MADV_HUGEPAGE only; 2048 kB now and then."""
    sizes = [16, 32, 64, 128, 256, 512, 1024]
    count = rng.choice([1, 1, 1, 2, 2, 3, 5, 7])
    chosen = [64] if count == 1 and rng.random() < 0.6 else sorted(rng.sample(sizes, count))
    if rng.random() < 0.1:
        chosen.append(2048)
    return " ".join(f"{size}m" if rng.random() < 0.2 else str(size) for size in chosen)


def random_devices(rng: random.Random, pages: int, count: int) -> tuple[SwapDevice, ...]:
    """zram devices that together are roomy, just large enough, or too small for the region.

    Half of them end in a ragged cluster (their size is no multiple of 2 MiB)."""
    factor = rng.choice([0.8, 0.97, 1.0, 1.03, 1.1, 1.3, 2.0, 4.0])
    total = max(1024, int(pages * factor))
    shares = [rng.uniform(0.3, 0.7)] if count == 2 else []
    parts = [total * share for share in shares]
    parts.append(total - sum(parts))
    priorities = [None] * count
    if count == 2 and rng.random() < 0.5:
        priorities = rng.sample([1, 5], 2)
    devices = []
    for part, priority in zip(parts, priorities, strict=True):
        slots = max(512, int(part))
        if rng.random() < 0.5:
            slots = -(-slots // 512) * 512
        devices.append(SwapDevice("zram", f"{slots * _PAGE_KB}K", priority))
    return tuple(devices)


def random_operations(rng: random.Random, kind: str, pages: int, operations: int) -> str:
    """The text of a workload of this kind: fill and swap out the region, then random operations.

    Counters are shown twelve times on the way, page maps as often (less often where they are long), folios
    at the end."""
    lines = [f"REGION {pages} {rng.choice(['plain', 'plain', 'huge'])}"]
    if rng.random() < 0.6:
        lines.append(f"MADVNOHUGE {pages // 2} {pages // 4}")
    lines += [f"FILL 0 {pages}", f"PAGEOUT 0 {pages}", "DUMP start", "STATS start"]
    writer = _Writer(rng, kind, pages)
    every = max(1, operations // 12)
    sparse = 1 if pages < 5000 else 3 if pages < 15000 else 13  # 13: at the end only
    for number in range(1, operations + 1):
        lines.append(writer.operation())
        if number % (every * sparse) == 0:
            lines += writer.maps(f"d{number}", ["DUMP"])
        if number % every == 0:
            lines.append(f"STATS d{number}")
    for process in writer.living:
        lines.append(f"{_process(process)}PAGEOUT 0 {pages}")
    return "\n".join([*lines, *writer.maps("end", ["DUMP", "FOLIOS"]), "STATS end"]) + "\n"


def _process(number: int) -> str:
    return f"p{number} " if number else ""


class _Writer:
    """Draws operations one after the other; knows which processes live."""

    def __init__(self, rng: random.Random, kind: str, pages: int) -> None:
        self.rng, self.kind, self.pages = rng, kind, pages
        weights = _BASIC if kind == "basic" else _FLAGS
        self.names, self.weights = list(weights), list(weights.values())
        self.living = [0]

    def operation(self) -> str:
        rng = self.rng
        process = rng.choice(self.living)
        if self.kind == "fork" and rng.random() < 0.015:
            return self.fork_or_exit(process)
        cpu = "@1 " if self.kind == "cpus" and rng.random() < 0.4 else ""
        return cpu + _process(process) + self.access()

    def fork_or_exit(self, process: int) -> str:
        """At most five processes at a time; process 0 stays."""
        children = self.living[1:]
        if len(children) == 4 or (children and self.rng.random() < 0.5):
            child = self.rng.choice(children)
            self.living.remove(child)
            return f"p{child} EXIT"
        child = next(number for number in range(1, 16) if number not in self.living)
        self.living.append(child)
        return f"{_process(process)}FORK {child}"

    def access(self) -> str:
        """Half of the ranges are whole 64 kB blocks, the rest a few pages anywhere."""
        rng, pages = self.rng, self.pages
        if rng.random() < 0.5:
            n = 16 * rng.choice([1, 1, 1, 2, 4])
            v = rng.randrange(pages // 16) * 16
        else:
            n = rng.choice([1, 1, 2, 3, 5, 8, 13])
            v = rng.randrange(pages)
        name = rng.choices(self.names, self.weights)[0]
        if name == "PAGEOUT" and rng.random() < 0.3:
            v = max(0, v - 64)
            n = rng.choice([64, 128, 256, 512])
        if name in _FEW_PAGES:
            n = min(n, rng.choice([1, 1, 2, 4, 16]))
        if name in _ADVICE:
            v, n = v // 64 * 64, 64
        n = min(n, pages - v)
        return f"{name} {v}" if name in _ONE_PAGE else f"{name} {v} {n}"

    def maps(self, label: str, blocks: list[str]) -> list[str]:
        """These blocks of every living process; labels tell the processes apart."""
        lines = []
        for process in self.living:
            mark = f"-p{process}" if process else ""
            lines += [f"{_process(process)}{block} {label}{mark}" for block in blocks]
        return lines
