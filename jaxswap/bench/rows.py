"""The rows of the bench: what each has, and how they come from processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping

from jaxswap.bench.timing import available_cores

KEYS: tuple[str, ...] = (
    "name",
    "variant",
    "case",
    "slots",
    "size",
    "lanes",
    "cores",
    "time",
    "time_min",
    "time_max",
    "rate",
    "ns_per_operation",
    "ns_per_access",
    "ratio_to_c",
    "ratio_to_c_planes",
    "bytes",
    "copy_bandwidth",
    "copy_share",
    "compile_time",
    "fault_rate",
    "device",
)
"""Keys of every row; None where one does not apply.

case: the workload, or what the table holds. slots: of the table or the swap device. size: requests, or
lane-operations a lane. time: the median in seconds of one call, or of one replay of all lanes, with time_min
and time_max beside it. rate: requests, or lane-operations of all lanes, a second. ratio_to_c: time divided by
that of the plain C program on as many cores in the same run, below 1 is faster than C; ratio_to_c_planes: by
that of C on the same bit planes. bytes: of all that goes in and comes out, each once; copy_bandwidth: bytes a
second, read and written, that the device copies in the same run; copy_share: bytes / time, as a share of it.
compile_time: seconds of the first call, less one more call; next to 0 where an earlier row had the same
program. fault_rate: major faults an access, all lanes' mean. device: what it ran on.
"""

SHOWN = tuple(
    key
    for key in KEYS
    if key not in ("time_min", "time_max", "ns_per_access", "ratio_to_c_planes", "bytes", "copy_bandwidth")
)
"""Keys of the table for people."""


def row(**values: object) -> dict:
    """A row with all keys. Raises TypeError for a key that is not in KEYS."""
    if unknown := sorted(set(values) - set(KEYS)):
        raise TypeError(f"no such key of a row: {', '.join(unknown)}")
    made = {key: values.get(key) for key in KEYS}
    moved, spent, bandwidth = values.get("bytes"), values.get("time"), values.get("copy_bandwidth")
    if isinstance(moved, int) and isinstance(spent, float) and isinstance(bandwidth, float):
        made["copy_share"] = moved / spent / bandwidth
    return made


def rows_of(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[dict]:
    """The rows that a module prints, one JSON object a line, as they come.

    environment: what is added to this process's. Raises RuntimeError if the process fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=os.environ | (environment or {})
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        except BaseException:
            process.terminate()
            raise
        if process.wait():
            said.seek(0)
            raise RuntimeError(f"{' '.join(command[1:])} failed:\n{said.read().strip()}")


def pin(cores: int) -> None:
    """Let this process run on so many CPUs only, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, available_cores()[:cores])
