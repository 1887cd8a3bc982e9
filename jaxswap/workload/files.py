"""Workload and recording files: opened plain, gzip or zst with errors a user can mend, written atomically."""

import gzip
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from jaxswap.errors import InputError, reason

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
TEMPORARY = ".tmp"
"""How the name of a file ends that write_atomic has not finished; it begins with a dot and its name."""


@contextmanager
def open_checked(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """Open `path` for reading as bytes, through gzip or zstd if its first bytes say so (whatever its suffix).

    `what` names the kind of file in messages ("workload", "recording"). Raises InputError for a file that is
    missing, unreadable, a directory, empty, cut off in the middle of its packed stream, or damaged.
    """
    name = os.fspath(path)
    try:
        if os.path.isdir(name):
            raise InputError(f"{name}: is a directory, not a {what} file")
        if stat.S_ISCHR(os.stat(name).st_mode) or stat.S_ISBLK(os.stat(name).st_mode):
            raise InputError(f"{name}: is a device, not a {what} file")
        # peek, not seek: the file may be a FIFO
        with BufferedReader(open(name, "rb", buffering=0), 1 << 20) as source:
            magic = source.peek(4)[:4]
            if not magic:
                raise InputError(f"{name}: the file is empty; a {what} was expected")
            if magic[:2] == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=source, mode="rb") as unpacked:
                    yield cast(BinaryIO, unpacked)
            elif magic == _ZSTD_MAGIC:
                with BufferedReader(_Zstd(source), 1 << 20) as unpacked:  # pyright: ignore[reportArgumentType]
                    yield unpacked
            elif name.endswith((".gz", ".zst")):
                kind = "gzip" if name.endswith(".gz") else "zstd"
                raise InputError(
                    f"{name}: the name ends in {Path(name).suffix} but the content is not {kind}; rename or "
                    "recompress it"
                )
            else:
                yield source
    except FileNotFoundError:
        raise InputError(f"{name}: no such {what} file") from None
    except EOFError:
        raise InputError(
            f"{name}: the gzip data ends in the middle; fetch or record the file again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name}: damaged gzip data ({error}); fetch or record the file again") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from None


class _Zstd(RawIOBase):
    """A zstd stream, unpacked as it is read."""

    def __init__(self, source: BufferedReader) -> None:
        self.source = pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer)
        data = self.source.read(len(view))
        view[: len(data)] = data
        return len(data)


def write_atomic(path: str | os.PathLike[str], data: bytes, what: str) -> None:
    """Write `data` to `path` whole or not at all; gzip where it ends in .gz.

    The gzip header carries no time and no name: equal data give equal files. Raises InputError on failure.
    """
    if os.fspath(path).endswith(".gz"):
        data = gzip.compress(data, 9, mtime=0)
    write_whole(path, lambda file: file.write(data), what)


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], object], what: str) -> None:
    """Let `write` write a file that appears at `path` whole or not at all. Raises InputError on failure."""
    name = os.fspath(path)
    folder = os.path.dirname(name) or "."
    try:
        handle, temporary = tempfile.mkstemp(TEMPORARY, f".{Path(name).name}.", folder)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, name)
        except BaseException:
            os.unlink(temporary)
            raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: the {what} cannot be written ({reason(error)}); mend it or choose another place"
        ) from None


def make_folder(path: Path, what: str) -> None:
    """Make a folder, and those above it, if it is not there. Raises InputError on failure."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no folder for the {what} can be made ({reason(error)}); mend it or choose another place"
        ) from None


def stem(path: str | os.PathLike[str]) -> str:
    """The file's name without folders and without its suffixes (.t, .parquet, .log, .gz ...)."""
    name = os.path.basename(os.fspath(path))
    for suffix in (".gz", ".zst", ".t", ".parquet", ".txt", ".log", ".csv", ".json", ".cfg"):
        if name.endswith(suffix) and name != suffix:
            name = name[: -len(suffix)]
    return name
