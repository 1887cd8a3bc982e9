"""What a person waiting for a recording sees on stderr: accesses so far, their rate, operations."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_SECONDS, _PLAIN_SECONDS = 0.5, 10.0


@contextmanager
def recording(name: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a recording while the block runs: a line that changes on a terminal, a line now
    and then elsewhere; how much is left nobody knows. The block calls what it gets with accesses, operations.
    """
    screen = stream or sys.stderr
    terminal = screen.isatty()
    start = last = time.monotonic()

    def report(accesses: int, operations: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (_SECONDS if terminal else _PLAIN_SECONDS):
            return
        last = now
        rate = accesses / max(now - start, 1e-9)
        line = f"{name}: {accesses / 1e6:.1f} M accesses, {rate / 1e6:.2f} M/s, {operations:,} operations"
        print(f"\r{line}\x1b[K" if terminal else line, end="" if terminal else "\n", file=screen, flush=True)

    try:
        yield report
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=screen, flush=True)
