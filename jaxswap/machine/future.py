"""The accesses to come, for a policy that is to know them: when each page will be accessed next."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from jaxswap.errors import InputError
from jaxswap.machine.program import (
    DONTNEED,
    LEAST_ACCESSES,
    PAGEOUT,
    READ,
    STREAM,
    TOUCH,
    UNMAP,
    ZERO,
    Compiled,
    Program,
)
from jaxswap.machine.state import Lane
from jaxswap.policy.base import BLOCK, NEVER
from jaxswap.swaptable.lanes import repeat

MOST_KNOWN = (1 << 30) - 1  # accesses: the times of a Future are int32
_ACCESSES, _LEAVES = (STREAM, TOUCH, READ, ZERO), (DONTNEED, UNMAP, PAGEOUT)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Future:
    """What will become of each page, the same for all lanes.

    times: of page v, times[first[v]] .. times[first[v + 1] - 1], ascending: 2 t + 1 where it is the page of
    access t, 2 t where it is released or paged out by advice after t accesses.
    """

    first: Int32[Array, " pages_and_one"]
    times: Int32[Array, " times"]


def accesses_before(compiled: Compiled) -> Int32[np.ndarray, " ops"]:
    """How many page accesses there are before each operation of a program, the padding included.

    Raises InputError for more than MOST_KNOWN.
    """
    accesses = np.zeros(len(compiled.program.kind), np.int64)
    accesses[: compiled.ops] = compiled.accesses()
    behind = accesses.cumsum()
    if behind[-1] > MOST_KNOWN:
        raise InputError(
            f"workload: has more than {MOST_KNOWN} accesses, too many to know when each page is next; "
            "cut it in two, or leave clairvoyant out"
        )
    return (behind - accesses).astype(np.int32)


def events_of(compiled: Compiled) -> tuple[Int32[np.ndarray, " events"], Int32[np.ndarray, " events"]]:
    """(page, time as in Future) of all accesses, releases and page-outs, by page, then by time."""
    program, before = compiled.program, accesses_before(compiled)
    kinds, starts, ends = (np.asarray(x)[: compiled.ops] for x in (program.kind, program.start, program.end))
    accessed, blocks = np.asarray(program.accesses), np.asarray(program.block)
    pages, times = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for i in np.flatnonzero(np.isin(kinds, (*_ACCESSES, *_LEAVES))).tolist():
        start, end = int(starts[i]), int(ends[i])
        if kinds[i] == STREAM:
            pages.append((accessed[start:end] >> 1).astype(np.int64))
        else:
            pages.append(int(blocks[i]) * BLOCK + np.arange(start, end))
        time = np.full(end - start, 2 * before[i], np.int64)
        times.append(time if kinds[i] in _LEAVES else time + 2 * np.arange(end - start) + 1)
    page, time = np.concatenate(pages), np.concatenate(times)
    order = np.lexsort((time, page))
    return page[order].astype(np.int32), time[order].astype(np.int32)


def with_future(compiled: Compiled, pages: int) -> Program:
    """The program, knowing the accesses to come; `pages`: of the region, as `state.room` gives them."""
    page, time = events_of(compiled)
    size = max(LEAST_ACCESSES, 1 << max(len(time) - 1, 0).bit_length())
    first = np.searchsorted(page, np.arange(pages + 1)).astype(np.int32)
    times = np.concatenate([time, np.zeros(size - len(time), np.int32)])
    future = Future(jnp.asarray(first), jnp.asarray(times))
    return replace(compiled.program, before=jnp.asarray(accesses_before(compiled)), future=future)


def ahead(future: Future, now: Lane, page: Lane) -> Int32[Array, "512 L"]:
    """Of each page of a page's 2 MiB block, how many accesses there are from access `now` on before the next
    one of it; NEVER where it leaves before, or is not accessed any more."""
    pages = (page & -BLOCK)[None] + np.arange(BLOCK, dtype=np.int32)[:, None]
    low, end = jnp.take(future.first, pages, mode="clip"), jnp.take(future.first, pages + 1, mode="clip")
    since = 2 * now[None] + 1

    def time(at: Array) -> Array:
        return jnp.take(future.times, at, mode="clip")

    def halve(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = carry
        middle = (low + high) >> 1
        behind = time(middle) < since
        return (
            jnp.where((low < high) & behind, middle + 1, low),
            jnp.where((low < high) & ~behind, middle, high),
        )

    low, _ = repeat(lambda carry: carry[0] < carry[1], halve, (low, end))
    found = time(low)
    return jnp.where((low < end) & (found & 1 == 1), (found - since) >> 1, NEVER)
