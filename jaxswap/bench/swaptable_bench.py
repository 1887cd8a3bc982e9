"""add_check and cache_alloc beside plain C, on tables that grow, at one core and two.

Every core count is measured in a process of its own that is pinned to that many CPUs before JAX starts, so
that no side has more than it says. JAX and C run in turn in that process, and their results must be equal.
Run as a module, it measures in this process and prints a JSON object a row: ``python -m
jaxswap.bench.swaptable_bench CORES [quick]``.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from jaxswap.bench.rows import pin, row, rows_of
from jaxswap.bench.timing import (
    Timing,
    available_cores,
    copy_bandwidth,
    cpu_name,
    interleave,
    load_c,
    pointer,
)

FULL = {"slots": (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26), "at": 1 << 22, "repeats": 5}
QUICK = {"slots": (1 << 16, 1 << 20), "at": 1 << 20, "repeats": 3}
"""Slots of the tables; the one that fragmented contents and more cores are measured on; repeats."""
CONTENTS = {"mostly intact": 0.0005, "fragmented": 0.05}
"""Share of slots that are cached or hold another zero flag: how early a scan meets a conflict."""
SLOTS_A_REQUEST = 4


def rows(quick: bool = False, cores: tuple[int, ...] = (1, 2)) -> Iterator[dict]:
    """One dict a measurement, keys as in ``jaxswap.bench.rows``; core counts the machine lacks are left out.

    ``size`` requests on ``slots`` slots, a quarter as many. ``ratio_to_c`` is against the C loop that scans
    slots as the kernel does, ``ratio_to_c_planes`` against the one on the same planes. Without a C compiler
    both are None and a row of variant "no C compiler" says so.
    """
    have = len(available_cores())
    for count in cores:
        if count <= have:
            yield from rows_of("jaxswap.bench.swaptable_bench", str(count), *(["quick"] if quick else []))


def measure(cores: int, quick: bool) -> Iterator[dict]:
    """The rows of this process, which should be pinned to ``cores`` CPUs already."""
    plan = QUICK if quick else FULL
    intact, fragmented = CONTENTS
    cells = [(slots, intact) for slots in plan["slots"] if cores == 1 or slots == plan["at"]]
    bandwidth = copy_bandwidth()
    for slots, contents in [*cells, (plan["at"], fragmented)]:
        requests = slots // SLOTS_A_REQUEST
        groups = _groups(slots, requests, plan["repeats"], CONTENTS[contents], cores)
        for name, (timings, compiled, moved) in groups.items():
            common = {"name": name, "case": contents, "slots": slots, "size": requests}
            common |= {"lanes": 1, "cores": cores, "device": f"cpu: {cpu_name()}"}
            common["copy_bandwidth"] = bandwidth
            scan, planes = timings.get("C, slot scan"), timings.get("C, same planes")
            for variant, timing in timings.items():
                yield row(
                    variant=variant,
                    time=timing.median,
                    time_min=timing.least,
                    time_max=timing.most,
                    rate=requests / timing.median,
                    ns_per_operation=1e9 * timing.median / requests,
                    ratio_to_c=timing.median / scan.median if scan else None,
                    ratio_to_c_planes=timing.median / planes.median if planes else None,
                    bytes=moved.get(variant),
                    compile_time=max(compiled[variant] - timing.median, 0.0) if variant in compiled else None,
                    **common,
                )
            if scan is None:
                yield row(variant="no C compiler", **common)


def _nothing() -> None:
    pass


def _first(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _equal(what: str, ours, theirs) -> None:
    ours = np.asarray(ours)
    if not np.array_equal(ours, theirs):
        at = int(np.argmax((ours != theirs).reshape(-1)))
        raise RuntimeError(f"{what}: JAX and C differ, first at {at}: {ours.flat[at]} and {theirs.flat[at]}")


def _groups(
    slots: int, n: int, repeats: int, share: float, cores: int
) -> dict[str, tuple[dict[str, Timing], dict[str, float], dict[str, int]]]:
    """By name: timings of each variant, seconds of first calls, bytes that go in and come out."""
    import jax

    from jaxswap.machine.memory import bytes_of
    from jaxswap.swaptable.alloc import alloc_queued, cache_alloc, make_queues, make_requests
    from jaxswap.swaptable.check import add_check
    from jaxswap.swaptable.entry import encode, make_table
    from jaxswap.swaptable.planes import keep, table_planes

    rng = np.random.default_rng(20261123)
    odd = rng.random(slots)
    kind = np.where(odd < share / 2, 2, 1)
    table = make_table(np.asarray(encode(kind, 1, odd > 1 - share / 2, rng.integers(0, 1 << 25, slots))))
    asked = rng.integers(0, slots, n).astype(np.uint32)
    orders = rng.integers(0, 10, n).astype(np.int32)
    words, has = np.array(table.words), np.array(table.has_table).astype(np.uint8)
    on_device = jax.device_put((asked, orders))
    kept = keep(table)

    def check_kept():
        return add_check(kept, *on_device).block_until_ready()

    def check_words():
        return add_check(table, *on_device).block_until_ready()

    compiled = {"planes": _first(check_kept), "words": _first(check_words)}
    checks: dict = {"planes": (_nothing, check_kept), "words": (_nothing, check_words)}
    library = load_c("check.c")
    if library is not None:
        nibbles, errnos = np.array(kept.first), np.empty(n, np.int32)

        def c_check(function, data):
            arrays = (data, has, asked, orders, errnos)
            return lambda: function(*map(pointer, arrays), n, cores)

        for name, function, data in (
            ("C, slot scan", library.check_scan, words),
            ("C, same planes", library.check_kept, nibbles),
        ):
            function.argtypes = [*[ctypes.c_void_p] * 5, ctypes.c_long, ctypes.c_int]
            function.restype = None
            checks[name] = (_nothing, c_check(function, data))
            checks[name][1]()
            _equal(f"add_check against {name}", check_kept(), errnos)
            _equal(f"add_check from words against {name}", check_words(), errnos)
    timed = interleave(checks, repeats)
    c_timed = {name: timing for name, timing in timed.items() if name.startswith("C,")}
    pairs = 3 * 4 * n + table.has_table.nbytes  # slots and orders, and the errnos that come back
    from_planes, from_words = kept.first.nbytes + pairs, table.words.nbytes + pairs
    c_moved = {"C, slot scan": from_words, "C, same planes": from_planes}
    groups = {
        "add_check/planes": (
            {"JAX": timed["planes"]} | c_timed,
            {"JAX": compiled["planes"]},
            c_moved | {"JAX": from_planes},
        ),
        "add_check/words": (
            {"JAX": timed["words"]} | c_timed,
            {"JAX": compiled["words"]},
            c_moved | {"JAX": from_words},
        ),
    }

    # a tenth of the requests meets a lack of frames, a twentieth a failing charge, at their highest order
    frames = np.where(rng.random(n) < 0.1, 0b01101, 1023)
    charges = np.where(rng.random(n) < 0.05, 0b01101, 1023)
    requests = make_requests(slots, asked, 0b11101, frames, charges)
    queues = make_queues(asked, table.clusters)

    def alloc():
        return jax.block_until_ready(cache_alloc(table, requests))

    def alloc_ready():
        return jax.block_until_ready(alloc_queued(table, requests, queues))

    compiled_alloc = _first(alloc)
    moved = {"JAX": bytes_of((table, requests, queues)) + bytes_of(alloc())}
    moved["JAX, queues made before"] = moved["JAX"]
    allocs: dict = {"JAX": (_nothing, alloc), "JAX, queues made before": (_nothing, alloc_ready)}
    library = load_c("alloc.c")
    if library is not None:
        after, outcome = alloc()
        planes = table_planes(table)
        cached0, zero, edge = (np.array(plane) for plane in (planes.cached, planes.zero, planes.id_edge))
        unfit = np.asarray(planes.bad) | ~np.asarray(planes.counted)
        ids, work, cached = np.array(table.memcg), words.copy(), cached0.copy()
        inputs = [np.array(array) for array in requests]
        out = (np.empty(n, np.int32), np.empty(n, np.int8), np.empty(n, np.uint32), np.empty(n, np.uint8))
        function = library.alloc_batch
        pointers = [ctypes.c_void_p]
        function.argtypes = [*pointers * 12, ctypes.c_long, *pointers * 4, ctypes.c_int]
        function.restype = None

        def set_up():
            np.copyto(work, words)
            np.copyto(cached, cached0)

        def c_alloc(with_planes: bool):
            tail = [pointer(a) for a in (unfit, zero, edge, *inputs)]
            head = [pointer(work), pointer(ids), pointer(has), pointer(cached) if with_planes else None]
            return lambda: function(*head, *tail, n, *map(pointer, out), cores)

        for name, with_planes in (("C, slot scan", False), ("C, same planes", True)):
            call = c_alloc(with_planes)
            set_up()
            call()
            for what, ours, theirs in zip(
                ("errno", "order", "stepped", "thrown"),
                (outcome.errno, outcome.order, outcome.stepped, outcome.thrown),
                out,
                strict=True,
            ):
                _equal(f"cache_alloc {what} against {name}", ours, theirs)
            _equal(f"cache_alloc table against {name}", after.words, work)
            allocs[name] = (set_up, call)
            arrays = [words, ids, has, *inputs, *out, *([cached, unfit, zero, edge] if with_planes else [])]
            moved[name] = sum(array.nbytes for array in arrays) + words.nbytes
    groups["cache_alloc"] = (interleave(allocs, repeats), {"JAX": compiled_alloc}, moved)
    return groups


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    pin(wanted)
    for found in measure(wanted, quick="quick" in sys.argv[2:]):
        print(json.dumps(found), flush=True)
