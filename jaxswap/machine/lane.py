"""What a user says of one simulated machine, and what the machine is told."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxswap.errors import InputError
from jaxswap.frames import Frames, buddyinfo_text, frames_text
from jaxswap.machine.heuristic import PARAMS, of_lanes
from jaxswap.machine.profile import Profile
from jaxswap.machine.rules import rules_of
from jaxswap.machine.state import NO_LIMIT, Defrag, MachineParams
from jaxswap.policy import POLICIES, Policy
from jaxswap.swaptable.clusters import CPUS, Device
from jaxswap.swaptable.swapon import KINDS, MANY, PRIORITIES

PAGE = 4096
SIZES = {4 << order: order for order in range(2, 10)}  # kB: order
MOST_SWAP = 1 << 41  # bytes; slot numbers are 31 bits
PAGE_CLUSTERS = range(32)
LRUS = ("classic", "mglru")
SWAPPINESS = range(201)
DEFRAG = {mode.name.lower().replace("_", "+"): mode for mode in Defrag}
NEVER = 1 << 30  # faults
LIMITS = {"memory.max": "limit", "memory.high": "high", "memory.swap.max": "swap_max"}
"""Files of a cgroup, which are settings of a machine, and the fields of Lane they set."""


@dataclass(frozen=True)
class Lane:
    """One simulated machine.

    mthp: enabled sizes in kB, "m" for madvise: "16 64m". policy, policy_params: the heuristic; rule: its
    functions where it is none of jaxswap.policy. limit: memory.max in bytes, None for none; high, swap_max:
    memory.high and memory.swap.max likewise. lru: classic or mglru (lru_gen/enabled 0 or 7), and always
    classic where there is no limit. swappiness: vm.swappiness. defrag: transparent_hugepage/defrag. limits:
    memory.max in bytes of cgroups that the workload names. flush: faults between two flushes of the cgroup's
    statistics, by which the classic LRU decides; 0: every reclaim flushes them; None: only STATS does.
    switch: faults between two times that the TLB is emptied; it hides accesses from the classic LRU, but not
    if 0. phase: faults since the last flush and the last switch when the workload begins. swap: bytes of the
    zram device. swaps: other devices, or several, in its place (see swap_devices). cpus: CPUs online; a
    workload that names more has more. page_cluster: exponent of the readahead window. zswap: it is on, and
    takes everything. frames: page frames there are, None for as many as are wanted, of any order.
    """

    mthp: str = ""
    policy: str = "kernel"
    policy_params: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None
    high: int | None = None
    swap_max: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    lru: str = "classic"
    swappiness: int = 60
    defrag: str = "madvise"
    flush: int | None = 0
    switch: int = 0
    phase: int = 0
    swap: int = 128 << 20
    swaps: tuple[Device, ...] = ()
    cpus: int = 1
    page_cluster: int = 3
    zswap: bool = False
    frames: Frames | None = None
    rule: Policy | None = None

    @property
    def limited(self) -> bool:
        """Whether its memory is."""
        return self.limit is not None or self.high is not None or bool(self.limits)

    @property
    def special(self) -> dict[str, str]:
        """What only the machine of machine.shared has, and not with the rules of 6.12, by its setting."""
        odd = [device for device in self.devices if not device.plain]
        found = {"swap": swap_text(odd)} if odd else {}
        return found | ({"zswap": "on"} if self.zswap else {})

    @property
    def devices(self) -> tuple[Device, ...]:
        """The swap devices in the order of their types."""
        return self.swaps or (Device(self.slots),)

    @property
    def slots(self) -> int:
        """Slots of the only device, its bad header slot included."""
        return self.swap // PAGE

    def settings(self) -> dict[str, str]:
        """The machine as the header of a recording has it (jaxswap.described reads it): mthp, swap, and what
        is not as a machine is by default. The heuristic is no part of it.
        """
        devices = (
            ("zram " if device.kind == "zram" else "") + swap_text([device]) for device in self.devices
        )
        found = {"mthp": self.mthp, "swap": ", ".join(devices)}
        limits = {key: getattr(self, name) for key, name in LIMITS.items()}
        found |= {key: f"{value >> 10}K" for key, value in limits.items() if value is not None}
        if self.limits:
            found["memory.max"] = ", ".join(f"{name}={value >> 10}K" for name, value in self.limits.items())
        if self.limited:
            found["lru"] = self.lru
        defaults = Lane()
        for key, value, default in (
            ("cpus", self.cpus, defaults.cpus),
            ("zswap", "on" if self.zswap else "off", "off"),
            ("page-cluster", self.page_cluster, defaults.page_cluster),
            ("swappiness", self.swappiness, defaults.swappiness),
            ("defrag", self.defrag, defaults.defrag),
            ("flush", "stats" if self.flush is None else self.flush, defaults.flush),
            ("switch", self.switch, defaults.switch),
            ("phase", self.phase, defaults.phase),
        ):
            if value != default:
                found[key] = str(value)
        if self.frames is not None:
            found["frames"] = frames_text(self.frames)
            if self.frames.free:
                found["buddyinfo"] = buddyinfo_text(self.frames.free)
        return found

    def masks(self) -> tuple[int, int]:
        """Masks of the orders that are `always` and `madvise`."""
        always = madvise = 0
        for word in self.mthp.split():
            match = re.fullmatch(r"(\d{1,18})(m?)", word)
            order = SIZES.get(int(match[1])) if match else None
            if match is None or order is None:
                sizes = ", ".join(map(str, SIZES))
                raise InputError(
                    f"mthp: {word!r} is no size this machine has; sizes are {sizes} (kB), m for madvise"
                )
            if match[2]:
                madvise |= 1 << order
            else:
                always |= 1 << order
        return always, madvise

    @property
    def heuristic(self) -> Policy:
        """The functions that decide. Raises InputError where the policy names none."""
        if self.rule is not None:
            return self.rule
        if self.policy not in POLICIES:
            raise InputError(f"policy: {self.policy!r} is none of {', '.join(POLICIES)}")
        return POLICIES[self.policy]

    def parameters(self) -> list[int]:
        """The heuristic's parameters in its order, checked."""
        rule = self.heuristic
        names = [param.name for param in rule.params]
        for name in self.policy_params:
            if name not in names:
                known = ", ".join(names) or "none"
                raise InputError(f"policy {self.policy}: no parameter {name!r}; it has: {known}")
        values = []
        for param in rule.params:
            value = self.policy_params.get(param.name, param.default)
            if not param.low <= value <= param.high:
                raise InputError(
                    f"policy {self.policy}: {param.name}={value} is not in {param.low}..{param.high}"
                )
            values.append(value)
        return values

    def check(self) -> None:
        """Raise InputError for a lane that cannot be built."""
        self.masks()
        self.parameters()
        if self.frames is not None:
            self.frames.check()
        if len(self.swaps) > MANY:
            raise InputError(f"swap: {len(self.swaps)} devices; a machine has at most {MANY}")
        for device in self.devices:
            if not 2 * PAGE <= device.slots * PAGE <= MOST_SWAP // len(self.devices):
                most = MOST_SWAP // len(self.devices)
                raise InputError(
                    f"swap: {device.slots * PAGE} bytes; a device has at least {2 * PAGE} and at most {most}"
                )
            if device.kind not in KINDS:
                raise InputError(f"swap: {device.kind!r} is none of {', '.join(KINDS)}")
            if device.priority is not None and device.priority not in PRIORITIES:
                raise InputError(
                    f"swap: priority {device.priority}; it is {PRIORITIES[0]} to {PRIORITIES[-1]}"
                )
        for name, value in (("memory.high", self.high), ("memory.swap.max", self.swap_max)):
            if value is not None and not 0 <= value < NO_LIMIT * PAGE:
                raise InputError(f"{name}: {value} bytes; it is at least 0 and below {NO_LIMIT * PAGE}")
        always, madvise = self.masks()
        largest = max((size for size, order in SIZES.items() if (always | madvise) >> order & 1), default=4)
        if self.high is not None and self.high < 4 * largest << 10:
            raise InputError(
                f"memory.high: {self.high} bytes; below {4 * largest}K, four times the largest size, a "
                "process may fault on one folio for ever"
            )
        if self.swappiness not in SWAPPINESS:
            raise InputError(f"swappiness: {self.swappiness}; it is 0 to {SWAPPINESS[-1]}")
        if self.defrag not in DEFRAG:
            raise InputError(f"defrag: {self.defrag!r} is none of {', '.join(DEFRAG)}")
        if self.flush is not None and not 0 <= self.flush < NEVER:
            raise InputError(f"flush: {self.flush} faults; it is 0 (always) or more, below {NEVER}")
        for key, value in (("switch", self.switch), ("phase", self.phase)):
            if not 0 <= value < NEVER:
                raise InputError(f"{key}: {value} faults; it is at least 0 and below {NEVER}")
        if self.switch and self.lru != "classic":
            raise InputError(
                f"switch: {self.switch} faults; only the classic LRU has it, write 0 for {self.lru}"
            )
        if self.lru not in LRUS:
            raise InputError(f"lru: {self.lru!r} is neither {' nor '.join(LRUS)}")
        if not 1 <= self.cpus <= CPUS:
            raise InputError(f"cpus: {self.cpus}; a machine has 1 to {CPUS}")
        if self.page_cluster not in PAGE_CLUSTERS:
            raise InputError(f"page-cluster: {self.page_cluster}; it is 0 to {PAGE_CLUSTERS[-1]}")
        for name, limit in {"": self.limit, **self.limits}.items():
            if limit is not None and not PAGE <= limit < NO_LIMIT * PAGE:
                of = f" of cgroup {name}" if name else ""
                raise InputError(
                    f"limit{of}: {limit} bytes; memory.max is at least one page and below {NO_LIMIT * PAGE}"
                )


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DEVICE = re.compile(
    rf"(?:(?P<kind>{'|'.join(KINDS)})\s+)?(?P<size>\d{{1,18}})(?P<unit>[KMG]?)"
    r"(?:\s+pri\s+(?P<priority>\d{1,18}))?(?P<options>(?:\s+(?:rotational|discard))*)"
)


