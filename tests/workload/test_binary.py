"""The binary form: equal to the text after a round trip, refused where it contradicts itself."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.workload import format_workload, parse_workload, read_workload, recorded, write_workload
from jaxswap.workload.binary import pack, unpack
from tests.workload.test_text import EVERY, equal, labels, operations

PROCESSES = """\
REGION 1024 plain
MAP 0 512 huge
FORK 1
p1 CGROUP web
@2 p1 FILL 0 8
p1 EXIT
"""


@settings(max_examples=60)
@given(st.lists(operations, max_size=40), st.dictionaries(st.just("about"), labels, max_size=1))
def test_round_trip(lines: list[str], meta: dict[str, str]) -> None:
    head = [f"# {key} {value}" for key, value in meta.items()]
    workload = parse_workload("\n".join([*head, "REGION 1000 plain", "TOUCH 1", *lines]))
    data = pack(workload)
    again = unpack(data, "x.parquet")
    assert equal(workload, again) and again.name == "x"
    assert again.line.tolist() == list(range(1, len(workload) + 1))
    assert pack(again) == data


@pytest.mark.parametrize("text", [EVERY, PROCESSES, "REGION 1 huge\n"])
def test_every_operation(text: str) -> None:
    workload = parse_workload(text)
    assert equal(workload, unpack(pack(workload), "x"))


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    workload = parse_workload(EVERY)
    write_workload(workload, tmp_path / "w.parquet")
    (tmp_path / "w.t").write_bytes((tmp_path / "w.parquet").read_bytes())
    (tmp_path / "w.gz").write_bytes(gzip.compress((tmp_path / "w.parquet").read_bytes()))
    for name in ("w.parquet", "w.t", "w.gz"):
        assert equal(workload, read_workload(tmp_path / name)), name
    assert (tmp_path / "w.parquet").read_bytes()[:4] == b"PAR1"


def test_smaller_than_the_text(tmp_path: Path) -> None:
    workload = read_workload(recorded("sqlite"))
    text, packed = format_workload(workload).encode(), pack(workload)
    assert len(packed) < len(text) / 8
    assert len(packed) < len(gzip.compress(text, 9)) * 0.6


def changed(**columns: object) -> bytes:
    table = pq.read_table(pa.BufferReader(pack(parse_workload(PROCESSES))))
    for name, values in columns.items():
        if values is None:
            table = table.drop_columns([name])
        else:
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def about(**values: object) -> bytes:
    table = pq.read_table(pa.BufferReader(pack(parse_workload(PROCESSES))))
    found = json.loads(table.schema.metadata[b"jaxswap-workload"]) | values
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"jaxswap-workload": json.dumps(found)}), sink)
    return sink.getvalue().to_pybytes()


def small(*values: int) -> pa.Array:
    return pa.array(values, pa.uint8())


def pages(*values: int) -> pa.Array:
    return pa.array(values, pa.int32())


KINDS = ["MAP", "FORK", "CGROUP", "TOUCH", "EXIT"]
BAD = {
    "cut": (lambda: changed()[:-50], "is not a whole Parquet file"),
    "no column": (lambda: changed(cpu=None), "has no column cpu"),
    "holes": (lambda: changed(v=pa.array([0, 1, None, 0, 0], pa.int32())), "column v is not all int32"),
    "another type": (lambda: changed(n=["a"] * 5), "column n is not all int32"),
    "unknown operation": (lambda: changed(kind=[*KINDS[:4], "NAP"]), "unknown operation 'NAP'"),
    "outside": (
        lambda: changed(v=pages(0, 1, 0, 1020, 0)),
        "operation 4: TOUCH: page 1027 is outside REGION",
    ),
    "not mapped": (
        lambda: changed(v=pages(0, 1, 0, 510, 0)),
        "operation 4: TOUCH: pages 510..517 not wholly",
    ),
    "negative": (lambda: changed(v=pages(-1, 1, 0, 0, 0)), "operation 1: pages, process or CPU out of range"),
    "no pages": (lambda: changed(n=pages(512, 0, 0, 0, 0)), "operation 4: pages, process or CPU"),
    "a process": (lambda: changed(process=small(0, 0, 1, 2, 1)), "process p2 does not exist yet"),
    "a process too far": (lambda: changed(process=small(0, 0, 1, 200, 1)), "operation 4: pages, process"),
    "no advice": (lambda: changed(text=["soft", None, "web", None, None]), "MAP: 'soft' cannot stand there"),
    "no text": (lambda: changed(text=["huge", None, None, None, None]), "operation 3: has a text and takes"),
    "a text": (lambda: changed(text=["huge", None, "web", "x", None]), "operation 4: has a text and takes"),
    "no name": (lambda: changed(text=["huge", None, "Web", None, None]), "CGROUP: 'Web' is no name"),
    "form": (lambda: about(form=9), "is of form 9, not 1"),
    "no region": (lambda: about(npages=0), "names no region"),
    "no header": (lambda: about(meta={"a": 1}), "has no header"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(InputError) as caught:
        unpack(make(), "bad.parquet")
    assert str(caught.value).startswith("bad.parquet: ") and message in str(caught.value)


def test_another_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": np.arange(3)}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="but no workload of jaxswap"):
        read_workload(tmp_path / "a.parquet")
