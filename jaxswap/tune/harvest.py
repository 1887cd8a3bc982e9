"""Labels for the linear rule from exact replays: which orders failed, and which brought pages that were used.

Only the orders that a replay tried have labels. So the linear rule itself is replayed as a cap at each order
and as the kernel's rule; its features are then those that it will see.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Int64, UInt32

from jaxswap.errors import InputError
from jaxswap.machine import Lane, faultlog
from jaxswap.machine.faultlog import WORDS, Word
from jaxswap.machine.future import accesses_before, events_of
from jaxswap.machine.program import WILLNEED
from jaxswap.machine.replay import Progress, Replay, ReplayResult, pieces
from jaxswap.policy.base import MEMORY_WORDS, ORDERS, near
from jaxswap.policy.linear import weighed
from jaxswap.workload import Workload

RECORDS = 1 << 16  # of a log, which is emptied whenever it may be full
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Faults:
    """The faults of one lane that are over, in order.

    words: a row each, as faultlog.Word. used: of the pages that it brought, how many were accessed before
    they left memory, or until the end.
    """

    words: Int32[np.ndarray, "faults words"]
    used: Int64[np.ndarray, " faults"]

    def __getitem__(self, word: Word) -> Int64[np.ndarray, " faults"]:
        return self.words[:, word].astype(np.int64)


@dataclass(frozen=True)
class Cases:
    """Orders tried at swap-in, a row each.

    features: of jaxswap.policy.linear.weighed. order: the one tried. failed: in vain. used: pages of the
    folio accessed before they left memory (or until the end); 0 where it failed.
    """

    features: Int32[np.ndarray, "cases weights"]
    order: Int64[np.ndarray, " cases"]
    failed: Bool[np.ndarray, " cases"]
    used: Int64[np.ndarray, " cases"]

    def good(self, share: float = 0.5) -> Bool[np.ndarray, " cases"]:
        """The label: it did not fail, and at least this share of its pages was used."""
        return ~self.failed & (self.used >= share * 2.0**self.order)


def explorers(lane: Lane) -> list[Lane]:
    """The lane under the linear rule as a cap at each of its orders, the largest of which is the kernel's."""
    always, madvise = lane.masks()
    orders = [order for order in ORDERS if (always | madvise) >> order & 1]
    caps = [{"bias": 2 * order + 1, "order": -2} for order in orders]
    return [replace(lane, policy="linear", policy_params=cap, rule=None) for cap in caps]


def faults_of(
    workload: Workload,
    lanes: Sequence[Lane],
    profile: str = "7.3",
    share: float = 1.0,
    progress: Progress | None = None,
) -> tuple[list[Faults], ReplayResult]:
    """Replay a workload on lanes of the linear rule and keep every fault: (those of each lane, the counters).

    share, progress: as `replay_lanes` has them. Raises InputError as it does, and for a workload of several
    processes, CPUs or cgroups.
    """
    run = Replay(workload, lanes, profile)
    compiled = run.compiled
    if compiled.by_page:
        where = workload.path or workload.name
        raise InputError(f"{where}: has several processes, CPUs or cgroups; labels come from one alone")
    before = jax.device_put(accesses_before(compiled), run.program.kind.sharding)
    run.program = replace(run.program, before=before)
    found: list[list[np.ndarray]] = [[] for _ in lanes]
    ops, accesses = run.beginning(share)
    if progress:
        progress(0, run.done(ops) * len(lanes))
    for start, stop in _parts(run, ops):
        log = faultlog.fresh(RECORDS, run.width)
        grouped = jax.tree.map(lambda x: np.broadcast_to(x, (run.groups, *x.shape)), log)
        run.states = replace(run.states, log=jax.device_put(grouped, run.states.oom.sharding))
        run.advance(start, stop)
        kept = run.states.log
        assert kept is not None
        counts, words = jax.device_get((kept.count, kept.words))
        for number, rows in enumerate(found):
            group, place = divmod(number, run.width)
            rows.append(words[group, : counts[group, place] * WORDS, place].reshape(-1, WORDS))
        if progress:
            progress(run.done(stop) * len(lanes), run.done(ops) * len(lanes))
    page, time = events_of(compiled)
    seen = time < 2 * accesses
    logs = [np.concatenate([np.zeros((0, WORDS), np.int32), *rows]) for rows in found]
    return [Faults(words, used_pages(page[seen], time[seen], words)) for words in logs], run.result(accesses)


