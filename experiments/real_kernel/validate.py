"""Fresh random workloads on real kernels, and whether jaxswap's replay equals each recording."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.real_kernel.generate import random_case
from experiments.real_kernel.kernels import debian_kernel
from experiments.real_kernel.record import record, write

EQUAL, DIFFERS, NOT_MODELLED = "equal", "differs", "not modelled"


@dataclass(frozen=True)
class Outcome:
    """How one replay compares with one recording. verdict: EQUAL, DIFFERS or NOT_MODELLED; why in words."""

    verdict: str
    why: str


def held_against(workload: Path, recording: Path) -> Outcome:
    """Replays the workload on the machine that the recording's header describes, and compares."""
    from jaxswap.errors import InputError
    from jaxswap.machine import compare, replay_one
    from jaxswap.workload import read_recording, read_workload

    try:
        real = read_recording(recording)
        lane, kernel = _lane(real.header)
        found = compare(replay_one(read_workload(workload), lane, kernel), real)
    except InputError as error:
        return Outcome(NOT_MODELLED, str(error))
    return Outcome(EQUAL if found.equal else DIFFERS, str(found))


def _lane(header: dict[str, str]):
    """The lane and the kernel profile of a recording's header. Raises InputError where there is none."""
    from jaxswap.config import parse_size
    from jaxswap.errors import InputError
    from jaxswap.machine import PROFILES, Lane

    kernel = ".".join(header["kernel"].split(".")[:2])
    kind, size, *more = header["swap"].split()
    bytes_of_swap = parse_size(size.rstrip(","))
    if kernel not in PROFILES or kind != "zram" or more or bytes_of_swap is None:
        raise InputError(f"kernel {kernel} with swap {header['swap']}")
    return Lane(header["mthp"].replace("-", ""), swap=bytes_of_swap), kernel


def validate(releases: Sequence[str], seeds: Sequence[int], kinds: tuple[str, ...], keep: Path | None) -> int:
    """Records and compares every seed on every kernel, printing a row for each; 1 if any differs.

    keep: where workloads and recordings stay; None: nowhere."""
    kernels = [debian_kernel(release) for release in releases]
    with tempfile.TemporaryDirectory(prefix="real-kernel-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("| case | pages | operations | mthp | swap | " + " | ".join(releases) + " |")
        print("|" + "---|" * (5 + len(releases)))
        counts = {EQUAL: 0, DIFFERS: 0, NOT_MODELLED: 0}
        notes = []
        for seed in seeds:
            case = random_case(seed, kinds)
            workload = folder / f"{case.name}.t.gz"
            write(workload, case.workload)
            row = [case.name, str(case.pages), str(case.operations), case.machine.mthp]
            row.append(", ".join(map(str, case.machine.swap)))
            for kernel in kernels:
                recording = folder / kernel.release / f"{case.name}.txt.gz"
                recording.parent.mkdir(exist_ok=True)
                write(recording, record(kernel, case.machine, case.name, case.workload.encode()))
                outcome = held_against(workload, recording)
                counts[outcome.verdict] += 1
                row.append(outcome.verdict)
                if outcome.verdict != EQUAL:
                    notes.append(f"{case.name} on {kernel.release}: {outcome.verdict}: {outcome.why}")
            print("| " + " | ".join(row) + " |")
            sys.stdout.flush()
    print("\n" + "\n".join([*notes, ", ".join(f"{count} {verdict}" for verdict, count in counts.items())]))
    return 1 if counts[DIFFERS] else 0
