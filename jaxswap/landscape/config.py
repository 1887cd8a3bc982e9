"""A landscape's configuration: TOML in, a frozen and checked dataclass out; errors name file, key and fix."""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxswap.config import PolicyChoice, format_size, parse_size, read_policies
from jaxswap.landscape.ageing import Life
from jaxswap.landscape.faults import SWAPIN_ORDERS, unseen
from jaxswap.policy.own import Own
from jaxswap.swaptable.geometry import CLUSTER, PAGE_BYTES
from jaxswap.toml import Table, read_toml, show, suggest

EXAMPLE = "configs/landscape.toml"
KERNELS = ("7.2", "7.3")
"""Those whose check of the swap table is that of jaxswap.swaptable.alloc."""
_KB = PAGE_BYTES >> 10
SWAPIN_SIZES = {_KB << order: order for order in SWAPIN_ORDERS}
"""Order of each size in kB that a fault may bring in."""
SWAPOUT_SIZES = {_KB: 0, **SWAPIN_SIZES}
BLOCKS = {_KB << order: order for order in range(2, 10)}
_LEAST, _MOST = 16 << 20, 256 << 30
_MOST_WRITTEN = 2**31 - 2**27
_MOST_TABLES = 10_000


@dataclass(frozen=True)
class Mix:
    """In folios of which orders memory is written: the share of blocks of each order, 0 to 8."""

    name: str
    shares: tuple[float, ...]

    def __str__(self) -> str:
        shown = (f"{100 * share:g}% {_KB << order} kB" for order, share in enumerate(self.shares) if share)
        return f"{self.name} ({', '.join(shown)})"


@dataclass(frozen=True)
class LandscapeConfig:
    """A landscape. slots: of the device. block: order of what is written and reclaimed together. occupancies,
    single, zero: shares. ages: how many times the device has been written since it was filled. sizes: orders
    that are enabled at a fault. faults: of each table at each age. repeats: tables aged independently.
    """

    path: Path
    name: str
    kernel: str
    slots: int
    block: int
    occupancies: tuple[float, ...]
    ages: tuple[float, ...]
    single: float
    zero: float
    mixes: tuple[Mix, ...]
    sizes: tuple[int, ...]
    policies: tuple[PolicyChoice, ...]
    own: tuple[Own, ...]
    faults: int
    repeats: int
    seed: int
    out: Path | None

    def life(self, mix: Mix, occupancy: float) -> Life:
        """What a program does on the tables of one mix and occupancy."""
        return Life(self.block, mix.shares, self.single, self.zero, occupancy)

    @property
    def sysfs(self) -> int:
        """Mask of the sizes that are enabled."""
        return sum(1 << order for order in self.sizes)

    def as_dict(self) -> dict[str, Any]:
        """What decides the results, as plain values, for the manifest and the run's key."""
        return {
            "kernel": self.kernel,
            "swap": format_size(self.slots * PAGE_BYTES),
            "block": _KB << self.block,
            "occupancy": list(self.occupancies),
            "ages": list(self.ages),
            "single": self.single,
            "zero": self.zero,
            "mixes": {mix.name: list(mix.shares) for mix in self.mixes},
            "sizes": [_KB << order for order in self.sizes],
            "policies": [str(choice) for choice in self.policies],
            "own_policies": {
                own.policy.name: {"file": own.path.name, "sha256": own.sha256} for own in self.own
            },
            "faults": self.faults,
            "repeats": self.repeats,
            "seed": self.seed,
        }


