"""Record a program under valgrind's lackey as a workload: `python -m jaxswap.workload.record_lackey --help`.

Without `--` one of the workloads that come with jaxswap is recorded again: its input is made, its command
run, and the log imported while it is written, so nothing large touches the disk.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jaxswap.errors import InputError
from jaxswap.workload.describe import describe
from jaxswap.workload.generate import splitmix64
from jaxswap.workload.lackey import OPERATIONS, read_lackey
from jaxswap.workload.text import Workload, write_workload

ENTRIES = (64, 128, 256, 512, 1024)
VALGRIND = (
    "valgrind",
    "--tool=lackey",
    "--trace-mem=yes",
    "--trace-syscalls=yes",
    "--child-silent-after-fork=yes",
)
# Addresses and hash orders must not depend on who records.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Program:
    """A recording that can be made again: what it shows, its command, and what writes its input files."""

    about: str
    command: tuple[str, ...]
    write_input: Callable[[Path], None]


def sort_input(folder: Path) -> None:
    """25,000 log-like lines of 600 to 1,400 bytes (25 MB) in random order of their first 16 characters."""
    keys = splitmix64(1, 0, 25_000).tolist()
    filler = " ".join(f"field{i}={i * i}" for i in range(120))
    lines = [f"{key:016x} {filler[: 583 + key % 801]}\n" for key in keys]
    (folder / "lines.txt").write_text("".join(lines))


def python_input(folder: Path) -> None:
    """A program that fills a dict with 20,000 records of 800 bytes, then looks them up and changes them, a
    few keys most often, and replaces every fiftieth."""
    (folder / "records.py").write_text(
        """\
def fill(count):
    table = {}
    key = 1
    for i in range(count):
        key = (key * 1103 + 12345) & 0xFFFFF
        table[key] = bytearray(800)
    return table

def use(table, count):
    keys = list(table)
    many, x, found = len(keys), 7, 0
    for i in range(count):
        x = (x * 1103 + 12345) & 0xFFFFF
        key = keys[((x & 0x3FF) * (x >> 10) >> 10) * many >> 10]
        record = table[key]
        found += record[300]
        if not i & 3:
            record[i & 511] = 1
        if not i % 50:
            table[key] = bytearray(900)
    return found

use(fill(20000), 30000)
"""
    )


def sqlite_input(folder: Path) -> None:
    """SQL that fills an indexed in-memory table with 9,000 rows of 1.8 KB, looks rows up by key, low keys
    most often (they lie scattered), changes some, reads all in order, and looks up again."""
    look_up = """\
with recursive q(i, x) as
(select 1, {0} union all select i+1, (x * 12899 + 4321) % 65521 from q where i < {1})
select count(*), sum(unicode(substr(t.body, 1700, 1))) from q join t on t.k = (q.x % 95) * (q.x % 89);
"""
    fill = """\
create table t(id integer primary key, k integer, body blob);
create index by_k on t(k);
with recursive c(x) as (select 1 union all select x+1 from c where x < 9000)
insert into t select x, (x * 7919) % 9001, zeroblob(1800) from c;
"""
    change = """\
