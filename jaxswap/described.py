"""The machine that a recording's header, or a command line, describes."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxswap.config import parse_count, parse_mthp, parse_policy, parse_size
from jaxswap.errors import InputError, NotModelled
from jaxswap.frames import Frames, buddyinfo_text, free_blocks, parse_buddyinfo, parse_frames
from jaxswap.machine import PROFILES, Lane
from jaxswap.machine.lane import DEFRAG, LIMITS, LRUS, PAGE, PAGE_CLUSTERS, SWAPPINESS
from jaxswap.machine.replay import LATER
from jaxswap.swaptable.clusters import CPUS, Device
from jaxswap.swaptable.swapon import KINDS
from jaxswap.toml import suggest
from jaxswap.workload import Recording
from jaxswap.workload.processes import split_limits
from jaxswap.workload.recording import BASE


class Setting(NamedTuple):
    """A setting as text, and where it stands, for messages."""

    text: str
    where: str


def of_recording(recording: Recording) -> dict[str, Setting]:
    """The settings of a recording: its header and, where memory was in pieces, the blocks that were free."""
    header = recording.header
    found = {key: Setting(text, f"{recording.path}: header {key}") for key, text in header.items()}
    if free := free_of(recording):
        found["buddyinfo"] = Setting(buddyinfo_text(free), f"{recording.path}: STATS {BASE}")
    return found


def free_of(recording: Recording) -> tuple[int, ...]:
    """Where memory was in pieces, the blocks of each order that the STATS `start` says a fault could take; ()
    where it does not say."""
    if "fragment" not in recording.header:
        return ()
    mthp = parse_mthp(recording.header.get("mthp", "").replace("-", ""))
    if mthp is None:  # machine_of says so
        return ()
    smallest = int(mthp.split()[0].removesuffix("m")) if mthp else PAGE // 1024
    return free_blocks(recording.before(), (smallest * 1024 // PAGE).bit_length() - 1)


def machine_of(settings: Mapping[str, Setting], policy: str = "kernel") -> tuple[Lane, str]:
    """(lane, kernel profile) of the settings kernel, mthp, swap, memory.max, memory.high, memory.swap.max,
    lru, swappiness, defrag, flush, switch, phase, zswap, cpus, page-cluster, frames, buddyinfo.

    Raises InputError, saying where the setting stands, for what is no setting, and NotModelled for what no
    machine here can be.
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
    if "fragment" in settings and not settings.keys() & {"frames", "buddyinfo"}:
        text, where = settings["fragment"]
        raise NotModelled(
            f"{where}: no STATS {BASE} says what is free of the memory in pieces ({text}): record it again "
            "with one before its first access, or say it by buddyinfo"
        )
    limits, highs, swap_maxes = (_limits(chosen(key, "max")) for key in LIMITS)
    for key, named in (("memory.high", highs), ("memory.swap.max", swap_maxes)):
        for name in named:
            if name:
                where = chosen(key, "").where
                raise NotModelled(f"{where}: {key} of cgroup {name} is not modelled; memory.max is")
    limit, high, swap_max = (limits.pop("", None), highs.get(""), swap_maxes.get(""))
    swappiness, where = chosen("swappiness", "60")
    if parse_count(swappiness) not in SWAPPINESS:
        raise InputError(f"{where}: {swappiness!r} is no swappiness; it is 0 to {SWAPPINESS[-1]}")
    defrag, where = chosen("defrag", "madvise")
    if defrag not in DEFRAG:
        raise InputError(f"{where}: {defrag!r} is none of {', '.join(DEFRAG)}")
    flush, where = chosen("flush", "0")
    if flush != "stats" and parse_count(flush) is None:
        raise InputError(f"{where}: {flush!r}; write a number of faults, 0 for every reclaim, or stats")
    times = {}
    for key in ("switch", "phase"):
        text, where = chosen(key, "0")
        times[key] = parse_count(text)
        if times[key] is None:
            raise InputError(f"{where}: {text!r}; write a number of faults, 0 for none")
    lru, where = chosen("lru", "classic")
    if lru not in LRUS:
        raise InputError(f"{where}: {lru!r} is neither {' nor '.join(LRUS)}")
    text, where = chosen("zswap", "off")
    if text not in ("on", "off"):
        raise InputError(f"{where}: {text!r} is neither on nor off")
    zswap = text == "on"
    text, where = chosen("page-cluster", "3")
    if parse_count(text) not in PAGE_CLUSTERS:
        raise InputError(f"{where}: {text!r} is no page-cluster; it is 0 to {PAGE_CLUSTERS[-1]}")
    cpus, where = chosen("cpus", "1")
    if not 1 <= (parse_count(cpus) or 0) <= CPUS:
        raise InputError(f"{where}: {cpus!r}; a machine has 1 to {CPUS} CPUs")
    choice = parse_policy(policy)
    lane = Lane(
        mthp=mthp,
        policy=choice.name,
        policy_params=dict(choice.params),
        limit=limit,
        high=high,
        swap_max=swap_max,
        limits={name: value for name, value in limits.items() if value is not None},
        lru=lru,
        swappiness=int(swappiness),
        defrag=defrag,
        flush=None if flush == "stats" else int(flush),
        switch=times["switch"],
        phase=times["phase"],
        swap=swaps[0].slots * PAGE,
        swaps=() if len(swaps) == 1 and swaps[0] == Device(swaps[0].slots) else swaps,
        cpus=int(cpus),
        page_cluster=int(text),
        zswap=zswap,
        frames=_frames(settings),
    )
    for key, special in lane.special.items():
        if PROFILES[kernel].slot_cache:
            where = chosen(key, "").where
            raise InputError(f"{where}: {special} is not modelled with the rules of {kernel}; {LATER}")
    return lane, kernel


