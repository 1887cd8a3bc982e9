"""Record a program's memory accesses under valgrind's lackey, whose log is imported while it is written."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import BinaryIO

from jaxswap.errors import InputError, reason
from jaxswap.workload.accesses import Room
from jaxswap.workload.lackey import ENTRIES, read_lackey
from jaxswap.workload.text import Workload

VALGRIND = (
    "valgrind",
    "--tool=lackey",
    "--trace-mem=yes",
    "--trace-syscalls=yes",
    "--child-silent-after-fork=yes",
)
_LOOK = 1 << 20  # bytes read at a time: a second of the log or so


def record(
    command: Sequence[str],
    name: str | None = None,
    room: Room | None = None,
    entries: Sequence[int] = ENTRIES,
    folder: str | os.PathLike[str] = ".",
    environment: Mapping[str, str] | None = None,
    report: Callable[[int, int], None] = lambda accesses, operations: None,
) -> Workload:
    """Run `command` in `folder` under lackey and import its log as it comes; nothing large touches the disk.

    The program reads the caller's standard input; what it prints is thrown away. name: of the workload; the
    program's without folders if not given. entries: as read_lackey's. report: called now and then with the
    accesses and operations so far. With room.cut the program is ended when there is no more room. Raises
    InputError if valgrind or the program is missing, the program fails, or its log does not fit.
    """
    room = room or Room()
    _check(command, folder, environment)
    name = name or os.path.basename(command[0])
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors, os.fdopen(reader, "rb") as log:
        try:
            process = subprocess.Popen(
                [*VALGRIND, f"--log-fd={writer}", *command],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(writer,),
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{command[0]}: cannot be run under valgrind ({reason(error)})") from None
        finally:
            os.close(writer)
        try:
            workload = read_lackey(
                log,
                f"log of {name}",
                entries,
                room.operations,
                room.cut,
                name,
                piece_bytes=_LOOK,
                report=report,
            )
        except InputError as error:
            # a program that valgrind could not start leaves no accesses, and valgrind says why
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.kill()
            status = process.wait()
            raise (InputError(_failed(command, status, errors)) if status > 0 else error) from None
        except BaseException:
            process.kill()
            process.wait()
            raise
        if "cut" in workload.meta:
            process.kill()
        log.close()
        status = process.wait()
        if status and "cut" not in workload.meta:
            raise InputError(_failed(command, status, errors))
    workload.meta["recorded"] = date.today().isoformat()
    return workload


def _check(
    command: Sequence[str], folder: str | os.PathLike[str], environment: Mapping[str, str] | None
) -> None:
    """Raise InputError for what would not even start."""
    if not shutil.which("valgrind"):
        raise InputError(
            "valgrind is not installed; install it (apt-get install valgrind) to record programs"
        )
    if any("\0" in word for word in command):
        raise InputError("a program's name and arguments hold no zero bytes")
    program = command[0]
    if os.sep in program:
        path = os.path.join(folder, program)
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            why = "is no program (chmod +x?)" if os.path.exists(path) else "no such program"
            raise InputError(f"{program}: {why}")
    elif not shutil.which(program, path=(environment or os.environ).get("PATH")):
        raise InputError(f"{program}: no such program; for one in a folder write its path, as ./{program}")


def _failed(command: Sequence[str], status: int, errors: BinaryIO) -> str:
    errors.seek(0)
    said = errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    how = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
    return f"{' '.join(command)}: {how} under valgrind{''.join(f': {line}' for line in said)}"
