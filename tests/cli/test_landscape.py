"""jaxswap landscape from config to tables: what it writes, and the same command again."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from jaxswap.cli import main

CONFIG = """
faults = 1000
repeats = 2
sizes = [16, 64]

[table]
swap = "16M"

[life]
block = 64
occupancy = ["60%"]
ages = [0, 1]

[mixes]
small = { 4 = 1 }
large = { 64 = 1 }

[policies]
cap = { order = [2] }
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_from_config_to_tables_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "l.toml").write_text(CONFIG)
    command = ["landscape", str(tmp_path / "l.toml"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said, made = capsys.readouterr().out, contents(tmp_path / "out")
    assert said.startswith(made["report.txt"].decode())
    tables = ["heuristics.csv", "refusals.csv", "tables.csv"]
    assert sorted(made) == sorted([*tables, "manifest.json", "refusals.pdf", "refusals.png", "report.txt"])
    assert json.loads(made["manifest.json"])["config"]["swap"] == "16M"

    rows = [line for line in made["refusals.csv"].decode().splitlines() if not line.startswith("#")]
    shares: dict[tuple[str, ...], float] = defaultdict(float)
    got: dict[tuple[str, ...], float] = {}
    for row in csv.DictReader(rows):
        key = (row["mix"], row["age"], row["size"])
        shares[key] += float(row["mean"])
        if row["outcome"] == "got":
            got[key] = float(row["mean"])
    assert all(share == pytest.approx(1) for share in shares.values()) and len(shares) == 2 * 2 * 7
    # What was swapped out whole comes back whole more often than what went page by page.
    assert got["large", "0", "64kB"] > got["small", "0", "64kB"]

    assert main(command) == 0
    assert capsys.readouterr().out == said and contents(tmp_path / "out") == made
