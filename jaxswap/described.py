"""The machine that a recording's header, or a command line, describes."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxswap.config import parse_mthp, parse_policy, parse_size, suggest
from jaxswap.errors import InputError
from jaxswap.machine import PROFILES, Lane
from jaxswap.machine.lane import PAGE
from jaxswap.swaptable.clusters import CPUS, Device
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

    text, where = chosen("kernel", "7.3")
    kernel = text if text in PROFILES else ".".join(text.split(".")[:2])
    if kernel not in PROFILES:
        raise InputError(f"{where}: no profile of kernel {text!r}; {suggest(kernel, PROFILES)}")
    text, where = chosen("mthp", "")
    mthp = parse_mthp(text.replace("-", ""))
    if mthp is None:
        raise InputError(f'{where}: {text!r} is not a set of mTHP sizes; write kB, m for madvise: "16 64m"')
    swaps = _devices(chosen("swap", "128M"))
    text, where = chosen("memory.max", "max")
    limit = None if text == "max" else _size(text, where)
    for key, modelled in (("lru", "classic"), ("zswap", "off")):
        text, where = chosen(key, modelled)
        if text != modelled and (key != "lru" or limit is not None):
            limited = " with a limit" if key == "lru" else ""
            raise InputError(f"{where}: {text}{limited} is not modelled; only {modelled} is")
    text, where = chosen("cpus", "1")
    if not text.isdecimal() or not 1 <= int(text) <= CPUS:
        raise InputError(f"{where}: {text!r}; a machine has 1 to {CPUS} CPUs")
    choice = parse_policy(policy)
    size, several = swaps[0].slots * PAGE, swaps[1:] and swaps
    return Lane(mthp, choice.name, dict(choice.params), limit, size, several, int(text)), kernel


def _size(text: str, where: str) -> int:
    value = parse_size(text)
    if value is None or value < PAGE or value % PAGE:
        raise InputError(f"{where}: {text!r} is not a size in whole 4 KiB pages; write for example 128M")
    return value


def _devices(setting: Setting) -> tuple[Device, ...]:
    """The devices of "zram 8M pri 5, zram 8M"; zram need not be said."""
    found = []
    for part in setting.text.split(","):
        words = part.split()
        kind = words.pop(0) if len(words) > 1 and words[0].isalpha() else "zram"
        size, *options = words or [""]
        priority = None
        if options[:1] == ["pri"] and len(options) > 1 and options[1].isdecimal():
            priority = int(options[1])
            del options[:2]
        if kind != "zram" or options:
            what = " ".join([kind, *options])
            raise InputError(f"{setting.where}: swap on {what} is not modelled; only zram is")
        found.append(Device(_size(size, setting.where) // PAGE, priority))
    return tuple(found)
