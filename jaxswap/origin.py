"""What runs: versions, commit, device; for manifests and the provenance of figures."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import jax

import jaxswap


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of jaxswap, Python and the libraries that results depend on. more: libraries besides."""
    libraries = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy", *more)}
    return {"jaxswap": jaxswap.__version__, "python": platform.python_version(), **libraries}


def commit() -> str | None:
    """The commit of the checkout that runs, with "+" where files differ from it; None outside a checkout."""
    top = Path(jaxswap.__file__).parent.parent
    if not (top / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(top), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def code_hash(rooms: Iterable[str]) -> str:
    """A hash of the code of some rooms of the package, those that results depend on."""
    package = Path(jaxswap.__file__).parent
    state = hashlib.sha256()
    for room in rooms:
        for path in sorted((package / room).rglob("*.py")):
            text = path.read_bytes()
            state.update(f"{path.relative_to(package)} {len(text)}\n".encode() + text)
    return state.hexdigest()


def device() -> dict[str, str | int]:
    """Platform, kind and number of the devices of this process that JAX computes on."""
    first = jax.local_devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.local_device_count()}
