"""Interleaved timing, and C compiled on the spot."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).parent / "csrc"
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-pthread")


@dataclass(frozen=True)
class Timing:
    """Seconds a call."""

    median: float
    least: float
    most: float


def interleave(
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]], repeats: int
) -> dict[str, Timing]:
    """Time (set up, call) pairs in turn, round after round, so that drift of the machine meets all alike.

    Only the calls are timed; one untimed round goes before. A call must not return before its work is done.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for turn in range(repeats + 1):
        for name, (set_up, call) in calls.items():
            set_up()
            start = time.perf_counter()
            call()
            spent = time.perf_counter() - start
            if turn:
                samples[name].append(spent)
    return {name: Timing(statistics.median(s), min(s), max(s)) for name, s in samples.items()}


def copy_bandwidth(mebibytes: int = 256, repeats: int = 5) -> float:
    """Bytes a second, read and written, at which JAX's default device copies one array over another."""
    import jax
    import jax.numpy as jnp

    source = jnp.arange(mebibytes << 18, dtype=jnp.uint32)
    target = jnp.zeros_like(source)
    # The sum is there because a plain copy of an argument is no program; it costs nothing beside the memory.
    copy = jax.jit(lambda source, target: source + 1, donate_argnums=1, keep_unused=True)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        target = jax.block_until_ready(copy(source, target))
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(times[1:])


def c_compiler() -> str | None:
    """gcc, cc or clang, whichever is there."""
    return next((found for name in ("gcc", "cc", "clang") if (found := shutil.which(name))), None)


@cache
def load_c(source: str) -> ctypes.CDLL | None:
    """A C source of this package as a library; None if no compiler is there or it fails on it."""
    compiler = c_compiler()
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / (Path(source).stem + ".so")
        command = [compiler, *FLAGS, str(SOURCES / source), "-o", str(library)]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Address of a C-contiguous array; the caller keeps the array alive."""
    if not array.flags.c_contiguous:
        raise ValueError("array is not contiguous")
    return ctypes.c_void_p(array.ctypes.data)


def cpu_name() -> str:
    """Model of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def available_cores() -> list[int]:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
