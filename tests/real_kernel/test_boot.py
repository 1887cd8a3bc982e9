"""A kernel boots, if this machine has the programs and can fetch one: its recording is the stored one."""

import gzip
from pathlib import Path

import pytest

from experiments.real_kernel import initrd
from experiments.real_kernel.__main__ import main
from experiments.real_kernel.errors import MissingTool, RecordingError
from experiments.real_kernel.kernels import debian_kernel
from experiments.real_kernel.threads import PHASES, read_threads
from jaxswap.workload import read_recording

DATA = Path(__file__).parents[1] / "data" / "recordings"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fork-1", ["--mthp", "64", "--swap", "zram 64M"]),
        ("devices-2", ["--mthp", "64", "--swap", "zram 4M pri 5, zram 12M pri 3"]),
    ],
)
def test_a_recording_comes_out_again(name: str, options: list[str], tmp_path: Path) -> None:
    _needs_7_3_4()
    out = tmp_path / f"{name}.txt"
    workload = DATA / "workloads" / f"{name}.t.gz"
    command = ["record", "--kernel", "7.3.4", "--workload", str(workload), "--out", str(out), *options]
    assert main(command) == 0
    stored = gzip.decompress((DATA / "7.3.4" / f"{name}.txt.gz").read_bytes()).decode()
    assert out.read_text() == stored
    assert read_recording(out).dumps()


@pytest.mark.slow
def test_two_cpus_are_recorded(tmp_path: Path) -> None:
    _needs_7_3_4()
    out = tmp_path / "64kB.txt"
    assert main(["threads", "--kernel", "7.3.4", "--out", str(out)]) == 0
    phases = read_threads(out.read_text())
    assert len(phases) == len(PHASES)
    assert all(phase.bad == phase.missed == 0 for phase in phases)
    assert all(phase.of(-16, 16) == phase.counters["64kB swpin_fallback"] for phase in phases)
    assert phases[0].of(0, 16) == 2 * phases[0].counters["64kB swpin"] > 0


def _needs_7_3_4() -> None:
    try:
        initrd.check_tools()
        debian_kernel("7.3.4")
    except (RecordingError, MissingTool) as missing:
        pytest.skip(str(missing))
