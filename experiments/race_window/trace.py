"""How long the steps of a swap-in take that two CPUs make at once: a boot of a real kernel with probes.

    python -m experiments.race_window.trace --kernel 7.3.4 --mthp 128 [--append init_on_alloc=0]

Two threads, one a CPU, come for the same ranges (csrc/threads.c of experiments.real_kernel, modes same and
near). Probes on both checks, on the allocation of the folio, and on the folio leaving the swap cache are
stamped with the time stamp counter. Printed are 10, 50 and 90 of 100 in microseconds, and the longest; they
are of an emulated CPU, so only their ratios mean anything, and long ones also of what else the host does.
"""

import argparse
import errno
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from experiments.real_kernel import initrd
from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.kernels import debian_kernel
from experiments.real_kernel.threads import CHECK, TRACING, add_probe, boot_threads, prepared

PHASES = ("2 10 64 same", "2 10 64 near")
PROBES = {
    "fault": ("p", "do_swap_page", ""),
    "check": ("p", CHECK, ""),
    "checked": ("r128", CHECK, "ret=$retval:s32"),
    "allocate": ("p", "vma_alloc_folio_noprof", ""),
    "allocated": ("r128", "vma_alloc_folio_noprof", ""),
    "left": ("r128", "swap_cache_del_folio", ""),
}
"""Name of the event: kind of probe, function (mm/swap_state.c, mm/memory.c, mm/mempolicy.c), arguments."""
_EVENT = re.compile(r" *.*-(\d+) +\[\d+\] \S+ +(\d+): (\w+): .*?(?:ret=(-?\d+))?$")
_MEGAHERTZ = re.compile(r"Refined TSC clocksource calibration: ([\d.]+) MHz")


@dataclass
class Steps:
    """What a trace says. Times are in microseconds.

    first, second: checks of that number in a try, by return value. allocation: from entry to return. between:
    from the return of a first check to the entry of the second, by what the second returned. cached: from the
    return of a second check that passed until the folio has left the cache. retry: from -EEXIST of a second
    check to the return of the next one."""

    first: Counter[int] = field(default_factory=Counter)
    second: Counter[int] = field(default_factory=Counter)
    allocation: list[float] = field(default_factory=list)
    between: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    cached: list[float] = field(default_factory=list)
    retry: list[float] = field(default_factory=list)


@dataclass
class _Thread:
    """Where one thread is: the number of its last check in this try, and when things happened last."""

    number: int = 0
    at: dict[str, float] = field(default_factory=dict)


def steps_of(trace: str, megahertz: float) -> Steps:
    """Read a trace of PROBES, stamped with the time stamp counter, of a kernel with `megahertz`."""
    steps, threads = Steps(), defaultdict[int, _Thread](_Thread)
    for thread, now, name, value in sorted(_events(trace, megahertz), key=lambda event: event[1]):
        own = threads[thread]
        match name:
            case "fault":
                own.number, own.at = 0, {}
            case "check":
                own.number = own.number % 2 + 1
            case "checked":
                assert value is not None
                (steps.first if own.number == 1 else steps.second)[value] += 1
                if own.number == 2 and "first" in own.at:
                    steps.between[value].append(own.at["check"] - own.at["first"])
                if "refused" in own.at:
                    steps.retry.append(now - own.at.pop("refused"))
                if own.number == 1 and value == 0:
                    own.at["first"] = now
                elif own.number == 2 and value == 0:
                    own.at["in"] = now
                elif own.number == 2 and value == -errno.EEXIST:
                    own.at["refused"] = now
                if value or own.number == 2:
                    own.number = 0
            case "allocated" if "allocate" in own.at:
                steps.allocation.append(now - own.at["allocate"])
            case "left" if "in" in own.at:
                steps.cached.append(now - own.at.pop("in"))
        own.at[name] = now
    return steps


def _events(trace: str, megahertz: float) -> Iterator[tuple[int, float, str, int | None]]:
    for line in trace.splitlines():
        found = _EVENT.match(line)
        if found and found[3] in PROBES:
            yield int(found[1]), int(found[2]) / megahertz, found[3], int(found[4]) if found[4] else None


def table(steps: Steps) -> str:
    """The steps as text."""
    lines = [
        f"first checks:  {_returned(steps.first)}",
        f"second checks: {_returned(steps.second)}",
        f"{'us':34}{'number':>8}{'10 %':>8}{'50 %':>8}{'90 %':>8}{'longest':>10}",
    ]
    times = {
        "allocation of the folio": steps.allocation,
        "between the checks, passed": steps.between[0],
        "between the checks, -EEXIST": steps.between[-errno.EEXIST],
        "between the checks, -ENOENT": steps.between[-errno.ENOENT],
        "in the cache": steps.cached,
        "from -EEXIST to the next check": steps.retry,
    }
    for name, values in times.items():
        if values:
            low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
            lines.append(f"{name:34}{len(values):8}{low:8.0f}{middle:8.0f}{high:8.0f}{max(values):10.0f}")
    return "\n".join(lines)


def _returned(found: Counter[int]) -> str:
    names = {0: "passed", -errno.EEXIST: "-EEXIST", -errno.ENOENT: "-ENOENT"}
    return ", ".join(f"{names.get(value, value)} {found[value]}" for value in sorted(found, reverse=True))


def guest_script(mthp: str, modules: list[str]) -> str:
    """The guest's /init. mthp, modules: as for real_kernel.threads.guest_script."""
    lines = prepared(mthp, modules)
    lines += [f"echo x86-tsc > {TRACING}/trace_clock", f"echo 60000 > {TRACING}/buffer_size_kb"]
    lines += [
        add_probe(f"{kind}:steps/{name} {function} {arguments}", function)
        for name, (kind, function, arguments) in PROBES.items()
    ]
    lines += [
        f"echo 1 > {TRACING}/events/steps/enable",
        f"echo '{initrd.STARTED}'",
        "dmesg | grep Refined | cut -c16-",
    ]
    for phase in PHASES:
        lines += [
            f"echo > {TRACING}/trace; echo 1 > {TRACING}/tracing_on; echo '=== {phase}'; /threads {phase}",
            f"echo 0 > {TRACING}/tracing_on; grep -v '^#' {TRACING}/trace",
        ]
    lines += [f'echo "{initrd.ENDED} 0"', "poweroff -f"]
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.race_window.trace", description=__doc__)
    parser.add_argument("--kernel", default="7.3.4", metavar="RELEASE", help="default 7.3.4; 7.2 or later")
    parser.add_argument("--mthp", default="64", metavar="SIZES", help="sizes in kB, default 64")
    parser.add_argument("--append", default="", metavar="WORDS", help="more of the kernel's command line")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="default 600")
    arguments = parser.parse_args(words)
    try:
        kernel = debian_kernel(arguments.kernel)
        trace = boot_threads(kernel, arguments.mthp, guest_script, arguments.timeout, arguments.append)
        megahertz = _MEGAHERTZ.search(trace)
        if megahertz is None:
            raise RecordingError(f"{kernel.release}: it does not say how fast its time stamp counter goes")
    except RecordingError as error:
        print(f"race_window.trace: {error}", file=sys.stderr)
        return 2
    for part in trace.split("=== ")[1:]:
        title = f"{kernel.release}, mTHP {arguments.mthp}, {part.splitlines()[0]} {arguments.append}".rstrip()
        print(f"{title}\n{table(steps_of(part, float(megahertz[1])))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
