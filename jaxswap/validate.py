"""Every recording of a folder held against its replay."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxswap.described import machine_of, of_header
from jaxswap.errors import InputError
from jaxswap.machine import Comparison, compare, replay_one
from jaxswap.workload import read_recording, read_workload

# Recordings of other things: two CPUs at once, the kernel's own test program, runs under memory pressure.
APART = ("threads-", "thp_swap_allocator_test-")


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
    """(workload, recording) of every recording KERNEL/NAME.txt below a folder, .gz or not.

    NAME.t lies beside it, in workloads/ of the folder or of a folder above the recording, up to `folder`'s
    parent. Raises InputError if the folder has no recording or one of them no workload.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with KERNEL/NAME.txt and workloads/NAME.t")
    found = []
    for recording in sorted([*folder.rglob("*.txt"), *folder.rglob("*.txt.gz")]):
        name = recording.name.partition(".txt")[0]
        if name.startswith(APART) or "pressure" in recording.relative_to(folder).parts:
            continue
        above = [
            parent for parent in recording.parents if parent == folder.parent or folder in parent.parents
        ]
        homes = [recording.parent, *(parent / "workloads" for parent in [*above, folder, folder.parent])]
        workloads = [home / f"{name}.{end}" for home in homes for end in ("t", "t.gz")]
        workload = next((path for path in workloads if path.is_file()), None)
        if workload is None:
            raise InputError(f"{recording}: no workload {name}.t or {name}.t.gz beside it or in workloads/")
        found.append((workload, recording))
    if not found:
        raise InputError(f"{folder}: no recording KERNEL/NAME.txt or .txt.gz below it")
    return found


def hold(workload: Path, recording: Path) -> Held:
    """Replay a workload on the machine of a recording's header and compare.

    Raises InputError for a workload or a recording that cannot be read.
    """
    real, operations = read_recording(recording), read_workload(workload)
    kernel, name = real.header.get("kernel", recording.parent.name), recording.name.partition(".txt")[0]
    try:
        lane, profile = machine_of(of_header(real))
        return Held(kernel, name, compare(replay_one(operations, lane, profile), real))
    except InputError as error:
        return Held(kernel, name, None, str(error))


def validate(folder: Path) -> Iterator[Held]:
    """Every recording below a folder, as it is done."""
    for workload, recording in pairs(folder):
        yield hold(workload, recording)
