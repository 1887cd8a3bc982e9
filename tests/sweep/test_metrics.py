"""Metrics as sums of counters, and the footprint that limits are shares of."""

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.config import PolicyChoice
from jaxswap.machine import COUNTERS
from jaxswap.machine.counters import REASONS
from jaxswap.sweep.footprint import PAGE, footprint
from jaxswap.sweep.metrics import METRICS, measure
from jaxswap.sweep.result import WorkloadResult, from_parquet, to_parquet
from jaxswap.sweep.space import Candidate
from jaxswap.workload import parse_workload


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_every_pattern_names_counters_of_the_machine(metric) -> None:
    for pattern in metric.counters:
        assert any(fnmatchcase(name, pattern) for name in COUNTERS), pattern


def test_per_thousand_accesses() -> None:
    counters = np.arange(2 * len(COUNTERS)).reshape(2, -1)
    found = measure(counters, COUNTERS, 500)
    at = COUNTERS.index
    assert found["major_faults"].tolist() == [
        2.0 * at("pgmajfault"),
        2.0 * (at("pgmajfault") + len(COUNTERS)),
    ]
    fallbacks = sum(counters[0, at(f"{2**k * 16}kB/swpin_fallback")] for k in range(8))
    assert found["fallbacks"][0] == 2.0 * fallbacks
    assert (found["failed_fallbacks"] == found["failed"] + found["fallbacks"]).all()
    assert (found["useless_pages"] == found["useless_in"] + found["useless_touched"]).all()


def test_a_charge_failure_is_one_fallback_and_one_failed_attempt() -> None:
    """The kernel counts it in swpin_fallback and in swpin_fallback_charge; the folio is thrown away once."""
    counters = np.zeros((1, len(COUNTERS)), np.int64)
    for name in ("64kB/swpin_fallback", "64kB/swpin_fallback_charge", "64kB/charge_refused", "thrown_folios"):
        counters[0, COUNTERS.index(name)] = 1
    counters[0, COUNTERS.index("thrown_pages")] = 16
    found = measure(counters, COUNTERS, 1000)
    assert (found["fallbacks"][0], found["failed"][0], found["thrown_pages"][0]) == (1, 1, 16)


def test_counters_of_ten_billion_accesses_are_kept_whole(tmp_path: Path) -> None:
    counters = np.array([[(1 << 32) - 3], [3 * 10**10]]) + np.arange(len(COUNTERS))
    result = WorkloadResult(
        "long", 10**10, 1, 1 << 40, 1 << 39, 1 << 40, COUNTERS, counters, np.zeros(2, bool)
    )
    settings = [Candidate(mthp, PolicyChoice("kernel")) for mthp in ("", "16")]
    (tmp_path / "long.parquet").write_bytes(to_parquet(result, settings, "key", None))
    found, candidates, _ = from_parquet(tmp_path / "long.parquet", "key")
    assert np.array_equal(found.counters, counters) and list(candidates) == settings
    assert found.accesses == 10**10
    wanted = counters[:, COUNTERS.index("pgmajfault")] / 10**7
    assert found.metrics["major_faults"] == pytest.approx(wanted, rel=1e-15)


def test_refusals_by_reason_add_up() -> None:
    counters = np.random.default_rng(0).integers(0, 9, (3, len(COUNTERS)))
    found = measure(counters, COUNTERS, 1000)
    assert np.allclose(sum(found[f"refused_{reason}"] for reason in REASONS), found["refusals"])


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for metric in METRICS.values():
        assert f"`{metric.name}`" in page
        assert metric.select(COUNTERS)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["FILL", "READN", "ZERO", "DONTNEED", "PAGEOUT"]),
        st.integers(0, 30),
        st.integers(1, 9),
    ),
    max_size=30,
)


@given(OPERATIONS)
def test_footprint_is_the_most_pages_in_use(operations) -> None:
    used: set[int] = set()
    most = 0
    for kind, v, n in operations:
        pages = range(v, v + n)
        used = used - set(pages) if kind == "DONTNEED" else used | set(pages) if kind != "PAGEOUT" else used
        most = max(most, len(used))
    text = "REGION 40 plain\n" + "".join(f"{kind} {v} {n}\n" for kind, v, n in operations)
    assert footprint(parse_workload(text)) == most * PAGE