def swap_devices(text: str) -> tuple[Device, ...]:
    """Devices as in "8M pri 5, virtio 8M rotational discard": the kind (zram need not be said), bytes, or
    with K, M, G, the priority swapon is given, what the device is.
    """
    found = []
    for part in text.split(","):
        match = _DEVICE.fullmatch(part.strip())
        options = match["options"].split() if match else []
        if match is None or len(options) > len(set(options)):
            raise InputError(
                f"swap: {part.strip()!r} is no device; write perhaps a kind ({', '.join(KINDS)}), a size, "
                "perhaps 'pri N', 'rotational', 'discard': 'zram 8M pri 5, virtio 8M'"
            )
        priority = None if match["priority"] is None else int(match["priority"])
        slots = int(match["size"]) * _UNITS[match["unit"]] // PAGE
        kind = match["kind"] or KINDS[0]
        found.append(Device(slots, priority, kind, "rotational" in options, "discard" in options))
    return tuple(found)


def swap_text(devices: Sequence[Device]) -> str:
    """What swap_devices reads."""
    parts = []
    for device in devices:
        kib = device.slots * (PAGE >> 10)
        words = [] if device.kind == KINDS[0] else [device.kind]
        words.append(f"{kib}K" if kib % 1024 else f"{kib >> 10}M")
        words += [] if device.priority is None else [f"pri {device.priority}"]
        words += [name for name in ("rotational", "discard") if getattr(device, name)]
        parts.append(" ".join(words))
    return ", ".join(parts)


