"""Candidates and what workloads gave for them, as one Parquet file: a row for each candidate and workload."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from jaxswap.errors import InputError, reason
from jaxswap.machine import COUNTERS
from jaxswap.sweep.result import SCALARS, WorkloadResult, candidate_of, column, measured
from jaxswap.sweep.space import Candidate

_SIZES = tuple(name for name in SCALARS if name not in COUNTERS)


@dataclass(frozen=True)
class Level:
    """What the first `share` of each workload gave for some of the candidates, `members`, in this order."""

    share: float
    members: Int64[np.ndarray, " members"]
    results: tuple[WorkloadResult, ...]


@dataclass(frozen=True)
class Evaluated:
    """Candidates, and the levels they were replayed on, the longest last."""

    candidates: tuple[Candidate, ...]
    levels: tuple[Level, ...]

    @property
    def results(self) -> tuple[WorkloadResult, ...]:
        """Of the last level, a result a workload."""
        return self.levels[-1].results

    def measured(self) -> dict[str, Float64[np.ndarray, "workloads members"]]:
        """Every metric of the last level, a row a workload."""
        return measured(self.results)


def to_parquet(found: Evaluated, key: str) -> bytes:
    """The file. key: of the run."""
    tables = [_table(found.candidates, level, result) for level in found.levels for result in level.results]
    # bytes must be the same in every run, so that nothing of the file says when or by whom
    table = pa.concat_tables(tables).replace_schema_metadata({"jaxswap": json.dumps({"key": key})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _table(candidates: Sequence[Candidate], level: Level, result: WorkloadResult) -> pa.Table:
    chosen = [candidates[member] for member in level.members]
    count = len(chosen)
    columns = {
        "candidate": pa.array(level.members),
        "mthp": pa.array([one.mthp for one in chosen], pa.string()),
        "policy": pa.array([one.policy.name for one in chosen], pa.string()),
        "params": pa.array([json.dumps(dict(one.policy.params)) for one in chosen], pa.string()),
        "workload": pa.array([result.name] * count, pa.string()),
        "share": pa.array(np.full(count, level.share)),
        **{name: pa.array(np.full(count, getattr(result, name), np.int64)) for name in _SIZES},
        "oom": pa.array(result.oom),
        **{name: pa.array(result.counters[:, index]) for index, name in enumerate(result.names)},
        **{f"per_1000/{name}": pa.array(values) for name, values in result.metrics.items()},
    }
    return pa.table(columns)


def from_parquet(path: Path, key: str) -> Evaluated:
    """What to_parquet wrote for this run. Raises InputError for a damaged file or one of another run."""
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {})[b"jaxswap"])
        if about["key"] != key:
            raise InputError(f"{path}: belongs to another run; delete it and give the run's command again")
        return _evaluated(table)
    except (
        OSError,
        pa.ArrowException,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        said = (reason(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: is not a result file ({said[:200]}); delete it and give the run's command again"
        ) from None


def _evaluated(table: pa.Table) -> Evaluated:
    numbers, shares = column(table, "candidate", np.integer), column(table, "share", np.floating)
    oom, names = column(table, "oom", np.bool_), table["workload"].to_pylist()
    settings = list(zip(*(table[name].to_pylist() for name in ("mthp", "policy", "params")), strict=True))
    counters = np.stack([column(table, name, np.integer) for name in COUNTERS], axis=1).astype(np.int64)
    scalars = {name: column(table, name, np.integer) for name in SCALARS}
    groups: dict[tuple[float, str], list[int]] = {}
    for row, place in enumerate(zip(shares.tolist(), names, strict=True)):
        groups.setdefault(place, []).append(row)
    levels: dict[float, tuple[np.ndarray, list[WorkloadResult]]] = {}
    for (share, name), rows in groups.items():
        members, results = levels.setdefault(share, (numbers[rows].astype(np.int64), []))
        if members.tolist() != numbers[rows].tolist():
            raise ValueError(f"{name} has other candidates")
        one = {key: int(values[rows[0]]) for key, values in scalars.items()}
        results.append(
            WorkloadResult(name=name, names=COUNTERS, counters=counters[rows], oom=oom[rows], **one)
        )
    by_number = dict(zip(numbers.tolist(), settings, strict=True))
    if sorted(by_number) != list(range(len(by_number))):
        raise ValueError("a candidate is missing")
    candidates = tuple(candidate_of(*by_number[number]) for number in range(len(by_number)))
    return Evaluated(
        candidates,
        tuple(Level(share, members, tuple(results)) for share, (members, results) in levels.items()),
    )
