"""Many lanes of CPUs on one range of swap slots, each under its own schedule: the path as discrete events.

The steps are those of :mod:`jaxswap.race.steps` (which names the kernel functions), written a second time:
there an actor has one kind and target in all states, a step gives every way on, and a state is packed into
the bits that 16 slots need; here each lane has other kinds and targets, one way is drawn, nothing is
copied, and a lane has up to 512 slots and 64 CPUs. That both are the same path is tested: ``Steps`` accepts
the steps of a lane and ends in its slots, counts and pages.

Whose step ends first goes on, then the lower number. A step is done as its time ends. One under the cluster
lock (a lane lies in one cluster) waits for who asked for the lock before; one that finds the page-table
lock or the folio lock taken waits, and who waits longest is next. A CPU that finds its page mapped, or
gone, when it begins does not fault.
"""

from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int, UInt64

from jaxswap.race.draws import LOCKED, STEP_OF, Times, drawn, quantile, share, streams
from jaxswap.race.state import FREE, MAPPED, MAPPING, NONE, PC, PCS, SHADOW, SWAP, ZAPPING
from jaxswap.swaptable.forms import Form
from jaxswap.swaptable.geometry import EBUSY, EEXIST, ENOENT, ENOMEM

IN_FOLIO = SHADOW + 1
"""Words here: free, a shadow, ``IN_FOLIO + k``. No count depends on what a shadow says."""
OTHERS = ("freeing", "readahead", "zswap", "shmem", "swapout")
"""Who does not fault; the share of CPUs of each is a field of :class:`Crowd`."""
FAULT, FREEING, READAHEAD, ZSWAP, SHMEM, SWAPOUT = range(6)
ARRIVE = len(PCS)
"""Before the first step of the path."""
STEPS = (*PCS, "ARRIVE")
NEVER = np.iinfo(np.int64).max
ERRORS = (0, -ENOENT, -EBUSY, -EEXIST)
CHECKS = ("first", "second")
LOCK_STEPS = tuple(pc for pc in PCS if pc in LOCKED)
OCTAVE = 8
"""Bins of a doubling of the window."""
_BINS = 48 * OCTAVE
_NOBODY = -1
_FREE_TO_GO, _FOR_PTL, _FOR_FOLIO = range(3)

Index = Int[np.ndarray, "m"]
Which = Bool[np.ndarray, "m"]
Event = tuple[int, int, int, str]
"""Lane, time, actor, step."""


@dataclass(frozen=True)
class Crowd:
    """Who is in a lane and what happens to them; all but the lane's draws."""

    form: Form
    cpus: int
    orders: int
    """Mask offered to a fault; order 0 among them."""
    slots: int
    """Power of two; all of the range is swapped out, page i to slot i."""
    hot_slots: int
    hot: float
    """Share of CPUs that go for the first ``hot_slots`` slots, any of them; the others for any slot."""
    readahead: float
    freeing: float
    """Shares of CPUs that read ahead at order 0, and that free a range of an order offered, not fault."""
    frame_fails: tuple[float, ...]
    """Share of allocations that fail, of each order."""
    charge_fails: float
    times: Times
    zswap: float = 0.0
    shmem: float = 0.0
    swapout: float = 0.0
    """Shares that write a page of zswap back, swap in shared memory of one order offered, and give a range of
    an order, if it is free, to a folio of other pages."""

    @property
    def top(self) -> int:
        """The highest order offered."""
        return self.orders.bit_length() - 1


