"""Files of other tools as workloads: which form a file has, and the reader of each form."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from typing import BinaryIO, cast

from jaxswap.errors import InputError
from jaxswap.workload import damo, masim
from jaxswap.workload.accesses import Room, workload_of
from jaxswap.workload.csv_accesses import HEADER, read_csv
from jaxswap.workload.files import open_checked, stem
from jaxswap.workload.lackey import ENTRIES, read_lackey
from jaxswap.workload.page_faults import EVENT, read_page_faults
from jaxswap.workload.text import Workload

FORMS = {
    "lackey": "log of valgrind --tool=lackey --trace-mem=yes --trace-syscalls=yes",
    "csv": "lines t,pid,page,write",
    "perf": "perf script or the trace file of tracefs, event exceptions:page_fault_user",
    "damo": "damo report access --json, damo record in json or json_compressed",
    "masim": "configuration of masim",
}
_LOOK = 1 << 16  # bytes from which the form is told
_MOST_JSON = 1 << 30
_LACKEY = re.compile(rb"^(I  |  ?[LSM] )[0-9a-f]{8,16},\d+\s*$|^==\d+== Lackey|^SYSCALL\[\d+,", re.MULTILINE)
_FAULTS = re.compile(rb"^# tracer: |PERF_RECORD_MMAP|" + EVENT.pattern, re.MULTILINE)
_REGION = re.compile(rb"[^,]+,\s*\d+\s*(,[^,]*)?")


@dataclass(frozen=True)
class Options:
    """How a file is read. entries: as read_lackey's, for lackey; pids: the processes to keep, all if empty,
    for csv and perf; seed: of the draws, for damo and masim; rate: accesses a millisecond, for masim."""

    room: Room = field(default_factory=Room)
    entries: Sequence[int] = ENTRIES
    pids: frozenset[int] = frozenset()
    seed: int = 0
    rate: int = 4


def import_workload(
    path: str | os.PathLike[str],
    form: str | None = None,
    options: Options | None = None,
    name: str | None = None,
) -> Workload:
    """Read a file of another tool: plain, gzip or zstd.

    form: one of FORMS; None: told from its content. Raises InputError, with the line where there is one, for
    a file that is not of its form, and where the form cannot be told.
    """
    where = os.fspath(path)
    options = options or Options()
    if form is not None and form not in FORMS:
        raise InputError(f"--form {form}: no such form; there are: {', '.join(FORMS)}")
    with open_checked(path, "trace") as file:
        form = form or form_of(file, where)
        workload = _READERS[form](file, where, name or stem(path), options)
    workload.meta["imported"] = f"{form} {os.path.basename(where)}"
    return workload


def form_of(file: BinaryIO, where: str) -> str:
    """The form of an open file, by its first 64 KiB, which stay unread. Raises InputError if unclear."""
    # a packed stream may hand out less at a time; what it holds at once is enough to tell
    start = cast(BufferedReader, file).peek(_LOOK)[:_LOOK]
    found = [form for form, tells in _TELLS.items() if tells(start)]
    if len(found) != 1:
        why = f"it may be {' or '.join(found)}" if found else "it is like none of them"
        raise InputError(
            f"{where}: its form cannot be told from its content ({why}); give --form {'|'.join(FORMS)}"
        )
    return found[0]


def _first_line(start: bytes) -> bytes:
    lines = (line.strip() for line in start.splitlines())
    return next((line for line in lines if line and not line.startswith(b"#")), b"")


_TELLS = {
    "lackey": lambda start: bool(_LACKEY.search(start)),
    "csv": lambda start: (
        _first_line(start).replace(b" ", b"") == HEADER or _first_line(start).count(b",") == 3
    ),
    "perf": lambda start: bool(_FAULTS.search(start)),
    "damo": lambda start: (
        start.lstrip()[:1] == b"[" or start[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
    ),
    "masim": lambda start: bool(_REGION.fullmatch(_first_line(start))),
}


def _lackey(file: BinaryIO, where: str, name: str, options: Options) -> Workload:
    room = options.room
    return read_lackey(file, where, options.entries, room.operations, room.cut, name)


def _lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    """The lines of a file. Raises InputError for one of more than 64 KiB: then it is no text."""
    for number in itertools.count(1):
        line = file.readline(_LOOK)
        if not line:
            return
        if len(line) == _LOOK:
            raise InputError(f"{where}:{number}: a line of more than {_LOOK} bytes; is the file text?")
        yield line


def _csv(file: BinaryIO, where: str, name: str, options: Options) -> Workload:
    accesses = read_csv(_lines(file, where), where, options.pids)
    return workload_of(accesses, where, name, {"program": name}, options.room)


def _perf(file: BinaryIO, where: str, name: str, options: Options) -> Workload:
    accesses, meta = read_page_faults(_lines(file, where), where, options.pids)
    return workload_of(accesses, where, name, {"program": name, **meta}, options.room)


def _damo(file: BinaryIO, where: str, name: str, options: Options) -> Workload:
    data = file.read(_MOST_JSON + 1)
    if len(data) > _MOST_JSON:
        raise InputError(f"{where}: is larger than {_MOST_JSON >> 20} MiB; record a shorter time")
    snapshots = damo.read_damo(data, where)
    meta = {"program": name, "damo": f"{len(snapshots)} snapshots, expanded with seed {options.seed}"}
    return workload_of(damo.expand(snapshots, where, options.seed), where, name, meta, options.room)


def _masim(file: BinaryIO, where: str, name: str, options: Options) -> Workload:
    config = masim.read_masim(_lines(file, where), where)
    how = f"{options.rate} accesses/ms, expanded with seed {options.seed}"
    meta = {"program": name, "masim": f"{len(config.phases)} phases, {how}"}
    accesses = masim.expand(config, where, options.rate, options.seed)
    return workload_of(accesses, where, name, meta, options.room, masim.mappings(config))


_READERS = {"lackey": _lackey, "csv": _csv, "perf": _perf, "damo": _damo, "masim": _masim}
