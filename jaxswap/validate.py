"""Every recording of a folder held against its replay."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jaxswap.described import free_of, machine_of, of_recording
from jaxswap.errors import InputError, NotModelled
from jaxswap.machine import Comparison, Lane, compare, replay_one
from jaxswap.machine.replay import OneReplay, goes_by_page, replay_each
from jaxswap.pressure import (
    Cell,
    HeldCell,
    cell_of,
    cell_path,
    clocked,
    compare_cell,
    grouped,
    limited,
    refuse_cell,
)
from jaxswap.workload import Recording, Workload, read_recording, read_workload

# Recordings of other things: two CPUs at once, by name or in a folder, and the kernel's own test program.
APART = ("threads-", "thp_swap_allocator_test-")
THREADS = "threads"


@dataclass(frozen=True)
class Held:
    """One recording held against its replay. refused: why there is no replay, "" if there is one."""

    kernel: str
    name: str
    found: Comparison | None
    refused: str = ""

    @property
    def equal(self) -> bool:
        """Whether there is a replay and nothing differs."""
        return self.found is not None and self.found.equal


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(workload, recording) of every recording KERNEL/NAME.txt below a folder, .gz or not, but for cells.

    NAME.t lies beside it or in workloads/ of a folder above it. Raises InputError if the folder has no
    recording or one of them no workload.
    """
    return [(_workload(path, [_name(path)]), path) for path in _recordings(folder) if _of_cell(path) is None]


def cells(folder: Path) -> list[Cell]:
    """The pressure cells below a folder: boots NAME-bootN.txt under a limit, and what has no DUMP in a
    folder pressure/.

    The workload of uni-classic-64-boot1.txt is uni-classic-64.t, uni-classic.t or uni.t, beside it or in
    workloads/ or workloads/pressure/ of a folder above it. Raises InputError as `pairs` and `cell_of` do.
    """
    boots = [boot for path in _recordings(folder) if (boot := _of_cell(path)) is not None]
    found = []
    for path, group in grouped(boots).items():
        words = _name(path).split("-")
        names = ["-".join(words[:end]) for end in range(len(words), 0, -1)]
        found.append(cell_of(_name(path), _workload(Path(group[0].path), names), group))
    return found


def hold(workload: Path, recording: Path) -> Held:
    """Replay a workload on the machine of a recording's header and compare.

    Raises InputError for a workload or a recording that cannot be read.
    """
    real = read_recording(recording)
    kernel, name = real.header.get("kernel", recording.parent.name), _name(recording)
    try:
        operations = read_workload(workload)
    except NotModelled as error:
        return Held(kernel, name, None, str(error))
    try:
        lane, profile = machine_of(of_recording(real))
        return Held(kernel, name, compare(replay_one(operations, lane, profile), real))
    except InputError as error:
        return Held(kernel, name, None, str(error))


def hold_cell(cell: Cell) -> HeldCell:
    """Replay the workload of a cell on the machine of its header, and compare.

    Raises InputError for a workload that cannot be read or is another one than the boots'.
    """
    if not cell.boots:
        return refuse_cell(cell, "every boot was killed")
    try:
        operations = read_workload(cell.workload)
    except NotModelled as error:
        return refuse_cell(cell, str(error))
    try:
        replays = replay_cell(cell, operations, *machine_of(of_recording(cell.boots[0])))
    except InputError as error:
        return refuse_cell(cell, str(error))
    return compare_cell(cell, replays)


def replay_cell(cell: Cell, workload: Workload, lane: Lane, profile: str) -> list[OneReplay]:
    """Replays of a cell that flush the statistics and the TLB at the pace of its boots, where this decides
    something (`clocked`), else one that flushes at every reclaim; and where memory was in pieces, such
    replays for each boot, which had its own.

    Raises InputError as `replay_each` does.
    """
    lanes = of_boots(cell, lane)
    if not goes_by_page(workload, lane, profile):
        lanes = [each for one in lanes for each in clocked(cell, one) or [one]]
    return replay_each(workload, lanes, profile)


def of_boots(cell: Cell, lane: Lane) -> list[Lane]:
    """The lane of a cell with the free blocks that each boot had, if its own are what the first had."""
    free = [free_of(boot) for boot in cell.boots]
    if lane.frames is None or lane.frames.free != free[0]:
        return [lane]
    return [replace(lane, frames=replace(lane.frames, free=blocks)) for blocks in dict.fromkeys(free)]


def validate(folder: Path) -> Iterator[Held]:
    """Every recording below a folder that is of no cell, as it is done."""
    for workload, recording in pairs(folder):
        yield hold(workload, recording)


def _name(recording: Path) -> str:
    return recording.name.partition(".txt")[0]


def _recordings(folder: Path) -> list[Path]:
    """The recordings below a folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with KERNEL/NAME.txt and workloads/NAME.t")
    found = [
        path
        for path in sorted([*folder.rglob("*.txt"), *folder.rglob("*.txt.gz")])
        if not path.name.startswith(APART) and path.parent.name != THREADS
    ]
    if not found:
        raise InputError(f"{folder}: no recording KERNEL/NAME.txt or .txt.gz below it")
    return found


def _of_cell(path: Path) -> Recording | None:
    """The recording if it is a boot of a pressure cell."""
    in_folder = path.parent.name == "pressure"
    if not in_folder and cell_path(path) is None:
        return None
    recording = read_recording(path)
    apart = limited(recording) and cell_path(path) is not None
    return recording if apart or (in_folder and not recording.dumps()) else None


def _workload(recording: Path, names: list[str]) -> Path:
    """The workload of a recording, by the first of some names that a file has."""
    homes = [recording.parent, *(parent / "workloads" for parent in recording.absolute().parents)]
    for name in names:
        for home in (*homes, *(home / "pressure" for home in homes[1:])):
            for path in (home / f"{name}.t", home / f"{name}.t.gz"):
                if path.is_file():
                    return path
    raise InputError(
        f"{recording}: no workload {names[-1]}.t or {names[-1]}.t.gz beside it or in workloads/ of a folder "
        "above it"
    )
