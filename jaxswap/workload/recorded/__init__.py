"""The workloads recorded from real programs that come with the package; table.csv says which are held out."""

import csv
from functools import cache
from pathlib import Path

from jaxswap.errors import InputError

_FOLDER = Path(__file__).parent


@cache
def _table() -> dict[str, bool]:
    """Name -> is it held out, of every recording."""
    with open(_FOLDER / "table.csv", newline="") as file:
        return {row["name"]: row["held_out"] == "yes" for row in csv.DictReader(file)}


def recorded_names(held_out: bool | None = None) -> list[str]:
    """Names of the recorded workloads, sorted.

    held_out: True for those on which no heuristic may be made or tuned, False for the others."""
    return sorted(name for name, held in _table().items() if held_out in (None, held))


def is_held_out(name: str) -> bool:
    """Whether the recorded workload is held out from making and tuning heuristics."""
    return _table()[name]


def recorded(name: str) -> Path:
    """Path of the recorded workload `name`. Raises InputError, with the known names, if there is none."""
    if name not in recorded_names():
        raise InputError(f"no recorded workload {name!r}; there are: {', '.join(recorded_names()) or 'none'}")
    return _FOLDER / f"{name}.t.gz"
