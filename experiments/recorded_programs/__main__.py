"""Record one of the programs again: python -m experiments.recorded_programs NAME --out FILE."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.recorded_programs.recipes import PROGRAMS, Program
from jaxswap.errors import InputError
from jaxswap.workload import Workload, write_workload
from jaxswap.workload.record import record

# Addresses and hash orders must not depend on who records.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def record_program(program: Program, name: str) -> Workload:
    """Make the input of a program in a temporary folder and record it."""
    with tempfile.TemporaryDirectory() as folder:
        program.write_input(Path(folder))
        environment = {**ENVIRONMENT, "HOME": folder}
        workload = record(program.command, name, folder=folder, environment=environment)
    workload.meta["about"] = program.about
    return workload


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.recorded_programs", description=__doc__)
    parser.add_argument("name", choices=PROGRAMS, help="name of the recording")
    parser.add_argument("--out", metavar="FILE", help="file to write; default NAME.t.gz")
    given = parser.parse_args(arguments)
    try:
        write_workload(record_program(PROGRAMS[given.name], given.name), given.out or f"{given.name}.t.gz")
    except InputError as error:
        print(f"jaxswap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
