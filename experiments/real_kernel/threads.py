"""Two CPUs at once on the same swapped-out ranges: what each check of a range returned, and the counters.

The CPUs of the guest run in parallel, so no two boots are alike. A kernel probe on the return of
``__swap_cache_add_check`` (mm/swap_state.c, 7.2 / 7.3) fills a histogram of return value and range size for
each phase; 7.0 and 7.1 have no such function, and only their counters say something.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from experiments.real_kernel import initrd, qemu
from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.kernels import Kernel
from experiments.real_kernel.machine import Machine, SwapDevice, size_in_bytes

CPUS = 2
SWAP = "256M"
TRACING = "/sys/kernel/tracing"
PHASES = (
    "1 10 64 near",
    "2 10 64 same",
    "2 10 64 near",
    "4 10 64 near",
    "4 10 64 nearw",
    "4 10 64 rand",
    "4 10 64 evict",
    "4 10 64 evicthot",
    "3 10 64 dn",
    "4 10 64 willneed",
    "2 4 64 fork",
)
"""Arguments of csrc/threads.c: threads, rounds, ranges of 64 kB, mode."""
CHECK = "__swap_cache_add_check"
_PROBED = {
    CHECK: "ret=$retval:s32 nr=$arg3:s64",
    "swap_cache_alloc_folio": "ret=$retval:s8",
    "swapin_sync": "ret=$retval:s8",
}
"""Functions probed where the kernel has them; the low byte of a folio's address is 0, 64, -128 or -64."""
_SIZES = (16, 32, 64, 128)
_STATS = ("swpin", "swpin_fallback", "swpin_fallback_charge", "swpout", "swpout_fallback", "split")


@dataclass(frozen=True)
class Phase:
    """One run of the program. Counts are of this phase."""

    threads: int
    rounds: int
    ranges: int
    mode: str
    bad: int
    """Pages that did not hold what was written."""
    checks: dict[tuple[int, int], int]
    """Of each return value (0 or -errno) and range size in pages: how often; empty where it is not traced."""
    missed: int
    """Returns of probed functions that were not seen; 0 if the histogram is whole."""
    counters: dict[str, int]
    """``64kB swpin`` and the like, and /proc/vmstat's ``pswpin``, ``pgmajfault`` and others."""

    @property
    def name(self) -> str:
        return f"{self.mode} {self.threads}"

    def of(self, error: int, pages: int | None = None) -> int:
        """Checks that returned this, of a size or of all."""
        return sum(n for (ret, nr), n in self.checks.items() if ret == error and pages in (None, nr))


def record_threads(kernel: Kernel, mthp: str, seconds: float, append: str) -> str:
    """The text of a recording, header included; arguments as of :func:`boot_threads`."""
    body = boot_threads(kernel, mthp, guest_script, seconds, append)
    header = f"# kernel {kernel.release}\n# program csrc/threads.c, {CPUS} cpus, zram {SWAP}, mthp {mthp}"
    header += f", append {append}\n" if append else "\n"
    return header + body


def boot_threads(
    kernel: Kernel, mthp: str, script: Callable[[str, list[str]], str], seconds: float, append: str
) -> str:
    """What a guest prints of two CPUs in parallel, with csrc/threads.c and swap on zram.

    mthp: sizes in kB, as Machine has them; script: of these and the modules' names, its /init; append: more
    words of the kernel's command line.
    """
    initrd.check_tools()
    machine = Machine(mthp, (SwapDevice("zram", SWAP),), CPUS)
    modules: dict[str, bytes] = {}
    initrd.add_module(kernel, "zram", modules)
    packed = initrd.archive(script(mthp, list(modules)), modules, {}, ("threads", "swapon"))
    return qemu.run(kernel, machine, packed, seconds, parallel=True, append=append)


def prepared(mthp: str, modules: list[str]) -> list[str]:
    """The first lines of a guest's /init: swap on zram, mTHP sizes, khugepaged asleep."""
    sysfs = "/sys/kernel/mm/transparent_hugepage"
    lines = [
        "#!/bin/busybox sh",
        "/bin/busybox --install -s /bin",
        "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev",
        f"mount -t tracefs tracefs {TRACING}",
        "dmesg -n 1",
        "echo 0 > /proc/sys/kernel/randomize_va_space",
        *(f"insmod /lib/{module}" for module in modules),
        f"echo {size_in_bytes(SWAP)} > /sys/block/zram0/disksize",
        "mkswap /dev/zram0 > /dev/null; /swapon /dev/zram0 -1 0",
        "[ $(grep -c ^/dev /proc/swaps) = 1 ] || echo 'FAILED the swap device is not on'",
        f"echo 4000000000 > {sysfs}/khugepaged/scan_sleep_millisecs",
        f"echo 4000000000 > {sysfs}/khugepaged/alloc_sleep_millisecs",
        f"for size in {sysfs}/hugepages-*kB; do echo never > $size/enabled; done",
    ]
    for word in mthp.split():
        when = "madvise" if word.endswith("m") else "always"
        lines.append(f"echo {when} > {sysfs}/hugepages-{word.removesuffix('m')}kB/enabled")
    return lines


