"""The workloads recorded from real programs that come with the package."""

from pathlib import Path

from jaxswap.errors import InputError

_FOLDER = Path(__file__).parent


def recorded_names() -> list[str]:
    """Names of the recorded workloads, sorted."""
    return sorted(path.name.removesuffix(".t.gz") for path in _FOLDER.glob("*.t.gz"))


def recorded(name: str) -> Path:
    """Path of the recorded workload `name`. Raises InputError, with the known names, if there is none."""
    path = _FOLDER / f"{name}.t.gz"
    if name not in recorded_names():
        raise InputError(f"no recorded workload {name!r}; there are: {', '.join(recorded_names()) or 'none'}")
    return path
