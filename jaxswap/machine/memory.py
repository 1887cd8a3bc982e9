"""The memory that lanes take, and how much of it a device has free."""

from pathlib import Path
from typing import Any

import jax

from jaxswap.errors import InputError

COPIES = 2  # of a lane's state while a call runs: its input and its output
_CGROUP = Path("/sys/fs/cgroup")


def bytes_of(shapes: Any) -> int:
    """Bytes of the arrays of a pytree, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def free_on(devices: list[Any]) -> int | None:
    """Bytes free on some devices of one kind together; None where they do not say.

    CPU devices share the least of MemAvailable and what the process's cgroups leave (memory.max, as SLURM
    sets it).
    """
    if devices[0].platform == "cpu":
        return min((free for free in (_available(), *_left_by_cgroups()) if free is not None), default=None)
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in one for one in stats):
        return None
    return len(devices) * min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats)


def _available() -> int | None:
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _left_by_cgroups() -> list[int]:
    """What the process's cgroup and those above it leave, where they have a limit (cgroup v2)."""
    try:
        place = Path("/proc/self/cgroup").read_text().splitlines()[-1].removeprefix("0::/")
    except (OSError, IndexError):
        return []
    found = []
    folder = _CGROUP / place
    for one in (folder, *folder.parents):
        if not one.is_relative_to(_CGROUP):
            break
        try:
            most, used = (int((one / name).read_text()) for name in ("memory.max", "memory.current"))
            cached = dict(line.split() for line in (one / "memory.stat").read_text().splitlines())
            found.append(most - used + int(cached.get("inactive_file", 0)))
        except (OSError, ValueError):  # no limit ("max"), or not to be read
            continue
    return found


def lanes_that_fit(each: int, free: int | None, most: int) -> int:
    """How many of `most` lanes of `each` bytes run at once in `free` bytes: all or a power of two.

    A power of two, so that memory that comes and goes changes the shape, and so the compiled program, seldom.
    """
    if free is None or each * most <= free:
        return most
    return 1 << max(0, (free // each).bit_length() - 1)


def check_memory(need: int, lanes: int, devices: list[Any]) -> None:
    """Raise InputError where lanes that need so many bytes do not fit in what some devices have free."""
    free = free_on(devices)
    if free is None or need <= free:
        return
    who, fewer = ("one lane needs", "") if lanes == 1 else (f"{lanes} lanes need", "fewer candidates, ")
    raise InputError(
        f"memory: {who} {need >> 20} MiB and {free >> 20} MiB are free; take {fewer}a smaller workload or a "
        "smaller swap device"
    )
