"""A sweep's configuration: TOML in, frozen and checked dataclasses out; errors name the file, key and fix."""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxswap.errors import InputError
from jaxswap.frames import Frames, frames_text, parse_frames
from jaxswap.machine import PROFILES, Lane, lane
from jaxswap.machine.lane import DEFRAG, LRUS, SWAPPINESS
from jaxswap.policy import POLICIES, Policy
from jaxswap.policy.own import Own, load_own
from jaxswap.sweep.objective import Objective, parse_objective
from jaxswap.toml import Table, read_toml, show, suggest
from jaxswap.workload import recorded, recorded_names

SIZES = tuple(lane.SIZES)
"""The mTHP sizes that the machine has, kB."""
MODES = ("always", "madvise")
MOST_CANDIDATES = 200_000
_MOST_NAME = 100  # characters; a workload's name is that of files
_PAGE = 4096
_CLUSTER = 2 << 20
_LEAST_LIMIT = 1 << 20
_MOST_SWAP = 16 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Limit:
    """memory.max: bytes, or a share of the workload's footprint in percent. Exactly one is set."""

    size: int | None = None
    percent: float | None = None

    def of(self, footprint: int) -> int:
        """The limit in bytes, whole pages, for a footprint in bytes."""
        if self.size is not None:
            return self.size
        assert self.percent is not None
        return int(footprint * self.percent / 100) // _PAGE * _PAGE

    def __str__(self) -> str:
        return format_size(self.size) if self.size is not None else f"{self.percent:g}%"


@dataclass(frozen=True)
class WorkloadChoice:
    """One workload of the sweep: its name in tables, the file to read, and its memory limit."""

    name: str
    path: Path
    limit: Limit


@dataclass(frozen=True)
class PolicyChoice:
    """One heuristic with a value for each of its parameters. rule: its functions, if it is the user's own."""

    name: str
    params: tuple[tuple[str, int], ...] = ()
    rule: Policy | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.params)])


@dataclass(frozen=True)
class Config:
    """A sweep. `sizes` in kB, `swap` in bytes (None: twice the footprint), `out` None: the run's choice.
    lane: what all candidates' lanes have in common: LRU, swappiness, defrag, page frames. own: the user's own
    heuristics.
    """

    path: Path
    name: str
    kernel: str
    swap: int | None
    workloads: tuple[WorkloadChoice, ...]
    sizes: tuple[int, ...]
    modes: tuple[str, ...]
    policies: tuple[PolicyChoice, ...]
    reference: str
    objective: Objective
    seed: int
    out: Path | None
    lane: Lane
    own: tuple[Own, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What decides the results, as plain values, for the manifest and the run's key."""
        common = {key: getattr(self.lane, key) for key in ("lru", "swappiness", "defrag")}
        if self.lane.frames is not None:
            common["frames"] = frames_text(self.lane.frames)
        return common | {
            "kernel": self.kernel,
            "swap": "auto" if self.swap is None else format_size(self.swap),
            "workloads": {choice.name: {"limit": str(choice.limit)} for choice in self.workloads},
            "sizes": list(self.sizes),
            "modes": list(self.modes),
            "policies": [str(choice) for choice in self.policies],
            "own_policies": {
                own.policy.name: {"file": own.path.name, "sha256": own.sha256} for own in self.own
            },
            "reference": self.reference,
            "objective": str(self.objective),
            "seed": self.seed,
        }

    def swap_of(self, footprint: int) -> int:
        """The swap device in bytes for a footprint in bytes: whole clusters of 2 MiB."""
        return self.swap if self.swap is not None else math.ceil(2 * footprint / _CLUSTER) * _CLUSTER


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Read a sweep's TOML file; `overrides` are "a.b=value" (in TOML, or a bare word) and win over the file.

    Raises InputError with one line that names the file, the key and the fix.
    """
    return _config(Path(path), read_toml(path, overrides, "configs/quickstart.toml"))


def parse_size(text: str) -> int | None:
    """Bytes of "24M", "1.5G", "512K" or "4096"; None if it is not a size."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    return int(float(match[1]) * _UNITS[match[2].upper()]) if match else None


def parse_count(text: str) -> int | None:
    """A whole number of up to 18 digits; None if it is not one."""
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def format_size(size: int) -> str:
    """Bytes in the largest unit that divides them: "24M"."""
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def parse_mthp(text: str) -> str | None:
    """Normal form of an mTHP setting ("16 32 64m": ascending kB, m for madvise); None if it is not one."""
    sizes: dict[int, str] = {}
    for word in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,18})(?:kB?)?(m?)", word)
        if not match or int(match[1]) not in SIZES or int(match[1]) in sizes:
            return None
        sizes[int(match[1])] = match[2]
    return " ".join(f"{size}{sizes[size]}" for size in sorted(sizes))