update t set body = zeroblob(1800) where k between 1000 and 1400;
select count(*) from t where length(body) = 1800;
"""
    (folder / "rows.sql").write_text(fill + look_up.format(1, 4000) + change + look_up.format(5, 3000))


PROGRAMS = {
    "sort": Program(
        "GNU sort of a 25 MB text in memory: filled in order, merged and written out at random",
        ("sort", "--parallel=1", "-S", "30M", "lines.txt"),
        sort_input,
    ),
    "python": Program(
        "CPython filling a dict with records, then skewed look-ups and changes: pointers, reference counts",
        ("/usr/bin/python3", "-S", "-s", "records.py"),
        python_input,
    ),
    "sqlite": Program(
        "sqlite3 in memory: rows inserted under an index, looked up by skewed keys, changed, scanned",
        ("sqlite3", "-batch", "-init", "rows.sql", ":memory:", ".quit"),
        sqlite_input,
    ),
}


def record(
    name: str,
    command: Sequence[str],
    folder: str | os.PathLike[str],
    environment: dict[str, str] | None = None,
    entries: Sequence[int] = ENTRIES,
    operations: int = OPERATIONS,
    cut: bool = False,
) -> Workload:
    """Run `command` in `folder` under lackey and import its log as it comes. Its standard output is thrown
    away.

    Raises InputError if valgrind or the program is missing, the program fails, or the log does not fit
    `operations`.
    """
    if not shutil.which("valgrind"):
        raise InputError(
            "valgrind is not installed; install it (apt-get install valgrind) to record programs"
        )
    if not shutil.which(command[0], path=(environment or os.environ).get("PATH")):
        raise InputError(f"{command[0]}: no such program")
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors, os.fdopen(reader, "rb") as log:
        process = subprocess.Popen(
            [*VALGRIND, f"--log-fd={writer}", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(writer,),
        )
        os.close(writer)
        try:
            workload = read_lackey(log, f"lackey log of {name}", entries, operations, cut, name)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if "cut" in workload.meta:
            process.kill()
        log.close()
        status = process.wait()
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    if status and "cut" not in workload.meta:
        raise InputError(f"{' '.join(command)}: ended with status {status} under valgrind: {''.join(said)}")
    return workload


def record_program(
    name: str, entries: Sequence[int] = ENTRIES, operations: int = OPERATIONS, cut: bool = False
) -> Workload:
    """Make the input of one of PROGRAMS in a temporary folder and record it."""
    program = PROGRAMS[name]
    with tempfile.TemporaryDirectory() as folder:
        program.write_input(Path(folder))
        workload = record(
            name, program.command, folder, {**ENVIRONMENT, "HOME": folder}, operations=operations
        )
    workload.meta["about"] = program.about
    return workload


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxswap.workload.record_lackey",
        usage="%(prog)s NAME [options] [-- COMMAND ARGUMENTS]",
        description="Record a program's page accesses with valgrind's lackey (a million log lines a second).",
        epilog="Recordings that can be made again: "
        + "; ".join(f"{k}: {p.about}" for k, p in PROGRAMS.items()),
    )
    parser.add_argument(
        "name", help="name of the recording; without a command one of: " + ", ".join(PROGRAMS)
    )
    parser.add_argument("--out", help="file to write (.t or .t.gz); default NAME.t.gz")
    parser.add_argument(
        "--entries", type=int, nargs="+", default=ENTRIES, help="sizes of the repeat filter to try"
    )
    parser.add_argument(
        "--operations", type=int, default=OPERATIONS, help="most operations (default %(default)s)"
    )
    parser.add_argument(
        "--cut", action="store_true", help="keep the first operations where all would be too many"
    )
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[words.index("--") + 1 :] if "--" in words else []
    given = parser.parse_args(words[: len(words) - len(command) - 1] if command else words)
    names = ", ".join(PROGRAMS)
    out = Path(given.out or f"{given.name}.t.gz")
    try:
        if not out.parent.is_dir():
            raise InputError(f"{out}: its folder does not exist")
        if command:
            workload = record(given.name, command, ".", None, given.entries, given.operations, given.cut)
        elif given.name in PROGRAMS:
            workload = record_program(given.name, given.entries, given.operations, given.cut)
        else:
            raise InputError(
                f"no recording {given.name!r}; there are {names}; for your own program: NAME -- COMMAND"
            )
        workload.meta["recorded"] = date.today().isoformat()
        write_workload(workload, out)
    except InputError as error:
        print(f"jaxswap: {error}", file=sys.stderr)
        return 2
    for key, value in workload.meta.items():
        print(f"{key:12} {value}")
    seen = describe(workload)
    print(f"{'pages':12} {seen.pages}, of these accessed {seen.footprint} ({seen.footprint / 256:.1f} MiB)")
    print(f"{'operations':12} {seen.operations}, accesses {seen.accesses}, {seen.writes:.0%} writes")
    print(f"{'VMAs':12} at most {seen.vmas}")
    print(f"{'misses':12} {seen.misses:.1f} per 1,000 accesses in an LRU memory of half the footprint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
