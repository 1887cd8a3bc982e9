"""TOML files that are checked key by key; errors name the file, the key and the fix."""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxswap.errors import InputError, reason

_MOST_BYTES = 1 << 20


def read_toml(path: str | os.PathLike[str], overrides: Iterable[str], example: str) -> "Table":
    """The whole of a TOML file; `overrides` are "a.b=value" (in TOML, or a bare word) and win over it.

    example: a file of the kind to start from. Raises InputError, one line that names the file and the fix.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{name}: no such config file; the one to start from is {example}") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a directory; name a TOML file in it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({reason(error)})") from None
    if len(text) > _MOST_BYTES:
        raise InputError(f"{name}: is larger than {_MOST_BYTES >> 20}M; a config is some lines of TOML")
    try:
        table = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: is not TOML: {error}") from None
    for override in overrides:
        _override(table, override)
    return Table(name, "", table)


class Table:
    """A TOML table that knows where it stands, which of its keys were asked for, and how to complain."""

    def __init__(self, file: str, prefix: str, values: Mapping[str, Any]) -> None:
        self.file, self.prefix, self.values = file, prefix, values
        self.asked: list[str] = []

    def error(self, key: str, message: str) -> InputError:
        return InputError(f"{self.file}: {self.prefix}{key}: {message}")

    def get(self, key: str, kind: type | tuple[type, ...], expected: str, default: Any = None) -> Any:
        """The value of `key` if it is of the type; `default` if absent. bool is not taken for a number."""
        self.asked.append(key)
        if key not in self.values:
            return default
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(key, f"expected {expected}, got {show(value)}")
        return value

    def table(self, key: str, expected: str) -> "Table":
        return Table(self.file, f"{self.prefix}{key}.", self.get(key, dict, expected, {}))

    def finish(self) -> None:
        """Refuse keys nobody asked for."""
        for key in self.values:
            if key not in self.asked:
                raise self.error(key, f"unknown key; {suggest(key, self.asked)}")


def show(value: Any) -> str:
    """A value as messages have it."""
    return f"{value!r}" if not isinstance(value, dict) else "a table"


def suggest(word: str, known: Iterable[str]) -> str:
    """ "did you mean X?" where a known word is near, else the list of the known words."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _override(table: dict[str, Any], text: str) -> None:
    """Put "a.b=value" into the raw TOML table."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise InputError(
            f"--set {text}: write it as key=value, for example --set seed=1 or --set space.sizes=[16,64]"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value.strip()
    for depth, part in enumerate(parts[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {text}: {'.'.join(parts[: depth + 1])} is a value, not a table of keys")
    table[parts[-1]] = parsed