def parse_policy(text: str, where: str = "--policy") -> PolicyChoice:
    """A heuristic written "name" or "name:key=value,key=value"; parameters left out take their defaults."""
    name, _, rest = text.partition(":")
    given: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"-?\d{1,18}", value.strip()):
            raise InputError(f"{where} {text!r}: {pair!r} is not name=number; write {name}:name=number,...")
        given[key.strip()] = int(value)
    (choice,) = _policy(lambda key, message: InputError(f"{where}: {key}: {message}"), name, given)
    return choice


def _config(path: Path, top: Table) -> Config:
    seed = top.get("seed", int, "a whole number", 0)
    if not 0 <= seed < 2**32:
        raise top.error("seed", f"{seed} is out of range; take 0 to {2**32 - 1}")
    out = top.get("out", str, "the path of a directory")
    if out is not None and (not out or "\0" in out):
        raise top.error("out", f"{out!r} is no path; name a directory, or leave it out")
    objective_text = top.get("objective", str, 'a string: "dominance" or an expression', "dominance")
    try:
        objective = parse_objective(objective_text)
    except InputError as error:
        raise top.error("objective", str(error)) from None
    machine = top.table("machine", "a table [machine]")
    common = _lane(machine)
    kernel, swap = _machine(machine)
    space = top.table("space", "a table [space]")
    sizes = _sizes(space)
    modes = _modes(space)
    space.finish()
    policies, own = read_policies(path, top.table("policies", "a table [policies]"))
    masks = 1 + len(modes) * (2 ** len(sizes) - 1)
    if masks * len(policies) > MOST_CANDIDATES:
        raise space.error(
            "sizes",
            f"{masks} masks times {len(policies)} heuristics are {masks * len(policies)} candidates, "
            f"more than {MOST_CANDIDATES}; take fewer sizes or parameter values",
        )
    reference = top.get("reference", str, 'a string of sizes in kB such as "16 64m"')
    if reference is None:
        reference = " ".join(f"{size}{'m' if modes[0] == 'madvise' else ''}" for size in sizes)
    checked = parse_mthp(reference)
    if checked is None:
        raise top.error(
            "reference", f"{reference!r} is not a set of sizes; write kB with m for madvise: {_SIZE_HELP}"
        )
    workloads = _workloads(
        path, top.table("workloads", "a table [workloads.NAME] for each workload"), max(sizes)
    )
    top.finish()
    return Config(
        path=path,
        name=path.stem,
        kernel=kernel,
        swap=swap,
        workloads=workloads,
        sizes=sizes,
        modes=modes,
        policies=policies,
        reference=checked,
        objective=objective,
        seed=seed,
        out=None if out is None else Path(out),
        lane=common,
        own=own,
    )


_SIZE_HELP = "the sizes are " + ", ".join(map(str, SIZES))


def _machine(table: Table) -> tuple[str, int | None]:
    kernel = table.get("kernel", str, 'a string such as "7.3"', "7.3")
    if kernel not in PROFILES:
        raise table.error("kernel", f"no profile of kernel {kernel!r}; {suggest(kernel, PROFILES)}")
    swap = table.get("swap", (str, int), '"auto" or a size such as "128M"', "auto")
    table.finish()
    if swap == "auto":
        return kernel, None
    size = parse_size(str(swap))
    if size is None:
        raise table.error("swap", f'{swap!r} is not a size; write "auto" or "128M"')
    if not _CLUSTER <= size <= _MOST_SWAP:
        raise table.error(
            "swap", f"{swap} is out of range; take {format_size(_CLUSTER)} to {format_size(_MOST_SWAP)}"
        )
    if size % _PAGE:
        raise table.error("swap", f"{swap} is not a whole number of 4 KiB pages")
    return kernel, size


