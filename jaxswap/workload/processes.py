"""Who does an operation and where: the prefixes `@C` and `pN`; the processes and cgroups a workload may
name.
"""

import re
from collections.abc import Callable, Iterable

MOST_PROCESSES = 16
MOST_CPUS = 16
MOST_CGROUPS = 7  # a CPU has stock for no more (NR_MEMCG_STOCK); the root has none
_CGROUP = re.compile(r"[a-z][a-z0-9_-]{0,15}")
_PREFIX = re.compile(rb"\s*(?:@(\S*)(?:\s+|$))?(?:p(\d\S*)(?:\s+|$))?")


def split_prefix(raw: bytes) -> tuple[bytes, int, int]:
    """(line without its prefix, process, CPU). Raises ValueError with what is wrong."""
    match = _PREFIX.match(raw)
    assert match is not None
    numbers = []
    for word, sign, most in ((match[2], "p", MOST_PROCESSES), (match[1], "@", MOST_CPUS)):
        text = "0" if word is None else word.decode("utf-8", "backslashreplace")
        if not text.isdigit() or len(text) > 3 or int(text) >= most:
            what = "process" if sign == "p" else "CPU"
            raise ValueError(f"{sign}{text[:30]} is no {what}; they are {sign}0..{sign}{most - 1}")
        numbers.append(int(text))
    return raw[match.end() :], numbers[0], numbers[1]


def check_cgroup(name: str) -> str:
    """The name. Raises ValueError for what is no name of a cgroup."""
    if not _CGROUP.fullmatch(name):
        shown = f"{name[:30]!r} is no name" if name else "a name is missing"
        raise ValueError(f"{shown}; write a small letter and up to 15 of a-z, 0-9, - and _: CGROUP web")
    return name


def split_limits(text: str) -> dict[str, str]:
    """The limit of each cgroup, of "32M", "web=24M, db=16M" or both; "" is the cgroup processes start in.

    Raises ValueError; what is a size is for the caller to say."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, size = (word.strip() for word in part.strip().rpartition("="))
        if equals:
            check_cgroup(name)
        if name in found:
            raise ValueError(f"two limits of {f'cgroup {name}' if name else 'one cgroup'}; write one")
        found[name] = size
    return found


def check_lives(events: Iterable[tuple[int, str, int, int]], fail: Callable[[int, str], Exception]) -> None:
    """Raise `fail(line, message)` for an operation of a process that does not live.

    events: (line, operation, process, child of a FORK) in file order; p0 lives from the start to the end.
    """
    alive, used = {0}, {0}
    for line, operation, process, child in events:
        if process not in alive:
            why = "has exited" if process in used else f"does not exist yet; write FORK {process} first"
            raise fail(line, f"{operation}: process p{process} {why}")
        if operation == "FORK":
            if not 1 <= child < MOST_PROCESSES:
                raise fail(line, f"FORK: the child is {child}; it must be 1..{MOST_PROCESSES - 1}")
            if child in alive:
                raise fail(line, f"FORK: p{child} lives; give the child a number of its own")
            alive.add(child)
            used.add(child)
        elif operation == "EXIT":
            if process == 0:
                raise fail(line, "EXIT: p0 lives to the end; write pN EXIT for a forked process")
            alive.discard(process)
