"""The initramfs: busybox, the modules a machine needs, our programs, a workload, and what the guest runs."""

import functools
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from experiments.real_kernel.errors import MissingTool, RecordingError
from experiments.real_kernel.kernels import Kernel, cache_folder
from experiments.real_kernel.machine import Machine, free_whole, size_in_bytes

SOURCES = Path(__file__).parent / "csrc"
PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "gcc": "gcc libc6-dev"}
PROGRAMS = {
    "interpreter": ("interpreter.c", "process.c", "accesses.c", "blocks.c"),
    "swapon": ("swapon.c",),
    "fragment": ("fragment.c",),
    "threads": ("threads.c",),
}
STARTED, ENDED = "RECORDING STARTS", "RECORDING ENDS"
"""The lines around a recording on the console."""

_THP = "/sys/kernel/mm/transparent_hugepage"
_CGROUPS = "/sys/fs/cgroup"
_CGROUP = f"{_CGROUPS}/limited"
_JOINS = re.compile(rb"^\s*(?:@\d+\s+)?(?:p\d+\s+)?CGROUP\s+([a-z][a-z0-9_-]*)", re.MULTILINE)


def check_tools() -> None:
    """Raises MissingTool, which names every missing program and how to install it."""
    missing = [program for program in PACKAGES if not shutil.which(program)]
    if "busybox" not in missing and b"ld-linux" in _busybox().read_bytes()[:4096]:
        missing.append("busybox")
    if missing:
        packages = " ".join(PACKAGES[program] for program in missing)
        raise MissingTool(
            f"real kernels need {', '.join(missing)}; on Debian: apt-get install -y {packages}"
            + (" (busybox must be static)" if "busybox" in missing else "")
        )


def _busybox() -> Path:
    return Path(shutil.which("busybox") or "busybox").resolve()


@functools.cache
def program(name: str) -> bytes:
    """One of the guest's own programs, a static binary, compiled once for each state of its sources.

    Raises MissingTool where a static program cannot be linked."""
    sources = [SOURCES / file for file in PROGRAMS[name]]
    headers = sorted(SOURCES.glob("*.h"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources + headers)).hexdigest()[:16]
    binary = cache_folder() / f"{name}-{digest}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        partial = binary.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-static", "-o", partial, *sources, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["gcc failed"])[-1]
            raise MissingTool(
                f"{name} does not compile ({said}); on Debian: apt-get install -y {PACKAGES['gcc']}"
            )
        partial.rename(binary)
    return binary.read_bytes()


def named_cgroups(workload: bytes) -> list[str]:
    """The cgroups that a workload's CGROUP operations name, in order of their first."""
    return list(dict.fromkeys(name.decode() for name in _JOINS.findall(workload)))


def guest_script(machine: Machine, modules: list[str], cgroups: Sequence[str] = ()) -> str:
    """The guest's /init for this machine; modules: file names in /lib in the order they are loaded; cgroups:
    those that the workload names.

    Raises RecordingError for the limit of another."""
    zram = sum(device.kind == "zram" for device in machine.swap)
    lines = [
        "#!/bin/busybox sh",
        "/bin/busybox --install -s /bin",
        "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev",
        "dmesg -n 1",
        "echo 0 > /proc/sys/kernel/randomize_va_space",
        f"for size in {_THP}/hugepages-*kB; do echo never > $size/enabled; done",
        # khugepaged would change page tables behind the workload's back: see interpreter.c
        f"echo 1 > {_THP}/khugepaged/pages_to_scan",
        f"echo 4000000000 > {_THP}/khugepaged/scan_sleep_millisecs",
        f"echo 4000000000 > {_THP}/khugepaged/alloc_sleep_millisecs",
    ]
    for module in modules:
        lines.append(f"insmod /lib/{module}" + (f" num_devices={zram}" if module == "zram.ko" else ""))
    if machine.zswap:
        lines.append("echo Y > /sys/module/zswap/parameters/enabled")
    lines += [
        f"echo {machine.page_cluster} > /proc/sys/vm/page-cluster",
        f"echo {machine.swappiness} > /proc/sys/vm/swappiness",
    ]
    lines += _swap_lines(machine)
    options = f"-m '{machine.mthp}'"
    if any(device.kind == "virtio" for device in machine.swap):
        options += " -w"
    if machine.limited:
        options += f" -g {_CGROUP}"
    if cgroups:
        options += f" -c '{' '.join(cgroups)}'"
    lines += _cgroup_lines(machine, cgroups)
    fragment = []
    if machine.fragment:
        options += " -b"
        fragment = [
            f"echo never > {_THP}/defrag",
            # kcompactd would move and split the workload's folios to mend it; kswapd wakes it after a boost
            "echo 0 > /proc/sys/vm/compact_unevictable_allowed",
            "echo 0 > /proc/sys/vm/compaction_proactiveness",
            "echo 0 > /proc/sys/vm/watermark_boost_factor",
            # as few free pages as may be in the CPU's own lists, where they do not merge
            "echo 100000 > /proc/sys/vm/percpu_pagelist_high_fraction",
            f"/fragment {free_whole(machine.fragment)}",
        ]
    lines += [
        f"[ $(grep -c ^/dev /proc/swaps) = {len(machine.swap)} ] || echo 'FAILED a swap device is not on'",
        "echo 3 > /proc/sys/vm/drop_caches",
        *fragment,
        f"echo {machine.defrag} > {_THP}/defrag",
        f"echo '{STARTED}'",
        f"/interpreter {options} /workload",
        f'echo "{ENDED} $?"',
        "poweroff -f",
    ]
    return "\n".join(lines) + "\n"


