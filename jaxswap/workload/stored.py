"""Workload files: text or binary, told apart by their content when read and by their suffix when written."""

import os
from io import BufferedReader
from typing import cast

from jaxswap.workload.binary import MAGIC, SUFFIX, pack, unpack
from jaxswap.workload.files import open_checked, write_atomic
from jaxswap.workload.text import Workload, format_workload, read_text


def read_workload(path: str | os.PathLike[str]) -> Workload:
    """Read a workload file: text, plain or packed by gzip or zstd, or binary (.parquet).

    Raises InputError, naming file and line, for anything that cannot be replayed."""
    with open_checked(path, "workload") as file:
        if cast(BufferedReader, file).peek(len(MAGIC)).startswith(MAGIC):
            return unpack(file.read(), os.fspath(path))
        return read_text(file, os.fspath(path))


def write_workload(workload: Workload, path: str | os.PathLike[str]) -> None:
    """Write a workload: binary where the path ends in .parquet, else text, by gzip where it ends in .gz.

    The file appears whole or not at all."""
    if os.fspath(path).endswith(SUFFIX):
        write_atomic(path, pack(workload), "workload")
    else:
        write_text(format_workload(workload), path)


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a workload's text, by gzip where the path ends in .gz; whole or not at all."""
    write_atomic(path, text.encode("utf-8", "surrogateescape"), "workload")
