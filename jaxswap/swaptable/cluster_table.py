"""Clusters of all swap devices: their words, their lists, the devices they belong to.

Slots of all devices are numbered in one space: a device starts at a multiple of 512, so that no cluster
straddles two. Every array has a trailing lane axis L. Source of the rules: mm/swapfile.c (struct
swap_cluster_info, struct swap_info_struct, move_cluster, partial_free_cluster, free_cluster), 6.12 to 7.3;
no discard, no rotational device.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from jaxswap.swaptable import bits
from jaxswap.swaptable.geometry import CLUSTER, CLUSTER_SHIFT
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, store1, surely, when

Lane = Int32[Array, " L"]
Mask = UInt32[Array, " L"]
Flag = Bool[Array, " L"]

# A cluster's words: for every 32 slots a row of sets of slots, then count, order and flag. STORED (in zswap)
# and DISCARD (emptied, not discarded yet) are for machine.shared only.
USED, CACHED, ZERO, STORED, ROW = 0, 1, 2, 3, 4
COUNT, ORDER, FLAG, STRIDE = 64, 65, 66, 68
FREE, NONFULL, FRAG, FULL, DISCARD = 1, 2, 3, 4, 5

# Lists of a device: free, full, nonfull[0..9], frag[0..9], discard; all sentinels follow all clusters in the
# link tables.
LISTS = 32
FREE_LIST, FULL_LIST, NONFULL_LIST, FRAG_LIST, DISCARD_LIST = 0, 1, 2, 12, 22

CPUS = 8  # CPUs there is room for
HINTS = 16  # hints of a CPU (and device): one an order
HAND, FIRST, END = 66, 64, 65  # words of a hand: slots, then where its content starts and ends
HANDS = 2 * HAND  # of a CPU: slots taken, slots to give back

# Words of a layout: of all devices, then of each.
LISTS_AT, TOTAL, ONLINE, OF_DEVICE = 0, 1, 2, 3
BASE, BEHIND, PRIORITY, USABLE = 0, 1, 2, 3

_ALL = np.uint32(0xFFFF_FFFF)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SlotRules:
    """Which rules of the slot allocator hold: a bit each, a word a lane (jaxswap.machine.profile.Profile)."""

    bits: Mask

    @staticmethod
    def of(
        *,
        nonfull_first: bool,
        fill_nonfull: bool,
        scan_all_frag: bool,
        device_hints: bool,
    ) -> int:
        """The bits of one lane."""
        switches = (nonfull_first, fill_nonfull, scan_all_frag, device_hints)
        return sum(bool(on) << i for i, on in enumerate(switches))

    def _has(self, bit: int) -> Flag:
        return self.bits & np.uint32(1 << bit) != 0

    @property
    def nonfull_first(self) -> Flag:
        """Nonfull clusters before a free one."""
        return self._has(0)

    @property
    def fill_nonfull(self) -> Flag:
        """A cluster being filled is on nonfull."""
        return self._has(1)

    @property
    def scan_all_frag(self) -> Flag:
        """All frag clusters are tried."""
        return self._has(2)

    @property
    def device_hints(self) -> Flag:
        """Each device keeps its own hints."""
        return self._has(3)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clusters:
    """The clusters of all swap devices, and what the CPUs remember of them.

    words: STRIDE words a cluster: sets of used (not NULL, bad slots included), cached (PFN) and zero-flag
    slots, count, order, flag. next, prev: list links by cluster number; the sentinels follow the clusters,
    LISTS a device. left: slots of each device that are NULL.

    notes: next slot of each order, 0 for none, HINTS a CPU and device; each device's place among its equals
    (turn); the next turn; and, only where the kernel has a slot cache, whether it is in use, and the hands,
    HANDS a CPU. layout, constant: the first sentinel; usable slots of all devices; CPUs online; then of each
    device its first cluster, the slot behind the last one a scan looks at, its priority, its usable slots.
    """

    words: UInt32[Array, "words L"]
    next: Int32[Array, "links L"]
    prev: Int32[Array, "links L"]
    notes: Int32[Array, "notes L"]
    left: Int32[Array, "devices L"]
    layout: Int32[Array, "layout L"]

    @property
    def free(self) -> Lane:
        """nr_swap_pages: slots that are NULL; those in a hand are not."""
        return self.left[0] if devices(self) == 1 else jnp.sum(self.left, axis=0)

    @property
    def lists(self) -> Lane:
        """The number of the first sentinel."""
        return self.layout[LISTS_AT]

    @property
    def total(self) -> Lane:
        """Usable slots of all devices."""
        return self.layout[TOTAL]

    @property
    def online(self) -> Lane:
        """CPUs."""
        return self.layout[ONLINE]


class Notes(NamedTuple):
    """Where the notes of some devices start."""

    hints: int
    turns: int
    clock: int
    caching: int
    hands: int
    words: int


def notes_of(devices: int) -> Notes:
    """The notes' layout in arrays for so many devices."""
    turns = CPUS * devices * HINTS
    clock = turns + devices
    hands = clock + 2
    return Notes(0, turns, clock, clock + 1, hands, hands + CPUS * HANDS)


