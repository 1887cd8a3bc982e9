"""The config of `jaxswap race sample`: TOML in, a frozen and checked dataclass out."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxswap.race.draws import STEP_OF, Time
from jaxswap.race.lanes import OTHERS, Crowd
from jaxswap.swaptable.forms import FORMS
from jaxswap.toml import Table, read_toml, show, suggest

EXAMPLE = "configs/race_window.toml"
CPUS = range(2, 65)
MOST_SLOTS = 512
MOST_REQUESTS = 10**8
UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000}
KINDS = ("constant", "exponential", "lognormal")
GROWS = frozenset({"check", "frame", "insert", "charge", "undo", "read"})
"""Steps of an allocation, which has an order."""
_MOST_NS = 2**31 - 1
_MOST_FAIL = 0.9
_MOST_SOURCE = 100


@dataclass(frozen=True)
class SampleConfig:
    """What to sample: every form with every number of CPUs."""

    path: Path
    seed: int
    requests: int
    """Lanes times CPUs of each form and number of CPUs, rounded up to whole lanes."""
    forms: tuple[str, ...]
    cpus: tuple[int, ...]
    source: str
    """Where the step times are from."""
    crowd: Crowd
    """Of the first form and number of CPUs."""

    def of(self, form: str, cpus: int) -> Crowd:
        return replace(self.crowd, form=FORMS[form], cpus=cpus)

    def lanes(self, cpus: int) -> int:
        return -(-self.requests // cpus)


def load_sample(path: str | os.PathLike[str]) -> SampleConfig:
    """Read and check the TOML file. Raises InputError with one line: file, key and fix."""
    top = read_toml(path, (), EXAMPLE)
    seed = _whole(top, "seed", 0, 2**32 - 1, 0)
    requests = _whole(top, "requests", 1, MOST_REQUESTS, 100_000)
    forms = _list(top, "forms", str, '["pre-phase4", "merged"]')
    for form in forms:
        if form not in FORMS:
            raise top.error("forms", f"{form!r} is no form; {suggest(form, FORMS)}")
    cpus = _list(top, "cpus", int, "[2, 8, 64]")
    for number in cpus:
        if number not in CPUS:
            raise top.error("cpus", f"{number} is out of range; take {CPUS[0]} to {CPUS[-1]}")
    place = top.table("range", "a table [range]")
    orders, slots, hot_slots, hot = _range(place)
    others = top.table("others", "a table [others]")
    shares = {name: _share(others, name, _MOST_FAIL) for name in OTHERS}
    if sum(shares.values()) > _MOST_FAIL:
        name = next(name for name in reversed(OTHERS) if shares[name])
        raise others.error(
            name, f"all others together are {sum(shares.values()):g}; leave {1 - _MOST_FAIL:g} to faults"
        )
    others.finish()
    frame_fails, charge_fails = _fails(top.table("fails", "a table [fails]"), orders.bit_length())
    source, times = _times(top.table("times", "a table [times]"), orders.bit_length())
    top.finish()
    crowd = Crowd(
        form=FORMS[forms[0]],
        cpus=cpus[0],
        orders=orders,
        slots=slots,
        hot_slots=hot_slots,
        hot=hot,
        **shares,
        frame_fails=frame_fails,
        charge_fails=charge_fails,
        times=times,
    )
    return SampleConfig(Path(path), seed, requests, tuple(forms), tuple(cpus), source, crowd)


def _whole(table: Table, key: str, low: int, high: int, default: int) -> int:
    value = table.get(key, int, "a whole number", default)
    if not low <= value <= high:
        raise table.error(key, f"{value} is out of range; take {low} to {high}")
    return value


def _list(table: Table, key: str, kind: type, example: str) -> list[Any]:
    values = table.get(key, list, f"a list such as {example}")
    if not values:
        raise table.error(key, f"{'is missing' if values is None else 'is empty'}; write {example}")
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise table.error(key, f"{show(value)} does not belong there; write {example}")
    if len(set(values)) < len(values):
        raise table.error(key, f"{values} names one twice")
    return values


def _range(table: Table) -> tuple[int, int, int, float]:
    slots = _slots(table, "slots", MOST_SLOTS, 64)
    orders = _list(table, "orders", int, "[0, 1, 2, 3, 4]")
    top = slots.bit_length() - 1
    for order in orders:
        if not 0 <= order <= top:
            raise table.error("orders", f"{order} is out of range; {slots} slots have orders 0 to {top}")
    if 0 not in orders:
        raise table.error("orders", f"{orders} lacks order 0, which every fault may fall back to")
    hot_slots = _slots(table, "hot_slots", slots, min(16, slots))
    hot = _share(table, "hot", 1.0)
    table.finish()
    return sum(1 << order for order in orders), slots, hot_slots, hot


def _slots(table: Table, key: str, most: int, default: int) -> int:
    slots = _whole(table, key, 1, most, default)
    if slots & slots - 1:
        raise table.error(key, f"{slots} is no power of two")
    return slots


def _share(table: Table, key: str, most: float) -> float:
    return _checked_share(table, key, table.get(key, (int, float), "a share such as 0.05", 0.0), most)


def _checked_share(table: Table, key: str, value: Any, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise table.error(key, f"{show(value)} is no share; write one such as 0.05")
    if not 0 <= value <= most:
        raise table.error(key, f"{value} is out of range; take 0 to {most:g}")
    return float(value)


def _fails(table: Table, orders: int) -> tuple[tuple[float, ...], float]:
    frame = table.get("frame", list, "a list of shares, one an order", [0.0] * orders)
    if len(frame) != orders:
        raise table.error("frame", f"{len(frame)} shares; write {orders}, for orders 0 to {orders - 1}")
    shares = tuple(_checked_share(table, "frame", value, _MOST_FAIL) for value in frame)
    charge = _share(table, "charge", _MOST_FAIL)
    table.finish()
    return shares, charge


def _times(table: Table, orders: int) -> tuple[str, dict[str, Time]]:
    unit = table.get("unit", str, '"ns", "us" or "ms"')
    if unit not in UNITS:
        said = "is missing" if unit is None else f"{unit!r} is none of them"
        raise table.error("unit", f"{said}; write ns, us or ms")
    source = table.get("source", str, "a string")
    if source is None or not (source.isprintable() and 0 < len(source) <= _MOST_SOURCE):
        raise table.error("source", 'say in up to 100 characters where they are from, such as "invented"')
    times = {name: _time(table, name, UNITS[unit], orders) for name in ("start", *STEP_OF)}
    table.finish()
    return source, times


def _time(table: Table, name: str, unit: int, orders: int) -> Time:
    if name not in table.values:
        raise table.error(name, "is missing; write for example { lognormal = 300, sigma = 0.5 }")
    entry = table.table(name, "a table such as { lognormal = 300, sigma = 0.5 }")
    given = [kind for kind in KINDS if kind in entry.values]
    if len(given) != 1:
        raise table.error(name, f"needs one of {', '.join(KINDS)}, has {', '.join(given) or 'none'}")
    kind = given[0]
    value = entry.get(kind, (int, float), "a number")
    sigma = entry.get("sigma", (int, float), "a number", 0.0) if kind == "lognormal" else 0.0
    if kind == "lognormal" and "sigma" not in entry.values:
        raise entry.error("sigma", "is missing; it is the standard deviation of the logarithm")
    growth = entry.get("growth", (int, float), "a number", 0.0) if name in GROWS else 0.0
    entry.finish()
    for key, number, most in ((kind, value, _MOST_NS), ("sigma", sigma, 10), ("growth", growth, 4)):
        if not 0 <= number <= most:
            raise entry.error(key, f"{number} is out of range; take 0 to {most}")
    time = Time(kind, float(value) * unit, float(sigma), float(growth))
    longest = time.most(orders)
    if longest > _MOST_NS:
        raise table.error(name, f"may take {longest / 1e9:.3g} s; the longest a step may take is 2 s")
    return time