@dataclass
class Counts:
    """What happened in lanes together; arrays by order end with it."""

    orders: int
    faults: int = 0
    lanes: int = 0
    events: int = 0
    """Steps; beginning is one."""
    retries: int = 0
    """Looked up again after -EEXIST, with or without a folio in hand."""
    below_0: int = 0
    """Went on with order -1."""
    check: np.ndarray = field(init=False)
    """[first or second, :data:`ERRORS`, order]; before phase IV that of the insertion is the second."""
    frames: np.ndarray = field(init=False)
    no_frame: np.ndarray = field(init=False)
    no_charge: np.ndarray = field(init=False)
    inserted: np.ndarray = field(init=False)
    thrown: np.ndarray = field(init=False)
    """Frames that were had and are freed because the range is not as it was."""
    dropped: np.ndarray = field(init=False)
    """Read, then out of the cache as it cannot be mapped whole."""
    fallback: np.ndarray = field(init=False)
    """``swpin_fallback``."""
    locks: np.ndarray = field(init=False)
    """[acquisitions, nanoseconds held, nanoseconds waited; :data:`LOCK_STEPS`]."""
    window: np.ndarray = field(init=False)
    """[order, bin]: nanoseconds from the first check, passed (before phase IV from the look at the range, of
    readahead at the slot), to the second, if it is passed; bin b holds 2 ** (b / 8) to 2 ** ((b + 1) / 8)."""

    def __post_init__(self) -> None:
        shapes = {
            "check": (len(CHECKS), len(ERRORS), self.orders),
            "locks": (3, len(LOCK_STEPS)),
            "window": (self.orders, _BINS),
        }
        for one in fields(self):
            if not one.init:
                setattr(self, one.name, np.zeros(shapes.get(one.name, self.orders), np.int64))

    def add(self, other: "Counts") -> None:
        for one in fields(self):
            if one.name != "orders":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


