"""The directory of a landscape: all of its files appear together, or none does."""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxswap.errors import InputError, reason
from jaxswap.landscape.config import LandscapeConfig
from jaxswap.machine.profile import model_version
from jaxswap.origin import code_hash, commit, device, versions
from jaxswap.workload.files import TEMPORARY

MANIFEST, REPORT = "manifest.json", "report.txt"
RUNS = Path("runs")
_ROOMS = ("landscape", "policy", "swaptable")
_ADVICE = "choose another directory with --out or remove it"


def manifest_of(config: LandscapeConfig, command: Sequence[str]) -> dict[str, Any]:
    """What was run, on what, with which versions and command; its key is of what decides the results."""
    about = {"config": config.as_dict(), "versions": versions(), "code": code_hash(_ROOMS)}
    return {
        "key": hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16],
        "command": shlex.join(command),
        "model": model_version(config.kernel),
        "device": device(),
        "git": commit(),
        **about,
    }


def folder_of(config: LandscapeConfig, manifest: dict[str, Any]) -> Path:
    """Where the results of a config go: its out, or a directory under runs/."""
    return config.out or RUNS / f"{config.name}-{manifest['key'][:8]}"


def found(folder: Path, manifest: dict[str, Any]) -> str | None:
    """The report in a directory that holds these very results; None if there is no such directory.

    Raises InputError if it holds anything else.
    """
    try:
        if not os.path.lexists(folder):
            return None
        path = folder / MANIFEST
        if not path.exists():
            if folder.is_dir() and not any(folder.iterdir()):
                return None
            raise InputError(f"{folder}: holds files that are no landscape; {_ADVICE}")
        held = json.loads(path.read_bytes())
        if isinstance(held, dict) and held.get("key") == manifest["key"]:
            return (folder / REPORT).read_text()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder}: cannot be read as a landscape ({reason(error)}); {_ADVICE}") from None
    raise InputError(f"{folder}: holds another run; {_ADVICE}")


def make(folder: Path, fill: Callable[[Path], str]) -> str:
    """The directory, filled by `fill` in a temporary place and then put where it belongs; what fill returns.

    The place is made first, so that a directory that cannot be written to is known before any work.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(TEMPORARY, f".{folder.name}.", folder.parent))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be made ({reason(error)}); choose another with --out") from None
    try:
        said = fill(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o777 & ~umask)
        with contextlib.suppress(OSError):
            folder.rmdir()  # an empty one
        try:
            os.rename(temporary, folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({reason(error)}); {_ADVICE}") from None
        return said
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