def add_probe(definition: str, function: str) -> str:
    """The line of /init that makes a kernel probe where the kernel has the function."""
    escaped = definition.replace("$", "\\$")
    return (
        f'grep -q " {function}$" /proc/kallsyms && '
        f'{{ echo "{escaped}" >> {TRACING}/kprobe_events || echo "FAILED no probe on {function}"; }}'
    )


def guest_script(mthp: str, modules: list[str]) -> str:
    """The guest's /init; modules: file names in /lib in the order they are loaded."""
    sysfs = "/sys/kernel/mm/transparent_hugepage"
    events = f"{TRACING}/events/probed"
    lines = prepared(mthp, modules)
    for function, arguments in _PROBED.items():
        # most at once: many may sleep in a probed function
        lines.append(add_probe(f"r128:probed/{function} {function} {arguments}", function))
    stats = "; ".join(
        f'echo "  {size}kB '
        + " ".join(f"{name}=$(cat {sysfs}/hugepages-{size}kB/stats/{name} 2>/dev/null)" for name in _STATS)
        + '"'
        for size in _SIZES
    )
    lines += [
        f"counters() {{ {stats}; grep -E '^(pswp|swpin_zero|swpout_zero|pgmajfault|swap_ra)' /proc/vmstat "
        "| tr '\\n' ' '; echo; }",
        "phase() {",
        'echo "=== mt $*"',
        f"for event in {events}/*/; do",
        "  case $event in *add_check/) keys=ret,nr;; *) keys=ret;; esac",
        '  echo "hist:keys=$keys" > $event/trigger || echo "FAILED no histogram of $event"',
        "done",
        'counters > /tmp/before; /threads "$@"; counters > /tmp/after',
        f"for event in {events}/*/; do",
        "  case $event in *add_check/) keys=ret,nr;; *) keys=ret;; esac",
        '  echo "HIST $(basename $event)"; grep -E "ret:|Hits|Dropped" $event/hist',
        '  echo "!hist:keys=$keys" > $event/trigger',
        "done",
        f"cat {TRACING}/kprobe_profile",
        "echo before:; cat /tmp/before; echo after:; cat /tmp/after",
        "}",
        f"echo '{initrd.STARTED}'",
        *(f"phase {arguments}" for arguments in PHASES),
        f'echo "{initrd.ENDED} 0"',
        "poweroff -f",
    ]
    return "\n".join(lines) + "\n"


def read_threads(text: str) -> list[Phase]:
    """The phases of a recording. Raises RecordingError where it is not whole."""
    parts = re.split(r"^=== mt ", text, flags=re.MULTILINE)[1:]
    if not parts:
        raise RecordingError("no phase (=== mt THREADS ROUNDS RANGES MODE) in this recording")
    phases, missed_before = [], 0
    for part in parts:
        said = re.search(r"^MT (\w+) T=(\d+) R=(\d+) NF=(\d+) bad=(\d+)", part, re.MULTILINE)
        before, after = part.find("\nbefore:\n"), part.find("\nafter:\n")
        if not said or not 0 < before < after:
            raise RecordingError(f"the phase {part.splitlines()[0]!r} is not whole")
        first, last = _counters(part[before:after]), _counters(part[after:])
        missed = sum(int(n) for n in re.findall(r"^ +\w+ +\d+ +(\d+) *$", part[:before], re.MULTILINE))
        histograms = dict(re.findall(r"^HIST (\w+)\n((?:(?!HIST).*\n)*?)(?=HIST|  )", part, re.MULTILINE))
        dropped = sum(int(n) for n in re.findall(r"Dropped: (\d+)", part))
        threads, rounds, ranges, bad = (int(word) for word in said.group(2, 3, 4, 5))
        checks = _checks(histograms.get(CHECK, ""))
        counters = {name: last[name] - first[name] for name in last}
        missing = missed - missed_before + dropped
        phases.append(Phase(threads, rounds, ranges, said[1], bad, checks, missing, counters))
        missed_before = missed
    return phases


def _counters(block: str) -> dict[str, int]:
    found = {}
    for line in block.splitlines():
        size = re.match(r" +(\d+kB) ", line)
        if size:
            found |= {f"{size[1]} {name}": int(n) for name, n in re.findall(r"(\w+)=(\d+)", line)}
        elif not line.startswith("="):
            found |= {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", line)}
    return found


def _checks(histogram: str) -> dict[tuple[int, int], int]:
    found = {}
    for ret, pages, hits in re.findall(r"\{ ret: +(\d+), nr: +(\d+) \} hitcount: +(\d+)", histogram):
        value = int(ret)
        found[value - (1 << 64) if value >> 63 else value, int(pages)] = int(hits)
    return found
