"""The workload text form: one memory operation a line, read into arrays, checked, and written back."""

import copy
import enum
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int32, UInt8

from jaxswap.errors import InputError, NotModelled
from jaxswap.workload import generate
from jaxswap.workload.files import stem
from jaxswap.workload.processes import MOST_CGROUPS, check_cgroup, check_lives, split_prefix

ADVICE = ("huge", "nohuge", "plain")
MOST_PAGES = 2**31 - 1


class Kind(enum.IntEnum):
    """What an operation does. FILL is TOUCH and READN is READ with n > 1."""

    TOUCH = 0
    READ = 1
    ZERO = 2
    DONTNEED = 3
    PAGEOUT = 4
    COLD = 5
    WILLNEED = 6
    MADVHUGE = 7
    MADVNOHUGE = 8
    MAP = 9
    UNMAP = 10
    SET = 11
    DUMP = 12
    FOLIOS = 13
    STATS = 14
    ECHO = 15
    FORK = 16
    EXIT = 17
    CGROUP = 18


@dataclass(frozen=True, eq=False)
class Workload:
    """A checked list of memory operations on a space of `npages` 4 KiB pages, aligned to 2 MiB.

    kind, v, n, line have one entry an operation, in order: what it does, first page, number of pages (0 for
    operations without a range), 1-based line in the file (of a binary one the operation's number); FORK has
    the child's number in v. process, cpu: who does it and where, 0 if nothing is said. `text` maps the index
    of an operation to its label (DUMP, FOLIOS, STATS, ECHO), its advice (MAP), "path value" (SET) or name
    (CGROUP). `meta` holds the "# key value"
    comments that stand before REGION.
    """

    name: str
    path: str
    npages: int
    advice: str
    kind: UInt8[np.ndarray, "ops"]
    v: Int32[np.ndarray, "ops"]
    n: Int32[np.ndarray, "ops"]
    line: Int32[np.ndarray, "ops"]
    text: dict[int, str] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    process: UInt8[np.ndarray, "ops"] = field(default_factory=lambda: np.zeros(0, np.uint8))
    cpu: UInt8[np.ndarray, "ops"] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        for name in ("process", "cpu"):
            if len(getattr(self, name)) != len(self.kind):
                object.__setattr__(self, name, np.zeros(len(self.kind), np.uint8))

    @property
    def accesses(self) -> int:
        """Page accesses: the sum of n over TOUCH, READ and ZERO."""
        return int(self.n[self.kind <= Kind.ZERO].sum(dtype=np.int64))

    @property
    def cgroups(self) -> tuple[str, ...]:
        """Names of the cgroups that CGROUP operations move processes to, in order of their first."""
        return tuple(dict.fromkeys(self.text[i] for i in np.flatnonzero(self.kind == Kind.CGROUP).tolist()))

    @property
    def starts_mapped(self) -> bool:
        """Whether all of REGION is one VMA at the start; False where the first operation is MAP."""
        return not len(self.kind) or self.kind[0] != Kind.MAP

    def advised(self, advice: str) -> "Workload":
        """The same with REGION and every MAP of another advice."""
        maps = {int(i): advice for i in np.flatnonzero(self.kind == Kind.MAP)}
        return replace(self, advice=advice, text=self.text | maps)

    def __len__(self) -> int:
        return len(self.kind)


# word -> (kind, number of numbers)
_NUMERIC: dict[bytes, tuple[Kind, int]] = {
    b"TOUCH": (Kind.TOUCH, 1),
    b"READ": (Kind.READ, 1),
    b"FILL": (Kind.TOUCH, 2),
    b"READN": (Kind.READ, 2),
    b"ZERO": (Kind.ZERO, 2),
    b"DONTNEED": (Kind.DONTNEED, 2),
    b"PAGEOUT": (Kind.PAGEOUT, 2),
    b"COLD": (Kind.COLD, 2),
    b"WILLNEED": (Kind.WILLNEED, 2),
    b"MADVHUGE": (Kind.MADVHUGE, 2),
    b"MADVNOHUGE": (Kind.MADVNOHUGE, 2),
    b"UNMAP": (Kind.UNMAP, 2),
}
_LABELLED = {b"DUMP": Kind.DUMP, b"FOLIOS": Kind.FOLIOS, b"STATS": Kind.STATS}
_GENERATED = {word.encode(): word for word in generate.ARGUMENTS}
KNOWN = sorted(
    ["REGION", "MAP", "SET", "ECHO", "FORK", "EXIT", "CGROUP"]
    + [word.decode() for word in (*_NUMERIC, *_LABELLED, *_GENERATED)]
)


