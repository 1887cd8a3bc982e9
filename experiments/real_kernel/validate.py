"""Fresh random workloads on real kernels, and whether jaxswap's replay equals each recording."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.real_kernel.generate import random_case
from experiments.real_kernel.kernels import debian_kernel
from experiments.real_kernel.record import record, write
from jaxswap.validate import hold

EQUAL, DIFFERS, NOT_MODELLED = "equal", "differs", "not modelled"


@dataclass(frozen=True)
class Outcome:
    """How one replay compares with one recording. verdict: EQUAL, DIFFERS or NOT_MODELLED; why in words."""

    verdict: str
    why: str


def held_against(workload: Path, recording: Path) -> Outcome:
    """Replays the workload on the machine that the recording's header describes, and compares."""
    held = hold(workload, recording)
    if held.found is None:
        return Outcome(NOT_MODELLED, held.refused)
    return Outcome(EQUAL if held.equal else DIFFERS, str(held.found))


def validate(releases: Sequence[str], seeds: Sequence[int], kinds: tuple[str, ...], keep: Path | None) -> int:
    """Records and compares every seed on every kernel, printing a row for each; 1 if any differs.

    keep: where workloads and recordings stay, as `jaxswap validate` reads them; None: nowhere."""
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
            workload = folder / "workloads" / f"{case.name}.t.gz"
            workload.parent.mkdir(exist_ok=True)
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
