"""What a waiting person sees: how far it is, the rate, the time left; plain lines without a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

Report = Callable[[int, int], None]
"""Called with how much is done and in all, in units such as lane-operations."""

_PLAIN_SECONDS = 10.0


class _Rate:
    """Rate and time left since the first part was done: what comes before is mostly compiling.

    before: what was done when it began, by an earlier run.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.before: int | None = None
        self.start: tuple[float, int] | None = None

    def text(self, done: int, total: int) -> str:
        now = time.monotonic()
        if self.before is None:
            self.before = done
        if done == self.before:
            return ""
        if self.start is None:
            self.start = (now, done)
            return ""
        seconds, count = now - self.start[0], done - self.start[1]
        if seconds <= 0 or count <= 0:
            return ""
        rate = count / seconds
        shown = f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.0f} k"
        return f"{shown} {self.unit}/s, {_clock((total - done) / rate)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


@contextmanager
def progress(
    name: str, position: str, stream: TextIO | None = None, unit: str = "lane-operations"
) -> Iterator[Report]:
    """Show the progress of one workload (`position`: "2/3") on stderr while the block runs."""
    screen: TextIO = stream or sys.stderr
    rate = _Rate(unit)
    if screen.isatty():
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            console=Console(file=screen),
            transient=True,
        )
        with bar:
            task = bar.add_task(f"{position} {name}", total=None, rate="compiling")
            yield lambda done, total: bar.update(
                task, completed=done, total=total, rate=rate.text(done, total)
            )
        return
    print(f"{position} {name}", file=screen, flush=True)
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        text = rate.text(done, total)
        if text and time.monotonic() - last >= _PLAIN_SECONDS:
            last = time.monotonic()
            print(f"{position} {name}: {100 * done // total}%, {text}", file=screen, flush=True)

    yield report