def _cgroup_lines(machine: Machine, cgroups: Sequence[str]) -> list[str]:
    """Shell lines that make the cgroups, with their limits."""
    folders = {"": _CGROUP} if machine.limited else {}
    folders |= {name: f"{_CGROUPS}/{name}" for name in cgroups}
    if not folders:
        return []
    lines = [
        f"echo {7 if machine.lru == 'mglru' else 0} > /sys/kernel/mm/lru_gen/enabled",
        f"mkdir -p {_CGROUPS}; mount -t cgroup2 cgroup {_CGROUPS}",
        f"echo +memory > {_CGROUPS}/cgroup.subtree_control; mkdir {' '.join(folders.values())}",
    ]
    for name, limits in machine.limits.items():
        if name not in folders:
            raise RecordingError(
                f"a limit of cgroup {name}, which the workload does not name; it names "
                f"{', '.join(cgroups) or 'none'}"
            )
        lines += [f"echo {size_in_bytes(size)} > {folders[name]}/{file}" for file, size in limits.items()]
    return lines


def _swap_lines(machine: Machine) -> list[str]:
    """Shell lines that make the devices and swap them on, in order."""
    lines, numbers = [], {"zram": 0, "virtio": 0}
    for device in machine.swap:
        number = numbers[device.kind]
        numbers[device.kind] += 1
        name = f"zram{number}" if device.kind == "zram" else f"vd{chr(ord('a') + number)}"
        if device.kind == "zram":
            lines.append(f"echo {size_in_bytes(device.size)} > /sys/block/{name}/disksize")
        else:
            lines.append(f"echo {int(device.rotational)} > /sys/block/{name}/queue/rotational")
        priority = -1 if device.priority is None else device.priority
        lines.append(f"mkswap /dev/{name} > /dev/null; /swapon /dev/{name} {priority} {int(device.discard)}")
    return lines


def build(kernel: Kernel, machine: Machine, workload: bytes) -> bytes:
    """The initramfs of a recording of a workload. Raises RecordingError where a module is missing."""
    modules: dict[str, bytes] = {}
    for kind, module in (("zram", "zram"), ("virtio", "virtio_blk")):
        if any(device.kind == kind for device in machine.swap):
            add_module(kernel, module, modules)
    script = guest_script(machine, list(modules), named_cgroups(workload))
    return archive(script, modules, {"workload": workload}, ("interpreter", "swapon", "fragment"))


def archive(
    script: str, modules: dict[str, bytes], files: dict[str, bytes], programs: Sequence[str]
) -> bytes:
    """An initramfs as a gzip'd cpio archive. script: its /init; programs: names of :data:`PROGRAMS`."""
    files = {f"lib/{name}": data for name, data in modules.items()} | files
    files |= {"init": script.encode(), "bin/busybox": _busybox().read_bytes()}
    files |= {name: program(name) for name in programs}
    return gzip.compress(_cpio(files), 1)


def add_module(kernel: Kernel, name: str, modules: dict[str, bytes]) -> None:
    """Adds a module after those it depends on. One that is not a file is taken to be built in."""
    pattern = re.sub("[-_]", "[-_]", name) + ".ko*"
    found = sorted(kernel.modules.rglob(pattern))
    if not found or f"{name}.ko" in modules:
        return
    data = found[0].read_bytes()
    if found[0].suffix == ".xz":
        data = lzma.decompress(data)
    elif found[0].suffix == ".gz":
        data = gzip.decompress(data)
    elif found[0].suffix != ".ko":
        raise RecordingError(f"{found[0]}: only .ko, .ko.xz and .ko.gz modules can be read")
    depends = re.search(rb"\0depends=([^\0]*)\0", data)
    for other in (depends[1].decode() if depends else "").split(","):
        if other:
            add_module(kernel, other, modules)
    modules[f"{name}.ko"] = data


def _cpio(files: dict[str, bytes]) -> bytes:
    """An archive in the newc form: the files, executable, and the folders they and the guest need."""
    folders = ["bin", "dev", "lib", "proc", "sys", "tmp"]
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [(name, 0o100755, data) for name, data in files.items()]
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)