def load_landscape(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> LandscapeConfig:
    """Read a landscape's TOML file; `overrides` are "a.b=value" and win over the file.

    Raises InputError with one line that names the file, the key and the fix.
    """
    top = read_toml(path, overrides, EXAMPLE)
    seed = _whole(top, "seed", 0, 2**32 - 1, 0)
    repeats = _whole(top, "repeats", 2, 1000, 3)
    faults = _whole(top, "faults", 1000, 10_000_000, 200_000)
    out = top.get("out", str, "the path of a directory")
    if out is not None and (not out or "\0" in out):
        raise top.error("out", f"{out!r} is no path; name a directory, or leave it out")
    table = top.table("table", "a table [table]")
    kernel, slots = _device(table)
    life = top.table("life", "a table [life]")
    block = _size(life, "block", BLOCKS, 256)
    occupancies = _shares(life, "occupancy", ["50%", "90%"])
    room = 1 - (2 * (1 << block) + 1) / slots
    for share in occupancies:
        if not 0.01 <= share <= min(room, 0.99):
            raise life.error("occupancy", f"{share:.0%} is out of range; take 1% to {min(room, 0.99):.0%}")
    ages = _ages(life, slots)
    single, zero = _share(life, "single", "25%"), _share(life, "zero", "0%")
    life.finish()
    mixes = _mixes(top.table("mixes", "a table [mixes]"), block)
    if repeats * len(mixes) * len(occupancies) > _MOST_TABLES:
        raise top.error("repeats", f"{repeats} of each table are more than {_MOST_TABLES} in all; take fewer")
    sizes = top.get("sizes", list, "a list of sizes in kB such as [16, 64]", list(SWAPIN_SIZES))
    orders = tuple(sorted({_known(top, "sizes", size, SWAPIN_SIZES) for size in sizes}))
    if not orders:
        raise top.error("sizes", "is empty; name at least one size, for example [64]")
    asked = top.table("policies", "a table [policies]")
    policies, own = read_policies(Path(path), asked)
    for choice in policies:
        lacking = unseen(choice.heuristic)
        if lacking:
            by = "the faults before" if "memory" in lacking else f"`{lacking[0]}`"
            raise asked.error(
                choice.name, f"goes by {by}, and a snapshot has none; leave it out, or use a sweep"
            )
    top.finish()
    return LandscapeConfig(
        path=Path(path),
        name=Path(path).stem,
        kernel=kernel,
        slots=slots,
        block=block,
        occupancies=occupancies,
        ages=ages,
        single=single,
        zero=zero,
        mixes=mixes,
        sizes=orders,
        policies=policies,
        own=own,
        faults=faults,
        repeats=repeats,
        seed=seed,
        out=None if out is None else Path(out),
    )


def _whole(table: Table, key: str, low: int, high: int, default: int) -> int:
    value = table.get(key, int, "a whole number", default)
    if not low <= value <= high:
        raise table.error(key, f"{value} is out of range; take {low} to {high}")
    return value


def _known(table: Table, key: str, size: Any, sizes: dict[int, int]) -> int:
    """The order of a size in kB."""
    if not isinstance(size, int) or isinstance(size, bool) or size not in sizes:
        raise table.error(key, f"{show(size)} is no size here; in kB they are {', '.join(map(str, sizes))}")
    return sizes[size]


def _size(table: Table, key: str, sizes: dict[int, int], default: int) -> int:
    return _known(table, key, table.get(key, int, "a size in kB such as 64", default), sizes)


def _device(table: Table) -> tuple[str, int]:
    kernel = table.get("kernel", str, 'a string such as "7.3"', "7.3")
    if kernel not in KERNELS:
        raise table.error("kernel", f"{kernel!r} has another check; {suggest(kernel, KERNELS)}")
    text = table.get("swap", str, 'a size such as "16G"', "16G")
    size = parse_size(text)
    if size is None:
        raise table.error("swap", f'{text!r} is not a size; write for example "16G"')
    if not _LEAST <= size <= _MOST:
        raise table.error(
            "swap", f"{text} is out of range; take {format_size(_LEAST)} to {format_size(_MOST)}"
        )
    if size % (CLUSTER * PAGE_BYTES):
        raise table.error("swap", f"{text} is not a whole number of 2 MiB clusters")
    table.finish()
    return kernel, size // PAGE_BYTES


def _percent(table: Table, key: str, text: Any) -> float:
    number = text.removesuffix("%").strip() if isinstance(text, str) and text.endswith("%") else ""
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise table.error(key, f'{show(text)} is no share; write "0%" to "100%"')
    return share


def _share(table: Table, key: str, default: str) -> float:
    return _percent(table, key, table.get(key, str, 'a share such as "25%"', default))


def _shares(table: Table, key: str, default: list[str]) -> tuple[float, ...]:
    given = table.get(key, list, 'a list of shares such as ["50%", "90%"]', default)
    if not given:
        raise table.error(key, 'is empty; name at least one share, for example ["90%"]')
    return tuple(sorted({_percent(table, key, text) for text in given}))


def _ages(table: Table, slots: int) -> tuple[float, ...]:
    given = table.get("ages", list, "a list of numbers such as [0, 1, 4]", [0, 1, 4])
    if not given:
        raise table.error("ages", "is empty; name at least one age, for example [0, 1, 4]")
    most = min(_MOST_WRITTEN // slots - 1, 1000)
    for age in given:
        if not isinstance(age, int | float) or isinstance(age, bool) or not 0 <= age <= most:
            raise table.error("ages", f"{show(age)} is no age; take a number from 0 to {most}")
    return tuple(sorted({float(age) for age in given}))


def _mixes(table: Table, block: int) -> tuple[Mix, ...]:
    """Names with the share of blocks of each size in kB, such as { 4 = 1, 64 = 3 }: they need not add up."""
    if not table.values:
        raise table.error("NAME", "is missing; add a mix of sizes in kB such as half = { 4 = 1, 64 = 1 }")
    found = []
    for name in table.values:
        given = table.get(name, dict, "a table of sizes in kB such as { 4 = 1, 64 = 1 }")
        weights = [0.0] * (SWAPIN_ORDERS[-1] + 1)
        for key, weight in given.items():
            order = _known(table, name, int(key) if key.isdecimal() and len(key) < 9 else key, SWAPOUT_SIZES)
            if order > block:
                raise table.error(f"{name}.{key}", f"is larger than life.block of {_KB << block} kB")
            if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= 1e9:
                raise table.error(f"{name}.{key}", f"{show(weight)} is no weight; take a number such as 1")
            weights[order] = float(weight)
        if not sum(weights):
            raise table.error(name, "has no size with a weight; write for example { 4 = 1, 64 = 1 }")
        found.append(Mix(name, tuple(weight / sum(weights) for weight in weights)))
    for one, other in itertools.pairwise(found):
        if one.shares == other.shares:
            raise table.error(other.name, f"is the same mix as {one.name}; leave one out")
    return tuple(found)
