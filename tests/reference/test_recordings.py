"""The reference machine equals the recordings of real kernels that come with the tests."""

from pathlib import Path

import pytest

from jaxswap.validate import pairs
from tests.reference.validate import validate

DATA = Path(__file__).parents[1] / "data" / "recordings"
PAIRS = pairs(DATA)
SMALL = 6_000  # bytes of a recording, gzip: those of longer workloads are slow
QUICK = ("deferred-1", "deferred-3")  # large for their many operations, of which each is short


def case(workload: Path, recording: Path):
    """A pair as a test case."""
    name = recording.name.partition(".")[0]
    marks = [] if recording.stat().st_size < SMALL or name in QUICK else [pytest.mark.slow]
    name = f"{recording.parent.name}-{name}"
    return pytest.param(workload, recording, marks=marks, id=name)


@pytest.mark.parametrize(("workload", "recording"), [case(*pair) for pair in PAIRS])
def test_equals_the_kernel(workload: Path, recording: Path) -> None:
    found = validate(workload, recording)
    assert found.equal, str(found)
    assert found.counters[1] > 0 and found.maps[1] + found.folios[1] > 0


def test_every_kernel_is_there() -> None:
    kernels = {recording.parent.name.rpartition(".")[0] for _, recording in PAIRS}
    assert kernels == {"6.12", "6.18", "7.0", "7.1", "7.2", "7.3"}
