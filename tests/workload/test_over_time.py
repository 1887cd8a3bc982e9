"""A workload over time, against a plain count; its text and its figure."""

import csv
import random
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from jaxswap.cli import main
from jaxswap.workload import Kind, Workload, is_held_out, parse_workload, recorded_names, write_workload
from jaxswap.workload.over_time import over_time


def random_workload(seed: int) -> Workload:
    rng = random.Random(seed)
    lines = ["REGION 128 plain", "FORK 1"]
    for _ in range(rng.randint(1, 60)):
        v = rng.randrange(100)
        word = rng.choice(
            ["FILL", "READN", "FILL", "READN", "ZERO", "DONTNEED", "PAGEOUT", "UNMAP", "STATS x"]
        )
        process = rng.choice(["", "p1 "])
        if word == "UNMAP":
            lines += [f"{process}UNMAP {v} 4", f"{process}MAP {v} 4 plain"]
        else:
            lines.append(f"{process}{word}" + ("" if word == "STATS x" else f" {v} {rng.randint(1, 20)}"))
    return parse_workload("\n".join([*lines, "TOUCH 0"]))


def plain(workload: Workload, parts: int) -> dict[str, list[float]]:
    """The same numbers, an access at a time."""
    total = workload.accesses
    seen: dict[tuple[int, int], int] = {}
    everything = set()
    memory: list[tuple[int, int]] = []  # most recent last
    out: set[tuple[int, int]] = set()
    rows = list(
        zip(*(getattr(workload, name).tolist() for name in ("kind", "v", "n", "process")), strict=True)
    )
    for kind, v, n, process in rows:
        if kind <= Kind.ZERO:
            everything |= {(process, page) for page in range(v, v + n)}
    capacity = max(len(everything) // 2, 1)
    names = ("accesses", "writes", "fresh", "missed")
    found: dict[str, list[float]] = {name: [0] * parts for name in names}
    held: list[float] = [0.0] * parts
    touched: list[set[tuple[int, int]]] = [set() for _ in range(parts)]
    again: list[list[int]] = [[] for _ in range(parts)]
    at = 0
    for kind, v, n, process in rows:
        for page in ((process, page) for page in range(v, v + n)):
            if kind <= Kind.ZERO:
                part = at * parts // total
                found["accesses"][part] += 1
                found["writes"][part] += kind != Kind.READ
                if page in memory:
                    memory.remove(page)
                else:
                    found["missed" if page in out else "fresh"][part] += 1
                    out.discard(page)
                memory.append(page)
                if len(memory) > capacity:
                    out.add(memory.pop(0))
                touched[part].add(page)
                if page in seen:
                    again[part].append(at - seen[page])
                seen[page] = at
                held[part] = len(memory) + len(out)
                at += 1
            elif kind in (Kind.UNMAP, Kind.DONTNEED):
                out.discard(page)
                memory = [one for one in memory if one != page]
            elif kind == Kind.PAGEOUT and page in memory:
                memory.remove(page)
                out.add(page)
    found["touched"] = [len(pages) for pages in touched]
    found["reuse"] = [median(one) if one else np.nan for one in again]
    blocks = [{(process, page // 16) for process, page in pages} for pages in touched]
    found["density"] = [len(p) / len(b) if b else np.nan for p, b in zip(touched, blocks, strict=True)]
    found["footprint"] = held
    whole = [
        sum(1 for one in everything if (one[0], one[1] // 16) == block) for block in set().union(*blocks)
    ]
    found["blocks"] = [whole.count(pages) for pages in range(17)]
    return found


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_a_plain_count(seed: int) -> None:
    workload = random_workload(seed)
    # a part without accesses has no end of its own to take the footprint at
    parts = 1 + seed % 7 if workload.accesses > 7 else 1
    found, expected = over_time(workload, parts), plain(workload, parts)
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(found, name), values, name)


def test_more_parts_than_accesses_and_none() -> None:
    few = over_time(parse_workload("REGION 8 plain\nFILL 0 3\n"), 10)
    assert few.accesses.sum() == 3 and few.footprint[-1] == 3
    none = over_time(parse_workload("REGION 8 plain\nSTATS a\n"), 10)
    assert none.accesses.sum() == none.footprint.sum() == 0


def test_text_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_workload(random_workload(1), tmp_path / "w.t")
    assert main(["describe", str(tmp_path / "w.t"), "--figure", str(tmp_path / "f.png")]) == 0
    said = capsys.readouterr().out
    assert "64 kB blocks" in said and "100%" in said and f"figure: {tmp_path / 'f.png'}" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.pdf", "f.png", "w.t"]
    with open(tmp_path / "f.csv") as file:
        assert "command: jaxswap describe" in file.readline()
        rows = list(csv.DictReader(file))
    accesses = random_workload(1).accesses
    assert sum(int(row["value"]) for row in rows if row["what"] == "accesses") == accesses
    assert sum(int(row["value"]) for row in rows if row["what"] == "map") == accesses


def test_workloads_without_accesses_have_a_figure(tmp_path: Path) -> None:
    (tmp_path / "w.t").write_text("REGION 8 plain\n")
    assert main(["describe", str(tmp_path / "w.t"), "--figure", str(tmp_path / "f")]) == 0


def test_the_list_says_what_is_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert list(rows) == recorded_names()
    for name in rows:
        assert ("held out" in rows[name]) == is_held_out(name)
