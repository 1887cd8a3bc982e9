"""The results of one workload, and the Parquet file that holds them: one row a candidate."""

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int64

from jaxswap.config import PolicyChoice, parse_mthp
from jaxswap.errors import InputError, reason
from jaxswap.machine import COUNTERS
from jaxswap.sweep.metrics import measure
from jaxswap.sweep.space import Candidate


@dataclass(frozen=True)
class WorkloadResult:
    """What one workload gave: sizes in bytes, raw counters by name, metrics per 1,000 accesses."""

    name: str
    accesses: int
    operations: int
    footprint: int
    limit: int
    swap: int
    names: tuple[str, ...]
    counters: Int64[np.ndarray, "lanes counters"]
    oom: Bool[np.ndarray, "lanes"]

    @functools.cached_property
    def metrics(self) -> dict[str, Float64[np.ndarray, "lanes"]]:
        return measure(self.counters, self.names, self.accesses)

    def counter(self, name: str) -> Int64[np.ndarray, "lanes"]:
        """One raw counter of every lane."""
        return self.counters[:, self.names.index(name)]


def measured(results: Sequence[WorkloadResult]) -> dict[str, Float64[np.ndarray, "workloads lanes"]]:
    """Every metric over some workloads, one row each."""
    rows = [result.metrics for result in results]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


SCALARS = ("accesses", "operations", "footprint", "limit", "swap")


def to_parquet(
    result: WorkloadResult, candidates: Sequence[Candidate], key: str, seconds: float | None
) -> bytes:
    """The file of some candidates' rows. key: of the run. seconds: what replaying them took, if kept."""
    columns: dict[str, Any] = {
        "workload": pa.array([result.name] * len(candidates)).dictionary_encode(),
        "mthp": [candidate.mthp for candidate in candidates],
        "policy": [candidate.policy.name for candidate in candidates],
        "params": [json.dumps(dict(candidate.policy.params)) for candidate in candidates],
        "oom": result.oom,
    }
    columns |= {name: result.counters[:, index] for index, name in enumerate(result.names)}
    columns |= {f"per_1000/{name}": values for name, values in result.metrics.items()}
    about = {"key": key, "name": result.name, **{name: getattr(result, name) for name in SCALARS}}
    if seconds is not None:
        about["seconds"] = seconds
    table = pa.table(columns).replace_schema_metadata({"jaxswap": json.dumps(about)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(path: Path, key: str) -> tuple[WorkloadResult, tuple[Candidate, ...], float]:
    """(result, candidates, seconds; 0 where they are not kept) of a file that to_parquet wrote for this run.

    Raises InputError for a file that is damaged, or belongs to another run.
    """
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {})[b"jaxswap"])
        if about["key"] != key:
            raise InputError(f"{path}: belongs to another run; delete it and give the run's command again")
        result = WorkloadResult(
            name=str(about["name"]),
            names=COUNTERS,
            counters=np.stack([column(table, name, np.integer) for name in COUNTERS], axis=1).astype(
                np.int64
            ),
            oom=column(table, "oom", np.bool_),
            **{name: int(about[name]) for name in SCALARS},
        )
        settings = zip(*(table[name].to_pylist() for name in ("mthp", "policy", "params")), strict=True)
        candidates = tuple(candidate_of(*setting) for setting in settings)
        return result, candidates, float(about.get("seconds", 0))
    except (
        OSError,
        pa.ArrowException,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        said = (reason(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: is not a result file ({said[:200]}); delete it and give the run's command again"
        ) from None


def candidate_of(mthp: str, policy: str, params: str) -> Candidate:
    """A row's setting. Raises ValueError, TypeError or AttributeError if it is none."""
    if parse_mthp(mthp) != mthp:
        raise ValueError(f"{mthp!r} is not a set of sizes")
    values = tuple((str(name), int(value)) for name, value in json.loads(params).items())
    return Candidate(mthp, PolicyChoice(str(policy), values))


def column(table: pa.Table, name: str, kind: type) -> np.ndarray:
    """A column as numpy. Raises KeyError, ValueError if it is not there, or not of the kind."""
    values = table[name].to_numpy()
    if not np.issubdtype(values.dtype, kind):
        raise ValueError(f"column {name} holds {values.dtype}")
    return values


def joined(parts: Sequence[tuple[Sequence[int], WorkloadResult]]) -> WorkloadResult:
    """One result of parts that each say at which rows their candidates stand; together these are all rows."""
    order = np.argsort(np.concatenate([np.asarray(rows, np.int64) for rows, _ in parts]))
    return replace(
        parts[0][1],
        counters=np.concatenate([part.counters for _, part in parts])[order],
        oom=np.concatenate([part.oom for _, part in parts])[order],
    )