def _parts(run: Replay, ops: int) -> Iterator[tuple[int, int]]:
    """The first operations in pieces that have no more faults than there is room for in a log."""
    program = run.compiled.program
    kind, start, end = (np.asarray(x)[:ops] for x in (program.kind, program.start, program.end))
    most = np.where(kind <= WILLNEED, end - start, 0).cumsum(dtype=np.int64)
    return pieces(((most, RECORDS),), 0, ops)


def used_pages(
    page: Int32[np.ndarray, " events"],
    time: Int32[np.ndarray, " events"],
    words: Int32[np.ndarray, "faults words"],
) -> Int64[np.ndarray, " faults"]:
    """Of the pages that each fault brought, how many were accessed before they left memory, or until the end.

    page, time: as `events_of` has them. words: records of faults, in order. A page was used if, when it is
    accessed next, no later fault has had to do with it yet: a page that is there has none.
    """
    number = np.arange(len(words))
    now, page_of, got, run = (
        words[:, word].astype(np.int64) for word in (Word.NOW, Word.PAGE, Word.GOT, Word.RUN)
    )
    pages = (1 << got) + run - 1
    first = page_of >> got << got
    owner = np.repeat(number, pages)
    brought = np.repeat(first - np.cumsum(pages) + pages, pages) + np.arange(pages.sum())

    accesses = time & 1 == 1
    access_key = page[accesses].astype(np.int64) << 32 | time[accesses] >> 1
    at = np.searchsorted(access_key, brought << 32 | now[owner] + 1)
    key = np.append(access_key, -1)[at]
    again = np.where(key >> 32 == brought, key & 0xFFFF_FFFF, _NEVER)

    fault_key = np.sort(brought << 32 | owner)
    at = np.searchsorted(fault_key, (brought << 32 | owner) + 1)
    key = np.append(fault_key, -1)[at]
    later = key >> 32 == brought
    left = np.where(later, now[np.where(later, key & 0xFFFF_FFFF, 0)], _NEVER)
    at_once = (brought >= page_of[owner]) & (brought < (page_of + run)[owner])
    used = at_once | ((again < _NEVER) & (left > again))
    return np.bincount(owner, used, minlength=len(number)).astype(np.int64)


def cases_of(faults: Faults) -> Cases:
    """The orders that the heuristic tried at swap-in."""
    asked = np.flatnonzero((faults[Word.SWAPIN] == 1) & (faults[Word.OFFERED] != 0))
    orders = np.array(ORDERS)
    failed = faults[Word.FAILED][asked, None] >> orders & 1 == 1
    got = faults[Word.GOT][asked, None] == orders
    row, column = np.nonzero(failed | got)
    row, order = asked[row], orders[column]
    vain = (faults[Word.FAILED][row] >> order & 1) == 1
    features = _features(faults.words[row], order.astype(np.int32))
    return Cases(np.asarray(features), order, vain, np.where(vain, 0, faults.used[row]))


@jax.jit
def _features(
    words: Int32[Array, "cases words"], order: Int32[Array, " cases"]
) -> Int32[Array, "cases weights"]:
    """What the linear rule weighs."""

    def mask(word: Word) -> UInt32[Array, " cases"]:
        return lax.bitcast_convert_type(words[:, word], jnp.uint32)

    none = jnp.zeros_like(order).astype(jnp.uint32)
    seen = near(jnp.zeros(order.shape, bool), none, none, none)._replace(
        headroom=words[:, Word.HEADROOM],
        fill=words[:, Word.FILL],
        recent=words[:, Word.RECENT] == 1,
        present=mask(Word.PRESENT),
        young=mask(Word.YOUNG),
    )
    memory = jnp.zeros((MEMORY_WORDS, *order.shape), jnp.int32).at[0].set(words[:, Word.LUCK])
    return weighed(memory, seen, order).T


def joined(faults: Sequence[Faults]) -> Faults:
    """Faults of several replays as one's."""
    return Faults(np.concatenate([one.words for one in faults]), np.concatenate([one.used for one in faults]))


def harvest(
    workload: Workload,
    lane: Lane,
    profile: str = "7.3",
    share: float = 1.0,
    progress: Progress | None = None,
) -> Cases:
    """The cases of a workload on a machine, whose heuristic does not matter: all orders its explorers tried.

    Raises InputError as `faults_of` does, and for a lane without a large size.
    """
    lanes = explorers(lane)
    if not lanes:
        raise InputError("mthp: no size is enabled, so there is no order to learn anything of")
    faults, _ = faults_of(workload, lanes, profile, share, progress)
    return cases_of(joined(faults))
