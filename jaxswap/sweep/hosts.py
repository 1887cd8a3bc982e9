"""A sweep by several processes, on one host or many: each replays its shard, the first joins all of them.

Lanes never talk to each other. jax.distributed says how many processes SLURM or Open MPI has started and
which one this is, and is left again before any work, so that no process ends with another. From then on all
that ties them is the file system, which all of them see: each changes a file of its run directory while it
lives.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax

from jaxswap.config import Config
from jaxswap.errors import InputError
from jaxswap.sweep.finished import Sweep
from jaxswap.sweep.merge import merge_runs
from jaxswap.sweep.run import Ran, run_shard, run_sweep
from jaxswap.sweep.shards import Shard
from jaxswap.workload.files import make_folder

FIND = 300
"""Seconds that processes wait for each other when they start."""
_MORE = 60  # that JAX may wait, so that the line comes first
SIGN = 5.0
"""Seconds between two signs of life of a process."""
GONE = 150.0
"""Without a sign for so many seconds a process counts as gone. NFS shows the changes of other hosts up to 60
seconds late, and a host that swaps may stand still for a while."""
_ALIVE = ".alive"


@contextmanager
def processes() -> Iterator[Shard]:
    """Find the other processes, as the launcher says: this one's share. To be entered before JAX is used.

    Raises InputError where there is no launcher that JAX knows. Where not all come within FIND seconds, those
    that did end.
    """
    with _in_time():
        try:
            jax.distributed.initialize(
                initialization_timeout=FIND + _MORE, shutdown_timeout_seconds=FIND + _MORE
            )
            shard = Shard(jax.process_index() + 1, jax.process_count())
        except (ValueError, RuntimeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"--distributed: JAX does not find the other processes ({said[:200]}); start it by srun or "
                "mpirun, or give each process its --shard"
            ) from None
    try:
        yield shard
    finally:
        _part()


def run_on_hosts(config: Config, command: Sequence[str], shard: Shard) -> Sweep | Ran:
    """This process's share of a sweep; in the first process all of it, joined, once the others have ended.

    Share I of N is kept in the directory OUT-IofN beside config.out. A single process does what run_sweep
    does. Raises InputError as run_shard and merge_runs do, without config.out, and where a process is gone.
    """
    if config.out is None:
        raise InputError("--distributed: name the run directory, --out DIR, on a file system all hosts see")
    if shard.count == 1:
        _part()
        return run_sweep(config, command)
    whole, own = config.out, folder_of(config.out, shard)
    with _alive(own):
        _part()
        ran = run_shard(replace(config, out=own), command, shard)
        if shard.number > 1 or ran.failed:
            return ran
        others = [Shard(number, shard.count) for number in range(2, shard.count + 1)]
        _wait_for({str(other): folder_of(whole, other) for other in others})
        return merge_runs([own, *(folder_of(whole, other) for other in others)], whole)


def folder_of(whole: Path, shard: Shard) -> Path:
    """The run directory of a share, beside that of the whole."""
    return whole.with_name(f"{whole.name}-{shard.number}of{shard.count}")


def _part() -> None:
    """Leave jax.distributed, when all processes are about to: all that each did before can be seen by all."""
    if not jax.distributed.is_initialized():
        return
    with _in_time():
        jax.distributed.shutdown()


@contextmanager
def _in_time() -> Iterator[None]:
    """End the process with a line if the block takes longer than FIND: JAX would do it with a stack trace."""

    def give_up() -> None:
        line = f"--distributed: not all processes came within {FIND} s, look at what the others say"
        print(f"jaxswap: {line}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(FIND, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Give signs of life in a run directory for the block."""
    sign, over = folder / _ALIVE, threading.Event()
    make_folder(folder, "results")

    def go_on() -> None:
        while not over.wait(SIGN):
            with contextlib.suppress(OSError):
                sign.touch()

    sign.touch()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            sign.unlink()
            folder.rmdir()  # where nothing was begun


def _wait_for(folders: dict[str, Path]) -> None:
    """Wait until no process of some run directories is alive. Raises InputError if one of them is gone."""
    seen: dict[str, tuple[int, float]] = {}
    told = False
    while True:
        living = []
        for shard, folder in folders.items():
            try:
                sign = os.stat(folder / _ALIVE).st_mtime_ns
            except OSError:
                continue
            now = time.monotonic()
            if shard not in seen or seen[shard][0] != sign:
                seen[shard] = (sign, now)
            elif now - seen[shard][1] > GONE:
                raise InputError(
                    f"--distributed: shard {shard} has shown no sign of life for {GONE:.0f} s, its process "
                    "is gone; give the same command again, it goes on where each stopped"
                )
            living.append(shard)
        if not living:
            return
        if not told:
            print(f"waiting for shard {', '.join(living)}", file=sys.stderr, flush=True)
            told = True
        time.sleep(min(SIGN, 1.0))
