"""A sweep's configuration: TOML in, frozen and checked dataclasses out; errors name the file, key and fix."""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxswap.errors import InputError, reason
from jaxswap.frames import Frames, buddyinfo_text, frames_text, parse_buddyinfo, parse_frames
from jaxswap.machine import PROFILES, Lane, lane
from jaxswap.machine.lane import DEFRAG, LRUS, SWAPPINESS
from jaxswap.policy import POLICIES, Param, Policy
from jaxswap.policy.describe import foresees
from jaxswap.policy.own import Own, load_own
from jaxswap.sweep.objective import Objective, parse_objective
from jaxswap.toml import Table, read_toml, show, suggest
from jaxswap.workload import recorded, recorded_names
from jaxswap.workload.processes import split_limits
from jaxswap.workload.text import ADVICE

SIZES = tuple(lane.SIZES)
"""The mTHP sizes that the machine has, kB."""
MODES = ("always", "madvise")
MOST_CANDIDATES = 200_000
_MOST_NAME = 100  # characters; a workload's name is that of files
_PAGE = 4096
_CLUSTER = 2 << 20
_LEAST_LIMIT = 1 << 20
_MOST_SWAP = 16 << 30
_MOST_SHARE = 1000  # percent of the footprint
_MOST_BUDDYINFO = 1 << 20  # bytes
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Limit:
    """A size: bytes, or a share of the workload's footprint in percent, or bytes for each of some cgroups.

    Exactly one is set.
    """

    size: int | None = None
    percent: float | None = None
    cgroups: tuple[tuple[str, int], ...] = ()

    def of(self, footprint: int) -> int:
        """The size in bytes, whole pages, for a footprint in bytes; of all cgroups together."""
        if self.cgroups:
            return sum(size for _, size in self.cgroups)
        if self.size is not None:
            return self.size
        assert self.percent is not None
        return int(footprint * self.percent / 100) // _PAGE * _PAGE

    def __str__(self) -> str:
        if self.cgroups:
            return ",".join(f"{name}={format_size(size)}" for name, size in self.cgroups)
        return format_size(self.size) if self.size is not None else f"{self.percent:g}%"


@dataclass(frozen=True)
class WorkloadChoice:
    """One workload: its name in tables, the file to read, its memory limit, and the advice of its mappings
    where it is not the file's. table: of the config in which it stands.
    """

    name: str
    path: Path
    limit: Limit
    region: str | None = None
    table: str = "workloads"

    def as_dict(self) -> dict[str, str]:
        """What decides the results, but for the file."""
        return {"limit": str(self.limit)} | ({"region": self.region} if self.region else {})


@dataclass(frozen=True)
class PolicyChoice:
    """One heuristic with a value for each of its parameters. rule: its functions, if it is the user's own."""

    name: str
    params: tuple[tuple[str, int], ...] = ()
    rule: Policy | None = field(default=None, compare=False, repr=False)

    @property
    def heuristic(self) -> Policy:
        """Its functions."""
        return self.rule or POLICIES[self.name]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.params)])


