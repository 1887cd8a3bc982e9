"""Recordings: what a kernel (or a replay) printed at DUMP, FOLIOS and STATS; read, checked, and written."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jaxswap.errors import InputError
from jaxswap.workload.files import open_checked, write_atomic

DumpRun = tuple[str, int, int, int, int]
FolioRun = tuple[str, int, int, str]
Block = tuple[str, str, Any]
BASE = "start"  # label of a STATS before the workload


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording.

    header   the "# key value" lines; several pairs on a line (two spaces apart) become several keys
    blocks   in file order, (what, label, content):
             ("DUMP", label, [(state, vstart, len, type, offset)])
                 state P, S or N; type and offset are 0 unless S
             ("FOLIOS", label, [(what, vstart, len, flags)])
                 what F, s or TAIL; flags letters such as "AR", or ""
             ("STATS", label, {group: {counter: value}})
                 groups "64kB", "vmstat", "memory.stat", "end" ...; "swaps" is a list of lines, "t" seconds
             ("ECHO", text, None)
    killed   "" or the line that says how the process died (memory cgroup out of memory); blocks end there
    npages   pages of the region, from the page maps; 0 if there is no DUMP
    lines    1-based line of the first line of each block
    seconds  that the operations took, from the OP lines; 0 if there are none
    """

    path: str
    header: dict[str, str]
    blocks: list[Block]
    killed: str = ""
    npages: int = 0
    lines: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def dumps(self) -> list[tuple[str, list[DumpRun]]]:
        """(label, runs) of every DUMP, in order."""
        return [(label, content) for what, label, content in self.blocks if what == "DUMP"]

    def stats(self) -> list[tuple[str, dict[str, Any]]]:
        """(label, groups) of every STATS, in order."""
        return [(label, content) for what, label, content in self.blocks if what == "STATS"]

    def before(self) -> dict[str, Any]:
        """Groups of the STATS `start`, if the first is one: what was there before the workload."""
        return dict(self.stats()[:1]).get(BASE, {})


