"""The machine that a recording's header, or a command line, describes."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxswap.config import parse_mthp, parse_policy, parse_size, suggest
from jaxswap.errors import InputError
from jaxswap.machine import PROFILES, Lane
from jaxswap.workload import Recording


class Setting(NamedTuple):
    """A setting as text, and where it stands, for messages."""

    text: str
    where: str


def of_header(recording: Recording) -> dict[str, Setting]:
    """The settings of a recording's header."""
    return {key: Setting(text, f"{recording.path}: header {key}") for key, text in recording.header.items()}


def machine_of(settings: Mapping[str, Setting], policy: str = "kernel") -> tuple[Lane, str]:
    """(lane, kernel profile) of some settings: kernel, mthp, swap, memory.max, lru, zswap, cpus.

    Raises InputError, saying where the setting stands, for what is no setting or not modelled.
    """

    def chosen(key: str, default: str) -> Setting:
        return settings.get(key, Setting(default, key))

    def size(text: str, where: str) -> int:
        value = parse_size(text)
        if value is None or value < 4096 or value % 4096:
            raise InputError(f"{where}: {text!r} is not a size in whole 4 KiB pages; write for example 128M")
        return value

    text, where = chosen("kernel", "7.3")
    kernel = text if text in PROFILES else ".".join(text.split(".")[:2])
    if kernel not in PROFILES:
        raise InputError(f"{where}: no profile of kernel {text!r}; {suggest(kernel, PROFILES)}")
    text, where = chosen("mthp", "")
    mthp = parse_mthp(text.replace("-", ""))
    if mthp is None:
        raise InputError(f'{where}: {text!r} is not a set of mTHP sizes; write kB, m for madvise: "16 64m"')
    text, where = chosen("swap", "128M")
    kind, _, rest = text.rpartition(" ")
    if kind not in ("", "zram"):
        raise InputError(f"{where}: {text!r} is not modelled; one zram device is")
    swap = size(rest, where)
    text, where = chosen("memory.max", "max")
    limit = None if text == "max" else size(text, where)
    for key, modelled in (("lru", "classic"), ("zswap", "off")):
        text, where = chosen(key, modelled)
        if text != modelled and (key != "lru" or limit is not None):
            raise InputError(f"{where}: {text!r} is not modelled; only {modelled!r} is")
    choice = parse_policy(policy)
    return Lane(mthp, choice.name, dict(choice.params), limit, swap), kernel