def read_text(file: Iterable[bytes], path: str) -> Workload:
    """The workload in the lines of an open file; `path` names it in messages.

    Raises InputError, naming file and line, for anything that cannot be replayed."""
    return _Parser(path, stem(path), path).run(file)


def parse_workload(text: str, name: str = "workload") -> Workload:
    """Parse workload text held in memory; messages name it `name`, its path is ""."""
    if not text:
        raise InputError(f"{name}: the workload is empty; its first operation must be REGION")
    return _Parser(name, name, "").run(text.encode("utf-8", "surrogateescape").splitlines())


def format_workload(workload: Workload) -> str:
    """The text form of a workload: its meta comments, REGION, one operation a line.

    Generated accesses were expanded when read and are written as the accesses they stand for.
    """
    lines = [f"# {key} {value}".rstrip() for key, value in workload.meta.items()]
    lines.append(f"REGION {workload.npages} {workload.advice}")
    names = [kind.name for kind in Kind]
    text = workload.text
    operations = zip(workload.kind.tolist(), workload.v.tolist(), workload.n.tolist(), strict=True)
    for index, (kind, v, n) in enumerate(operations):
        if kind == Kind.FORK:
            lines.append(f"FORK {v}")
        elif kind <= Kind.READ:
            lines.append(f"{names[kind]} {v}" if n == 1 else f"{'READN' if kind else 'FILL'} {v} {n}")
        elif kind == Kind.MAP:
            lines.append(f"MAP {v} {n} {text[index]}")
        elif kind <= Kind.UNMAP:
            lines.append(f"{names[kind]} {v} {n}")
        else:
            lines.append(f"{names[kind]} {text.get(index, '')}".rstrip())
        if workload.process[index]:
            lines[-1] = f"p{workload.process[index]} {lines[-1]}"
        if workload.cpu[index]:
            lines[-1] = f"@{workload.cpu[index]} {lines[-1]}"
    return "\n".join(lines) + "\n"