def _frames(settings: Mapping[str, Setting]) -> Frames | None:
    """Page frames of a size, or of a pasted /proc/buddyinfo."""
    if not settings.keys() & {"frames", "buddyinfo"}:
        return None
    text, where = settings.get("frames", Setting("", "frames"))
    free: tuple[int, ...] = ()
    if "buddyinfo" in settings:
        pasted, place = settings["buddyinfo"]
        try:
            free = parse_buddyinfo(pasted)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    try:
        return parse_frames(text, free)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _limits(setting: Setting) -> dict[str, int | None]:
    """The limit of each cgroup, of "32M" or "web=24M, db=16M"; "" is the cgroup that processes start in."""
    text, where = setting
    try:
        sizes = split_limits(text)
    except ValueError as wrong:
        raise InputError(f"{where}: {wrong}") from None
    return {name: None if size == "max" else _size(size, where) for name, size in sizes.items()}


def _size(text: str, where: str) -> int:
    value = parse_size(text)
    if value is None or value < PAGE or value % PAGE:
        raise InputError(f"{where}: {text!r} is not a size in whole 4 KiB pages; write for example 128M")
    return value


def _devices(setting: Setting) -> tuple[Device, ...]:
    """The devices of "zram 8M pri 5, virtio 8M rotational discard"; zram need not be said."""
    found = []
    for part in setting.text.split(","):
        words = part.split()
        kind = words.pop(0) if len(words) > 1 and words[0].isalpha() else "zram"
        size, *options = words or [""]
        priority = None
        if options[:1] == ["pri"] and len(options) > 1 and parse_count(options[1]) is not None:
            priority = parse_count(options[1])
            del options[:2]
        if kind not in KINDS or not {"rotational", "discard"}.issuperset(options):
            what = " ".join([kind, *options])
            raise InputError(
                f"{setting.where}: swap on {what} is not modelled; only {' and '.join(KINDS)} are, with "
                "rotational, discard or neither"
            )
        slots = _size(size, setting.where) // PAGE
        found.append(Device(slots, priority, kind, "rotational" in options, "discard" in options))
    return tuple(found)
