"""The manifest of a run: what was run, on what, with which command, and what makes two runs the same."""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxswap.config import Config
from jaxswap.errors import InputError, reason
from jaxswap.machine import model_version
from jaxswap.origin import code_hash, commit, device, versions
from jaxswap.sweep.shards import WHOLE, Shard, parse_shard

FILE = "manifest.json"
_ROOMS = ("frames", "machine", "policy", "swaptable", "sweep", "workload")
_MOST_BYTES = 16 << 20
_TABLES = {
    "space": ("sizes", "modes"),
    "machine": ("kernel", "swap", "lru", "swappiness", "defrag", "frames", "buddyinfo"),
}
_SHOWN = 40


class Difference(NamedTuple):
    """A key in which two runs differ, and its value in each as text ("" where a run has no such key)."""

    key: str
    left: str
    right: str

    def __str__(self) -> str:
        if not self.key.startswith("content of ") and max(map(len, (self.left, self.right))) <= _SHOWN:
            return f"{self.key} is {self.left or 'not there'}, not {self.right or 'not there'}"
        return f"another {self.key}"


def manifest_of(
    config: Config,
    command: Sequence[str],
    workloads: Mapping[str, Mapping[str, Any]],
    candidates: int,
    shard: Shard,
) -> dict[str, Any]:
    """The manifest of a run that begins now. workloads: of each what is said of it (trace, sizes in bytes).

    command: that makes these very results; where they are kept and which shard this is, is not in it.
    """
    paths = {choice.name: choice.path for choice in config.workloads}
    more = {"candidates": candidates, "shard": None if shard == WHOLE else str(shard)}
    return made_by(command, config.path, config.as_dict(), workloads, paths, more)


def made_by(
    command: Sequence[str],
    path: Path,
    config: Mapping[str, Any],
    workloads: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Path],
    more: Mapping[str, Any],
    rooms: Iterable[str] = (),
    libraries: Iterable[str] = (),
) -> dict[str, Any]:
    """The manifest of what begins now. path: of the config. paths: of the workloads. more: keys besides,
    which do not decide the results. rooms, libraries: that it depends on besides those of a sweep.
    """
    about: dict[str, Any] = {
        "command": shlex.join(command),
        "model": model_version(config["kernel"]),
        "kernel": config["kernel"],
        "seed": config["seed"],
        "device": device(),
        "versions": versions(libraries),
        "git": commit(),
        "code": code_hash((*_ROOMS, *rooms)),
        "config": config,
        "config_file": str(path),
        **more,
        "workloads": {name: {**said, "sha256": _sha256(paths[name])} for name, said in workloads.items()},
    }
    return {"key": key_of(about), **about}


def key_of(manifest: Mapping[str, Any]) -> str:
    """A short hash of what decides the results: all shards of a sweep have the same."""
    return hashlib.sha256(json.dumps(_identity(manifest)).encode()).hexdigest()[:16]


def _identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "config": manifest["config"],
        "model": manifest["model"],
        "code": manifest["code"],
        "versions": manifest["versions"],
        "traces": {name: about["sha256"] for name, about in manifest["workloads"].items()},
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run directory. Raises InputError if there is none, or it is damaged."""
    path = folder / FILE
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such run directory; name one that jaxswap sweep has made")
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
        checked = isinstance(found["command"], str) and isinstance(found["config"]["objective"], str)
        checked = checked and isinstance(found["candidates"], int) and bool(found["workloads"])
        if not checked or found["key"] != key_of(found):
            raise ValueError("it was changed, or written by another version of jaxswap")
        shard_of(found)
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no {FILE}; name a directory that jaxswap sweep has made") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        said = (reason(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: is not a manifest ({said}); remove {folder}, or choose another directory with --out"
        ) from None
    return found


def shard_of(manifest: Mapping[str, Any]) -> Shard:
    """Which shard a run is; WHOLE if it is none."""
    return WHOLE if manifest["shard"] is None else parse_shard(manifest["shard"])


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """Where two manifests differ in what decides the results, by the keys of the config."""
    flat = [dict(_flat(manifest)) for manifest in (left, right)]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    return [
        Difference(key, *(one.get(key, "") for one in flat))
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    ]


def _flat(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What decides the results as (key, value): the config's keys as a config has them, then the rest."""
    config = manifest["config"]
    places = {key: f"{table}.{key}" for table, keys in _TABLES.items() for key in keys}
    found = []
    for key, value in config.items():
        if key == "workloads":
            for name, about in value.items():
                found += [(f"workloads.{name}.{what}", said) for what, said in about.items()]
        elif key == "own_policies":
            found += [(f"policies.{name}.file", about["file"]) for name, about in value.items()]
            found += [
                (f"content of {about['file']} (policies.{name}.file)", about["sha256"][:12])
                for name, about in value.items()
            ]
        else:
            shown = value if isinstance(value, str) else json.dumps(value)
            shown = ", ".join(value) if key in ("policies", "modes") else shown
            found.append((places.get(key, key), shown))
    found += [
        (f"content of {about['trace']} (workloads.{name})", about["sha256"][:12])
        for name, about in manifest["workloads"].items()
    ]
    found.append(("model", manifest["model"]))
    found += [(f"version of {name}", version) for name, version in manifest["versions"].items()]
    return [*found, ("content of jaxswap's code", manifest["code"][:12])]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def joined(manifests: Sequence[Mapping[str, Any]], shard: Shard) -> dict[str, Any]:
    """The manifest of what runs with one key made together: the first one's, every device and commit."""
    first = manifests[0]
    devices = {name: _all(one["device"][name] for one in manifests) for name in first["device"]}
    return {
        **first,
        "device": devices,
        "git": _all(one["git"] for one in manifests),
        "shard": None if shard == WHOLE else str(shard),
    }


def _all(values: Iterable[Any]) -> Any:
    """The one value there is, or all of them as text."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    words = [word for value in distinct for word in str(value).split(" / ")]
    return " / ".join(dict.fromkeys(words))