def _lane(table: Table) -> Lane:
    """What the lanes of all candidates have in common."""
    lru = table.get("lru", str, f"one of {', '.join(LRUS)}", "classic")
    if lru not in LRUS:
        raise table.error("lru", f"{lru!r} is neither {' nor '.join(LRUS)}")
    swappiness = table.get("swappiness", int, "a whole number", 60)
    if swappiness not in SWAPPINESS:
        raise table.error("swappiness", f"{swappiness} is out of range; take 0 to {SWAPPINESS[-1]}")
    defrag = table.get("defrag", str, f"one of {', '.join(DEFRAG)}", "madvise")
    if defrag not in DEFRAG:
        raise table.error("defrag", f"{defrag!r} is none of {', '.join(DEFRAG)}")
    return Lane(lru=lru, swappiness=swappiness, defrag=defrag, frames=_frames(table))


def _frames(table: Table) -> Frames | None:
    text = table.get("frames", str, 'a string such as "64M unmovable 30% seed 1"')
    if text is None:
        return None
    try:
        found = parse_frames(text)
        found.check()
    except InputError as error:
        raise table.error("frames", str(error).removeprefix("frames: ")) from None
    return found


def _sizes(space: Table) -> tuple[int, ...]:
    sizes = space.get("sizes", list, "a list of sizes in kB such as [16, 32, 64]")
    if sizes is None:
        raise space.error("sizes", "is missing; say which mTHP sizes to try, for example [16, 32, 64]")
    if not sizes:
        raise space.error("sizes", "is empty; name at least one size, for example [64]")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool):
            raise space.error(
                "sizes", f"{show(size)} is not a number; write sizes in kB, for example [16, 64]"
            )
        if size not in SIZES:
            why = "exists for shmem only" if size == 8 else "is no mTHP size"
            raise space.error("sizes", f"{size} kB {why}; {_SIZE_HELP}")
    if len(set(sizes)) < len(sizes):
        raise space.error("sizes", f"{sizes} names a size twice")
    return tuple(sorted(sizes))


def _modes(space: Table) -> tuple[str, ...]:
    modes = space.get("modes", list, 'a list such as ["always"]', ["always"])
    for mode in modes:
        if mode not in MODES:
            raise space.error("modes", f"{show(mode)} is no mode; take always, madvise or both")
    if not modes or len(set(modes)) < len(modes):
        raise space.error("modes", f"{modes} must name always, madvise or both, each once")
    return tuple(modes)


def read_policies(config: Path, table: Table) -> tuple[tuple[PolicyChoice, ...], tuple[Own, ...]]:
    """Every heuristic with every combination of its values, the kernel's rule first; and the user's own."""
    found = [PolicyChoice("kernel")]
    own = []
    for name in table.values:
        given = dict(table.get(name, dict, "a table of parameters, {} for the defaults"))
        rule = None
        if "file" in given:
            own.append(_own(config, table, name, given.pop("file")))
            rule = own[-1].policy
        elif name not in POLICIES:
            raise table.error(
                name, f'unknown heuristic; {suggest(name, POLICIES)}; for one of your own say file = "my.py"'
            )
        found += _policy(table.error, name, given, rule)
    return tuple(dict.fromkeys(found)), tuple(own)


def _own(config: Path, table: Table, name: str, file: Any) -> Own:
    """The user's own heuristic of this name, in a file that is looked for beside the config."""
    where = f"{name}.file"
    if not isinstance(file, str) or not file:
        raise table.error(
            where, f'expected the path of a Python file such as "my_policy.py", got {show(file)}'
        )
    if name in POLICIES:
        raise table.error(where, f"{name} is the name of a heuristic of jaxswap; give yours another")
    if not name.isidentifier():
        raise table.error(where, "the heuristic's name is that of its Policy in the file; take a Python name")
    try:
        return load_own(config.parent / file, name)
    except InputError as error:
        raise table.error(where, str(error)) from None


