"""Hold the reference machine against recordings of real kernels: `python -m tests.reference.validate FOLDER
...`.

FOLDER holds KERNEL/NAME.txt, and NAME.t beside it, in workloads/, or in the workloads/ beside FOLDER. Prints
a line a recording; exits 1 if one differs.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from jaxswap.described import free_of
from jaxswap.errors import InputError
from jaxswap.frames import Frames as Free
from jaxswap.machine.compare import Comparison, compare_blocks
from jaxswap.machine.profile import PROFILES
from jaxswap.pressure import LIMITS
from jaxswap.validate import pairs
from jaxswap.workload import Recording, read_recording, read_workload
from jaxswap.workload.processes import split_limits

from .cgroup import NO_LIMITS, Limits
from .frames import Frames
from .machine import Machine
from .run import Runner
from .slots import Device

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SYNCHRONOUS = ("zram", "brd")


def profile_of(kernel: str):
    """The profile of "7.3.4"."""
    name = ".".join(kernel.split(".")[:2])
    if name not in PROFILES:
        raise InputError(f"no profile of kernel {kernel}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def size_in_pages(text: str) -> int:
    """Of "32M"."""
    return int(text[:-1]) * UNITS[text[-1]] // 4096


def masks(mthp: str) -> tuple[int, int]:
    """Masks of the orders that are always and madvise, of "16 64m"."""
    always = madvise = 0
    for size, advice in re.findall(r"(\d+)(m?)", mthp):
        order = (int(size) // 4).bit_length() - 1
        if advice:
            madvise |= 1 << order
        else:
            always |= 1 << order
    return always, madvise


def devices(swap: str) -> list[Device]:
    """Of "zram 8M pri 5, virtio 128M rotational"."""
    found = []
    for text in swap.split(","):
        kind, size, *rest = text.split()
        priority = int(rest[rest.index("pri") + 1]) if "pri" in rest else None
        found.append(
            Device(
                size_in_pages(size), priority, kind in SYNCHRONOUS, "rotational" in rest, "discard" in rest
            )
        )
    return found


def limits_of(header: dict[str, str]) -> dict[str, Limits]:
    """Limits of each cgroup in pages, "" being the one that processes start in."""
    files = [split_limits(header[key]) if key in header else {} for key in LIMITS]
    pages = [{name: size_in_pages(size) for name, size in file.items()} for file in files]
    return {name: Limits(*(file.get(name) for file in pages)) for name in set().union(*pages)}


def machine_of(recording: Recording, npages: int) -> Machine:
    """The machine a recording was made on, by its header; of memory in pieces nothing but the blocks that
    were free can be moved or taken."""
    header = recording.header
    limits = limits_of(header)
    own = limits.pop("", NO_LIMITS)
    always, madvise = masks(header.get("mthp", ""))
    machine = Machine(
        npages,
        always=always,
        madvise=madvise,
        profile=profile_of(header["kernel"]),
        devices=devices(header["swap"]),
        zswap=header.get("zswap") == "on",
        page_cluster=int(header.get("page-cluster", 3)),
        cpus=int(header.get("cpus", "1").split()[0]),
        limit=own.limit,
        high=own.high,
        swap_max=own.swap_max,
        named=limits,
        swappiness=int(header.get("swappiness", 60)),
        defrag=header.get("defrag", "madvise"),
        lru=header.get("lru", "classic"),
    )
    if free := free_of(recording):
        machine.frames = Frames(Free(free=free).start(), 0, 0, lambda: machine.n)
    return machine


def validate(workload: Path, recording: Path) -> Comparison:
    """Replay a workload on the reference machine of a recording and compare."""
    operations, real = read_workload(workload), read_recording(recording)
    machine = machine_of(real, operations.npages)
    return compare_blocks(list(Runner(operations, machine).blocks()), real)


def remark(found: Comparison, recording: Path) -> str:
    """The first difference, and whether something ran that a recording should keep still."""
    if found.equal:
        return ""
    groups = read_recording(recording).stats()[-1:]
    collapsed = any(
        "collapse_alloc" in row for _, block in groups for row in block.values() if isinstance(row, dict)
    )
    return f"{found.differences[0]}{'; khugepaged ran in it' if collapsed else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", default="", help="part of the name of a recording")
    arguments = parser.parse_args()
    wrong = 0
    print(f"{'kernel':10}{'workload':20}{'maps':>9}{'folios':>9}{'counters':>12}{'s':>6}  first difference")
    for folder in arguments.folders:
        for workload, recording in pairs(folder):
            kernel, name = recording.parent.name, recording.name.partition(".txt")[0]
            where = f"{kernel}/{name}"
            if arguments.only not in where:
                continue
            started = time.perf_counter()
            try:
                found = validate(workload, recording)
            except Exception as problem:  # one broken pair must not hide the others
                print(f"{kernel:10}{name:20}  {type(problem).__name__}: {problem}")
                wrong += 1
                continue
            took = time.perf_counter() - started
            parts = [f"{a}/{b}" for a, b in (found.maps, found.folios, found.counters)]
            print(
                f"{kernel:10}{name:20}"
                f"{parts[0]:>9}{parts[1]:>9}{parts[2]:>12}{took:6.1f}  {remark(found, recording)}",
                flush=True,
            )
            wrong += not found.equal
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
