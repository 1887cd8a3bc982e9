"""Recording one workload on one kernel."""

import gzip
from pathlib import Path

from experiments.real_kernel import initrd, qemu
from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.kernels import Kernel, debian_kernel, own_kernel
from experiments.real_kernel.machine import Machine
from jaxswap.workload.files import write_atomic


def chosen_kernel(release: str | None, folder: Path | None) -> Kernel:
    """Debian's kernel of this release, or the one in the folder (named by its own image if no release is)."""
    if folder is None:
        return debian_kernel(release or "")
    own = own_kernel(folder)
    return Kernel(release, own.image, own.modules) if release else own


def workload_bytes(path: Path) -> bytes:
    """The text of a .t or .t.gz file. Raises RecordingError if it cannot be read."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from None


def boot_path(path: Path, number: int) -> Path:
    """Where boot `number` goes: NAME.txt becomes NAME-boot1.txt, NAME.txt.gz NAME-boot1.txt.gz."""
    name, dot, rest = path.name.partition(".txt")
    return path.with_name(f"{name}-boot{number}{dot}{rest}")


def record(kernel: Kernel, machine: Machine, name: str, workload: bytes, seconds: float = 580) -> str:
    """The text of the recording of a workload called `name`, header included."""
    initrd.check_tools()
    body = qemu.boot(kernel, machine, workload, seconds)
    header = machine.header(kernel.release, name)
    return "".join(f"# {key} {value}\n" for key, value in header.items()) + body


def write(path: Path, text: str) -> None:
    """Writes a recording or a workload whole or not at all; gzip where the path ends in .gz.

    Raises InputError if it cannot be written."""
    write_atomic(path, text.encode(), "file")