@dataclass(frozen=True)
class Config:
    """A sweep. `sizes` in kB, `swap` None: twice the footprint, `out` None: the run's choice.
    lane: what all candidates' lanes have in common: LRU, swappiness, defrag, page frames. own: the user's own
    heuristics.
    """

    path: Path
    name: str
    kernel: str
    swap: Limit | None
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

    @property
    def rules(self) -> tuple[Policy, ...]:
        """The heuristics that every replay's program has: all but those that know the accesses to come."""
        rules = (choice.heuristic for choice in self.policies)
        return tuple(dict.fromkeys(rule for rule in rules if not foresees(rule)))

    def as_dict(self) -> dict[str, Any]:
        """What decides the results, as plain values, for the manifest and the run's key."""
        return self.machine() | {
            "workloads": {choice.name: choice.as_dict() for choice in self.workloads},
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

    def machine(self) -> dict[str, Any]:
        """The machine, as a config's table has it."""
        found = {key: getattr(self.lane, key) for key in ("lru", "swappiness", "defrag")}
        if self.lane.frames is not None:
            found["frames"] = frames_text(self.lane.frames)
            if self.lane.frames.free:
                found["buddyinfo"] = buddyinfo_text(self.lane.frames.free)
        return found | {"kernel": self.kernel, "swap": "auto" if self.swap is None else str(self.swap)}

    def swap_of(self, footprint: int) -> int:
        """The swap device in bytes for a footprint in bytes; "auto" is whole clusters of 2 MiB."""
        return (
            math.ceil(2 * footprint / _CLUSTER) * _CLUSTER if self.swap is None else self.swap.of(footprint)
        )


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
    kernel, swap, common = read_machine(path, machine)
    space = top.table("space", "a table [space]")
    sizes = read_sizes(space)
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


def read_machine(config: Path, table: Table) -> tuple[str, Limit | None, Lane]:
    """(kernel profile, size of swap, what the lanes of all candidates have in common)."""
    common = _lane(config, table)
    kernel = table.get("kernel", str, 'a string such as "7.3"', "7.3")
    if kernel not in PROFILES:
        raise table.error("kernel", f"no profile of kernel {kernel!r}; {suggest(kernel, PROFILES)}")
    swap = table.get("swap", (str, int), '"auto" or a size such as "128M"', "auto")
    table.finish()
    return kernel, None if swap == "auto" else _swap(table, swap), common


def _swap(table: Table, swap: str | int) -> Limit:
    share = _percent(str(swap))
    if share is not None:
        if not 1 <= share <= _MOST_SHARE:
            raise table.error("swap", f"{swap} is out of range; take 1% to {_MOST_SHARE}% of the footprint")
        return Limit(percent=share)
    size = parse_size(str(swap))
    if size is None:
        raise table.error("swap", f'{swap!r} is not a size; write "auto", "128M" or "80%" of the footprint')
    if not _CLUSTER <= size <= _MOST_SWAP:
        raise table.error(
            "swap", f"{swap} is out of range; take {format_size(_CLUSTER)} to {format_size(_MOST_SWAP)}"
        )
    if size % _PAGE:
        raise table.error("swap", f"{swap} is not a whole number of 4 KiB pages")
    return Limit(size=size)


def _percent(text: str) -> float | None:
    """The number of "50%"; None if it is no share."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?) ?%", text.strip())
    return float(match[1]) if match else None


def _lane(config: Path, table: Table) -> Lane:
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
    return Lane(lru=lru, swappiness=swappiness, defrag=defrag, frames=_frames(config, table))


def _frames(config: Path, table: Table) -> Frames | None:
    text = table.get("frames", str, 'a string such as "64M unmovable 30% seed 1"')
    free = _buddyinfo(config, table)
    if text is None and not free:
        return None
    try:
        found = parse_frames(text or "", free)
        found.check()
    except InputError as error:
        raise table.error("frames", str(error).removeprefix("frames: ")) from None
    return found


def _buddyinfo(config: Path, table: Table) -> tuple[int, ...]:
    """Free blocks of each order, of a file beside the config with a pasted /proc/buddyinfo."""
    name = table.get("buddyinfo", str, "the path of a file with a pasted /proc/buddyinfo")
    if name is None:
        return ()
    path = config.parent / name
    try:
        with open(path, "rb") as file:
            return parse_buddyinfo(file.read(_MOST_BUDDYINFO).decode())
    except InputError as error:
        raise table.error("buddyinfo", f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise table.error("buddyinfo", f"{path}: cannot be read ({reason(error)})") from None


def read_sizes(space: Table) -> tuple[int, ...]:
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
        given, mine = read_rule(config, table, name)
        own += [mine] if mine else []
        found += _policy(table.error, name, given, mine and mine.policy)
    return tuple(dict.fromkeys(found)), tuple(own)


def read_rule(config: Path, table: Table, name: str) -> tuple[dict[str, Any], Own | None]:
    """What is given for a heuristic's parameters, unchecked, and the heuristic if it is the user's own."""
    given = dict(table.get(name, dict, "a table of parameters, {} for the defaults"))
    if "file" in given:
        return given, _own(config, table, name, given.pop("file"))
    if name not in POLICIES:
        raise table.error(
            name, f'unknown heuristic; {suggest(name, POLICIES)}; for one of your own say file = "my.py"'
        )
    return given, None


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


def rule_params(
    error: Callable[[str, str], InputError], name: str, given: Mapping[str, Any], rule: Policy | None
) -> dict[str, Param]:
    """The parameters of a heuristic by name. Raises `error` if it is unknown or one that is given is."""
    if rule is None and name not in POLICIES:
        raise error(name, f"unknown heuristic; {suggest(name, POLICIES)}")
    params = {param.name: param for param in (rule or POLICIES[name]).params}
    for key in given:
        if key not in params:
            hint = suggest(key, params) if params else "it takes none"
            raise error(f"{name}.{key}", f"unknown parameter of {name}; {hint}")
    return params


def check_value(error: Callable[[str, str], InputError], key: str, param: Param, value: Any) -> None:
    """Raise `error` for what is no value of a parameter."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise error(key, f"expected a whole number or a list of them, got {show(value)}")
    if not param.low <= value <= param.high:
        raise error(key, f"{value} is out of range; take {param.low} to {param.high}")


def _policy(
    error: Callable[[str, str], InputError], name: str, given: Mapping[str, Any], rule: Policy | None = None
) -> list[PolicyChoice]:
    """A heuristic with every combination of the given values. rule: its functions, if the user's own."""
    axes = []
    for key, param in rule_params(error, name, given, rule).items():
        value = given.get(key, param.default)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise error(f"{name}.{key}", "is an empty list; give a number or a list of numbers")
        for one in values:
            check_value(error, f"{name}.{key}", param, one)
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
        entry = workload_table(table, name)
        choice = read_workload_choice(config, entry, name, largest)
        entry.finish()
        found.append(choice)
    return tuple(found)


def workload_table(table: Table, name: str) -> Table:
    """The table of a workload, its name checked."""
    if not re.fullmatch(r"[\w.+-]+", name) or len(name) > _MOST_NAME or not name.strip("."):
        raise table.error(
            name[:_MOST_NAME],
            f"a workload's name is up to {_MOST_NAME} letters, digits and . _ + -; "
            "put its path under trace =",
        )
    return table.table(name, 'a table such as { limit = "50%" }')


def read_workload_choice(config: Path, entry: Table, name: str, largest: int) -> WorkloadChoice:
    """The workload of a table [....NAME]; other keys of it are the caller's. largest: size, kB."""
    trace = entry.get("trace", str, "a recorded workload's name or the path of a workload's file", name)
    limit = _limit(entry, largest)
    region = entry.get("region", str, f"one of {', '.join(ADVICE)}")
    if region is not None and region not in ADVICE:
        raise entry.error("region", f"{region!r} is none of {', '.join(ADVICE)}")
    path = recorded(trace) if trace in recorded_names() else config.parent / trace
    if not os.path.exists(path):
        shown = "trace" if "trace" in entry.values else ""
        raise InputError(
            f"{entry.file}: {(entry.prefix + shown).rstrip('.')}: {trace!r} is neither a recorded "
            f"workload nor a file at {path}; recorded: {', '.join(recorded_names()) or 'none'}"
        )
    return WorkloadChoice(name, path, limit, region, entry.prefix.split(".")[0])


def _limit(entry: Table, largest: int) -> Limit:
    text = entry.get("limit", (str, int), 'a string such as "50%" of the footprint or "24M"')
    if text is None:
        raise entry.error(
            "limit", 'is missing; write a share of the footprint such as "50%" or a size such as "24M"'
        )
    if "=" in str(text):
        return _limits(entry, str(text), largest)
    share = _percent(str(text))
    if share is not None:
        if not 1 <= share < 100:
            raise entry.error("limit", f"{text} is out of range; at 100% nothing is swapped: take 1% to 99%")
        return Limit(percent=share)
    return Limit(size=_limit_size(entry, str(text), largest))


def _limits(entry: Table, text: str, largest: int) -> Limit:
    """Of each cgroup that the workload names."""
    try:
        sizes = split_limits(text)
    except ValueError as wrong:
        raise entry.error("limit", str(wrong)) from None
    return Limit(cgroups=tuple((name, _limit_size(entry, size, largest)) for name, size in sizes.items()))


def _limit_size(entry: Table, text: str, largest: int) -> int:
    size = parse_size(text)
    if size is None:
        raise entry.error("limit", f'{text!r} is neither a size nor a share; write "24M" or "50%"')
    least = max(_LEAST_LIMIT, 4 * largest << 10)
    if size < least:
        raise entry.error(
            "limit", f"{text} cannot hold four folios of {largest} kB; take at least {format_size(least)}"
        )
    if size % _PAGE:
        raise entry.error("limit", f"{text} is not a whole number of 4 KiB pages")
    return size
