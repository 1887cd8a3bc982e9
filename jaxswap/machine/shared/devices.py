"""Swap devices other than plain zram: synchronous or not, rotational, with discard; zswap before them.

Source of the rules: mm/swap_state.c (swap_use_vma_readahead), mm/swapfile.c (swap_do_scheduled_discard,
__free_cluster), mm/zswap.c (zswap_store, zswap_load, zswap_never_enabled), 6.18 to 7.3.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped

from jaxswap.machine.settings import VMA_READAHEAD_FILE, ZSWAP_FILE
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.registers import At, Registers, assign
from jaxswap.machine.shared.state import Sharing
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState
from jaxswap.swaptable import clusters
from jaxswap.swaptable.cluster_table import (
    DISCARD,
    DISCARD_LIST,
    FLAG,
    FRAG,
    FRAG_LIST,
    FREE,
    HINTS,
    ROW,
    STORED,
    STRIDE,
    Clusters,
    device_of,
    devices,
    move,
    of_device,
    sentinels,
)
from jaxswap.swaptable.geometry import CLUSTER_SHIFT
from jaxswap.swaptable.lanes import load1, repeat, store1, surely, when
from jaxswap.swaptable.swapon import Device

SYNCHRONOUS, ROTATIONAL, DISCARDS = 1, 2, 4  # bits of a device
VMA_READAHEAD, ZSWAP, ZSWAP_EVER = 1, 2, 4  # bits of the switches


def kinds_of(swaps: Sequence[Device], room: int) -> Int32[np.ndarray, " room"]:
    """The bits of some devices in an array for `room` of them; those that are not there are synchronous."""
    found = [
        SYNCHRONOUS * device.synchronous + ROTATIONAL * device.rotational + DISCARDS * device.discard
        for device in swaps
    ]
    return np.array([*found, *[SYNCHRONOUS] * (room - len(found))], np.int32)


def online(s: Sharing, swaps: Sequence[Device], zswap: Shaped[np.ndarray, "groups width"]) -> Sharing:
    """The sharing of all groups, as numpy, with these devices; lanes of `zswap` have it on."""
    kinds = kinds_of(swaps, s.devices.shape[-2])
    return replace(
        s,
        devices=np.broadcast_to(kinds[:, None], s.devices.shape),
        switches=np.where(zswap, VMA_READAHEAD | ZSWAP | ZSWAP_EVER, VMA_READAHEAD).astype(np.int32),
    )


def has(state: MachineState, device: Lane, kind: int) -> Flag:
    """Whether a device is of a kind."""
    return of_device(sharing.of(state).devices, device) & kind != 0


def synchronous(state: MachineState, slot: Lane) -> Flag:
    """Whether the device of a slot is (SWP_SYNCHRONOUS_IO)."""
    return has(state, device_of(state.clusters, slot >> CLUSTER_SHIFT), SYNCHRONOUS)


# Switches


def _switched(state: MachineState, switch: int) -> Flag:
    return sharing.of(state).switches & switch != 0


def by_vma(state: MachineState) -> Flag:
    """swap_use_vma_readahead: switched on, and no device is rotational."""
    rotates = jnp.any(sharing.of(state).devices & ROTATIONAL != 0, axis=0)
    return _switched(state, VMA_READAHEAD) & ~rotates


def zswap(state: MachineState) -> Flag:
    """Whether zswap takes what goes out."""
    return _switched(state, ZSWAP)


def zswap_ever(state: MachineState) -> Flag:
    """Not zswap_never_enabled."""
    return _switched(state, ZSWAP_EVER)


def set_switch(state: MachineState, file: Int32[Array, ""], value: Int32[Array, ""]) -> MachineState:
    """SET of a file: only those of the switches change something here."""
    switches = sharing.of(state).switches
    for number, clears, sets in (
        (VMA_READAHEAD_FILE, VMA_READAHEAD, VMA_READAHEAD),
        (ZSWAP_FILE, ZSWAP, ZSWAP | ZSWAP_EVER),
    ):
        written = jnp.where(value != 0, switches | sets, switches & ~clears)
        switches = jnp.where(file == number, written, switches)
    return sharing.put(state, switches=switches)


# zswap


def stored(state: MachineState, slot: Lane) -> tuple[Flag, MachineState]:
    """Whether zswap has the content of a slot."""
    at = (slot >> CLUSTER_SHIFT) * STRIDE + ((slot >> 5) & 15) * ROW + STORED
    word, words = load1(state.clusters.words, at)
    found = (word >> (slot & 31).astype(jnp.uint32)) & np.uint32(1) == 1
    return found, replace(state, clusters=replace(state.clusters, words=words))


def store_in_zswap(state: MachineState, slot: Lane, size: Lane, value: Flag, on: Flag) -> MachineState:
    """zswap has the content of some slots of one cluster, or no longer."""

    def act(state: MachineState) -> MachineState:
        table = clusters.set_plane(state.clusters, STORED, slot, size, value, surely(on))
        return replace(state, clusters=table)

    return when(on, act, state)


# Hints of rotational devices


def hint(state: MachineState, device: Lane, order: Lane) -> tuple[Lane, MachineState]:
    """The next slot of an order on a rotational device (global_cluster), 0 for none."""
    found, hints = load1(sharing.of(state).hints, device * HINTS + order)
    return found, sharing.put(state, hints=hints)


def set_hint(state: MachineState, device: Lane, order: Lane, slot: Lane, on: Flag) -> MachineState:
    """Keep the next slot."""
    return sharing.put(state, hints=store1(sharing.of(state).hints, device * HINTS + order, slot, on))


# Discard


def set_aside(state: MachineState, cluster: Lane, on: Flag) -> MachineState:
    """__free_cluster where the device discards: an emptied cluster waits for it, and is not free."""
    on = on & has(state, device_of(state.clusters, cluster), DISCARDS)

    def act(state: MachineState) -> MachineState:
        flag, words = load1(state.clusters.words, cluster * STRIDE + FLAG)
        empty = surely(on) & (flag == FREE)
        c = _transfer(replace(state.clusters, words=words), cluster, DISCARD, empty)
        return replace(state, clusters=c)

    return when(on, act, state)


def _transfer(c: Clusters, cluster: Lane, flag: int, on: Flag) -> Clusters:
    """A cluster from the free list to that of the discards, or back, at the tail."""
    words = store1(c.words, cluster * STRIDE + FLAG, jnp.full_like(cluster, flag), on)
    # The discard list follows the frag lists as one more order would.
    list_flag = jnp.full_like(cluster, FRAG if flag == DISCARD else FREE)
    behind = jnp.full_like(cluster, DISCARD_LIST - FRAG_LIST)
    return move(replace(c, words=words), cluster, list_flag, behind, on)


def discard(state: MachineState, once: bool, on: Flag) -> tuple[MachineState, Flag]:
    """swap_do_scheduled_discard: emptied clusters become free ones, and whether there were any.

    once: only on the first device that has some.
    """
    zero = jnp.zeros(on.shape, jnp.int32)

    def going(carry: tuple[Clusters, Lane, Flag]) -> Flag:
        return on & (carry[1] < devices(carry[0]))

    def turn(carry: tuple[Clusters, Lane, Flag]) -> tuple[Clusters, Lane, Flag]:
        c, device, found = carry
        active = surely(going(carry))
        head = sentinels(c, device) + DISCARD_LIST
        cluster, next = load1(c.next, head)
        waits = active & (cluster != head)
        c = _transfer(replace(c, next=next), jnp.where(waits, cluster, 0), FREE, waits)
        ends = active & ~waits
        device = jnp.where(ends & found & once, devices(c), device + ends)
        return c, device, found | waits

    c, _, found = repeat(going, turn, (state.clusters, zero, zero != 0))
    return replace(state, clusters=c), found


def work(
    state: MachineState, params: MachineParams, regs: Registers, on: Flag
) -> tuple[MachineState, Registers]:
    """The kernel's worker has run."""
    return discard(state, False, on)[0], assign(regs, on, at=At.DONE)
