"""Faults of a real process: what a pagemap of Linux 7.3.4 says of each order."""

from pathlib import Path

import numpy as np
import pytest

from jaxswap.cli import main
from jaxswap.landscape.faults import REASONS, SWAPIN_ORDERS, each_order
from jaxswap.landscape.process import by_device
from jaxswap.workload.snapshot import write_snapshot
from tests.workload.test_snapshot import real_kernel


def test_orders_that_a_real_process_would_get(tmp_path: Path) -> None:
    """Twelve folios of 64 kB in aligned slots, of which pages 100 to 119 were thrown away: the rest of these
    two folios comes back in parts."""
    taken, _ = real_kernel(tmp_path)
    (snapshot,) = by_device(taken).values()
    assert snapshot.pages == 12 * 16 - 20
    found = np.asarray(each_order(snapshot.levels, snapshot.faults(np.arange(snapshot.pages))))
    got = dict(zip(SWAPIN_ORDERS, found[:, 0].tolist(), strict=True))
    assert [got[order] for order in (2, 3, 4)] == [172, 168, 160]
    assert got[8] == 0 and found.sum(axis=1).tolist() == [snapshot.pages] * len(SWAPIN_ORDERS)
    gaps = found[:, 1 + REASONS.index("pte_gap")]
    assert gaps[SWAPIN_ORDERS.index(3)] == 4 and gaps[SWAPIN_ORDERS.index(4)] == 12


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "proc").mkdir()
    taken, _ = real_kernel(tmp_path / "proc")
    write_snapshot(taken, tmp_path / "s.parquet")
    arguments = ["landscape", "configs/landscape.toml", "--set", "faults=1000"]
    assert main([*arguments, "--snapshot", str(tmp_path / "s.parquet")]) == 0
    said = capsys.readouterr().out
    assert "swap device 0: 172 pages of the process, 1,000 faults" in said and "kernel profile 7.3" in said
    assert main([*arguments, "--snapshot", str(tmp_path / "no.parquet")]) == 2
    assert "no.parquet: " in capsys.readouterr().err
