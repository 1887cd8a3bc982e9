"""The commands where no kernel boots: bad arguments, missing programs, kernels that are not there."""

import gzip
from pathlib import Path

import pytest

from experiments.real_kernel import __main__ as command
from experiments.real_kernel import initrd, qemu
from experiments.real_kernel.__main__ import main
from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.kernels import Kernel, image_release, own_kernel
from experiments.real_kernel.record import boot_path, write
from experiments.real_kernel.validate import DIFFERS, EQUAL, NOT_MODELLED, held_against

DATA = Path(__file__).parents[1] / "data" / "recordings"
RECORD = ["record", "--kernel", "7.3.4", "--workload", "w.t", "--out", "o.txt"]


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH on which nothing is found."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"),
        (["record"], "--workload"),
        ([*RECORD, "--mthp", "65"], "not a set of mTHP sizes"),
        ([*RECORD, "--swap", "zram"], "not a swap device"),
        ([*RECORD, "--limit", "32"], "whole 4 KiB pages"),
        ([*RECORD, "--limit", "a=4M,a=5M"], "two limits of cgroup a"),
        ([*RECORD, "--high", "a=4"], "whole 4 KiB pages"),
        ([*RECORD, "--cpus", "0"], "from 1 to 64"),
        ([*RECORD, "--lru", "fast"], "invalid choice"),
        ([*RECORD, "--high", "16"], "whole 4 KiB pages"),
        ([*RECORD, "--swap-max", "max"], "not a size"),
        ([*RECORD, "--swappiness", "201"], "from 0 to 200"),
        ([*RECORD, "--defrag", "sometimes"], "invalid choice"),
        ([*RECORD, "--boots", "0"], "from 1 to 100"),
        ([*RECORD, "--fragment", "half"], "not a size"),
        (["threads", "--kernel", "7.3.4"], "--out"),
        (["threads", "--out", "o.txt", "--mthp", "65"], "not a set of mTHP sizes"),
        (["validate", "--kinds", "basic,odd"], "'odd' is none of"),
        (["generate", "--seed", "x", "--out", "w.t"], "not a whole number"),
    ],
)
def test_bad_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("no_programs")
def test_record_names_every_missing_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RECORD) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == (
        "real_kernel: real kernels need qemu-system-x86_64, busybox, gcc; on Debian: "
        "apt-get install -y qemu-system-x86 busybox-static gcc libc6-dev (busybox must be static)\n"
    )


@pytest.mark.usefixtures("no_programs")
def test_validate_skips(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("skipped: real kernels need ") and out.count("\n") == 1 and err == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--out", "no/such/o.txt"], "no/such/o.txt: there is no such folder"),
        (["--kernel", "../7.3"], "is not a kernel release"),
        (["--workload", "no-such.t"], "no-such.t: No such file"),
    ],
)
def test_bad_input(
    changed: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(initrd, "check_tools", lambda: None)
    (tmp_path / "w.t").write_text("REGION 1 plain\n")
    assert main([*RECORD, *changed]) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and out == ""


def test_record_wants_a_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--workload", "w.t", "--out", "o.txt"]) == 2
    assert "which kernel?" in capsys.readouterr().err


def test_a_folder_without_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no kernel image here"):
        own_kernel(tmp_path)
    (tmp_path / "vmlinuz").write_bytes(b"\0" * 4096)
    with pytest.raises(RecordingError, match="not a Linux x86 boot image"):
        own_kernel(tmp_path)


def test_the_image_names_its_release(tmp_path: Path) -> None:
    image = bytearray(4096)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500:0x520] = b"7.4.0-rc2-mine+ (me@here) #1\0".ljust(0x20, b"\0")
    path = tmp_path / "arch" / "x86" / "boot" / "bzImage"
    path.parent.mkdir(parents=True)
    path.write_bytes(image)
    assert image_release(path) == "7.4.0"
    assert own_kernel(tmp_path).image == path


