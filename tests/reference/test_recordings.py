"""The reference machine equals the recordings of real kernels that come with the tests."""

from pathlib import Path

import pytest

from tests.reference.validate import pairs, validate

DATA = Path(__file__).parents[1] / "data"
PAIRS = list(pairs(DATA))


@pytest.mark.parametrize(
    ("workload", "recording"), PAIRS, ids=[f"{r.parent.name}-{r.name.partition('.')[0]}" for _, r in PAIRS]
)
def test_equals_the_kernel(workload: Path, recording: Path) -> None:
    found = validate(workload, recording)
    assert found.equal, str(found)
    assert found.counters[1] > 0 and found.maps[1] + found.folios[1] > 0


def test_every_kernel_is_there() -> None:
    kernels = {recording.parent.name.removeprefix("kernel-").rpartition(".")[0] for _, recording in PAIRS}
    assert kernels == {"6.12", "6.18", "7.0", "7.1", "7.2", "7.3"}
