"""The run of a landscape: tables of every mix and occupancy are aged, several of each, and asked."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float64, Int32, Int64

from jaxswap.landscape import ageing
from jaxswap.landscape.ageing import CHUNK, Ageing, advance, begin, zero_pages
from jaxswap.landscape.config import LandscapeConfig, Mix
from jaxswap.landscape.faults import (
    REASONS,
    SWAPIN_ORDERS,
    Answer,
    Snapshot,
    answer,
    each_order,
    make_snapshot,
)
from jaxswap.machine.profile import PROFILES
from jaxswap.machine.rules import slot_rules
from jaxswap.policy.base import MOST_PARAMS
from jaxswap.swaptable.geometry import ORDERS
from jaxswap.swaptable.stats import table_stats
from jaxswap.swaptable.swapon import Device, swapon

Report = Callable[[int, int], None]


class Asked(NamedTuple):
    """What a heuristic got in all faults on one table: folios of each order, attempts that failed, slots read
    for it, refusals of each order by reason (rows as SWAPIN_ORDERS)."""

    got: Int32[Array | np.ndarray, "10"]
    failed: Int32[Array | np.ndarray, ""]
    slots: Int32[Array | np.ndarray, ""]
    refused: Int32[Array | np.ndarray, "orders reasons"]


@dataclass(frozen=True)
class Landscape:
    """Counts of all tables. Axes: mixes, occupancies, repeats, ages; orders are SWAPIN_ORDERS.

    alone: faults that would get an order if it were the only one, then those refused it, by REASONS. got,
    failed, slots, refused: as Asked, by policy. unusable: unusable_free_index of the free slots. written:
    slots taken in all.
    """

    config: LandscapeConfig
    alone: Int64[np.ndarray, "mixes occupancies repeats ages orders outcomes"]
    got: Int64[np.ndarray, "mixes occupancies repeats ages policies 10"]
    failed: Int64[np.ndarray, "mixes occupancies repeats ages policies"]
    slots: Int64[np.ndarray, "mixes occupancies repeats ages policies"]
    refused: Int64[np.ndarray, "mixes occupancies repeats ages policies orders reasons"]
    unusable: Float64[np.ndarray, "mixes occupancies repeats ages 10"]
    written: Int64[np.ndarray, "mixes occupancies repeats ages"]


@jax.jit
def _tally(found: Answer) -> Asked:
    def sum_of(mask: Array, order: int) -> Array:
        return jnp.sum((mask >> order) & 1, dtype=jnp.int32)

    order = found.outcome.order.astype(jnp.int32)
    masks = [found.refused(reason) for reason in REASONS]
    return Asked(
        jnp.stack([jnp.sum(order == one, dtype=jnp.int32) for one in ORDERS]),
        jnp.sum(lax.population_count(found.outcome.stepped), dtype=jnp.int32),
        jnp.sum(found.slots, dtype=jnp.int32),
        jnp.stack([jnp.stack([sum_of(mask, one) for mask in masks]) for one in SWAPIN_ORDERS]),
    )


def seed_of(config: LandscapeConfig, mix: int, occupancy: int, repeat: int) -> int:
    """The seed of one table."""
    return int(np.random.SeedSequence([config.seed, mix, occupancy, repeat]).generate_state(1)[0])


def _on_device(steps: ageing.Steps) -> ageing.Steps:
    """For one lane."""
    return ageing.Steps(*(jnp.asarray(column)[:, None] for column in steps))


def tables(config: LandscapeConfig, mix: Mix, occupancy: float, seed: int) -> Iterator[tuple[Ageing, int]]:
    """One table at each age, with the slots taken so far, on JAX's default device. It is aged further in
    place: a table is valid until the next is asked for."""
    life = config.life(mix, occupancy)
    pages, size = config.slots, 1 << config.block
    wanted = round(occupancy * (config.slots - 1))
    device = Device(config.slots)
    profile = PROFILES[config.kernel]
    c = swapon([device], device.clusters, 1, columns=profile.columns, scans_to_end=profile.scans_to_end)
    a = begin(c, slot_rules([profile]), zero_pages(life, pages, seed)[:, None], np.array([wanted], np.int32))
    chunks = map(_on_device, ageing.steps(life, pages // size, seed))
    todo, at = next(chunks), jnp.zeros(1, jnp.int32)
    for age in config.ages:
        goal = wanted + round(age * (config.slots - 1))
        while int(a.written[0]) < goal:
            if int(at[0]) == CHUNK:
                todo, at = next(chunks), jnp.zeros_like(at)
            a, at = advance(a, todo, at, jnp.array([goal], jnp.int32), size=size)
        yield a, int(a.written[0])


def snapshot_of(a: Ageing, slots: int) -> Snapshot:
    """The pages in swap of an ageing of one lane."""
    places = np.asarray(a.places)[:slots, 0]
    page = np.flatnonzero(places >= 0)
    place = places[page]
    return make_snapshot(page, place >> 1, slots, zero=(place & 1).astype(bool))


def ask(config: LandscapeConfig, snapshot: Snapshot, seed: int) -> tuple[np.ndarray, list[Asked]]:
    """Faults on pages in swap, each as likely as another: what they get of each order, and by heuristic."""
    which = np.random.default_rng([seed, 2]).integers(0, snapshot.pages, config.faults)
    faults = snapshot.faults(which)
    found = []
    for choice in config.policies:
        values = [value for _, value in choice.params]
        params = jnp.array([*values, *[0] * (MOST_PARAMS - len(values))], jnp.int32)
        rule = choice.heuristic
        given = answer(snapshot.levels, faults, jnp.uint32(config.sysfs), params, policy=rule)
        found.append(_tally(given))
    return np.asarray(each_order(snapshot.levels, faults)), jax.device_get(found)


def run_landscape(config: LandscapeConfig, report: Report) -> Landscape:
    """Age all tables, one on each device at a time, and ask them. report: slots taken, of how many."""
    axes = (len(config.mixes), len(config.occupancies), config.repeats)
    shape, policies = (*axes, len(config.ages)), len(config.policies)
    orders, reasons = len(SWAPIN_ORDERS), len(REASONS)
    made = Landscape(
        config,
        np.zeros((*shape, orders, 1 + reasons), np.int64),
        np.zeros((*shape, policies, len(ORDERS)), np.int64),
        np.zeros((*shape, policies), np.int64),
        np.zeros((*shape, policies), np.int64),
        np.zeros((*shape, policies, orders, reasons), np.int64),
        np.zeros((*shape, len(ORDERS))),
        np.zeros(shape, np.int64),
    )
    each = [round((share + config.ages[-1]) * config.slots) for share in config.occupancies]
    total = sum(each) * axes[0] * axes[2]
    lock, stopped, done = threading.Lock(), threading.Event(), [0]
    devices = jax.devices()

    def table(number: int) -> None:
        mix, occupancy, repeat = np.unravel_index(number, axes)
        seed = seed_of(config, int(mix), int(occupancy), int(repeat))
        share, before = config.occupancies[occupancy], 0
        with jax.default_device(devices[number % len(devices)]):
            for age, (a, written) in enumerate(tables(config, config.mixes[mix], share, seed)):
                if stopped.is_set():
                    return
                at = (mix, occupancy, repeat, age)
                made.unusable[at] = np.asarray(table_stats(a.clusters).unusable_free_index)[:, 0]
                made.written[at] = written
                made.alone[at], asked = ask(config, snapshot_of(a, config.slots), seed)
                for policy, found in enumerate(asked):
                    made.got[*at, policy] = found.got
                    made.failed[*at, policy] = found.failed
                    made.slots[*at, policy] = found.slots
                    made.refused[*at, policy] = found.refused
                with lock:
                    done[0] += written - before
                    report(min(done[0], total), total)
                before = written

    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            for _ in pool.map(table, range(np.prod(axes))):
                pass
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made
