"""Fresh swap devices, as swapon leaves them (mm/swapfile.c: setup_clusters; setup_swap_map_and_extents of
6.12)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxswap.errors import InputError
from jaxswap.swaptable.cluster_table import (
    COUNT,
    CPUS,
    FLAG,
    FREE,
    FREE_LIST,
    LISTS,
    NONFULL,
    NONFULL_LIST,
    ROW,
    STRIDE,
    USED,
    Clusters,
    notes_of,
)
from jaxswap.swaptable.geometry import CLUSTER
from jaxswap.swaptable.lanes import SPARE

MANY = 4  # devices there is room for where there is more than one
PRIORITIES = range(-1, 32768)  # that swapon can be given
KINDS = ("zram", "virtio")  # of devices: synchronous, and not
_NOWHERE = 1 << 22  # the first cluster of a device that is not there


@dataclass(frozen=True)
class Device:
    """A swap device. slots: its bad header slot included. priority: None if swapon is given none.

    kind: of KINDS. rotational: the block layer says so. discard: swapon --discard=pages.
    """

    slots: int
    priority: int | None = None
    kind: str = "zram"
    rotational: bool = False
    discard: bool = False

    @property
    def clusters(self) -> int:
        """Clusters, a ragged last one included."""
        return -(-self.slots // CLUSTER)

    @property
    def synchronous(self) -> bool:
        """SWP_SYNCHRONOUS_IO: reads are done at once."""
        return self.kind == "zram"

    @property
    def plain(self) -> bool:
        """Synchronous, without discard, not rotational."""
        return self.synchronous and not self.rotational and not self.discard


def bases(devices: Sequence[Device]) -> list[int]:
    """The first cluster of each device."""
    return [0, *itertools.accumulate(device.clusters for device in devices)][:-1]


def priorities(devices: Sequence[Device], stepped: bool) -> list[int]:
    """Priorities: where none is given -1, or, if `stepped`, one below the last such from -2 down."""
    found, default = [], -1
    for device in devices:
        if device.priority is None:
            default -= stepped
        found.append(default if device.priority is None else device.priority)
    return found


def swapon(
    devices: Sequence[Device],
    room: int,
    lanes: int,
    *,
    columns: int = 1,
    scans_to_end: bool = False,
    stepped_priority: bool = False,
    slot_cache: bool = False,
    cpus: int = 1,
) -> Clusters:
    """Fresh devices in arrays for `room` clusters: slot 0 and slots past the end of each are bad.

    A cluster with a bad slot starts on nonfull[0]. columns: in which the others go to the free list,
    column by column (1: ascending). scans_to_end: scans of a ragged cluster end with the device, else
    with the cluster. slot_cache: order-0 slots go through hands of the CPUs. Raises InputError for more
    devices, clusters or CPUs than there is room for.
    """
    if not 1 <= len(devices) <= MANY:
        raise InputError(f"swap: {len(devices)} devices; a machine has 1 to {MANY}")
    if sum(device.clusters for device in devices) > room:
        raise InputError(f"swap: the devices have more than {room} clusters")
    if not 1 <= cpus <= CPUS:
        raise InputError(f"cpus: {cpus}; a machine has 1 to {CPUS}")
    most = 1 if len(devices) == 1 else MANY
    words = np.zeros((room, STRIDE), np.uint32)
    links = np.tile(np.arange(room + most * LISTS + SPARE, dtype=np.int32), (2, 1))
    ends = []
    for number, (base, device) in enumerate(zip(bases(devices), devices, strict=True)):
        count = device.clusters
        slots = np.ones(count * CLUSTER, bool)
        slots[1 : device.slots] = False
        used = np.packbits(slots.reshape(count, 16, 32), axis=2, bitorder="little").view(np.uint32)[:, :, 0]
        own = words[base : base + count]
        own[:, USED : 16 * ROW : ROW] = used
        own[:, COUNT] = slots.reshape(count, CLUSTER).sum(axis=1)
        own[:, FLAG] = np.where(own[:, COUNT] > 0, NONFULL, FREE)
        walk = sorted(range(count), key=lambda index: (index % columns, index // columns))
        for flag, first in ((FREE, FREE_LIST), (NONFULL, NONFULL_LIST)):
            head = room + number * LISTS + first
            chain = [head, *(base + index for index in walk if own[index, FLAG] == flag), head]
            for a, b in itertools.pairwise(chain):
                links[0, a], links[1, b] = b, a
        ends.append(base * CLUSTER + (device.slots if scans_to_end else count * CLUSTER))

    left = [device.slots - 1 for device in devices]
    at = notes_of(most)
    notes = np.zeros((at.words if slot_cache else at.caching) + SPARE, np.int32)
    notes[at.turns : at.turns + len(devices)] = range(len(devices))
    notes[at.clock] = len(devices)
    missing = [0] * (most - len(devices))
    layout = [
        *(room, sum(left), cpus),
        *(*bases(devices), *[_NOWHERE for _ in missing]),
        *(*ends, *missing),
        *(*priorities(devices, stepped_priority), *missing),
        *(*left, *missing),
    ]

    def spread(x: np.ndarray | list[int]) -> Array:
        return jnp.asarray(np.repeat(np.asarray(x)[:, None], lanes, axis=1))

    return Clusters(
        words=spread(np.concatenate([words.reshape(-1), np.zeros(SPARE, np.uint32)])),
        next=spread(links[0]),
        prev=spread(links[1]),
        notes=spread(notes),
        left=spread(np.array([*left, *missing], np.int32)),
        layout=spread(np.array(layout, np.int32)),
    )
