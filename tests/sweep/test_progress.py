"""Progress where there is no terminal: a line when it starts, then rate and time left every ten seconds."""

import io

import pytest

from jaxswap.sweep.progress import progress


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    with progress("sort", "2/3", stream) as report:
        for second in range(31):
            now = 100.0 + second
            report(second * 1_000_000, 60_000_000)
    assert stream.getvalue().splitlines() == [
        "2/3 sort",
        "2/3 sort: 16%, 1.00 M lane-operations/s, 0:50 left",
        "2/3 sort: 33%, 1.00 M lane-operations/s, 0:40 left",
        "2/3 sort: 50%, 1.00 M lane-operations/s, 0:30 left",
    ]


def test_what_an_earlier_run_did_is_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    with progress("sort", "2/3", stream) as report:
        report(30_000_000, 60_000_000)
        for second in range(50, 56):  # compiling until then
            now = 100.0 + second
            report((second - 19) * 1_000_000, 60_000_000)
    assert stream.getvalue().splitlines() == [
        "2/3 sort",
        "2/3 sort: 53%, 1.00 M lane-operations/s, 0:28 left",
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_rate_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = _Terminal()
    with progress("sort", "1/3", stream) as report:
        report(0, 1000)
        report(500, 1000)
        report(600, 1000)
    text = stream.getvalue()
    assert "1/3 sort" in text and "compiling" in text
    assert "\x1b[2K" in text