class Coverage:
    """The pages that belong to some VMA: disjoint, sorted, never touching intervals."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Make [start, end) covered."""
        first = bisect_left(self.ends, start)
        last = bisect_right(self.starts, end)
        if first < last:
            start, end = min(start, self.starts[first]), max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Make [start, end) uncovered."""
        first = bisect_right(self.ends, start)
        last = bisect_left(self.starts, end)
        if first >= last:
            return
        starts, ends = [], []
        if self.starts[first] < start:
            starts.append(self.starts[first])
            ends.append(start)
        if self.ends[last - 1] > end:
            starts.append(end)
            ends.append(self.ends[last - 1])
        self.starts[first:last] = starts
        self.ends[first:last] = ends

    def outside(self, v: np.ndarray, n: np.ndarray) -> np.ndarray:
        """Flags the ranges [v, v+n) that are not wholly covered."""
        if not self.starts:
            return np.ones(len(v), bool)
        at = np.searchsorted(np.asarray(self.starts), v, side="right") - 1
        return (at < 0) | (v + n > np.asarray(self.ends)[np.maximum(at, 0)])


class _Parser:
    def __init__(self, where: str, name: str, path: str) -> None:
        self.where, self.name, self.path = where, name, path
        self.npages, self.advice = 0, ""
        self.meta: dict[str, str] = {}
        self.text: dict[int, str] = {}
        self.cgroups: set[str] = set()
        # pieces of finished arrays, and the rows read since the last piece
        self.pieces: list[tuple[np.ndarray, ...]] = []
        self.done = 0
        self.rows: tuple[list[int], ...] = ([], [], [], [])
        self.prefixed: list[tuple[int, int, int, int]] = []  # operations from, to, their process and CPU

    def fail(self, number: int, message: str) -> InputError:
        return InputError(f"{self.where}:{number}: {message}")

    def run(self, lines: Iterable[bytes]) -> Workload:
        kinds, vs, ns, numbers = self.rows
        add_kind, add_v, add_n, add_line = kinds.append, vs.append, ns.append, numbers.append
        numeric = _NUMERIC
        number = 0
        for number, raw in enumerate(lines, 1):
            words = raw.split()
            if not words:
                continue
            known = numeric.get(words[0])
            # The common line in as few steps as Python allows; whatever is odd about it goes the slow way.
            if known is not None and self.npages:
                kind, wanted = known
                if len(words) == wanted + 1 and words[1].isdigit() and len(words[1]) < 11:
                    if wanted == 1:
                        add_kind(kind)
                        add_v(int(words[1]))
                        add_n(1)
                        add_line(number)
                        continue
                    if words[2].isdigit() and len(words[2]) < 11 and (n := int(words[2])):
                        add_kind(kind)
                        add_v(int(words[1]))
                        add_n(n)
                        add_line(number)
                        continue
            self.other(number, raw, words)
        if not self.npages:
            raise self.fail(
                max(number, 1), "no REGION; the first operation must be: REGION npages huge|nohuge|plain"
            )
        self.flush()
        return self.finish()

    def other(self, number: int, raw: bytes, words: list[bytes]) -> None:
        """A line that is not a plain well-formed numeric operation."""
        if b"\0" in raw:
            raise self.fail(
                number, "not a text file (it holds zero bytes); a workload (.t or .t.gz) was expected"
            )
        if words[0].startswith(b"#"):
            self.comment(raw)
            return
        if words[0][:1] in (b"@", b"p"):
            try:
                raw, process, cpu = split_prefix(raw)
            except ValueError as wrong:
                raise self.fail(number, str(wrong)) from None
            if len(rest := raw.split()) < len(words):
                if not rest:
                    raise self.fail(number, "a process or a CPU and no operation behind it")
                if rest[0] == b"REGION":
                    raise self.fail(number, "REGION belongs to all processes; write it without a prefix")
                start = self.done + len(self.rows[0])
                self.operation(number, raw, rest)
                self.prefixed.append((start, self.done + len(self.rows[0]), process, cpu))
                return
        self.operation(number, raw, words)

    def operation(self, number: int, raw: bytes, words: list[bytes]) -> None:
        """One operation without its prefix."""
        op = words[0]
        if op != b"ECHO":
            for at, word in enumerate(words):
                if word.startswith(b"#"):
                    words = words[:at]
                    break
        if op == b"REGION":
            self.region(number, words)
            return
        if op == b"SH":
            raise NotModelled(
                f"{self.where}:{number}: SH runs a shell command, which is not modelled; "
                "write SET path value for a setting"
            )
        name = op.decode("utf-8", "backslashreplace")
        if (
            op not in _NUMERIC
            and op not in _LABELLED
            and op not in _GENERATED
            and op not in (b"MAP", b"SET", b"ECHO", b"FORK", b"EXIT", b"CGROUP")
        ):
            if not name.isprintable() or len(name) > 60:
                raise self.fail(number, "not a workload: the line does not start with an operation's name")
            hint = (
                f"; did you mean {name.upper()}?" if name.upper() in KNOWN else f"; known: {' '.join(KNOWN)}"
            )
            raise self.fail(number, f"unknown operation {name}{hint}")
        if not self.npages:
            raise self.fail(
                number, f"{name} before REGION; the first operation must be: REGION npages huge|nohuge|plain"
            )
        if op in _NUMERIC:
            kind, wanted = _NUMERIC[op]
            v, n = (*self.integers(number, name, ("v", "n")[:wanted], words[1:]), 1)[:2]
            if n < 1:
                raise self.fail(number, f"{name}: n must be at least 1")
            self.add(kind, v, n, number)
        elif op == b"MAP":
            if len(words) != 4 or words[3].decode("utf-8", "replace") not in ADVICE:
                raise self.fail(number, "MAP takes two numbers and an advice: MAP v n huge|nohuge|plain")
            v, n = self.integers(number, name, ("v", "n"), words[1:3])
            if n < 1:
                raise self.fail(number, "MAP: n must be at least 1")
            self.add(Kind.MAP, v, n, number, words[3].decode())
        elif op in _LABELLED:
            if len(words) > 2:
                raise self.fail(number, f"{name} takes one label without spaces, not {len(words) - 1} words")
            self.add(_LABELLED[op], 0, 0, number, self.decode(number, words[1]) if len(words) == 2 else "")
        elif op == b"SET":
            if len(words) != 3:
                raise self.fail(number, "SET takes a path and a value: SET path value")
            self.add(Kind.SET, 0, 0, number, self.decode(number, words[1] + b" " + words[2]))
        elif op == b"FORK":
            (child,) = self.integers(number, name, ("child",), words[1:], digits=3)
            self.add(Kind.FORK, child, 0, number)
        elif op == b"EXIT":
            self.integers(number, name, (), words[1:])
            self.add(Kind.EXIT, 0, 0, number)
        elif op == b"CGROUP":
            text = words[1].decode("utf-8", "backslashreplace") if len(words) == 2 else ""
            try:
                self.cgroups |= {check_cgroup(text)}
            except ValueError as wrong:
                raise self.fail(number, f"CGROUP: {wrong}") from None
            if len(self.cgroups) > MOST_CGROUPS:
                raise self.fail(number, f"CGROUP {text}: a workload names at most {MOST_CGROUPS} cgroups")
            self.add(Kind.CGROUP, 0, 0, number, text)
        elif op == b"ECHO":
            self.add(Kind.ECHO, 0, 0, number, self.decode(number, raw.strip()[len(op) :].strip()))
        else:
            self.generated(number, name, words)

    def comment(self, raw: bytes) -> None:
        parts = raw.decode("utf-8", "replace").strip().lstrip("#").split(None, 1)
        if not self.npages and parts:
            self.meta.setdefault(parts[0], parts[1] if len(parts) == 2 else "")

    def region(self, number: int, words: list[bytes]) -> None:
        if self.npages:
            raise self.fail(number, "a second REGION; a workload has one (use MAP for further mappings)")
        if len(words) != 3 or words[2].decode("utf-8", "replace") not in ADVICE:
            raise self.fail(
                number, "REGION takes a number of pages and an advice: REGION npages huge|nohuge|plain"
            )
        (npages,) = self.integers(number, "REGION", ("npages",), words[1:2])
        if not 1 <= npages <= MOST_PAGES:
            raise self.fail(number, f"REGION: npages is {npages}; it must be 1..{MOST_PAGES}")
        self.npages, self.advice = npages, words[2].decode()

    def generated(self, number: int, name: str, words: list[bytes]) -> None:
        names = generate.ARGUMENTS[name]
        values = dict(zip(names, self.integers(number, name, names, words[1:], digits=20), strict=True))
        wrong = generate.check_arguments(name, values, self.npages)
        if wrong:
            raise self.fail(number, wrong)
        pages, lengths, writes = generate.merge_runs(*generate.expand(name, values, self.npages))
        self.flush()
        kind = np.where(writes, np.uint8(Kind.TOUCH), np.uint8(Kind.READ))
        self.pieces.append((kind, pages, lengths, np.full(len(pages), number)))
        self.done += len(pages)

    def integers(
        self, number: int, op: str, names: tuple[str, ...], words: list[bytes], digits: int = 10
    ) -> list[int]:
        if len(words) != len(names):
            form = " ".join((op, *names))
            hint = {"TOUCH": " (for a range: FILL v n)", "READ": " (for a range: READN v n)"}.get(op, "")
            raise self.fail(number, f"{op} takes {len(names)} numbers, got {len(words)}: {form}{hint}")
        values = []
        for name, word in zip(names, words, strict=True):
            if not word.isdigit() or len(word) > digits:
                shown = word[:30].decode("utf-8", "backslashreplace")
                what = "is too large" if word.isdigit() else "is not a non-negative whole number"
                raise self.fail(number, f"{op}: {name} {what}: {shown}")
            values.append(int(word))
        return values

    def decode(self, number: int, word: bytes) -> str:
        try:
            return word.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(number, "the text is not UTF-8") from None

    def add(self, kind: Kind, v: int, n: int, number: int, text: str | None = None) -> None:
        if text is not None:
            self.text[self.done + len(self.rows[0])] = text
        for column, value in zip(self.rows, (kind, v, n, number), strict=True):
            column.append(value)

    def flush(self) -> None:
        if self.rows[0]:
            self.pieces.append(tuple(np.array(column, np.int64) for column in self.rows))
            self.done += len(self.rows[0])
            for column in self.rows:
                column.clear()

    def finish(self) -> Workload:
        if self.pieces:
            kind, v, n, line = (np.concatenate(column) for column in zip(*self.pieces, strict=True))
        else:
            kind, v, n, line = (np.zeros(0, np.int64) for _ in range(4))
        kind = kind.astype(np.uint8)
        process, cpu = (np.zeros(len(kind), np.uint8) for _ in range(2))
        for start, stop, owner, where in self.prefixed:
            process[start:stop], cpu[start:stop] = owner, where
        check_operations(self.npages, kind, v, n, line, process, self.fail)
        v, n, line = (column.astype(np.int32) for column in (v, n, line))
        meta = self.meta
        return Workload(
            self.name, self.path, self.npages, self.advice, kind, v, n, line, self.text, meta, process, cpu
        )


Fail = Callable[[int, str], InputError]
"""Makes the error of a line."""


def check_operations(
    npages: int,
    kind: np.ndarray,
    v: np.ndarray,
    n: np.ndarray,
    line: np.ndarray,
    process: np.ndarray,
    fail: Fail,
) -> None:
    """Raise `fail(line, message)` for an operation outside REGION or every VMA, or of no living process.

    kind, v, n, line, process as in Workload; v and n must be int64 here, so that their sums hold.
    """
    bad = np.flatnonzero((v + n > npages) & (kind < Kind.FORK))
    if len(bad):
        i = int(bad[0])
        last = v[i] + n[i] - 1
        message = f"{Kind(int(kind[i])).name}: page {last} is outside REGION (pages 0..{npages - 1})"
        raise fail(int(line[i]), message)
    rows = np.flatnonzero((kind >= Kind.FORK) | (process > 0)).tolist()
    check_lives(((int(line[i]), Kind(kind[i]).name, int(process[i]), int(v[i])) for i in rows), fail)
    _check_mapped(npages, kind, v, n, line, process, fail)


def _check_mapped(
    npages: int,
    kind: np.ndarray,
    v: np.ndarray,
    n: np.ndarray,
    line: np.ndarray,
    process: np.ndarray,
    fail: Fail,
) -> None:
    """Every access and every advice lies in pages that belong to a VMA of its process at that moment."""
    if not ((kind == Kind.MAP) | (kind == Kind.UNMAP)).any():
        return
    coverages = {0: Coverage()}
    if kind[0] != Kind.MAP:
        coverages[0].add(0, npages)
    turns = np.flatnonzero(np.diff(process)) + 1
    changes = np.flatnonzero((kind == Kind.MAP) | (kind == Kind.UNMAP) | (kind == Kind.FORK))
    wants = kind < Kind.MAP
    previous = 0
    for change in (*np.union1d(turns, changes).tolist(), len(kind)):
        if change > previous:
            part = slice(previous, change)
            coverage = coverages[int(process[previous])]
            bad = np.flatnonzero(wants[part] & coverage.outside(v[part], n[part]))
            if len(bad):
                i = previous + int(bad[0])
                pages = f"page {v[i]}" if n[i] == 1 else f"pages {v[i]}..{v[i] + n[i] - 1}"
                message = (
                    f"{Kind(int(kind[i])).name}: {pages} not wholly inside mapped ranges; MAP them first"
                )
                raise fail(int(line[i]), message)
        previous = change
        if change < len(kind):
            coverage = coverages[int(process[change])]
            if kind[change] == Kind.FORK:
                coverages[int(v[change])] = copy.deepcopy(coverage)
            elif kind[change] in (Kind.MAP, Kind.UNMAP):
                edit = coverage.add if kind[change] == Kind.MAP else coverage.remove
                edit(int(v[change]), int(v[change] + n[change]))
                previous = change + 1
