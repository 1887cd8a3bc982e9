"""`jaxswap replay` on the real machine: a recording written, held against itself, altered, cut off."""

from pathlib import Path

import pytest

from jaxswap.cli import main

WORKLOAD = """\
REGION 512 plain
FILL 0 256
PAGEOUT 0 256
READN 0 64
DUMP back
FOLIOS back
STATS back
DONTNEED 0 32
DUMP end
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(workload, recording written by a replay with 16 and 64 kB folios on a 4 MiB device)."""
    folder = tmp_path_factory.mktemp("replay")
    workload, recording = folder / "w.t", folder / "w.txt"
    workload.write_text(WORKLOAD)
    assert main(["replay", str(workload), "--mthp", "16 64", "--swap", "4M", "--out", str(recording)]) == 0
    return workload, recording


def test_equal_to_itself(recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    workload, recording = recorded
    assert "# mthp 16 64\n" in recording.read_text()
    assert main(["replay", str(workload), "--against", str(recording)]) == 0
    assert "page maps equal 2/2" in capsys.readouterr().out


def test_an_altered_recording_differs(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workload, recording = recorded
    altered = recording.with_name("altered.txt")
    text = recording.read_text()
    assert "P 0 64\n" in text
    altered.write_text(text.replace("P 0 64\nS 64 192", "P 0 65\nS 65 191", 1).replace("t0 65", "t0 66", 1))
    assert main(["replay", str(workload), "--against", str(recording), str(altered)]) == 1
    out = capsys.readouterr().out
    assert f"{recording}: page maps equal 2/2" in out
    assert f"{altered}: page maps equal 1/2" in out and "page 64: the replay has it in slot" in out


def test_another_setting_differs(recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    workload, recording = recorded
    assert main(["replay", str(workload), "--against", str(recording), "--mthp", ""]) == 1
    assert "the replay" in capsys.readouterr().out


def test_out_takes_one_replay(recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    workload, recording = recorded
    out = recording.with_name("again.txt")
    assert main(["replay", str(workload), "--out", str(out), "--against", *[str(recording)] * 2]) == 2
    assert "--out takes one machine's replay" in capsys.readouterr().err and not out.exists()


def test_a_cut_recording_is_bad_input(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    workload, recording = recorded
    cut = recording.with_name("cut.txt")
    cut.write_text(recording.read_text()[:-40])
    assert main(["replay", str(workload), "--against", str(cut)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"jaxswap: {cut}")


def test_like_takes_the_header(recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    workload, recording = recorded
    assert main(["replay", str(workload), "--like", str(recording)]) == 0
    out = capsys.readouterr().out
    assert "accesses, heuristic kernel\n" in out
    assert "machine: mthp 16 64, swap zram 4M, no limit\n" in out
    assert "model 7.3-v" in out and f"command: jaxswap replay {workload}" in out
    assert "64kB/swpin" in out and "major_faults" in out


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("# swap brd 4M", "swap on brd is not modelled; only zram and virtio are"),
        ("# swap virtio 4M\n# kernel 6.12", "header swap: virtio 4M is not modelled with the rules of 6.12"),
        ("# swap virtio 4M fast", "swap on virtio fast is not modelled"),
        ("# swap zram 4M\n# page-cluster 40", "header page-cluster: '40' is no page-cluster; it is 0 to 31"),
        ("# swap zram 4M\n# zswap yes", "header zswap: 'yes' is neither on nor off"),
        ("# swap zram lots", "'lots' is not a size"),
        ("# swap zram 4M\n# lru fifo\n# memory.max 1M", "header lru: 'fifo' is neither classic nor mglru"),
        (
            "# swap zram 4M\n# fragment 8M",
            "header fragment: no STATS start says what is free of the memory in pieces",
        ),
        ("# swap zram 4M\n# memory.high lots", "header memory.high: 'lots' is not a size"),
        ("# swap zram 4M\n# memory.swap.max 6K", "header memory.swap.max: '6K' is not a size in whole 4 KiB"),
        ("# swap zram 4M\n# swappiness 300", "header swappiness: '300' is no swappiness; it is 0 to 200"),
        ("# swap zram 4M\n# defrag sometimes", "header defrag: 'sometimes' is none of always, defer, "),
        ("# swap zram 4M\n# flush x", "header flush: 'x'; write a number of faults, 0 for every reclaim"),
        ("# swap zram 4M\n# kernel 5.4", "no profile of kernel '5.4'"),
    ],
)
def test_headers_the_machine_cannot_follow(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str], header: str, said: str
) -> None:
    workload, recording = recorded
    lines = [line for line in recording.read_text().splitlines() if not line.startswith("# swap")]
    if "kernel" in header:
        lines = [line for line in lines if not line.startswith("# kernel")]
    other = recording.with_name("other.txt")
    other.write_text("\n".join([*header.splitlines(), *lines]) + "\n")
    assert main(["replay", str(workload), "--against", str(other)]) == 2
    err = capsys.readouterr().err
    assert said in err and str(other) in err and err.count("\n") == 1


BY_PAGE = "a machine with several processes, cgroups or CPUs, on a device other than zram, or with zswap,"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--mthp 2048 --high 1M", "memory.high: 1048576 bytes; below 8192K, four times the largest size, "),
        ("--high 8K", "memory.high: 8192 bytes; below 16K, four times the largest size, "),
        ("--swappiness 201", "--swappiness: '201' is no swappiness; it is 0 to 200"),
        ("--flush -1", "--flush: '-1'; write a number of faults, 0 for every reclaim, or stats"),
        ("--swap-max some", "--swap-max: 'some' is not a size in whole 4 KiB pages"),
        ("--limit web=1M", "limit: the workload names no cgroup web; it names none"),
        ("--limit Web=1M", "--limit: 'Web' is no name; write a small letter and up to 15 of a-z"),
        ("--limit 1M,2M", "--limit: two limits of one cgroup; write one"),
        ("--limit web=some", "--limit: 'some' is not a size in whole 4 KiB pages"),
        ("--high web=1M", "--high: memory.high of cgroup web is not modelled; memory.max is"),
        ("--swap VIRTIO --high 1M", f"high: {BY_PAGE} has none"),
        ("--swap VIRTIO --swap-max 1M", f"swap_max: {BY_PAGE} has none"),
        ("--swap VIRTIO --flush stats", f"flush: {BY_PAGE} has none"),
        ("--swap VIRTIO --limit 1M --lru mglru", f"lru: {BY_PAGE} has the classic LRU only"),
        (
            "--swap VIRTIO --frames 64M",
            "frames: page frames are modelled for one process on one CPU and zram",
        ),
    ],
)
def test_flags_the_machine_cannot_follow(
    recorded: tuple[Path, Path], capsys: pytest.CaptureFixture[str], flags: str, said: str
) -> None:
    words = [word.replace("VIRTIO", "virtio 4M") for word in flags.split()]
    assert main(["replay", str(recorded[0]), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"jaxswap: {said}") and err.count("\n") == 1