class Lanes:
    """Lanes of a crowd, by number, from the start until every actor has returned."""

    def __init__(
        self, crowd: Crowd, seed: int, lanes: Int[np.ndarray, "n"], trace: list[Event] | None = None
    ) -> None:
        self.crowd, self.form, self.trace = crowd, crowd.form, trace
        n, cpus, slots = len(lanes), crowd.cpus, crowd.slots
        self.counts = Counts(crowd.top + 1)
        self.step = {PC[name]: getattr(self, name) for name in PCS if hasattr(self, name)} | {
            ARRIVE: self.ARRIVE
        }
        self.locked_step = np.array([name in LOCKED for name in PCS])
        self.lock_number = np.array([LOCK_STEPS.index(name) if name in LOCKED else 0 for name in PCS])
        self._tables()
        self.lane = lanes
        self.stream = streams(seed, lanes, cpus)
        self.word = np.full((n, slots), SHADOW, np.int16)
        self.count = np.ones((n, slots), bool)
        self.pte = np.full((n, slots), SWAP, np.int16)
        self.pc, self.order, self.size_of_range = (np.zeros((n, cpus), np.int8) for _ in range(3))
        self.mask = np.zeros((n, cpus), np.int16)
        self.whole = np.zeros((n, cpus), bool)
        self.found = np.full((n, cpus), _NOBODY, np.int16)
        self.since = np.zeros((n, cpus), np.int64)  # when the range was last found fit
        self.steps = np.zeros((n, cpus), np.int64)  # done
        self.at = np.zeros((n, cpus), np.int64)  # when the step ends
        self.refs = np.zeros((n, cpus), np.int16)
        self.size = np.zeros((n, cpus), np.int8)
        self.locked, self.anon, self.cached = (np.zeros((n, cpus), bool) for _ in range(3))
        self.waits = np.zeros((n, cpus), np.int8)
        self.for_ptl = np.zeros(n, np.int64)  # how many wait for it
        self.ptl = np.full(n, _NOBODY, np.int16)
        self.now, self.cluster_free = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._people()
        self.next = self.at.copy()  # NEVER for who waits or has returned

    def _tables(self) -> None:
        times = self.crowd.times
        orders = self.crowd.top + 1
        self.start_time = times["start"].table(1)[0]
        self.time = np.ones((len(PCS), orders, len(self.start_time)), np.int32)
        for name, its in STEP_OF.items():
            for pc in its:
                self.time[PC[pc]] = times[name].table(orders)
        self.frame_fails = np.array(self.crowd.frame_fails)

    def _people(self) -> None:
        """Kind, target and start of every actor: draws 0 to 2 of its stream."""
        crowd = self.crowd
        who, where, when = (drawn(self.stream, np.array([number])) for number in range(3))
        self.steps[:] = 3
        kind = np.full(who.shape, FAULT, np.int8)
        end = 0.0
        ends = [end := end + getattr(crowd, name) for name in OTHERS]
        for number in reversed(range(len(OTHERS))):
            kind[share(who) < ends[number]] = number + 1
        room = np.where(share(where) < crowd.hot, crowd.hot_slots, crowd.slots)
        target = quantile(where) * room >> 12
        offered = np.array([order for order in range(crowd.top + 1) if crowd.orders >> order & 1])
        order = offered[quantile(who) * len(offered) >> 12]
        ranges = (kind == FREEING) | (kind == SWAPOUT)
        self.kind = kind
        self.target = np.where(ranges, target >> order << order, target)
        self.size_of_range[:] = np.where(ranges, order, 0)
        self.offered = np.where(kind == SHMEM, 1 << order, crowd.orders).astype(np.int16)
        self.pc[:] = ARRIVE
        self.mask[(kind == READAHEAD) | (kind == ZSWAP)] = 1
        shmem = kind == SHMEM
        self.mask[shmem] = self.offered[shmem] | int(self.form.adds_order_0)
        self.at[:] = self.start_time[quantile(when)]
        self.counts.lanes = len(kind)

    def run(self) -> Counts:
        """Until all have returned."""
        while len(self.lane):
            actor = self.next.argmin(1)
            time = self.next[np.arange(len(actor)), actor]
            going = time != NEVER
            live = int(going.sum())
            if live < 0.7 * len(actor):
                self._keep(going)
                actor, time = actor[going], time[going]
                rows = np.arange(live)
            else:
                rows = np.flatnonzero(going)
                actor, time = actor[rows], time[rows]
            if live:
                self._events(rows, actor, time)
        return self.counts

    def _keep(self, going: Bool[np.ndarray, "n"]) -> None:
        assert (self.pc[~going] == PC["DONE"]).all(), "somebody waits for ever"
        n = len(self.lane)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and len(value) == n and name not in _NOT_BY_LANE:
                setattr(self, name, value[going])

    def _events(self, rows: Index, actor: Index, time: Index) -> None:
        """One step in each of these lanes."""
        self.now[rows] = np.maximum(self.now[rows], time)
        bits = drawn(self.stream[rows, actor], self.steps[rows, actor])
        pc = self.pc[rows, actor]
        turn = np.argsort(pc, kind="stable")
        rows, actor, bits, pc = rows[turn], actor[turn], bits[turn], pc[turn]
        edges = [0, *(np.flatnonzero(np.diff(pc)) + 1).tolist(), len(pc)]
        went = np.ones(len(pc), bool)
        for first, last in pairwise(edges):
            part = slice(first, last)
            done = self.step[int(pc[first])](rows[part], actor[part], bits[part])
            if done is not None:
                went[part] = done
        rows, actor, bits = rows[went], actor[went], bits[went]
        self.counts.events += len(rows)
        if self.trace is not None:
            for row, a, one in zip(rows, actor, pc[went], strict=True):
                self.trace.append((int(self.lane[row]), int(self.now[row]), int(a), STEPS[one]))
        self._schedule(rows, actor, bits)
        waited = np.flatnonzero((self.for_ptl > 0) & (self.ptl == _NOBODY))
        if len(waited):
            self._wake(waited, self.waits[waited] == _FOR_PTL)

    def _schedule(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        """When the next step of each ends."""
        self.steps[rows, actor] += 1
        pc, now = self.pc[rows, actor], self.now[rows]
        takes = self.time[pc, self.order[rows, actor], quantile(bits)].astype(np.int64)
        locked = self.locked_step[pc]
        begin = np.where(locked, np.maximum(now, self.cluster_free[rows]), now)
        end = begin + takes
        self.cluster_free[rows[locked]] = end[locked]
        number = self.lock_number[pc[locked]]
        for row, amount in enumerate((None, takes[locked], (begin - now)[locked])):
            # exact: far below 2 ** 53 nanoseconds
            self.counts.locks[row] += np.bincount(number, amount, len(LOCK_STEPS)).astype(np.int64)
        self.at[rows, actor] = end
        self.next[rows, actor] = np.where(pc == PC["DONE"], NEVER, end)

    # Waiting

    def _wait(self, rows: Index, actor: Index, free: Which, what: int) -> None:
        rows, actor = rows[~free], actor[~free]
        self.waits[rows, actor] = what
        self.next[rows, actor] = NEVER
        if what == _FOR_PTL:
            self.for_ptl[rows] += 1

    def _wake(self, rows: Index, who: Bool[np.ndarray, "m cpus"]) -> None:
        """Of each lane who waits longest of those."""
        some = who.any(1)
        rows, who = rows[some], who[some]
        actor = np.where(who, self.at[rows], NEVER).argmin(1)
        self.for_ptl[rows] -= self.waits[rows, actor] == _FOR_PTL
        self.waits[rows, actor] = _FREE_TO_GO
        self.next[rows, actor] = self.at[rows, actor]

    def _unlock(self, rows: Index, folio: Index) -> None:
        self.locked[rows, folio] = False
        self._wake(rows, (self.waits[rows] == _FOR_FOLIO) & (self.found[rows] == folio[:, None]))

    # Parts of steps

    def _block(self, rows: Index, target: Index, order: Index) -> tuple[Index, Index, Which]:
        """[m, largest]: lanes, slots of the aligned block, and which of them are in it."""
        size = 1 << order.astype(np.int64)
        every = np.arange(int(size.max(initial=1)))
        inside = every < size[:, None]
        first = target & -size
        return rows[:, None], np.where(inside, first[:, None] + every, first[:, None]), inside

    def _own(self, rows: Index, actor: Index) -> tuple[Index, Index, Which]:
        return self._block(rows, self.target[rows, actor], self.order[rows, actor])

    def _clear(self, rows: Index, actor: Index, pc: str = "DONE") -> None:
        self.order[rows, actor] = 0
        self.mask[rows, actor] = 0
        self.whole[rows, actor] = False
        self.found[rows, actor] = _NOBODY
        self.pc[rows, actor] = PC[pc]

    def _put(self, rows: Index, folio: Index, refs: Index | int = 1) -> None:
        self.refs[rows, folio] -= np.asarray(refs, np.int16)
        gone = self.refs[rows, folio] == 0
        rows, folio = rows[gone], folio[gone]
        self.size[rows, folio] = 0
        self.locked[rows, folio] = self.anon[rows, folio] = self.cached[rows, folio] = False

    def _delete(self, rows: Index, folio: Index, target: Index) -> None:
        """Out of the cache: its slots, around the target, get a shadow, or are free."""
        lane, slot, inside = self._block(rows, target, self.size[rows, folio])
        its = inside & (self.word[lane, slot] == folio[:, None] + IN_FOLIO)
        at, which = np.nonzero(its)
        where = rows[at], slot[at, which]
        self.word[where] = np.where(self.count[where], SHADOW, FREE)
        self.cached[rows, folio] = False
        self._put(rows, folio, 1 << self.size[rows, folio].astype(np.int64))

    def _enter(self, rows: Index, actor: Index) -> None:
        folio, order = self.found[rows, actor], self.order[rows, actor]
        lane, slot, _ = self._own(rows, actor)
        # what is outside a block stands for its first slot
        self.word[np.broadcast_to(lane, slot.shape), slot] = folio[:, None] + IN_FOLIO
        self.cached[rows, folio] = self.locked[rows, folio] = True
        self.refs[rows, folio] += (1 << order.astype(np.int64)).astype(np.int16)
        self._count(self.counts.inserted, order)
        passed = np.maximum(1, self.now[rows] - self.since[rows, actor])
        bins = np.minimum((OCTAVE * np.log2(passed)).astype(np.int64), _BINS - 1)
        np.add.at(self.counts.window, (order, bins), 1)

    @staticmethod
    def _count(counts: np.ndarray, order: Index) -> None:
        counts += np.bincount(order, minlength=len(counts))

    def _get(self, rows: Index, actor: Index) -> None:
        """A look-up found the target cached: a fault holds that folio and locks it next; others return."""
        fault = self.kind[rows, actor] == FAULT
        self._clear(rows[~fault], actor[~fault])
        rows, actor = rows[fault], actor[fault]
        folio = self.word[rows, self.target[rows, actor]] - IN_FOLIO
        self._clear(rows, actor, "LOCK")
        self.refs[rows, folio] += 1
        self.found[rows, actor] = folio

    def _begin(self, rows: Index, actor: Index) -> None:
        order = _highest(self.mask[rows, actor]) if self.form.thp else 0
        self.order[rows, actor] = order
        self.pc[rows, actor] = PC["CHECK" if self.form.checks_under_lock else "FRAME"]

    def _failed(self, rows: Index, actor: Index, error: Index) -> None:
        """What ``swap_cache_alloc_folio`` and its caller do about the error of an attempt."""
        order = self.order[rows, actor].astype(np.int64)
        exists, ends = error == -EEXIST, error == -ENOENT
        down = ~exists & ~ends
        again = exists & (self.kind[rows, actor] != ZSWAP)
        ends |= exists & ~again
        counted = (down | exists if self.form.counts_eexist else down) & (order > 0)
        self._count(self.counts.fallback, order[counted])
        self.pc[rows[again], actor[again]] = PC["LOOK_AGAIN"]
        self.order[rows[again], actor[again]] = 0
        self.counts.retries += int(again.sum())
        if self.form.ends_at_order_0:
            ends |= down & (order == 0)
        left = self.mask[rows, actor].astype(np.int64)
        if self.form.thp:
            left &= (1 << order) - 1
        if self.form.ends_at_empty_mask:
            ends |= down & (left == 0)
        below_0 = down & ~ends & (left == 0)
        self.counts.below_0 += int(below_0.sum())
        ends |= below_0
        self._clear(rows[ends], actor[ends])
        down &= ~ends
        rows, actor = rows[down], actor[down]
        self.order[rows, actor] = _highest(left[down]) if self.form.thp else 0
        self.pc[rows, actor] = PC["CHECK" if self.form.checks_under_lock else "FRAME"]

    def _add_check(self, rows: Index, actor: Index, number: int) -> Index:
        """``__swap_cache_add_check``: errno of each range, counted."""
        target = self.target[rows, actor]
        lane, slot, _ = self._own(rows, actor)
        unfit = ((self.word[lane, slot] >= IN_FOLIO) | ~self.count[lane, slot]).any(1)
        error = np.where(unfit, -EBUSY, 0)
        error[~self.count[rows, target]] = -ENOENT
        error[self.word[rows, target] >= IN_FOLIO] = -EEXIST
        self._count_errors(number, error, self.order[rows, actor])
        return error

    def _count_errors(self, number: int, error: Index, order: Index) -> None:
        for which, errno in enumerate(ERRORS):
            self._count(self.counts.check[number, which], order[error == errno])

    def _throw_away(self, rows: Index, actor: Index) -> None:
        self._put(rows, self.found[rows, actor])
        self.found[rows, actor] = _NOBODY

    # The steps. Each returns which of its lanes went on; None: all.

    def ARRIVE(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        kind = self.kind[rows, actor]
        first = np.array([PC[name] for name in _FIRST], np.int8)[kind]
        swapped = self.pte[rows, self.target[rows, actor]] == SWAP
        self.pc[rows, actor] = np.where((kind == FAULT) & ~swapped, PC["DONE"], first)
        self.counts.faults += int(((kind == FAULT) & swapped).sum())
        zswap = kind == ZSWAP
        self.since[rows[zswap], actor[zswap]] = self.now[rows[zswap]]
        self._begin(rows[zswap], actor[zswap])

    def LOOK(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        hit = self.word[rows, self.target[rows, actor]] >= IN_FOLIO
        suit = self.pc[rows, actor] == PC["LOOK"]
        if not self.form.checks_under_lock:
            suit |= self.kind[rows, actor] == SHMEM
        suit &= ~hit
        again = ~hit & ~suit
        self._get(rows[hit], actor[hit])
        self.pc[rows[suit], actor[suit]] = PC["SUIT"]
        self.since[rows[again], actor[again]] = self.now[rows[again]]
        self._begin(rows[again], actor[again])

    LOOK_AGAIN = LOOK

    def SUIT(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> Which:
        free = (self.ptl[rows] == _NOBODY) | (self.kind[rows, actor] != FAULT)
        self._wait(rows, actor, free, _FOR_PTL)
        rows, actor = rows[free], actor[free]
        target, shmem = self.target[rows, actor], self.kind[rows, actor] == SHMEM
        offered = self.offered[rows, actor]
        mask = np.ones(len(rows), np.int16)
        for order in range(1, self.crowd.top + 1 if self.form.thp else 1):
            if self.crowd.orders >> order & 1:
                lane, slot, _ = self._block(rows, target, np.full(len(rows), order))
                fits = (offered >> order & 1 == 1) & ((self.pte[lane, slot] == SWAP).all(1) | shmem)
                if not self.form.checks_under_lock:
                    fits &= (self.word[lane, slot] < IN_FOLIO).all(1)
                mask[fits] |= 1 << order
        self.mask[rows, actor] = mask
        if self.form.checks_under_lock:
            self.pc[rows, actor] = PC["LOOK_AGAIN"]
        else:
            self.since[rows, actor] = self.now[rows]
            self._begin(rows, actor)
        return free

    def CHECK(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        error = self._add_check(rows, actor, 0)
        good, bad = error == 0, error != 0
        self.pc[rows[good], actor[good]] = PC["FRAME"]
        self.since[rows[good], actor[good]] = self.now[rows[good]]
        self._failed(rows[bad], actor[bad], error[bad])

    def FRAME(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        order = self.order[rows, actor]
        none = share(bits) < self.frame_fails[order]
        self._count(self.counts.no_frame, order[none])
        self._failed(rows[none], actor[none], np.full(int(none.sum()), -ENOMEM))
        had = ~none
        rows, actor, order = rows[had], actor[had], order[had]
        self._count(self.counts.frames, order)
        folio = (self.refs[rows] == 0).argmax(1)
        self.refs[rows, folio] = 1
        self.size[rows, folio] = order
        self.found[rows, actor] = folio
        self.pc[rows, actor] = PC["INSERT" if self.form.checks_under_lock else "CHARGE_FIRST"]

    def INSERT(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        error = self._add_check(rows, actor, 1)
        good, bad = error == 0, error != 0
        self._count(self.counts.thrown, self.order[rows[bad], actor[bad]])
        self._throw_away(rows[bad], actor[bad])
        self._failed(rows[bad], actor[bad], error[bad])
        self._enter(rows[good], actor[good])
        self.pc[rows[good], actor[good]] = PC["CHARGE"]

    def CHARGE(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        none = share(bits) < self.crowd.charge_fails
        self._count(self.counts.no_charge, self.order[rows[none], actor[none]])
        self.pc[rows, actor] = np.where(none, PC["UNDO"], PC["READ"])

    def UNDO(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        self._delete(rows, self.found[rows, actor], self.target[rows, actor])
        self.pc[rows, actor] = PC["RELEASE"]

    def RELEASE(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        self._unlock(rows, self.found[rows, actor])
        self._throw_away(rows, actor)
        self._failed(rows, actor, np.full(len(rows), -ENOMEM))

    def CHARGE_FIRST(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        none = share(bits) < self.crowd.charge_fails
        self._count(self.counts.no_charge, self.order[rows[none], actor[none]])
        self.pc[rows[~none], actor[~none]] = PC["ADD"]
        self._throw_away(rows[none], actor[none])
        self._failed(rows[none], actor[none], np.full(int(none.sum()), -ENOMEM))

    def ADD(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        lane, slot, _ = self._own(rows, actor)
        order = self.order[rows, actor]
        cached = self.word[lane, slot] >= IN_FOLIO
        unfit = cached | ~self.count[lane, slot]
        bad = unfit.any(1)
        exists = bad & cached[np.arange(len(rows)), unfit.argmax(1)]
        error = np.where(exists, -EEXIST, np.where(bad, -ENOENT, 0))
        self._count_errors(1, error, order)
        again = exists & (order == 0) & (self.kind[rows, actor] != ZSWAP)
        ends = bad & ~again
        self._enter(rows[~bad], actor[~bad])
        self.pc[rows[~bad], actor[~bad]] = PC["READ"]
        self.pc[rows[again], actor[again]] = PC["LOOK_HOLDING"]
        self.counts.retries += int(again.sum())
        self._count(self.counts.thrown, order[ends])
        self._throw_away(rows[ends], actor[ends])
        self._clear(rows[ends], actor[ends])

    def LOOK_HOLDING(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        hit = self.word[rows, self.target[rows, actor]] >= IN_FOLIO
        self.pc[rows[~hit], actor[~hit]] = PC["ADD"]
        rows, actor = rows[hit], actor[hit]
        self._count(self.counts.thrown, self.order[rows, actor])
        self._throw_away(rows, actor)
        self._get(rows, actor)

    def READ(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        folio = self.found[rows, actor]
        self._unlock(rows, folio)
        fault = self.kind[rows, actor] == FAULT
        self._clear(rows[fault], actor[fault], "LOCK")
        self.found[rows[fault], actor[fault]] = folio[fault]
        self._put(rows[~fault], folio[~fault])
        self._clear(rows[~fault], actor[~fault])

    def LOCK(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> Which:
        free = ~self.locked[rows, self.found[rows, actor]]
        self._wait(rows, actor, free, _FOR_FOLIO)
        rows, actor = rows[free], actor[free]
        folio = self.found[rows, actor]
        self.locked[rows, folio] = True
        matches = self.word[rows, self.target[rows, actor]] == folio + IN_FOLIO
        self.pc[rows, actor] = np.where(matches, PC["PTL"], PC["BACK"])
        return free

    def PTL(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> Which:
        free = self.ptl[rows] == _NOBODY
        self._wait(rows, actor, free, _FOR_PTL)
        rows, actor = rows[free], actor[free]
        self.ptl[rows] = actor
        folio, target = self.found[rows, actor], self.target[rows, actor]
        size = self.size[rows, folio]
        same = self.pte[rows, target] == SWAP
        lane, slot, _ = self._block(rows, target, size)
        whole = same & (self.pte[lane, slot] == SWAP).all(1)
        drop = same & ~whole & (size > 0) & ~self.anon[rows, folio]
        self.whole[rows, actor] = whole
        self.pc[rows, actor] = np.where(drop, PC["DROP"], np.where(same, PC["PUT"], PC["BACK"]))
        return free

    def DROP(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        folio = self.found[rows, actor]
        self._count(self.counts.dropped, self.size[rows, folio])
        self._delete(rows, folio, self.target[rows, actor])
        self.pc[rows, actor] = PC["BACK"]

    def PUT(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        size = np.where(self.whole[rows, actor], self.size[rows, self.found[rows, actor]], 0)
        lane, slot, _ = self._block(rows, self.target[rows, actor], size)
        self.count[np.broadcast_to(lane, slot.shape), slot] = False
        self.pte[np.broadcast_to(lane, slot.shape), slot] = MAPPING
        self.whole[rows, actor] = False
        self.pc[rows, actor] = PC["MAP"]

    def MAP(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        folio, target = self.found[rows, actor], self.target[rows, actor]
        lane, slot, inside = self._block(rows, target, self.size[rows, folio])
        at, which = np.nonzero(inside & (self.pte[lane, slot] == MAPPING))
        self.pte[rows[at], slot[at, which]] = folio[at] + MAPPED
        self.refs[rows, folio] += np.bincount(at, minlength=len(rows)).astype(np.int16)
        self.anon[rows, folio] = True
        self.pc[rows, actor] = PC["FREE"]

    def FREE(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        folio, target = self.found[rows, actor], self.target[rows, actor]
        lane, slot, _ = self._block(rows, target, self.size[rows, folio])
        unused = ~self.count[lane, slot].any(1)
        self._delete(rows[unused], folio[unused], target[unused])
        self.pc[rows, actor] = PC["BACK"]

    def BACK(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        folio = self.found[rows, actor]
        self._unlock(rows, folio)
        mine = self.ptl[rows] == actor
        self.ptl[rows[mine]] = _NOBODY
        self._put(rows, folio)
        self._clear(rows, actor)

    def _range(self, rows: Index, actor: Index) -> tuple[Index, Index, Which]:
        return self._block(rows, self.target[rows, actor], self.size_of_range[rows, actor])

    def ZAP(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> Which:
        free = self.ptl[rows] == _NOBODY
        self._wait(rows, actor, free, _FOR_PTL)
        rows, actor = rows[free], actor[free]
        _, slot, inside = self._range(rows, actor)
        for which in range(slot.shape[1]):
            pte = np.where(inside[:, which], self.pte[rows, slot[:, which]], NONE)
            mapped, swap = pte >= MAPPED, pte == SWAP
            self._put(rows[mapped], pte[mapped] - MAPPED)
            self.pte[rows[mapped], slot[mapped, which]] = NONE
            self.pte[rows[swap], slot[swap, which]] = ZAPPING
        some = (self.pte[rows[:, None], slot] == ZAPPING).any(1)
        self.ptl[rows[some]] = actor[some]
        self.pc[rows[some], actor[some]] = PC["PUT_ZAPPED"]
        self._clear(rows[~some], actor[~some])
        return free

    def PUT_ZAPPED(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        lane, slot, inside = self._range(rows, actor)
        at, which = np.nonzero(inside & (self.pte[lane, slot] == ZAPPING))
        where = rows[at], slot[at, which]
        self.pte[where] = NONE
        self.count[where] = False
        self.word[where] = np.where(self.word[where] < IN_FOLIO, FREE, self.word[where])
        self.pc[rows, actor] = PC["RECLAIM"]

    def RECLAIM(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        lane, slot, inside = self._range(rows, actor)
        lane = np.broadcast_to(lane, slot.shape)
        folio = self.word[lane, slot] - IN_FOLIO
        at, which = np.nonzero(inside & (folio >= 0))
        row, its, one = rows[at], folio[at, which], slot[at, which]
        around, slots, _ = self._block(row, one, self.size[row, its])
        used = self.count[around, slots] | (self.pte[around, slots] == its[:, None] + MAPPED)
        idle = ~self.locked[row, its] & ~used.any(1)
        # one a step, the lowest number first
        number = np.full(slot.shape, NEVER)
        number[at[idle], which[idle]] = its[idle]
        lowest = number.argmin(1)
        every = np.arange(len(rows))
        some = number[every, lowest] != NEVER
        self._delete(rows[some], number[every, lowest][some], slot[every, lowest][some])
        self.ptl[rows[~some]] = _NOBODY
        self._clear(rows[~some], actor[~some])

    def SLOT(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        lane, slot, _ = self._range(rows, actor)
        room = (self.word[lane, slot] == FREE).all(1)
        self._clear(rows[~room], actor[~room])
        rows, actor = rows[room], actor[room]
        lane, slot, _ = self._range(rows, actor)
        folio, order = (self.refs[rows] == 0).argmax(1), self.size_of_range[rows, actor]
        # one reference of reclaim, one a page table entry of its own pages, one a slot
        self.refs[rows, folio] = 1 + (2 << order.astype(np.int64))
        self.size[rows, folio] = order
        self.locked[rows, folio] = self.anon[rows, folio] = self.cached[rows, folio] = True
        self.word[np.broadcast_to(lane, slot.shape), slot] = folio[:, None] + IN_FOLIO
        self.found[rows, actor] = folio
        self.pc[rows, actor] = PC["UNMAP"]

    def UNMAP(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        lane, slot, _ = self._range(rows, actor)
        self.count[np.broadcast_to(lane, slot.shape), slot] = True
        self._put(rows, self.found[rows, actor], 1 << self.size_of_range[rows, actor].astype(np.int64))
        self.pc[rows, actor] = PC["LEAVE"]

    def LEAVE(self, rows: Index, actor: Index, bits: UInt64[np.ndarray, "m"]) -> None:
        folio, target = self.found[rows, actor], self.target[rows, actor]
        alone = self.refs[rows, folio] == 1 + (1 << self.size_of_range[rows, actor].astype(np.int64))
        self._unlock(rows, folio)
        self._delete(rows[alone], folio[alone], target[alone])
        self._put(rows, folio)
        self._clear(rows, actor)


_FIRST = ("LOOK", "ZAP", "LOOK_AGAIN", "DONE", "LOOK_AGAIN", "SLOT")
"""Step after the beginning, by kind; writeback begins an allocation."""
_NOT_BY_LANE = frozenset({"time", "start_time", "frame_fails", "locked_step", "lock_number"})


def _highest(mask: Index) -> Index:
    """Highest order of each mask; 0 for an empty one."""
    return np.frexp(np.maximum(mask, 1).astype(np.float64))[1].astype(np.int64) - 1
