"""The binary form of a workload: a Parquet file with a row an operation, checked like the text when read.

Columns kind (name of the operation), v, n, process, cpu as in Workload, and text (null where there is none).
The file's metadata holds under "jaxswap-workload" a JSON object: form, npages, advice, meta.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxswap.errors import InputError
from jaxswap.workload.files import stem
from jaxswap.workload.processes import MOST_CGROUPS, MOST_CPUS, MOST_PROCESSES, check_cgroup
from jaxswap.workload.text import ADVICE, MOST_PAGES, Fail, Kind, Workload, check_operations

MAGIC = b"PAR1"
SUFFIX = ".parquet"
FORM = 1
_KEY = b"jaxswap-workload"
_COLUMNS = {"kind": pa.string(), "v": pa.int32(), "n": pa.int32(), "process": pa.uint8(), "cpu": pa.uint8()}
_NAMES = [kind.name for kind in Kind]
_WORDS = {Kind.MAP: (1,), Kind.SET: (2,), Kind.CGROUP: (1,)} | dict.fromkeys(
    (Kind.DUMP, Kind.FOLIOS, Kind.STATS), (0, 1)
)
"""How many words the text of an operation has; that of ECHO any."""


def pack(workload: Workload) -> bytes:
    """The bytes of a workload's file; equal workloads give equal bytes with one version of pyarrow.

    Lines are not kept: read back, an operation's line is its number, from 1."""
    about = {
        "form": FORM,
        "npages": workload.npages,
        "advice": workload.advice,
        "meta": workload.meta,
    }
    text: list[str | None] = [None] * len(workload)
    for index, label in workload.text.items():
        text[index] = label
    kinds = pa.DictionaryArray.from_arrays(pa.array(workload.kind), pa.array(_NAMES))
    columns = [kinds, *(pa.array(getattr(workload, name)) for name in ("v", "n", "process", "cpu"))]
    table = pa.table([*columns, pa.array(text, pa.string())], [*_COLUMNS, "text"])
    table = table.replace_schema_metadata({_KEY: json.dumps(about, ensure_ascii=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=19,
        use_dictionary=["kind", "n", "text"],  # pyright: ignore[reportArgumentType]
        column_encoding={"v": "BYTE_STREAM_SPLIT"},
    )
    return sink.getvalue().to_pybytes()


def unpack(data: bytes, path: str) -> Workload:
    """The workload of a file's bytes; `path` names it in messages.

    Raises InputError, naming file and operation, for another file and for what cannot be replayed."""
    table, about = _read(data, path)
    npages, advice, meta = (about.get(name) for name in ("npages", "advice", "meta"))
    if not isinstance(npages, int) or not 1 <= npages <= MOST_PAGES or advice not in ADVICE:
        raise InputError(f"{path}: its metadata names no region; write the workload again")
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise InputError(f"{path}: its metadata has no header; write the workload again")
    names = table["kind"].combine_chunks().dictionary_encode()
    if strange := set(names.dictionary.to_pylist()) - set(_NAMES):
        raise InputError(f"{path}: unknown operation {min(strange, key=str)!r}; known: {' '.join(_NAMES)}")
    codes = np.array([Kind[name] for name in names.dictionary.to_pylist()], np.uint8)
    kind = codes[names.indices.to_numpy(zero_copy_only=False)] if len(codes) else np.zeros(0, np.uint8)
    v, n = (table[name].to_numpy().astype(np.int64) for name in ("v", "n"))
    process, cpu = (table[name].to_numpy() for name in ("process", "cpu"))
    line = np.arange(1, len(kind) + 1, dtype=np.int32)
    labels = table["text"].combine_chunks()
    places = np.flatnonzero(labels.is_valid().to_numpy(zero_copy_only=False))
    text = dict(zip(places.tolist(), labels.drop_null().to_pylist(), strict=True))

    def fail(line: int, message: str) -> InputError:
        return InputError(f"{path}: operation {line}: {message}")

    ranged = kind <= Kind.UNMAP
    bad = (v < 0) | (n < 0) | (ranged & (n < 1)) | (process >= MOST_PROCESSES) | (cpu >= MOST_CPUS)
    bad |= (kind != Kind.FORK) & ~ranged & ((v != 0) | (n != 0)) | (kind == Kind.FORK) & (n != 0)
    if bad.any():
        raise fail(int(np.flatnonzero(bad)[0]) + 1, "pages, process or CPU out of range")
    check_operations(npages, kind, v, n, line, process, fail)
    _check_text(kind, text, fail)
    v, n = v.astype(np.int32), n.astype(np.int32)
    return Workload(stem(path), path, npages, advice, kind, v, n, line, text, meta, process, cpu)


def _read(data: bytes, path: str) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: is not a whole Parquet file ({_short(error)}); fetch it again") from None
    try:
        about = json.loads((table.schema.metadata or {})[_KEY])
        if about.get("form") != FORM:
            raise InputError(
                f"{path}: is of form {about.get('form')!r}, not {FORM}; write it with this jaxswap"
            )
    except (KeyError, ValueError, AttributeError):
        raise InputError(f"{path}: is a Parquet file but no workload of jaxswap") from None
    for name, kind in {**_COLUMNS, "text": pa.string()}.items():
        if name not in table.column_names:
            raise InputError(f"{path}: has no column {name}; write the workload again")
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.type != kind or (name != "text" and column.null_count):
            raise InputError(f"{path}: column {name} is not all {kind}; write the workload again")
        table = table.set_column(table.column_names.index(name), name, column)
    return table, about


def _check_text(kind: np.ndarray, text: dict[int, str], fail: Fail) -> None:
    """A text stands where the text form has one, and says what it may say there."""
    takes = np.flatnonzero(np.isin(kind, [*_WORDS, Kind.ECHO])).tolist()
    if strange := set(text).symmetric_difference(takes):
        raise fail(min(strange) + 1, "has a text and takes none, or has none and takes one")
    cgroups = set()
    for index in takes:
        label, what = text[index], Kind(int(kind[index]))
        count = len(label.split())
        bad = count not in _WORDS.get(what, (count,)) or (what == Kind.MAP and label not in ADVICE)
        if bad or label != label.strip() or not label.isprintable():
            raise fail(index + 1, f"{what.name}: {label[:40]!r} cannot stand there")
        if what == Kind.CGROUP:
            try:
                cgroups.add(check_cgroup(label))
            except ValueError as wrong:
                raise fail(index + 1, f"CGROUP: {wrong}") from None
            if len(cgroups) > MOST_CGROUPS:
                raise fail(index + 1, f"CGROUP {label}: a workload names at most {MOST_CGROUPS} cgroups")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:80]
