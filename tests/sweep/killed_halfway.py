"""Sweeps with the real replay that are killed in the middle of one: python -m tests.sweep.killed_halfway LAST
ARGUMENT...

A checkpoint is written after every operation of a workload, and the process killed by SIGKILL when it has
written LAST of them (0: it is not). Says at which operation a replay goes on.
"""

import os
import signal
import sys
from typing import Any
from unittest import mock

from jaxswap import cli
from jaxswap.machine import replay
from jaxswap.sweep import checkpoint
from jaxswap.workload import files


def main(last: str, *arguments: str) -> int:
    written = 0
    rename, go_on = os.replace, replay.Replay.go_on

    def killed(source: Any, target: Any) -> None:
        nonlocal written
        rename(source, target)
        written += str(target).endswith(".npz")
        if written == int(last) > 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def said(self: replay.Replay, kept: Any) -> int:
        print(f"goes on at {kept.at}", flush=True)
        return go_on(self, kept)

    with (
        mock.patch.object(files.os, "replace", killed),
        mock.patch.object(replay.Replay, "go_on", said),
        mock.patch.object(replay, "MOST_PAGES", 1),
        mock.patch.object(checkpoint, "SECONDS", 0),
        mock.patch.object(checkpoint, "SHARE", 0),
    ):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
