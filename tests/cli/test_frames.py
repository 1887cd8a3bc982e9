"""`jaxswap replay --frames` and `--buddyinfo`, and a sweep's machine.frames."""

from pathlib import Path

import pytest

from jaxswap.cli import main
from jaxswap.config import load_config
from jaxswap.errors import InputError
from jaxswap.frames import Frames

WORKLOAD = "REGION 512 plain\nFILL 0 256\nPAGEOUT 0 256\nREADN 0 256\n"
SCARCE = "Node 0, zone   Normal  500 3 2 1 2 0 0 0 0 0 0\n"


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "w.t"
    path.write_text(WORKLOAD)
    return str(path)


def test_replay(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two blocks of order 4 serve two folios of 64 kB; a recording says what frames there were."""
    scarce, out = tmp_path / "buddyinfo", tmp_path / "out.txt"
    scarce.write_text(SCARCE)
    command = ["replay", workload, "--mthp", "64", "--buddyinfo", str(scarce), "--frames", "seed 3"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "frames seed 3 compaction 0%, buddyinfo Node 0, zone Normal 500 3 2 1 2 0 0 0 0 0 0" in shown
    assert "refused/touch/frame/64kB        14" in shown and "64kB/anon_fault_alloc" in shown
    assert main([*command, "--out", str(out)]) == 0
    assert "# buddyinfo Node 0, zone Normal 500 3 2 1 2 0" in out.read_text()
    assert main(["replay", workload, "--like", str(out)]) == 0
    assert "refused/touch/frame/64kB        14" in capsys.readouterr().out
    assert main(["replay", workload, "--mthp", "64", "--frames", "8M unmovable 0%"]) == 0
    assert "frame_refused" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--frames", "lots"], "--frames: 'lots' does not say what page frames there are"),
        (["--frames", "5M"], "frames: 5242880 bytes are not whole blocks of 4M"),
        (["--frames", "64M unmovable 300%"], "frames: unmovable 300% is not between 0% and 100%"),
        (["--buddyinfo", "/nowhere"], "--buddyinfo /nowhere: cannot be read"),
        (["--buddyinfo", "WORKLOAD"], "'REGION 512 plain' is no line of /proc/buddyinfo"),
    ],
)
def test_bad_flags(workload: str, capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    flags = [workload if flag == "WORKLOAD" else flag for flag in flags]
    assert main(["replay", workload, *flags]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_config(config_file: Path) -> None:
    config = load_config(config_file, ['machine.frames="64M unmovable 30% seed 1"'])
    assert config.lane.frames == Frames(64 << 20, 30, seed=1)
    assert config.as_dict()["frames"] == "64M unmovable 30% seed 1 compaction 0%"
    assert "frames" not in load_config(config_file).as_dict()
    for wrong in ("lots", "5M"):
        with pytest.raises(InputError, match=r"machine\.frames: "):
            load_config(config_file, [f'machine.frames="{wrong}"'])
