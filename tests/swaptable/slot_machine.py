"""Runs of alloc and put on the JAX slot allocator and on the plain-Python one, and what both look like."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32

from jaxswap.machine.profile import Profile
from jaxswap.machine.rules import slot_rules
from jaxswap.swaptable import clusters, slot_cache
from jaxswap.swaptable.cluster_table import HAND, HINTS, PRIORITY, layout_of, notes_of
from jaxswap.swaptable.clusters import COUNT, CPUS, FLAG, LISTS, ORDER, ROW, STRIDE, Clusters, SlotRules
from jaxswap.swaptable.lanes import SPARE, repeat, store, when
from jaxswap.swaptable.swapon import MANY, bases, priorities
from tests.reference.cgroup import NO_LIMITS, Cgroup
from tests.reference.folio import Folio
from tests.reference.slots import FRAG, FREE, FULL, NONFULL, Device, SwapDevice
from tests.reference.slots_6_12 import SwapDevice612
from tests.reference.swap import Swap

ROOM = 16  # clusters
NOTHING, ALLOC, PUT, DIRECT = 0, 1, 2, 3
LISTED = {(FREE, 0): 0, (FULL, 0): 1} | {
    key: number
    for order in range(10)
    for key, number in (((NONFULL, order), 2 + order), ((FRAG, order), 12 + order))
}

Op = tuple[int, int, int, int]
"""(ALLOC, CPU, order, folios) or (PUT or DIRECT, CPU, slot, size)."""


class Plain:
    """The plain-Python allocator. Slots are numbered over all devices, as the JAX one numbers them."""

    def __init__(self, profile: Profile, devices: Sequence[clusters.Device], cpus: int) -> None:
        kind = SwapDevice612 if profile.device_hints else SwapDevice
        order = priorities(devices, profile.stepped_priority)
        made = [
            kind(profile, Device(device.slots), priority)
            for device, priority in zip(devices, order, strict=True)
        ]
        self.cgroup = Cgroup("root", NO_LIMITS, None)
        self.swap = Swap(profile, made, lambda folio: None)
        self.swap.slot_cache.cpus = cpus
        self.bases = [base * 512 for base in bases(devices)]

    def number(self, place: tuple[int, int]) -> int:
        return self.bases[place[0]] + place[1]

    def place(self, slot: int) -> tuple[int, int]:
        device = max(i for i, base in enumerate(self.bases) if base <= slot)
        return device, slot - self.bases[device]

    def alloc(self, cpu: int, order: int, folios: int) -> list[int]:
        """First slots of up to `folios` folios; -1 ends the list where there was none."""
        found = []
        for _ in range(folios):
            folio = Folio(0, order, memcg=self.cgroup)
            if not self.swap.alloc(folio, cpu):
                return [*found, -1]
            assert folio.place is not None
            device, offset = folio.place
            found.append(self.number(folio.place))
            for i in range(folio.nr):
                self.swap.raise_count((device, offset + i))
            self.swap.remove(folio, cpu)
        return found

    def put(self, cpu: int, slot: int, size: int, direct: bool) -> None:
        device, offset = self.place(slot)
        if direct:
            self.swap.put(device, offset, size, cpu)
        else:
            self.swap.put_mapped(device, offset, size)
            self.swap.clear(device, offset, size, cpu)


def random_ops(rng: random.Random, plain: Plain, cpus: int, length: int) -> tuple[list[Op], list[int]]:
    """Operations and the slots they get, done on the plain allocator, which fills up and empties in turn."""
    ops: list[Op] = []
    got: list[int] = []
    held: list[tuple[int, int]] = []
    filling = rng.random() < 0.8
    orders = rng.choice([[0], [0, 4], [0, 0, 2, 4], [2, 3], [4, 9], list(range(10))])
    while len(ops) < length:
        if rng.random() < 0.03:
            filling = not filling
        cpu = rng.randrange(cpus)
        if rng.random() < (0.8 if filling else 0.25) or not held:
            order = rng.choice(orders)
            folios = rng.choice([1, 2, 5, 40]) if order == 0 else 1
            found = plain.alloc(cpu, order, folios)
            got += found
            held += [(slot, 1 << order) for slot in found if slot >= 0]
            ops.append((ALLOC, cpu, order, folios))
            if found[-1] < 0 and rng.random() < 0.5:
                filling = False
            continue
        slot, size = held.pop(rng.randrange(len(held)) if rng.random() < 0.7 else -1)
        if size > 1 and rng.random() < 0.5:
            part = rng.randint(1, size)
            first = rng.randint(0, size - part)
            held += [(a, n) for a, n in ((slot, first), (slot + first + part, size - first - part)) if n]
            slot, size = slot + first, part
        kind = DIRECT if size > 1 and rng.random() < 0.5 else PUT
        plain.put(cpu, slot, size, kind == DIRECT)
        ops.append((kind, cpu, slot, size))
    return ops, got


MOST_FOUND = 8192


@jax.jit
def run(
    c: Clusters, rules: SlotRules, ops: Int32[Array, "ops 4 L"]
) -> tuple[Clusters, Int32[Array, "found L"], Int32[Array, " L"]]:
    """All operations: (clusters, first slots found, how many), -1 for an allocation that failed."""

    def act(i: Array, carry: tuple) -> tuple:
        kind, cpu, a, b = ops[i]

        def alloc(carry: tuple) -> tuple:
            def more(carry: tuple) -> Array:
                return (kind == ALLOC) & (carry[3] > 0)

            def once(carry: tuple) -> tuple:
                c, found, at, left = carry
                on = more(carry)
                c, slot, got = clusters.alloc(c, rules, cpu, a, left, on)
                number = jnp.arange(64, dtype=jnp.int32)[:, None]
                row = jnp.where((slot >= 0)[None] & (number < got[None]), slot[None] + number, -1)
                found = store(found, at, row, on)
                left = jnp.where(on, jnp.where(slot >= 0, left - got, 0), left)
                return c, found, at + jnp.where(on, jnp.maximum(got, 1), 0), left

            return (*repeat(more, once, (*carry, b))[:3],)

        def put(carry: tuple) -> tuple:
            on = (kind == PUT) | (kind == DIRECT)
            return (clusters.put(carry[0], cpu, a, b, kind == DIRECT, on), *carry[1:])

        return when(kind >= PUT, put, when(kind == ALLOC, alloc, carry))

    lanes = ops.shape[2]
    start = (c, jnp.full((MOST_FOUND + SPARE, lanes), -2, jnp.int32), jnp.zeros((lanes,), jnp.int32))
    return lax.fori_loop(0, ops.shape[0], act, start)


def fresh(profile: Profile, devices: Sequence[clusters.Device], cpus: int) -> tuple[Clusters, SlotRules]:
    """One lane: devices just swapped on, and the rules."""
    c = clusters.swapon(
        devices,
        ROOM,
        1,
        columns=profile.columns,
        scans_to_end=profile.scans_to_end,
        stepped_priority=profile.stepped_priority,
        slot_cache=profile.slot_cache > 0,
        cpus=cpus,
    )
    return c, jax.tree.map(jnp.asarray, slot_rules([profile]))


def full_sorted(found: dict[str, Any]) -> dict[str, Any]:
    """Without the order of full clusters: it decides nothing where no slot is cached alone."""
    lists = {key: sorted(queue) if key[1] == FULL else queue for key, queue in found["lists"].items()}
    return found | {"lists": lists}


def of_plain(plain: Plain) -> dict[str, Any]:
    """Clusters, lists, hints and hands."""
    swap = plain.swap
    rows, lists, left = [], {}, []
    for number, device in enumerate(swap.devices):
        base = plain.bases[number] // 512
        left.append(device.free_slots)
        rows += [(tuple(map(bool, x.used)), x.count, x.order, x.flag) for x in device.clusters]
        lists |= {(number, *key): [base + i for i in queue] for key, queue in device.lists.items() if queue}
    hints = {}
    if swap.profile.device_hints:
        for number, device in enumerate(swap.devices):
            hints |= {
                (cpu, number, order): plain.bases[number] + offset
                for (cpu, order), offset in device.hints.items()
                if offset
            }
    else:
        hints = {
            (cpu, 0, order): plain.bases[number] + offset
            for (cpu, order), (number, offset) in swap.hints.items()
            if offset
        }
    cache = swap.slot_cache
    hands = {}
    for which, of in enumerate((cache.taken, cache.given)):
        hands |= {(cpu, which): [plain.number(x) for x in hand] for cpu, hand in of.items() if hand}
    return {
        "clusters": rows,
        "left": left,
        "lists": lists,
        "hints": hints,
        "hands": hands,
        "caching": swap.profile.slot_cache > 0 and cache.active,
        "available": list(swap.available),
    }


def of_jax(c: Clusters, devices: int) -> dict[str, Any]:
    """The same of one lane."""
    c = jax.device_get(c)
    most = 1 if devices == 1 else MANY
    words = c.words[:-SPARE, 0].reshape(-1, STRIDE)
    rows = []
    for row in words[words[:, FLAG] > 0]:
        used = np.ascontiguousarray(row[: 16 * ROW : ROW]).view(np.uint8)
        bits = np.unpackbits(used, bitorder="little").astype(bool)
        rows.append((tuple(bits.tolist()), *(int(row[i]) for i in (COUNT, ORDER, FLAG))))
    lists = {}
    for number in range(devices):
        for key, first in LISTED.items():
            sentinel = int(c.lists[0]) + number * LISTS + first
            queue, at = [], int(c.next[sentinel, 0])
            while at != sentinel:
                assert c.next[c.prev[at, 0], 0] == at
                queue.append(at)
                at = int(c.next[at, 0])
            if queue:
                lists[number, *key] = queue
    at = notes_of(most)
    table = c.notes[: at.turns, 0].reshape(CPUS, most, HINTS)
    hints = {tuple(map(int, key)): int(table[tuple(key)]) for key in np.argwhere(table)}
    hands = {}
    for cpu in range(CPUS if slot_cache.present(c) else 0):
        for which, start in enumerate((slot_cache.taken(c, cpu), slot_cache.given(c, cpu))):
            hand = c.notes[start : start + HAND, 0].tolist()
            if slots := hand[hand[slot_cache.FIRST] : hand[slot_cache.END]]:
                hands[cpu, which] = slots
    left = c.left[:devices, 0].tolist()
    priority, turns = layout_of(c, PRIORITY), c.notes[at.turns :, 0]
    order = sorted(range(devices), key=lambda i: (-priority[i, 0], turns[i]))
    return {
        "clusters": rows,
        "left": left,
        "lists": lists,
        "hints": hints,
        "hands": hands,
        "caching": slot_cache.present(c) and bool(c.notes[at.caching, 0]),
        "available": [i for i in order if left[i]],
    }
