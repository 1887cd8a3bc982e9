"""Sweeps with the fake replay that kill themselves: python -m tests.sweep.killed MOMENTS SECONDS ARGUMENT...

MOMENTS ("1,2,3") says at which moment of its life each run is killed by SIGKILL; the runs that follow go on
in the same directory. A moment is a replay, or one of three around every file written: before its bytes are
safe, before it gets its name, after that. The last run is left alive. SECONDS is how long a replay takes.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from jaxswap import cli
from jaxswap.sweep import run
from jaxswap.workload import files
from tests.sweep.fake import FakeReplay, fake_lane_bytes

BLOCK = 4  # candidates: several parts a workload


class Life:
    """Counts moments, and ends the process at one of them."""

    def __init__(self, last: int | None) -> None:
        self.last, self.now = last, 0

    def moment(self) -> None:
        self.now += 1
        if self.now == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, function: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            self.moment()
            return function(*arguments)

        return call

    def around(self, function: Callable) -> Callable:
        def call(*arguments: Any) -> None:
            self.moment()
            function(*arguments)
            self.moment()

        return call


def sweep(last: int | None, seconds: float, arguments: list[str]) -> int:
    """Run the command line with the fake replay; dies at moment `last`."""
    life, fake = Life(last), FakeReplay()

    def replay(*given: Any, **named: Any) -> Any:
        life.moment()
        time.sleep(seconds)
        return fake(*given, **named)

    with (
        mock.patch.object(run, "replay_lanes", replay),
        mock.patch.object(run, "lane_bytes", fake_lane_bytes),
        mock.patch.object(run, "BLOCK", BLOCK),
        mock.patch.object(files.os, "fsync", life.before(os.fsync)),
        mock.patch.object(files.os, "replace", life.around(os.replace)),
    ):
        return cli.main(arguments)


def main(moments: str, seconds: str, *arguments: str) -> int:
    """Each life is a forked process: JAX has not started any thread when this one forks."""
    if not moments:
        return sweep(None, float(seconds), list(arguments))
    for last in [*map(int, moments.split(",")), None]:
        child = os.fork()
        if not child:
            os._exit(sweep(last, float(seconds), list(arguments)))
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            return os.waitstatus_to_exitcode(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        print("killed", flush=True)
    raise AssertionError("the last life is not killed")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
