"""A run directory: one writer at a time, every file whole or not there, and what is done is found again.

manifest.json             what was run, on what, with which versions and command
results/WORKLOAD.parquet  one row a candidate: setting, every raw counter, every metric
parts/WORKLOAD/           rows of some candidates, while a workload's others are still to be replayed; a
                          checkpoint (.npz) of those that are
times.json                when each workload was done and how long it took: all that equal runs differ in
report.txt, figures/      written by jaxswap.report
"""

import contextlib
import datetime
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxswap.errors import InputError, reason
from jaxswap.sweep.checkpoint import Checkpoint
from jaxswap.sweep.manifest import FILE, differences, joined, read_manifest, shard_of
from jaxswap.sweep.result import WorkloadResult, from_parquet, to_parquet
from jaxswap.sweep.space import Candidate
from jaxswap.workload.files import TEMPORARY, make_folder, write_atomic

TIMES = "times.json"
_FILES = (FILE, TIMES, "report.txt", "*.parquet")
_FOLDERS = ("results", "figures", "rounds", "parts", "parts/*")


class Store:
    """The files of one run directory that this process holds."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.key = folder, str(manifest["key"])
        self.manifest = manifest

    def begin(self) -> None:
        """Write the manifest. A run that goes on keeps what its manifest says of the machines it began on."""
        if os.path.exists(self.folder / FILE):
            self.manifest = joined([read_manifest(self.folder), self.manifest], shard_of(self.manifest))
        write_atomic(self.folder / FILE, (json.dumps(self.manifest, indent=2) + "\n").encode(), "manifest")

    def write(self, result: WorkloadResult, candidates: Sequence[Candidate], seconds: float) -> None:
        """Write a workload's rows, all of them; what was kept of some of them goes."""
        self._write(result_path(self.folder, result.name), to_parquet(result, candidates, self.key, None))
        self.write_times({result.name: {"seconds": round(seconds, 2), "finished": _now()}})
        self.forget_parts(result.name)

    def write_part(
        self, result: WorkloadResult, candidates: Sequence[Candidate], rows: range, seconds: float
    ) -> None:
        """Keep the rows of some candidates until those of the others are there."""
        self._write(self._part_path(result.name, rows), to_parquet(result, candidates, self.key, seconds))

    def read(self, name: str, candidates: Sequence[Candidate]) -> WorkloadResult | None:
        """A workload's rows, if they are written."""
        found = self._read(result_path(self.folder, name), candidates)
        return found[0] if found else None

    def read_part(
        self, name: str, candidates: Sequence[Candidate], rows: range
    ) -> tuple[WorkloadResult, float] | None:
        """(result, seconds) of some candidates of a workload, if they are kept."""
        return self._read(self._part_path(name, rows), candidates)

    def checkpoint(self, name: str, candidates: Sequence[Candidate], rows: range) -> Checkpoint:
        """Where the replay of some candidates of a workload is kept until their rows are."""
        identity = json.dumps([self.key, name, rows.start, [str(candidate) for candidate in candidates]])
        return Checkpoint(self._part_path(name, rows).with_suffix(".npz"), identity)

    def forget_parts(self, name: str) -> None:
        """Remove what is kept of a workload that is written."""
        shutil.rmtree(self.folder / "parts" / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # other workloads' are in it
            (self.folder / "parts").rmdir()

    def write_times(self, times: dict[str, Any]) -> None:
        """Add to the times."""
        write_atomic(
            self.folder / TIMES,
            (json.dumps(read_times(self.folder) | times, indent=2) + "\n").encode(),
            "times",
        )

    def _read(self, path: Path, candidates: Sequence[Candidate]) -> tuple[WorkloadResult, float] | None:
        if not os.path.exists(path):
            return None
        result, found, seconds = from_parquet(path, self.key)
        if found != tuple(candidates):
            raise InputError(
                f"{path}: holds other candidates than this run's; delete it and give the command again"
            )
        return result, seconds

    def _write(self, path: Path, data: bytes) -> None:
        make_folder(path.parent, "results")
        write_atomic(path, data, "result")

    def _part_path(self, name: str, rows: range) -> Path:
        return self.folder / "parts" / name / f"{rows.start}-{rows.stop}.parquet"


def result_path(folder: Path, name: str) -> Path:
    """The file of a workload's results."""
    return folder / "results" / f"{name}.parquet"


def read_times(folder: Path) -> dict[str, Any]:
    """The times of a run directory; they decide nothing, so damaged ones are none."""
    try:
        found = json.loads((folder / TIMES).read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def seconds_of(folder: Path, name: str) -> float:
    """What a workload took, all devices together; 0 where that is not known."""
    about = read_times(folder).get(name)
    seconds = about.get("seconds") if isinstance(about, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else 0.0


@contextmanager
def open_store(folder: Path, manifest: dict[str, Any]) -> Iterator[Store]:
    """Hold a run directory, made if it is not there, for the run of a manifest.

    Raises InputError if the directory holds another run, another shard, or anything that is no run, or if
    another process writes to it now.
    """
    if os.path.isdir(folder):
        _check_owner(folder, manifest)
    with _mendable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with _mendable(folder):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{folder}: another run is writing here now; wait for it or choose another with --out"
                ) from None
        _check_owner(folder, manifest)
        _sweep_up(folder)
        yield Store(folder, manifest)
    finally:
        os.close(lock)


@contextmanager
def _mendable(folder: Path) -> Iterator[None]:
    """OSError and ValueError (a NUL in the name) as one line that names the directory."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: cannot be used as run directory ({reason(error)}); choose another with --out"
        ) from None


def _check_owner(folder: Path, manifest: dict[str, Any]) -> None:
    if not os.path.exists(folder / FILE):
        with _mendable(folder):
            strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if strangers:
            raise InputError(
                f"{folder}: holds files that are no run ({strangers[0]}); choose another directory with --out"
            )
        return
    found = read_manifest(folder)
    advice = "choose another directory with --out or remove it"
    if found["key"] != manifest["key"]:
        what = differences(found, manifest)
        more = f" and {len(what) - 2} more" if len(what) > 2 else ""
        said = "; ".join(map(str, what[:2]))
        raise InputError(f"{folder}: holds another run ({said}{more}); {advice}")
    if found["shard"] != manifest["shard"]:
        here, now = (
            f"shard {one}" if one else "the whole run" for one in (found["shard"], manifest["shard"])
        )
        raise InputError(f"{folder}: holds {here} of this run, not {now}; {advice}")


def _sweep_up(folder: Path) -> None:
    """Remove what a killed process left half written: it held the lock, as this one does now."""
    left = [path for name in _FILES for path in folder.glob(f".{name}.*{TEMPORARY}")]
    left += [path for below in _FOLDERS for path in folder.glob(f"{below}/.*{TEMPORARY}")]
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
