"""One boot: a kernel under QEMU's software emulation, from power-on to the end of its recording."""

import re
import subprocess
import tempfile
from pathlib import Path

from experiments.real_kernel import initrd
from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.kernels import Kernel
from experiments.real_kernel.machine import Machine, size_in_bytes

# a host that stops QEMU for a while must not look like a lockup to the guest
_APPEND = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr nowatchdog rcupdate.rcu_cpu_stall_suppress=1"


def boot(kernel: Kernel, machine: Machine, workload: bytes, seconds: float) -> str:
    """What the interpreter printed for this workload: the blocks and the final OPS line.

    Raises RecordingError where the kernel did not get there within `seconds`, with what it said last."""
    return run(kernel, machine, initrd.build(kernel, machine, workload), seconds)


def run(
    kernel: Kernel, machine: Machine, archive: bytes, seconds: float, parallel: bool = False, append: str = ""
) -> str:
    """What an initramfs prints between the two marks. parallel: CPUs of the guest run at the same time.
    append: more words of the kernel's command line.

    Raises RecordingError as :func:`boot`."""
    with tempfile.TemporaryDirectory(prefix="real-kernel-") as name:
        folder = Path(name)
        (folder / "initrd").write_bytes(archive)
        command = _command(kernel, machine, folder, parallel, append)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired as expired:
            console = _text(expired.stdout or b"")
            raise RecordingError(f"{kernel.release}: no end after {seconds:g} s{_last(console)}") from None
    console = _text(done.stdout)
    if done.returncode:
        said = (_text(done.stderr).strip().splitlines() or ["no message"])[-1]
        raise RecordingError(f"QEMU failed: {said}")
    return _recording(kernel.release, console)


def _command(kernel: Kernel, machine: Machine, folder: Path, parallel: bool, append: str) -> list[str]:
    # QEMU 7.2 emulates cmpxchg16b in a way that breaks swap on 6.12
    cpu = "max,-cx16" if kernel.release.startswith("6.12.") else "max"
    # one thread for all CPUs: they take turns, and two-CPU boots neither hang nor vary
    command = ["qemu-system-x86_64", "-accel", f"tcg,thread={'multi' if parallel else 'single'}", "-cpu", cpu]
    command += ["-smp", str(machine.cpus), "-m", f"{size_in_bytes(machine.memory) >> 20}M"]
    command += ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
    command += ["-kernel", str(kernel.image), "-initrd", str(folder / "initrd")]
    command += ["-append", f"{_APPEND} {append}".rstrip()]
    for number, device in enumerate(d for d in machine.swap if d.kind == "virtio"):
        disk = folder / f"disk{number}"
        with disk.open("wb") as file:
            file.truncate(size_in_bytes(device.size))
        command += ["-drive", f"file={disk},format=raw,if=none,id=disk{number},cache=unsafe"]
        command += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    return command


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r", "")


def _recording(release: str, console: str) -> str:
    """The part of the console between the two marks. Raises RecordingError if it is not whole."""
    _, started, rest = console.partition(f"{initrd.STARTED}\n")
    body, ended, status = rest.partition(f"{initrd.ENDED} ")
    failed = re.search(r"^FAILED (.*)$", console, re.MULTILINE)
    if failed:
        raise RecordingError(f"{release}: the workload could not be run: {failed[1]}")
    if not started or not ended or not status.startswith("0"):
        raise RecordingError(f"{release}: the recording did not come to its end{_last(console)}")
    message = re.search(r"\[ *\d+\.\d{6}\] .*", body)
    if message:
        raise RecordingError(f"{release}: a kernel message fell into the recording: {message[0][:200]}")
    return body


def _last(console: str) -> str:
    """The last line of the console, ready to follow a message."""
    lines = [line for line in console.splitlines() if line.strip()]
    return f"; last line: {lines[-1][:200]}" if lines else "; nothing was printed"