@pytest.mark.parametrize(
    ("console", "said"),
    [
        ("", "nothing was printed"),
        ("booting\nKernel panic - not syncing\n", "last line: Kernel panic"),
        ("RECORDING STARTS\nDUMP a\n", "did not come to its end; last line: DUMP a"),
        ("RECORDING STARTS\nFAILED unknown operation: X\nRECORDING ENDS 1\n", "be run: unknown operation: X"),
        (
            "RECORDING STARTS\nS 2949 17[   58.434707] watchdog: BUG\nRECORDING ENDS 0\n",
            r"a kernel message fell into the recording: \[   58.434707\] watchdog: BUG",
        ),
        ("FAILED a swap device is not on\nRECORDING STARTS\nRECORDING ENDS 0\n", "a swap device is not on"),
    ],
)
def test_boots_that_fail(console: str, said: str) -> None:
    with pytest.raises(RecordingError, match=said):
        qemu._recording("7.3.4", console)


def test_the_recording_is_cut_from_the_console() -> None:
    console = "noise\nRECORDING STARTS\nDUMP a\nENDDUMP\nOPS 2 bad=0\nRECORDING ENDS 0\nmore\n"
    assert qemu._recording("7.3.4", console) == "DUMP a\nENDDUMP\nOPS 2 bad=0\n"


def test_the_archive_is_in_newc_form() -> None:
    archive = initrd._cpio({"init": b"hello"})
    assert archive.startswith(b"070701") and len(archive) % 4 == 0
    at = archive.index(b"init\0")
    header = archive[at - 110 : at]
    assert header[:6] == b"070701" and int(header[54:62], 16) == len(b"hello")
    assert b"hello" in archive and b"TRAILER!!!\0" in archive


def test_written_files_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.t.gz", "b.t.gz"):
        write(tmp_path / name, "REGION 1 plain\n")
    assert (tmp_path / "a.t.gz").read_bytes() == (tmp_path / "b.t.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.t.gz").read_bytes()) == b"REGION 1 plain\n"


def test_boots_are_numbered_before_the_ending() -> None:
    assert boot_path(Path("d/seq-mglru-64.txt.gz"), 2) == Path("d/seq-mglru-64-boot2.txt.gz")
    assert boot_path(Path("seq.txt"), 1) == Path("seq-boot1.txt")
    assert boot_path(Path("seq"), 1) == Path("seq-boot1")


def test_each_boot_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boots = iter("abc")
    kernel = Kernel("7.3.4", tmp_path, tmp_path)
    monkeypatch.setattr(command, "chosen_kernel", lambda release, folder: kernel)
    monkeypatch.setattr(command, "record", lambda *arguments: next(boots))
    monkeypatch.setattr(initrd, "check_tools", lambda: None)
    (tmp_path / "w.t").write_text("REGION 1 plain\n")
    told = ["record", "--kernel", "7.3.4", "--workload", str(tmp_path / "w.t")]
    assert main([*told, "--out", str(tmp_path / "o.txt"), "--boots", "2"]) == 0
    assert main([*told, "--out", str(tmp_path / "o.txt")]) == 0
    found = {path.name: path.read_text() for path in tmp_path.glob("o*")}
    assert found == {"o-boot1.txt": "a", "o-boot2.txt": "b", "o.txt": "c"}


def test_a_recording_of_the_tree_is_equal() -> None:
    outcome = held_against(DATA / "workloads" / "reuse.t.gz", DATA / "7.3.4" / "reuse.txt.gz")
    assert outcome.verdict == EQUAL, outcome.why


def test_another_workload_differs() -> None:
    assert (
        held_against(DATA / "workloads" / "fallback.t.gz", DATA / "7.3.4" / "reuse.txt.gz").verdict == DIFFERS
    )


def test_what_is_not_modelled_is_said(tmp_path: Path) -> None:
    text = gzip.decompress((DATA / "7.3.4" / "reuse.txt.gz").read_bytes()).decode()
    recording = tmp_path / "reuse.txt"
    recording.write_text(text.replace("# swap zram", "# swap tape"))
    outcome = held_against(DATA / "workloads" / "reuse.t.gz", recording)
    assert outcome.verdict == NOT_MODELLED and "tape" in outcome.why