def _policy(
    error: Callable[[str, str], InputError], name: str, given: Mapping[str, Any], rule: Policy | None = None
) -> list[PolicyChoice]:
    """A heuristic with every combination of the given values. rule: its functions, if the user's own."""
    if rule is None and name not in POLICIES:
        raise error(name, f"unknown heuristic; {suggest(name, POLICIES)}")
    params = {param.name: param for param in (rule or POLICIES[name]).params}
    for key in given:
        if key not in params:
            hint = suggest(key, params) if params else "it takes none"
            raise error(f"{name}.{key}", f"unknown parameter of {name}; {hint}")
    axes = []
    for key, param in params.items():
        value = given.get(key, param.default)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise error(f"{name}.{key}", "is an empty list; give a number or a list of numbers")
        for one in values:
            if not isinstance(one, int) or isinstance(one, bool):
                raise error(f"{name}.{key}", f"expected a whole number or a list of them, got {show(one)}")
            if not param.low <= one <= param.high:
                raise error(f"{name}.{key}", f"{one} is out of range; take {param.low} to {param.high}")
        axes.append([(key, one) for one in dict.fromkeys(values)])
    if math.prod(map(len, axes)) > MOST_CANDIDATES:
        raise error(name, f"its values have {math.prod(map(len, axes))} combinations; take fewer")
    return [PolicyChoice(name, combination, rule) for combination in itertools.product(*axes)]


def _workloads(config: Path, table: Table, largest: int) -> tuple[WorkloadChoice, ...]:
    if not table.values:
        name = (recorded_names(held_out=False) or ["name"])[0]
        raise InputError(
            f'{table.file}: workloads: is missing; add a table such as [workloads.{name}] with limit = "50%"'
        )
    found = []
    for name in table.values:
        if not re.fullmatch(r"[\w.+-]+", name) or len(name) > _MOST_NAME or not name.strip("."):
            raise table.error(
                name[:_MOST_NAME],
                f"a workload's name is up to {_MOST_NAME} letters, digits and . _ + -; "
                "put its path under trace =",
            )
        entry = table.table(name, 'a table such as { limit = "50%" }')
        trace = entry.get("trace", str, "a recorded workload's name or the path of a workload's file", name)
        limit = _limit(entry, largest)
        entry.finish()
        if trace in recorded_names():
            path = recorded(trace)
        else:
            path = config.parent / trace
            if not os.path.exists(path):
                shown = "trace" if "trace" in entry.values else ""
                raise InputError(
                    f"{table.file}: {(entry.prefix + shown).rstrip('.')}: {trace!r} is neither a recorded "
                    f"workload nor a file at {path}; recorded: {', '.join(recorded_names()) or 'none'}"
                )
        found.append(WorkloadChoice(name, path, limit))
    return tuple(found)


def _limit(entry: Table, largest: int) -> Limit:
    text = entry.get("limit", (str, int), 'a string such as "50%" of the footprint or "24M"')
    if text is None:
        raise entry.error(
            "limit", 'is missing; write a share of the footprint such as "50%" or a size such as "24M"'
        )
    percent = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?) ?%", str(text).strip())
    if percent:
        share = float(percent[1])
        if not 1 <= share < 100:
            raise entry.error("limit", f"{text} is out of range; at 100% nothing is swapped: take 1% to 99%")
        return Limit(percent=share)
    size = parse_size(str(text))
    if size is None:
        raise entry.error("limit", f'{text!r} is neither a size nor a share; write "24M" or "50%"')
    least = max(_LEAST_LIMIT, 4 * largest << 10)
    if size < least:
        raise entry.error(
            "limit", f"{text} cannot hold four folios of {largest} kB; take at least {format_size(least)}"
        )
    if size % _PAGE:
        raise entry.error("limit", f"{text} is not a whole number of 4 KiB pages")
    return Limit(size=size)
