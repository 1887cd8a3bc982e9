"""A run directory: manifest, one Parquet file a workload, one writer at a time, and resuming what is done.

    manifest.json             what was run, on what, with which versions and command
    results/WORKLOAD.parquet  one row a candidate: setting, every raw counter, every metric
    report.txt, figures/      written by jaxswap.report

Each file appears whole or not at all, so a run that was killed can be started again in the same directory.
"""

import fcntl
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int64

from jaxswap.errors import InputError
from jaxswap.sweep.metrics import measure
from jaxswap.sweep.space import Candidate
from jaxswap.workload.files import write_atomic


@dataclass(frozen=True)
class WorkloadResult:
    """What one workload gave: sizes in bytes, raw counters by name, metrics per 1,000 accesses."""

    name: str
    accesses: int
    operations: int
    footprint: int
    limit: int
    swap: int
    seconds: float
    names: tuple[str, ...]
    counters: Int64[np.ndarray, "lanes counters"]
    oom: Bool[np.ndarray, "lanes"]

    @functools.cached_property
    def metrics(self) -> dict[str, Float64[np.ndarray, "lanes"]]:
        return measure(self.counters, self.names, self.accesses)

    def counter(self, name: str) -> Int64[np.ndarray, "lanes"]:
        """One raw counter of every lane."""
        return self.counters[:, self.names.index(name)]


_SCALARS = ("accesses", "operations", "footprint", "limit", "swap", "seconds")


class Store:
    """The files of one run directory that this process holds."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        text = json.dumps({"key": self.key, **manifest}, indent=2) + "\n"
        write_atomic(self.folder / "manifest.json", text.encode(), "manifest")

    def write_result(self, result: WorkloadResult, candidates: Sequence[Candidate]) -> None:
        """Write one workload's rows."""
        columns: dict[str, Any] = {
            "workload": pa.array([result.name] * len(candidates)).dictionary_encode(),
            "mthp": [candidate.mthp for candidate in candidates],
            "policy": [candidate.policy.name for candidate in candidates],
            "params": [json.dumps(dict(candidate.policy.params)) for candidate in candidates],
            "oom": result.oom,
        }
        columns |= {name: result.counters[:, index] for index, name in enumerate(result.names)}
        columns |= {f"per_1000/{name}": values for name, values in result.metrics.items()}
        about = {"key": self.key, "name": result.name, **{name: getattr(result, name) for name in _SCALARS}}
        table = pa.table(columns).replace_schema_metadata({"jaxswap": json.dumps(about)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        path = self._result_path(result.name)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, buffer.getvalue(), "result")

    def read_result(self, name: str, counters: Sequence[str]) -> WorkloadResult | None:
        """A workload's rows if this same run already wrote them, else None."""
        path = self._result_path(name)
        if not path.exists():
            return None
        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[b"jaxswap"])
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise InputError(
                f"{path}: is not a result file ({error}); delete it to have it made again"
            ) from None
        if about["key"] != self.key:
            raise InputError(
                f"{path}: belongs to another run; delete it or choose another directory with --out"
            )
        return WorkloadResult(
            name=name,
            names=tuple(counters),
            counters=np.stack([table[column].to_numpy() for column in counters], axis=1),
            oom=table["oom"].to_numpy(),
            **{field: about[field] for field in _SCALARS},
        )

    def _result_path(self, name: str) -> Path:
        return self.folder / "results" / f"{name}.parquet"


@contextmanager
def open_store(folder: Path, key: str) -> Iterator[Store]:
    """Hold a run directory, made if it is not there. `key` says which run it is.

    Raises InputError if the directory holds another run or anything that is no run, or if another process
    writes to it now.
    """
    if folder.is_dir():
        _check_owner(folder, key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be used as run directory ({error.strerror}); choose another with --out"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{folder}: another run is writing here now; wait for it or choose another with --out"
            ) from None
        _check_owner(folder, key)
        yield Store(folder, key)
    finally:
        os.close(lock)


def _check_owner(folder: Path, key: str) -> None:
    manifest = folder / "manifest.json"
    if not manifest.exists():
        strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if strangers:
            raise InputError(
                f"{folder}: holds files that are no run ({strangers[0]}); choose another directory with --out"
            )
        return
    try:
        found = json.loads(manifest.read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{manifest}: is not a manifest; choose another directory with --out") from None
    if found != key:
        raise InputError(
            f"{folder}: holds another run (other config, workloads or version); "
            "choose another directory with --out or remove it"
        )


def digest(*parts: bytes) -> str:
    """A short hash of some bytes, each part apart from the next."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()[:16]
