"""A sweep by two processes as SLURM starts them, both on loopback: the bytes of one, whoever is killed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxswap.cli import main
from tests.sweep.test_resume import files_of, through

FIRST_PORT = 61440  # JAX takes this one and the job's number modulo 4096
CHILD = """
import sys
from jaxswap.sweep import hosts
from tests.sweep.killed import sweep
hosts.SIGN, hosts.GONE, hosts.FIND = 0.1, 10.0, {find}
sys.exit(sweep({last}, 0, sys.argv[1:]))
"""


def free_job() -> int:
    """The number of a job whose port is free."""
    for port in range(FIRST_PORT + os.getpid() % 4096, FIRST_PORT + 4095):
        with socket.socket(socket.AF_INET6) as one:
            try:
                one.bind(("::", port))
            except OSError:
                continue
            return port - FIRST_PORT
    raise AssertionError("no port is free")


def begin(
    arguments: list[str], lasts: list[int | None], launched: bool = True, find: int = 300
) -> list[subprocess.Popen[str]]:
    """The processes of two that there are; each is killed at a moment of its life (tests.sweep.killed)."""
    job = free_job()
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    found = []
    for number, last in enumerate(lasts):
        place = slurm | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} if launched else {}
        found.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    CHILD.format(last=last, find=find),
                    "sweep",
                    *arguments,
                    "--distributed",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
                env=os.environ | place,
            )
        )
    return found


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of each; none is left behind."""
    try:
        said = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *one) for process, one in zip(processes, said, strict=True)]


def test_whoever_is_killed_the_next_run_ends_with_the_bytes_of_one(config_file: Path) -> None:
    folder = config_file.parent / "joined"
    arguments = [str(config_file), "--out", str(folder)]
    (first, _, said), (second, _, _) = ends(begin(arguments, [None, 9]))
    assert (first, second) == (2, -9), said
    assert "waiting for shard 2/2\n" in said
    assert said.endswith(
        "jaxswap: --distributed: shard 2/2 has shown no sign of life for 10 s, its process is gone; give the "
        "same command again, it goes on where each stopped\n"
    )
    assert "Traceback" not in said and not folder.exists()
    assert list(folder.parent.glob("joined-2of2/parts/*/*.parquet"))

    (first, _, _), (second, out, said) = ends(begin(arguments, [2, None]))
    assert (first, second) == (-9, 0), said
    assert out == f"shard 2/2: {folder}-2of2\nthe first process joins all of them\n"
    assert not (folder / "report.txt").exists()

    (first, out, said), (second, _, why) = ends(begin(arguments, [None, None]))
    assert (first, second) == (0, 0), said + why
    assert "Best setting that sysfs can express" in out
    assert files_of(folder) == files_of(through(config_file))
    assert not list(folder.parent.glob("joined-*/.alive"))


def test_who_is_alone_says_so_and_leaves_nothing(config_file: Path) -> None:
    arguments = [str(config_file), "--out", str(config_file.parent / "out")]
    processes = begin(arguments, [None], launched=False) + begin(arguments, [None], find=2)
    (nobody, _, no_launcher), (alone, _, no_other) = ends(processes)
    assert (nobody, alone) == (2, 2)
    assert no_launcher == (
        "jaxswap: --distributed: JAX does not find the other processes (coordinator_address should be "
        "defined.); start it by srun or mpirun, or give each process its --shard\n"
    )
    assert (
        no_other == "jaxswap: --distributed: not all processes came within 2 s, look at what the others say\n"
    )
    assert not list(config_file.parent.glob("out*"))


def test_shares_are_given_out_once(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(config_file), "--distributed", "--shard", "1/2"]) == 2
    assert "leave --shard out" in capsys.readouterr().err
