"""The path as atomic steps, for many states at once.

What the kernel does under one lock is one step. Sources, Linux 7.2 / 7.3: mm/memory.c ``do_swap_page``,
``thp_swapin_suitable_orders``, ``zap_pte_range``; mm/swap_state.c ``swap_cache_get_folio``, ``swapin_sync``,
``__swap_cache_add_check``, ``__swap_cache_alloc``, ``swap_cache_alloc_folio``, ``swap_cache_del_folio``;
mm/swapfile.c ``folio_free_swap``, ``swap_put_entries_direct``, ``folio_alloc_swap``; mm/vmscan.c
``__remove_mapping``. Of Linux 7.0 / 7.1, for forms that do not check under the lock: mm/memory.c
``alloc_swap_folio``, mm/swap_state.c ``swapin_folio``.

A step takes states in which its actor may be at it, and gives every state that can follow. Frames and charges
can be had or not: where they cannot there are two ways to go on, one in which they may be had later
(*transient*) and one in which memory is gone for good (``no_memory``). A caller that walks one interleaving
instead of all takes one of the ways.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxswap.race.start import Start
from jaxswap.race.state import (
    FREE,
    IN_FOLIO,
    MAPPED,
    MAPPING,
    NONE,
    OUT,
    PC,
    PCS,
    SHADOW,
    SWAP,
    ZAPPING,
    Layout,
    States,
)
from jaxswap.swaptable.forms import Form
from jaxswap.swaptable.geometry import EBUSY, EEXIST, ENOENT, ENOMEM

FLAWS = (
    "",
    "goes on with order -1",
    "slot in two folios",
    "folio over a free slot",
    "undo with another shadow",
    "fallback counted on -EEXIST",
)
"""What a step itself can do wrong, by number."""
BELOW_0, TWO_FOLIOS, OVER_FREE, OTHER_SHADOW, COUNTED_EEXIST = range(1, 6)

Index = Int[np.ndarray, "n"]
Which = Bool[np.ndarray, "n"]
Numbers = UInt8[np.ndarray, "n"]


@dataclass
class Way:
    """One way to go on."""

    rows: Index
    """Of which of the states given."""
    states: States
    flaw: Numbers | None = None
    """Number in :data:`FLAWS`."""
    transient: bool = False


class Steps:
    """The steps of a form for the actors of one start."""

    def __init__(self, form: Form, start: Start, slots: int) -> None:
        self.form, self.start = form, start
        self.layout = Layout(len(start), slots)
        self.step = {PC[name]: getattr(self, name) for name in PCS[1:]}
        every = np.arange(slots)
        top = slots.bit_length()
        self.blocks = [
            np.array([every >> order == actor.target >> order for order in range(top)]) for actor in start
        ]
        """Per actor [orders, slots]: the aligned block around its target."""
        self.ranges = [block[actor.order] for block, actor in zip(self.blocks, start, strict=True)]

    def first(self) -> States:
        """The one state in which nobody has done anything: page i swapped out to slot i with count 1. The
        shadows of the left and of the right half differ."""
        states = States(self.layout, np.zeros((len(self.layout.bits), 1), np.uint8))
        half = self.layout.slots // 2
        states.slots[:half], states.slots[half:] = SHADOW + 1, SHADOW + 2
        states.counts[:], states.ptes[:] = 1, SWAP
        one = np.ones(1, bool)
        for a, actor in enumerate(self.start):
            name = {"fault": "LOOK", "freeing": "ZAP", "swapout": "SLOT"}.get(actor.kind, "LOOK_AGAIN")
            states.pc[a] = PC[name]
            if actor.kind in ("readahead", "zswap", "shmem"):
                states.mask[a] = actor.orders | self.form.adds_order_0
            if actor.kind == "zswap":
                self._begin(states, a, one)
        return states

    def go(self, states: States, a: int, pc: int) -> list[Way]:
        """Every way on for actor ``a`` of states in which it is at ``pc``. Not changed: ``states``."""
        return self.step[pc](states, a)

    # Parts of steps. ``which`` says in which states they happen.

    def _block(self, a: int, order: Numbers) -> Bool[np.ndarray, "slots n"]:
        return self.blocks[a].T[:, order]

    def _clear(self, s: States, a: int, which: Which, pc: str = "DONE") -> None:
        for row in (s.order[a], s.mask[a], s.shadow[a], s.found[a], s.whole[a]):
            row[which] = 0
        s.pc[a][which] = PC[pc]

    def _put(self, s: States, folio: Numbers, refs: Numbers | int, which: Which) -> None:
        at = np.flatnonzero(which)
        number = folio[at]
        s.refs[number, at] -= refs if isinstance(refs, int) else refs[at]
        gone = s.refs[number, at] == 0
        number, at = number[gone], at[gone]
        for rows in (s.size, s.locked, s.anon, s.cached):
            rows[number, at] = 0

    def _delete(self, s: States, folio: Numbers, shadow: Numbers | int, which: Which) -> None:
        """``__swap_cache_del_folio``: its slots get the shadow, or are free if nobody counts on them."""
        its = (s.slots == folio + IN_FOLIO) & which
        left = np.where(s.counts > 0, SHADOW + np.asarray(shadow, np.uint8), FREE)
        np.copyto(s.slots, left.astype(np.uint8), where=its)
        at = np.flatnonzero(which)
        s.cached[folio[at], at] = 0
        size = s.size[folio, np.arange(s.n)]
        self._put(s, folio, (1 << size).astype(np.uint8), which)

    def _enter(self, s: States, a: int, which: Which) -> None:
        """The folio in hand over the block of its order, locked, a reference a slot."""
        folio = s.found[a] - 1
        its = self._block(a, s.order[a]) & which
        np.copyto(s.slots, folio + IN_FOLIO, where=its)
        at = np.flatnonzero(which)
        number = folio[at]
        s.cached[number, at] = s.locked[number, at] = 1
        s.refs[number, at] += (1 << s.order[a][at]).astype(np.uint8)

    def _get(self, s: States, a: int, which: Which) -> None:
        """A look-up found the target cached: hold that folio, and lock it next."""
        at = np.flatnonzero(which)
        number = s.slots[self.start[a].target][at] - IN_FOLIO
        self._clear(s, a, which, "LOCK")
        s.refs[number, at] += 1
        s.found[a][at] = number + 1

    def _begin(self, s: States, a: int, which: Which) -> None:
        s.order[a][which] = _highest(s.mask[a])[which] if self.form.thp else 0
        s.pc[a][which] = PC["CHECK" if self.form.checks_under_lock else "FRAME"]

    def _failed(self, s: States, a: int, error: Int[np.ndarray, "n"]) -> Numbers:
        """What ``swap_cache_alloc_folio`` and its caller do about the error of an attempt (0: nothing)."""
        flaw = np.zeros(s.n, np.uint8)
        exists = error == -EEXIST
        if self.form.counts_eexist:
            flaw[exists & (s.order[a] > 0)] = COUNTED_EEXIST
        if self.start[a].kind == "zswap":
            ends = exists | (error == -ENOENT)
        else:
            ends = error == -ENOENT
            s.pc[a][exists] = PC["LOOK_AGAIN"]
            s.order[a][exists] = 0
        down = (error == -EBUSY) | (error == -ENOMEM)
        if self.form.ends_at_order_0:
            ends |= down & (s.order[a] == 0)
        left = s.mask[a]
        if self.form.thp:
            left = left & (1 << s.order[a]) - 1
        if self.form.ends_at_empty_mask:
            ends |= down & (left == 0)
        below_0 = down & ~ends & (left == 0)
        flaw[below_0] = BELOW_0
        ends |= below_0
        self._clear(s, a, ends)
        down &= ~ends
        s.order[a][down] = _highest(left)[down] if self.form.thp else 0
        s.pc[a][down] = PC["CHECK" if self.form.checks_under_lock else "FRAME"]
        return flaw

    def add_check(self, s: States, a: int) -> Int[np.ndarray, "n"]:
        """``__swap_cache_add_check`` for the target and the order in hand; all zero flags and memcg ids are
        the same."""
        target = self.start[a].target
        unfit = (s.slots >= IN_FOLIO) | (s.counts == 0)
        busy = (unfit & self._block(a, s.order[a])).any(0)
        error = np.where(busy, -EBUSY, 0)
        error = np.where(s.counts[target] == 0, -ENOENT, error)
        return np.where(s.slots[target] >= IN_FOLIO, -EEXIST, error)

    def _without_memory(self, states: States, a: int) -> list[Way]:
        """The attempt fails for want of memory, once or for good."""
        ways = []
        for last in (False, True):
            rows = np.flatnonzero(states.no_memory == 0) if not last else np.arange(states.n)
            s = states.take(rows)
            s.no_memory[:] = last
            every = np.ones(s.n, bool)
            flaw = None
            if s.n and s.pc[a][0] == PC["CHARGE"]:
                s.pc[a] = PC["UNDO"]
            else:
                held = s.found[a] > 0
                self._put(s, s.found[a] - 1, 1, held)
                s.found[a] = 0
                flaw = self._failed(s, a, np.where(every, -ENOMEM, 0))
            ways.append(Way(rows, s, flaw, transient=not last))
        return ways

    def _with_memory(self, states: States) -> tuple[Index, States]:
        rows = np.flatnonzero(states.no_memory == 0)
        return rows, states.take(rows)

    # The steps.

    def LOOK(self, states: States, a: int) -> list[Way]:
        """``swap_cache_get_folio``."""
        s = states.copy()
        hit = s.slots[self.start[a].target] >= IN_FOLIO
        kind = self.start[a].kind
        miss = ~hit
        suit = states.pc[a] == PC["LOOK"]
        if kind == "shmem" and not self.form.checks_under_lock:
            suit = miss | suit
        if kind == "fault":
            self._get(s, a, hit)
        else:
            self._clear(s, a, hit)
        s.pc[a][miss & suit] = PC["SUIT"]
        self._begin(s, a, miss & ~suit)
        return [Way(np.arange(s.n), s)]

    LOOK_AGAIN = LOOK

    def SUIT(self, states: States, a: int) -> list[Way]:
        """``thp_swapin_suitable_orders`` under the page-table lock; of forms without check under the lock
        also the look at the swap cache of the range (for shmem that alone)."""
        fault = self.start[a].kind == "fault"
        rows = np.flatnonzero(states.ptl == 0) if fault else np.arange(states.n)
        s = states.take(rows)
        unfit = np.zeros(s.slots.shape, bool)
        if fault:
            unfit |= s.ptes != SWAP
        if not self.form.checks_under_lock:
            unfit |= s.slots >= IN_FOLIO
        mask = np.ones(s.n, np.uint8)
        offered = self.start[a].orders if self.form.thp else 1
        for order in range(1, offered.bit_length()):
            if offered >> order & 1:
                fits = ~unfit[self.blocks[a][order]].any(0)
                mask[fits] |= 1 << order
        s.mask[a] = mask
        if self.form.checks_under_lock:
            s.pc[a] = PC["LOOK_AGAIN"]
        else:
            self._begin(s, a, np.ones(s.n, bool))
        return [Way(rows, s)]

    def CHECK(self, states: States, a: int) -> list[Way]:
        """Lock, ``__swap_cache_add_check``, unlock."""
        s = states.copy()
        error = self.add_check(s, a)
        s.pc[a][error == 0] = PC["FRAME"]
        return [Way(np.arange(s.n), s, self._failed(s, a, error))]

    def FRAME(self, states: States, a: int) -> list[Way]:
        """``folio_alloc_mpol`` or ``vma_alloc_folio``."""
        rows, s = self._with_memory(states)
        number = (s.refs == 0).argmax(0).astype(np.uint8)
        at = np.arange(s.n)
        s.refs[number, at] = 1
        s.size[number, at] = s.order[a]
        s.found[a] = number + 1
        s.pc[a] = PC["INSERT" if self.form.checks_under_lock else "CHARGE_FIRST"]
        return [Way(rows, s), *self._without_memory(states, a)]

    def INSERT(self, states: States, a: int) -> list[Way]:
        """Lock, ``__swap_cache_add_check`` again, put the folio in the cache, unlock; or free the folio."""
        s = states.copy()
        error = self.add_check(s, a) if self.form.second_check else np.zeros(s.n, np.int64)
        bad = error != 0
        good = ~bad
        self._put(s, s.found[a] - 1, 1, bad)
        s.found[a][bad] = 0
        block = self._block(a, s.order[a])
        word = s.slots[self.start[a].target].copy()
        free = (block & (s.counts == 0)).any(0) & good
        two = (block & (s.slots >= IN_FOLIO)).any(0) & good
        shadowed = good & (word >= SHADOW) & (word < IN_FOLIO)
        s.shadow[a][shadowed] = word[shadowed] - SHADOW
        self._enter(s, a, good)
        s.pc[a][good] = PC["CHARGE"]
        flaw = self._failed(s, a, error)
        flaw[free], flaw[two] = OVER_FREE, TWO_FOLIOS
        return [Way(np.arange(s.n), s, flaw)]

    def CHARGE(self, states: States, a: int) -> list[Way]:
        """``mem_cgroup_swapin_charge_folio``."""
        rows, s = self._with_memory(states)
        s.pc[a], s.shadow[a] = PC["READ"], 0
        return [Way(rows, s), *self._without_memory(states, a)]

    def UNDO(self, states: States, a: int) -> list[Way]:
        """Lock, out of the cache again with the target's shadow, unlock."""
        s = states.copy()
        every = np.ones(s.n, bool)
        back = s.shadow[a] if self.form.undo_keeps_shadow else np.zeros(s.n, np.uint8)
        kept = (self._block(a, s.order[a]) & (s.counts > 0)).any(0)
        flaw = np.where(kept & (back != s.shadow[a]), OTHER_SHADOW, 0).astype(np.uint8)
        self._delete(s, s.found[a] - 1, back, every)
        s.shadow[a], s.pc[a] = 0, PC["RELEASE"]
        return [Way(np.arange(s.n), s, flaw)]

    def RELEASE(self, states: States, a: int) -> list[Way]:
        """``folio_unlock`` and the last reference but those of who looked it up."""
        s = states.copy()
        every, at = np.ones(s.n, bool), np.arange(s.n)
        folio = s.found[a] - 1
        s.locked[folio, at] = 0
        self._put(s, folio, 1, every)
        s.found[a] = 0
        return [Way(at, s, self._failed(s, a, np.where(every, -ENOMEM, 0)))]

    def CHARGE_FIRST(self, states: States, a: int) -> list[Way]:
        """The charge of a folio that is not in the cache yet."""
        rows, s = self._with_memory(states)
        s.pc[a] = PC["ADD"]
        return [Way(rows, s), *self._without_memory(states, a)]

    def ADD(self, states: States, a: int) -> list[Way]:
        """``swap_cache_add_folio``: lock, the check of before phase IV, insert, unlock."""
        s = states.copy()
        block = self._block(a, s.order[a])
        in_cache = s.slots >= IN_FOLIO
        unfit = block & (in_cache | (s.counts == 0))
        bad = unfit.any(0)
        first = unfit.argmax(0)
        again = bad & in_cache[first, np.arange(s.n)] & (s.order[a] == 0)
        if self.start[a].kind == "zswap":
            again[:] = False
        self._enter(s, a, ~bad)
        s.pc[a][~bad] = PC["READ"]
        s.pc[a][again] = PC["LOOK_HOLDING"]
        ends = bad & ~again
        self._put(s, s.found[a] - 1, 1, ends)
        self._clear(s, a, ends)
        return [Way(np.arange(s.n), s)]

    def LOOK_HOLDING(self, states: States, a: int) -> list[Way]:
        """``swap_cache_get_folio`` after -EEXIST, the folio that could not be added still in hand."""
        s = states.copy()
        hit = s.slots[self.start[a].target] >= IN_FOLIO
        self._put(s, s.found[a] - 1, 1, hit)
        if self.start[a].kind == "fault":
            self._get(s, a, hit)
        else:
            self._clear(s, a, hit)
        s.pc[a][~hit] = PC["ADD"]
        return [Way(np.arange(s.n), s)]

    def READ(self, states: States, a: int) -> list[Way]:
        """The read ends and unlocks the folio. Only a fault keeps it in hand."""
        s = states.copy()
        every, at = np.ones(s.n, bool), np.arange(s.n)
        found = s.found[a].copy()
        s.locked[found - 1, at] = 0
        if self.start[a].kind == "fault":
            self._clear(s, a, every, "LOCK")
            s.found[a] = found
        else:
            self._put(s, found - 1, 1, every)
            self._clear(s, a, every)
        return [Way(at, s)]

    def LOCK(self, states: States, a: int) -> list[Way]:
        """``folio_lock``, then ``folio_matches_swap_entry``."""
        folio = states.found[a] - 1
        rows = np.flatnonzero(states.locked[folio, np.arange(states.n)] == 0)
        s = states.take(rows)
        s.locked[folio[rows], np.arange(s.n)] = 1
        matches = s.slots[self.start[a].target] == folio[rows] + IN_FOLIO
        s.pc[a] = np.where(matches, PC["PTL"], PC["BACK"])
        return [Way(rows, s)]

    def PTL(self, states: States, a: int) -> list[Way]:
        """Take the page-table lock, look whether the entry is the same, decide how many pages are mapped."""
        rows = np.flatnonzero(states.ptl == 0)
        s = states.take(rows)
        s.ptl[:] = a + 1
        folio, at = s.found[a] - 1, np.arange(s.n)
        size = s.size[folio, at]
        same = s.ptes[self.start[a].target] == SWAP
        whole = same & ~(self._block(a, size) & (s.ptes != SWAP)).any(0)
        drop = same & ~whole & (size > 0) & (s.anon[folio, at] == 0)
        s.whole[a] = whole
        s.pc[a] = np.where(drop, PC["DROP"], np.where(same, PC["PUT"], PC["BACK"]))
        return [Way(rows, s)]

    def DROP(self, states: States, a: int) -> list[Way]:
        """A fresh large folio that cannot be mapped whole leaves the cache, with an empty shadow."""
        s = states.copy()
        self._delete(s, s.found[a] - 1, 0, np.ones(s.n, bool))
        s.pc[a] = PC["BACK"]
        return [Way(np.arange(s.n), s)]

    def PUT(self, states: States, a: int) -> list[Way]:
        """``folio_put_swap``: the counts of the pages to be mapped. Slots of a cached folio stay."""
        s = states.copy()
        folio, at = s.found[a] - 1, np.arange(s.n)
        size = np.where(s.whole[a] == 1, s.size[folio, at], 0)
        its = self._block(a, size)
        s.counts[its] -= 1
        s.ptes[its] = MAPPING
        s.whole[a], s.pc[a] = 0, PC["MAP"]
        return [Way(at, s)]

    def MAP(self, states: States, a: int) -> list[Way]:
        """``set_ptes``, a reference a page."""
        s = states.copy()
        folio, at = s.found[a] - 1, np.arange(s.n)
        its = s.ptes == MAPPING
        np.copyto(s.ptes, folio + MAPPED, where=its)
        s.refs[folio, at] += its.sum(0).astype(np.uint8)
        s.anon[folio, at] = 1
        s.pc[a] = PC["FREE"]
        return [Way(at, s)]

    def FREE(self, states: States, a: int) -> list[Way]:
        """``folio_free_swap``: out of the cache, slots and all, if no slot of the folio is counted on."""
        s = states.copy()
        folio = s.found[a] - 1
        unused = ~((s.slots == folio + IN_FOLIO) & (s.counts > 0)).any(0)
        self._delete(s, folio, 0, unused)
        s.pc[a] = PC["BACK"]
        return [Way(np.arange(s.n), s)]

    def BACK(self, states: States, a: int) -> list[Way]:
        """Unlock page table and folio, put the reference, return."""
        s = states.copy()
        every, at = np.ones(s.n, bool), np.arange(s.n)
        folio = s.found[a] - 1
        s.locked[folio, at] = 0
        s.ptl[s.ptl == a + 1] = 0
        self._put(s, folio, 1, every)
        self._clear(s, a, every)
        return [Way(at, s)]

    def ZAP(self, states: States, a: int) -> list[Way]:
        """Page-table lock; every entry of the range cleared; mapped pages lose a reference."""
        rows = np.flatnonzero(states.ptl == 0)
        s = states.take(rows)
        for i in np.flatnonzero(self.ranges[a]):
            mapped = s.ptes[i] >= MAPPED
            self._put(s, s.ptes[i] - MAPPED, 1, mapped)
            s.ptes[i][mapped] = NONE
            s.ptes[i][s.ptes[i] == SWAP] = ZAPPING
        some = (s.ptes == ZAPPING).any(0)
        self._clear(s, a, ~some)
        s.ptl[some] = a + 1
        s.pc[a][some] = PC["PUT_ZAPPED"]
        return [Way(rows, s)]

    def PUT_ZAPPED(self, states: States, a: int) -> list[Way]:
        """Cluster lock: counts of the cleared entries put; slots not cached are free."""
        s = states.copy()
        its = s.ptes == ZAPPING
        s.ptes[its] = NONE
        s.counts[its] -= 1
        s.slots[its & (s.counts == 0) & (s.slots < IN_FOLIO)] = FREE
        s.pc[a] = PC["RECLAIM"]
        return [Way(np.arange(s.n), s)]

    def RECLAIM(self, states: States, a: int) -> list[Way]:
        """``__try_to_reclaim_swap``: a folio of the range that is not locked, not mapped and not counted on
        leaves the cache, one after the other; then the page-table lock is given back."""
        s = states.copy()
        left = np.ones(s.n, bool)
        for number in range(self.layout.actors):
            its = s.slots == number + IN_FOLIO
            idle = (s.cached[number] == 1) & (s.locked[number] == 0) & its[self.ranges[a]].any(0)
            idle &= ~(its & (s.counts > 0)).any(0) & ~(s.ptes == number + MAPPED).any(0) & left
            self._delete(s, np.full(s.n, number, np.uint8), 0, idle)
            left &= ~idle
        s.ptl[left] = 0
        self._clear(s, a, left)
        return [Way(np.arange(s.n), s)]

    def SLOT(self, states: States, a: int) -> list[Way]:
        """``folio_alloc_swap``: the range if all of it is free, for a folio of other pages."""
        s = states.copy()
        its, nr = self.ranges[a], int(self.ranges[a].sum())
        room = ~(s.slots[its] != FREE).any(0)
        self._clear(s, a, ~room)
        at = np.flatnonzero(room)
        number = (s.refs[:, at] == 0).argmax(0).astype(np.uint8)
        # one reference of reclaim, one a page table entry of its own pages, one a slot
        s.refs[number, at] = 1 + 2 * nr
        s.size[number, at] = self.start[a].order
        s.locked[number, at] = s.anon[number, at] = s.cached[number, at] = 1
        for i in np.flatnonzero(its):
            s.slots[i][at] = number + IN_FOLIO
        s.found[a][at] = number + 1
        s.pc[a][at] = PC["UNMAP"]
        return [Way(np.arange(s.n), s)]

    def UNMAP(self, states: States, a: int) -> list[Way]:
        """The folio's own page table entries become swap entries: a count each."""
        s = states.copy()
        its, nr = self.ranges[a], int(self.ranges[a].sum())
        s.counts[its] += 1
        self._put(s, s.found[a] - 1, nr, np.ones(s.n, bool))
        s.whole[a], s.pc[a] = 1, PC["LEAVE"]
        return [Way(np.arange(s.n), s)]

    def LEAVE(self, states: States, a: int) -> list[Way]:
        """``__remove_mapping``: out of the cache with a new shadow if nobody else holds the folio; else it
        stays."""
        s = states.copy()
        every, at = np.ones(s.n, bool), np.arange(s.n)
        folio = s.found[a] - 1
        alone = s.refs[folio, at] == 1 + int(self.ranges[a].sum())
        s.locked[folio, at] = 0
        self._delete(s, folio, OUT - SHADOW, alone)
        self._put(s, folio, 1, every)
        self._clear(s, a, every)
        s.whole[a] = 1
        return [Way(at, s)]


def _highest(mask: Numbers) -> Numbers:
    """Highest order of each mask; 0 for an empty one."""
    order = np.zeros_like(mask)
    for bit in range(1, 5):
        order[mask >> bit != 0] = bit
    return order