_STARTS = ("#", "DUMP", "FOLIOS", "STATS", "ECHO", "OP ", "OPS", "BITS", "CHILD DIED")
_DUMP_RUN = re.compile(r"([PN]) (\d{1,18}) (\d{1,18})|S (\d{1,18}) (\d{1,18}) (?:t(\d{1,18}) )?(\d{1,18})")
_TOOK = re.compile(r" : (\d{1,9}(?:\.\d{1,9})?) s$")
_FOLIO_RUN = re.compile(r"(F|s|TAIL) (\d{1,18}) (\d{1,18})(?: ([A-Za-z]*))?")


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording (plain or gzip).

    Raises InputError, naming file and line, if it was cut off or altered: a block without its end, runs that
    leave gaps, overlap or are not maximal, page maps of different lengths, no final OPS line.
    """
    with open_checked(path, "recording") as file:
        return _Reader(os.fspath(path)).run(_text_lines(os.fspath(path), file))


def _text_lines(path: str, lines: Iterable[bytes]) -> Iterator[str]:
    for number, raw in enumerate(lines, 1):
        if b"\0" in raw:
            raise InputError(f"{path}:{number}: not a text file; a recording was expected")
        yield raw.decode("utf-8", "replace").rstrip("\r\n")


class _Reader:
    def __init__(self, path: str) -> None:
        self.path, self.number = path, 0
        self.header: dict[str, str] = {}
        self.blocks: list[Block] = []
        self.starts: list[int] = []
        self.killed, self.ended, self.npages, self.seconds = "", False, 0, 0.0

    def fail(self, message: str, number: int = 0) -> InputError:
        return InputError(f"{self.path}:{number or self.number}: {message}")

    def run(self, lines: Iterator[str]) -> Recording:
        for text in self.counted(lines):
            if text.startswith("#"):
                self.header_line(text)
                continue
            word, _, rest = text.partition(" ")
            if self.ended:
                raise self.fail("text after the final OPS line; the recording was altered")
            if word in ("DUMP", "FOLIOS", "STATS"):
                self.starts.append(self.number)
                body = {"DUMP": self.dump, "FOLIOS": self.folios, "STATS": self.stats}[word]
                self.blocks.append(body(rest.strip(), self.counted(lines)))
            elif word == "ECHO":
                self.starts.append(self.number)
                self.blocks.append(("ECHO", rest.strip(), None))
            elif text.startswith("CHILD DIED"):
                self.killed = text
            elif word in ("OPS", "OPSDONE"):
                self.ended = True
                if rest.endswith("dead") and not self.killed:
                    raise self.fail(
                        "ends as dead but no CHILD DIED line stands before; the recording was altered"
                    )
                self.check_bad(rest)
            elif word == "OP":
                took = _TOOK.search(rest)
                self.seconds += float(took[1]) if took else 0.0
            elif word != "BITS" and text.strip():
                shown = text[:40] + ("..." if len(text) > 40 else "")
                raise self.fail(
                    f"not part of a recording: {shown!r} (DUMP, FOLIOS, STATS, ECHO, OP or OPS expected)"
                )
        if not self.ended:
            raise self.fail("ends without its OPS line; the recording was cut off")
        return Recording(
            self.path, self.header, self.blocks, self.killed, self.npages, self.starts, self.seconds
        )

    def counted(self, lines: Iterator[str]) -> Iterator[str]:
        for text in lines:
            self.number += 1
            yield text

    def header_line(self, text: str) -> None:
        if self.blocks:
            return
        # "cpus 1  memory 1024M" holds two pairs; a remark in brackets belongs to no key
        for part in re.split(r" {2,}", text[1:].strip()):
            key, _, value = part.partition(" ")
            if key and not key.startswith("("):
                self.header.setdefault(key, value.strip())

    def check_bad(self, rest: str) -> None:
        bad = re.search(r"\bbad=(\d{1,18})", rest)
        if bad and int(bad[1]):
            raise self.fail(f"the recorded process read {bad[1]} wrong pages (bad={bad[1]}); record it again")

    def dump(self, label: str, lines: Iterator[str]) -> Block:
        started = self.number
        runs: list[DumpRun] = []
        at, state, kind, offset = (
            0,
            "",
            0,
            0,
        )  # where the next run must start, and what would only continue the last
        for text in lines:
            if text == "ENDDUMP":
                break
            match = _DUMP_RUN.fullmatch(text)
            if not match:
                raise self.fail(self.inside(f"DUMP {label}", text, "ENDDUMP"))
            if match[1]:
                run = (match[1], int(match[2]), int(match[3]), 0, 0)
                continues = run[0] == state
            else:
                run = ("S", int(match[4]), int(match[5]), int(match[6] or 0), int(match[7]))
                continues = state == "S" and kind == run[3] and offset == run[4]
            if run[1] != at or not run[2]:
                raise self.fail(
                    f"DUMP {label}: the run starts at page {run[1]}, not {at}; the recording was altered"
                )
            if continues:
                raise self.fail(
                    f"DUMP {label}: the run only continues the one before; the recording was altered"
                )
            runs.append(run)
            at, state, kind, offset = at + run[2], run[0], run[3], run[4] + run[2]
        else:
            raise self.fail(f"DUMP {label} has no ENDDUMP; the recording was cut off", started)
        if self.npages and at != self.npages:
            raise self.fail(
                f"DUMP {label} has {at} pages, the one before {self.npages}; the recording was altered"
            )
        self.npages = at
        return ("DUMP", label, runs)

    def folios(self, label: str, lines: Iterator[str]) -> Block:
        started = self.number
        runs: list[FolioRun] = []
        at = 0
        for text in lines:
            if text == "ENDFOLIOS":
                return ("FOLIOS", label, runs)
            match = _FOLIO_RUN.fullmatch(text)
            if not match:
                raise self.fail(self.inside(f"FOLIOS {label}", text, "ENDFOLIOS"))
            run = (match[1], int(match[2]), int(match[3]), match[4] or "")
            if run[1] < at or not run[2]:
                raise self.fail(
                    f"FOLIOS {label}: the run starts at page {run[1]}, before {at}; the recording was altered"
                )
            runs.append(run)
            at = run[1] + run[2]
        raise self.fail(f"FOLIOS {label} has no ENDFOLIOS; the recording was cut off", started)

    def stats(self, rest: str, lines: Iterator[str]) -> Block:
        started = self.number
        label, _, extra = rest.partition(" ")
        groups: dict[str, Any] = {}
        if extra.startswith("t="):
            groups["t"] = float(extra[2:])
        for text in lines:
            if text.startswith("ENDSTATS"):
                groups["end"] = self.counters(text[len("ENDSTATS") :])
                self.check_bad(text)
                return ("STATS", label, groups)
            group, colon, rest = text.strip().partition(":")
            if not colon or not text.startswith(" "):
                raise self.fail(self.inside(f"STATS {label}", text, "ENDSTATS"))
            if group == "swaps":
                groups.setdefault("swaps", []).append(rest.strip())
            elif rest.strip().isdigit():
                groups[group] = int(rest)
            else:
                groups[group] = self.counters(rest)
        raise self.fail(f"STATS {label} has no ENDSTATS; the recording was cut off", started)

    def counters(self, text: str) -> dict[str, int]:
        values = {}
        for pair in text.split():
            name, _, value = pair.partition("=")
            if not re.fullmatch(r"-?\d{1,18}", value):
                raise self.fail(f"not a counter: {pair!r} (name=number expected)")
            values[name] = int(value)
        return values

    def inside(self, block: str, text: str, end: str) -> str:
        if text.startswith(_STARTS):
            return f"{block} has no {end}; the recording was cut off or altered"
        return f"{block}: not a line of this block: {text[:40]!r}; the recording was altered"


def format_recording(
    header: dict[str, str], blocks: Iterable[Block], operations: int, killed: str = ""
) -> str:
    """The text form of a recording that read_recording reads back.

    It ends in the OPS line with `operations`, the number of operations of the workload (REGION included)."""
    lines = [f"# {key} {value}".rstrip() for key, value in header.items()]
    for what, label, content in blocks:
        lines.append(f"{what} {label}".rstrip())
        if what == "DUMP":
            for state, v, n, kind, offset in content:
                lines.append(f"S {v} {n} t{kind} {offset}" if state == "S" else f"{state} {v} {n}")
            lines.append("ENDDUMP")
        elif what == "FOLIOS":
            lines.extend(" ".join(map(str, run)).rstrip() for run in content)
            lines.append("ENDFOLIOS")
        elif what == "STATS":
            for group, values in content.items():
                if isinstance(values, dict) and group != "end":
                    lines.append(f" {group}:" + "".join(f" {name}={value}" for name, value in values.items()))
                elif isinstance(values, list):
                    lines.extend(f" {group}: {value}" for value in values)
                elif group not in ("end", "t"):
                    lines.append(f" {group}: {values}")
            lines.append("ENDSTATS" + "".join(f" {k}={v}" for k, v in content.get("end", {"bad": 0}).items()))
    if killed:
        lines.append(killed)
    lines.append("OPSDONE dead" if killed else f"OPS {operations} bad=0")
    return "\n".join(lines) + "\n"


def write_recording(
    path: str | os.PathLike[str],
    header: dict[str, str],
    blocks: Iterable[Block],
    operations: int,
    killed: str = "",
) -> None:
    """Write a recording; it appears whole or not at all. Raises InputError if it cannot be written."""
    write_atomic(path, format_recording(header, blocks, operations, killed).encode(), "recording")
