"""Accesses as CSV: lines `t,pid,page,write`."""

import math
from collections.abc import Iterable

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload.accesses import MOST_PAGE, Accesses

HEADER = b"t,pid,page,write"


def read_csv(lines: Iterable[bytes], where: str, pids: frozenset[int] = frozenset()) -> Accesses:
    """The accesses of the lines, in order of t, equal t in the order of the file.

    t is any number; page is address / 4096, decimal or 0x and hexadecimal; write is 0 or 1. The line
    `t,pid,page,write` may stand first, empty lines and lines that start with # are skipped. pids: keep only
    these processes; empty keeps all. Processes are numbered in order of their first access. Raises
    InputError with the line of anything else.
    """
    rows: list[tuple[float, int, int, bool]] = []
    first = True
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        if first and line.replace(b" ", b"") == HEADER:
            first = False
            continue
        first = False
        row = _row(line)
        if row is None:
            shown = line[:60].decode("utf-8", "backslashreplace")
            raise InputError(
                f"{where}:{number}: {shown!r} is no access; write t,pid,page,write, as 0.5,17,4096,1"
            )
        if not pids or row[1] in pids:
            rows.append(row)
    rows.sort(key=lambda row: row[0])
    numbers = {pid: i for i, pid in enumerate(dict.fromkeys(row[1] for row in rows))}
    page = np.array([row[2] for row in rows], np.int64)
    process = np.array([min(numbers[row[1]], 255) for row in rows], np.uint8)
    return Accesses(page, np.array([row[3] for row in rows], bool), process)


def _row(line: bytes) -> tuple[float, int, int, bool] | None:
    fields = [field.strip() for field in line.split(b",")]
    if len(fields) != 4 or fields[3] not in (b"0", b"1"):
        return None
    try:
        t, pid = float(fields[0]), int(fields[1])
        page = int(fields[2], 16) if fields[2][:2] == b"0x" else int(fields[2])
    except ValueError:
        return None
    if not math.isfinite(t) or pid < 0 or not 0 <= page < MOST_PAGE:
        return None
    return t, pid, page, fields[3] == b"1"
