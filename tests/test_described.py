"""A machine written as settings and read again is the same machine."""

import random

import pytest

from jaxswap.described import Setting, machine_of
from jaxswap.frames import Frames
from jaxswap.machine import Lane
from jaxswap.machine.lane import DEFRAG, LRUS
from jaxswap.swaptable.clusters import Device

FREE = (500, 3, 2, 1, 2, 0, 0, 0, 0, 0, 0)


def random_machine(rng: random.Random) -> Lane:
    """Any of the settings, each as by default or not."""
    size = rng.choice([None, 16 << 20, 20 << 20, (24 << 20) + 4096])
    high = rng.choice([None, None, 12 << 20])
    devices = [Device(2048), Device(4096, 5), Device(3000, 1, kind="virtio", rotational=True)]
    return Lane(
        mthp=rng.choice(["", "64", "16 32m 1024"]),
        limit=size,
        high=high,
        swap_max=rng.choice([None, 8 << 20]),
        lru=rng.choice(LRUS) if size or high else "classic",
        swappiness=rng.choice([60, 0, 200]),
        defrag=rng.choice(list(DEFRAG)),
        flush=rng.choice([0, None, 500]),
        switch=rng.choice([0, 0, 50]),
        phase=rng.choice([0, 250]),
        swaps=tuple(rng.sample(devices, rng.randint(1, 3))),
        cpus=rng.choice([1, 4]),
        page_cluster=rng.choice([3, 0]),
        zswap=rng.random() < 0.3,
        frames=rng.choice([None, None, Frames(64 << 20, 12.5, seed=3, compaction=50), Frames(free=FREE)]),
    )


@pytest.mark.parametrize("seed", range(60))
def test_settings_say_what_the_machine_is(seed: int) -> None:
    lane = random_machine(random.Random(seed))
    settings = {key: Setting(text, key) for key, text in lane.settings().items()}
    again, kernel = machine_of(settings)
    assert kernel == "7.3"
    assert again.settings() == lane.settings()
    assert again.devices == lane.devices
    for name in (
        "mthp",
        "limit",
        "high",
        "swap_max",
        "swappiness",
        "defrag",
        "flush",
        "switch",
        "phase",
        "cpus",
        "page_cluster",
    ):
        assert getattr(again, name) == getattr(lane, name), name
    assert (again.lru, again.zswap, again.frames) == (lane.lru, lane.zswap, lane.frames)


def test_limits_by_name() -> None:
    lane = Lane("64", limits={"a": 4 << 20, "b": 3 << 20})
    settings = lane.settings()
    assert settings["memory.max"] == "a=4096K, b=3072K"
    again, _ = machine_of({key: Setting(text, key) for key, text in settings.items()})
    assert again.limits == lane.limits