def params_of(
    lanes: Sequence[Lane],
    profile: Profile,
    slots: int,
    cgroups: Sequence[str] = (),
    room: int = 1,
    heuristics: Sequence[Policy] = (),
) -> MachineParams:
    """MachineParams of some lanes as numpy, the lane axis first: [lanes], [lanes, parameters], [lanes, room].

    slots: of swap that there are. cgroups: that the workload names; room: for so many, the root included.
    heuristics: that the program has besides those of the lanes.
    """
    masks = [lane.masks() for lane in lanes]
    known = of_lanes([*heuristics, *(lane.heuristic for lane in lanes)])
    values = [lane.parameters() for lane in lanes]
    switches = [lane.switch for lane in lanes]
    limits, highs, swaps = (
        [NO_LIMIT if value is None else value // PAGE for value in (getattr(lane, name) for lane in lanes)]
        for name in ("limit", "high", "swap_max")
    )
    fields: dict[str, Any] = {
        "always": np.array([mask[0] for mask in masks], np.uint32),
        "madvise": np.array([mask[1] for mask in masks], np.uint32),
        "limit": np.array(limits, np.int32),
        "high": None if min(highs) == NO_LIMIT else np.array(highs, np.int32),
        "withheld": np.maximum(slots - np.array(swaps, np.int32), 0),
        "swappiness": np.array([lane.swappiness for lane in lanes], np.int32),
        "defrag": np.array([DEFRAG[lane.defrag] for lane in lanes], np.int32),
        "flush": np.array([NEVER if lane.flush is None else lane.flush for lane in lanes], np.int32),
        "switch": np.array(switches, np.int32) if any(switches) else None,
        "policy": np.array([known.index(lane.heuristic) for lane in lanes], np.int32),
        "policy_params": np.array([(row + [0] * PARAMS)[:PARAMS] for row in values], np.int32),
    }
    if cgroups:
        of_each = np.full((len(lanes), room), NO_LIMIT, np.int32)
        for lane, row in zip(lanes, of_each, strict=True):
            for number, name in enumerate(cgroups, 1):
                row[number] = lane.limits[name] // PAGE if name in lane.limits else NO_LIMIT
        fields["limits"] = of_each
    return MachineParams(**fields, rules=rules_of(profile, len(lanes)), heuristics=known)
