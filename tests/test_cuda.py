"""Every jitted function of the package lowers for CUDA, with every value of what it is compiled for."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxswap
from jaxswap.frames import Frames
from jaxswap.landscape.ageing import Life, begin, steps, zero_pages
from jaxswap.landscape.faults import make_snapshot
from jaxswap.machine import Lane
from jaxswap.machine.faultlog import WORDS
from jaxswap.machine.profile import PROFILES
from jaxswap.machine.replay import Replay
from jaxswap.machine.rules import slot_rules
from jaxswap.policy import POLICIES
from jaxswap.policy.base import MOST_PARAMS
from jaxswap.swaptable.alloc import levels_of, make_queues, make_requests
from jaxswap.swaptable.forms import FORMS
from jaxswap.swaptable.planes import keep, table_planes
from jaxswap.swaptable.swapon import Device, swapon
from jaxswap.workload import parse_workload
from tests.swaptable.tables import random_table

Call = tuple[tuple[Any, ...], dict[str, Any]]
CLUSTERS, N = 4, 32
SLOTS = CLUSTERS * 512


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), tree)


def bulk() -> dict[str, list[Call]]:
    """Of jaxswap.swaptable."""
    table = random_table(1)
    slots = np.arange(N, dtype=np.uint32)
    orders = np.zeros(N, np.int32)
    requests = make_requests(SLOTS, slots, 0b11101)
    queues = make_queues(slots, CLUSTERS)
    table, slots, orders, requests, queues = shapes((table, slots, orders, requests, queues))
    planes, kept = jax.eval_shape(table_planes, table), jax.eval_shape(keep, table)
    device = Device(SLOTS)
    forms = list(FORMS.values())
    seconds = [{"second": second} for second in (False, True)]
    return {
        "swaptable.entry._defects": [((table.words,), {})],
        "swaptable.planes.table_planes": [((table,), {})],
        "swaptable.planes.keep": [((table,), {})],
        "swaptable.planes.suits": [((planes,), keys) for keys in seconds],
        "swaptable.planes.pyramid": [((planes,), keys) for keys in seconds],
        "swaptable.check._outside": [((slots, jnp.int32(SLOTS)), {})],
        "swaptable.check.check_kept": [((kept.first, slots, orders), {})],
        "swaptable.check.check_table": [((table, slots, orders), keys) for keys in seconds],
        "swaptable.check.check_second_kept": [((table, slots, orders, kept.second), {})],
        "swaptable.check.check_second_table": [((table, slots, orders), {})],
        "swaptable.alloc.levels_of": [((table, form), {}) for form in forms],
        "swaptable.alloc.passing": [((jax.eval_shape(levels_of, table), slots), {})],
        "swaptable.alloc.alloc_alone": [
            ((jax.eval_shape(lambda table, form=form: levels_of(table, form), table), requests, form), {})
            for form in forms
        ],
        "swaptable.alloc.alloc_queued": [((table, requests, queues, form), {}) for form in forms],
        "swaptable.stats.table_stats": [((shapes(swapon([device], device.clusters, 2)),), {})],
    }


def landscape() -> dict[str, list[Call]]:
    """Of jaxswap.landscape, on two lanes where there are lanes."""
    life, profile, device = Life(4, (0.5, 0, 0.5), 0.3, 0.3, 0.9), PROFILES["7.3"], Device(SLOTS)
    table = swapon([device], device.clusters, 2, columns=profile.columns, scans_to_end=profile.scans_to_end)
    zero = np.stack([zero_pages(life, SLOTS, seed) for seed in (1, 2)], axis=1)
    ageing = begin(table, slot_rules([profile] * 2), zero, np.array([900, 900], np.int32))
    todo = jax.tree.map(lambda x: np.stack([x, x], axis=1), next(steps(life, SLOTS >> 4, 1)))
    lane = np.zeros(2, np.int32)
    snapshot = make_snapshot(np.arange(100), np.arange(100), SLOTS)
    asked = shapes((snapshot.levels, snapshot.faults(np.arange(N))))
    given = (*asked, shapes(jnp.uint32(0)), shapes(np.zeros(MOST_PARAMS, np.int32)))
    answered = importlib.import_module("jaxswap.landscape.faults").answer
    found = jax.eval_shape(lambda *a: answered(*a, policy=POLICIES["kernel"]), *given)
    return {
        "landscape.ageing.advance": [(shapes((ageing, todo, lane, lane)), {"size": 16})],
        "landscape.faults.answer": [(given, {"policy": policy}) for policy in POLICIES.values()],
        "landscape.faults.each_order": [(asked, {})],
        "landscape.run._tally": [((found,), {})],
    }


def machines() -> dict[str, list[Call]]:
    """The machines that tests/machine/test_structure.py leaves out, in lock step."""
    row = "REGION 600 plain\nFILL 0 600\nPAGEOUT 0 600\nREAD 9\n"
    calls = []
    for text, lane in (
        (row + "FORK 1\np1 READ 5\n", Lane("64", swap=8000 * 4096)),
        (row, Lane("64", limit=400 * 4096, lru="mglru", swap=8000 * 4096, frames=Frames(8 << 20))),
    ):
        replay = Replay(parse_workload(text), [lane] * 2, width=2, devices=1)
        given = replay.states, replay.params, replay.program, np.array([0, 1], np.int32)
        calls.append((given, {"mesh": replay.mesh}))
    return {"machine.replay.advance": calls}


def tuning() -> dict[str, list[Call]]:
    """Of jaxswap.tune."""
    cases, orders = np.zeros((N, WORDS), np.int32), np.zeros(N, np.int32)
    features, each = np.zeros((N, 8), np.float32), np.zeros(N, np.float32)
    return {
        "tune.fit._minimum": [(shapes((features, each, each, np.float32(0))), {})],
        "tune.harvest._features": [(shapes((cases, orders)), {})],
    }


def jitted() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The jitted functions at the top of the package's modules."""
    kind = type(jax.jit(lambda: 0))
    for module in pkgutil.walk_packages(jaxswap.__path__, "jaxswap."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, kind) and value.__module__ == module.name:
                yield f"{module.name.removeprefix('jaxswap.')}.{name}", value


@pytest.mark.parametrize("of", [bulk, landscape, machines, tuning])
def test_lowers_for_cuda(of: Callable[[], dict[str, list[Call]]]) -> None:
    functions: dict[str, Any] = dict(jitted())
    for name, calls in of().items():
        for arguments, keys in calls:
            text = functions[name].trace(*arguments, **keys).lower(lowering_platforms=("cuda",)).as_text()
            assert "stablehlo." in text, name


def test_no_jitted_function_is_left_out() -> None:
    held = {name for of in (bulk, landscape, machines, tuning) for name in of()}
    assert held == {name for name, _ in jitted()}