def devices(c: Clusters) -> int:
    """Devices the arrays have room for."""
    return c.left.shape[0]


def capacity(c: Clusters) -> int:
    """Clusters the arrays have room for."""
    return c.next.shape[0] - SPARE - LISTS * devices(c)


def device_of(c: Clusters, cluster: Lane) -> Lane:
    """The device of a cluster."""
    if devices(c) == 1:
        return jnp.zeros_like(cluster)
    return jnp.sum(cluster[None] >= layout_of(c, BASE)[1:], axis=0, dtype=jnp.int32)


def of_device(values: Int32[Array, "devices L"], device: Lane) -> Lane:
    """Each lane's device's value."""
    if values.shape[0] == 1:
        return values[0]
    mine = np.arange(values.shape[0], dtype=np.int32)[:, None] == device[None]
    return jnp.sum(jnp.where(mine, values, 0), axis=0)


def layout_of(c: Clusters, which: int) -> Int32[Array, "devices L"]:
    """BASE, BEHIND, PRIORITY or USABLE of all devices."""
    return c.layout[OF_DEVICE + which * devices(c) :][: devices(c)]


def take_turn(c: Clusters, device: Lane, on: Flag) -> Clusters:
    """A device goes behind its equals."""
    at = notes_of(devices(c))
    number = jnp.full_like(device, at.clock)
    clock, notes = load1(c.notes, number)
    notes = store1(store1(notes, at.turns + device, clock, on), number, clock + 1, on)
    return replace(c, notes=notes)


def at_device(
    values: Int32[Array, "devices L"], device: Lane, value: Lane, on: Flag
) -> Int32[Array, "devices L"]:
    """The values with each lane's device's replaced where the lane is on."""
    mine = np.arange(values.shape[0], dtype=np.int32)[:, None] == device[None]
    return jnp.where(mine & on[None], value[None], values)


def vm_swap_full(c: Clusters, promised: Lane | int = 0) -> Flag:
    """Less than half of all slots is free.

    promised: slots that get_swap_pages of 6.12 has taken off the free ones and not found yet.
    """
    return (c.free - promised) * 2 < c.total


# Lists


def sentinels(c: Clusters, device: Lane) -> Lane:
    """The number of a device's first sentinel."""
    return c.lists + device * LISTS


def has_free_cluster(c: Clusters) -> tuple[Flag, Clusters]:
    """Whether some device has a cluster on its list of free ones (list_empty(&si->free_clusters))."""
    some, next = jnp.zeros(c.lists.shape, bool), c.next
    for device in range(devices(c)):
        head = sentinels(c, jnp.full_like(c.lists, device)) + FREE_LIST
        first, next = load1(next, head)
        some = some | (first != head)
    return some, replace(c, next=next)


def move(c: Clusters, cluster: Lane, flag: Lane, order: Lane, on: Flag) -> Clusters:
    """Take a cluster off its list and put it at the tail of the list of `flag` (and `order`)."""

    def act(c: Clusters) -> Clusters:
        sure = surely(on)
        before, prev = load1(c.prev, cluster)
        after, next = load1(c.next, cluster)
        next = store1(next, before, after, sure)
        prev = store1(prev, after, before, sure)
        number = jnp.where(flag == NONFULL, NONFULL_LIST + order, FRAG_LIST + order)
        number = jnp.where(flag == FREE, FREE_LIST, jnp.where(flag == FULL, FULL_LIST, number))
        head = sentinels(c, device_of(c, cluster)) + number
        tail, prev = load1(prev, head)
        next = store1(store1(next, tail, cluster, sure), cluster, head, sure)
        prev = store1(store1(prev, cluster, tail, sure), head, cluster, sure)
        return replace(c, next=next, prev=prev)

    return when(on, act, c)


# Words of a cluster


def state(c: Clusters, cluster: Lane) -> tuple[Lane, Lane, Lane, Clusters]:
    """Count, order and flag of a cluster."""
    words, table = load(c.words, cluster * STRIDE + COUNT, FLAG + 1 - COUNT)
    count, order, flag = words.astype(jnp.int32)
    return count, order, flag, replace(c, words=table)


def set_state(c: Clusters, cluster: Lane, count: Lane, order: Lane, flag: Lane, on: Flag) -> Clusters:
    """Write count, order and flag of a cluster."""
    words = jnp.stack(jnp.broadcast_arrays(count, order, flag))
    return replace(c, words=store(c.words, cluster * STRIDE + COUNT, words, on))


def _chosen(values: dict[int, Flag | bool], value: bool) -> UInt32[np.ndarray, "sets 1"]:
    """Words of a row: all slots in those sets whose value is this one, known when the program is made."""
    return np.array([[_ALL if values.get(which) is value else 0] for which in range(ROW)], np.uint32)


def change(
    c: Clusters, cluster: Lane, start: Lane, end: Lane, values: dict[int, Flag | bool], on: Flag
) -> Clusters:
    """The slots from `start` to `end` - 1 of a cluster put into, or taken out of, some of its sets."""

    def turn(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        words, at = carry
        active = surely(on & (at < end))
        row = cluster * STRIDE + (at >> 5) * ROW
        old, words = load(words, row, ROW)
        last = jnp.minimum(end - (at & -32), 32)
        below = jnp.where(last >= 32, _ALL, (jnp.uint32(1) << (last & 31).astype(jnp.uint32)) - np.uint32(1))
        members = bits.once(below & (_ALL << (at & 31).astype(jnp.uint32)))
        new = (old | _chosen(values, True) & members[None]) & ~(_chosen(values, False) & members[None])
        for which, value in values.items():
            if not isinstance(value, bool):
                changed = jnp.where(value, old | members[None], old & ~members[None])
                new = jnp.where(np.arange(ROW)[:, None] == which, changed, new)
        return store(words, row, new, active), (at & -32) + 32

    words, _ = repeat(lambda carry: on & (carry[1] < end), turn, (c.words, start))
    return replace(c, words=words)


def whole_set(c: Clusters, cluster: Lane, which: int) -> tuple[bits.Bits, Clusters]:
    """USED, CACHED or ZERO of a whole cluster."""
    words, table = load(c.words, cluster * STRIDE, 16 * ROW)
    return words.reshape(16, ROW, -1)[:, which], replace(c, words=table)


def free(c: Clusters, slot: Lane, size: Lane, on: Flag) -> Clusters:
    """Free `size` slots from `slot`, all in one cluster (__swap_cluster_free_entries)."""
    cluster, start = slot >> CLUSTER_SHIFT, slot & (CLUSTER - 1)
    count, owner, flag, c = state(c, cluster)
    count = bits.once(count - size)
    target = jnp.where(count > 0, NONFULL, FREE)
    owner = jnp.where(count > 0, owner, 0)
    c = set_state(c, cluster, count, owner, target, on)
    c = change(c, cluster, start, start + size, {USED: False, CACHED: False, ZERO: False}, on)
    c = move(c, cluster, target, owner, on & (flag != target))
    if devices(c) == 1:
        return replace(c, left=jnp.where(on[None], c.left + size[None], c.left))
    device = device_of(c, cluster)
    before = of_device(c.left, device)
    # A device that was full comes back behind its equals.
    c = take_turn(c, device, on & (before == 0))
    return replace(c, left=at_device(c.left, device, before + size, on))


def flags(c: Clusters, slot: Lane) -> tuple[Mask, Mask, Clusters]:
    """Which of the 32 slots around each lane's slot are cached, and which carry the zero flag."""
    at = (slot >> CLUSTER_SHIFT) * STRIDE + ((slot >> 5) & 15) * ROW + CACHED
    words, table = load(c.words, at, 2)
    return words[0], words[1], replace(c, words=table)


def all_flags(c: Clusters, slot: Lane) -> tuple[bits.Bits, bits.Bits]:
    """The same of the whole cluster that holds each lane's slot."""
    cluster = slot >> CLUSTER_SHIFT
    return whole_set(c, cluster, CACHED)[0], whole_set(c, cluster, ZERO)[0]


def set_plane(c: Clusters, plane: int, slot: Lane, size: Lane, value: Flag | bool, on: Flag) -> Clusters:
    """Set or clear CACHED or ZERO for `size` slots from `slot`, all in one cluster."""
    start = slot & (CLUSTER - 1)
    return change(c, slot >> CLUSTER_SHIFT, start, start + size, {plane: value}, on)
