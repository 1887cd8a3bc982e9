"""Every interleaving of a few CPUs on one block of slots, one state at a time: the oracle of jaxswap.race.

Each actor makes one request. What a lock covers is one step. Page i of the block was swapped out to slot i,
with count 1; all pages share one page-table lock. Names follow mm/memory.c do_swap_page, mm/swap_state.c
swapin_sync, swap_cache_alloc_folio, __swap_cache_add_check, folio_free_swap, mm/swapfile.c
swap_put_entries_direct (7.2 / 7.3; 7.0 / 7.1 where the form checks without lock). Written for reading, not
for speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FREE, EMPTY = "free", "shadow 0"  # words of a slot; "shadow N", or the number of a folio
OUT = "shadow 3"  # what swap-out leaves
OK, ENOENT, ENOMEM, EBUSY, EEXIST = 0, -2, -12, -16, -17


@dataclass(frozen=True)
class Actor:
    kind: str  # fault, readahead, zswap, shmem, freeing, swapout
    target: int
    orders: int = 1  # mask offered; one bit for shmem; of freeing and swapout the bit of their range


@dataclass
class Local:
    pc: str
    order: int = 0
    mask: int = 0
    shadow: str = EMPTY
    found: int | None = None  # folio it holds a reference of
    whole: bool = False  # fault: maps the whole folio; swapout: its own pages are swapped out


@dataclass
class Folio:
    order: int
    refs: int = 1
    locked: bool = False
    anon: bool = False
    cached: bool = False


@dataclass
class State:
    slots: list[Any]
    counts: list[int]
    ptes: list[Any]  # swap, none, zapping, mapping, or the number of a folio
    actors: list[Local]
    folios: list[Folio | None]
    no_memory: bool = False
    ptl: int | None = None

    def copy(self) -> State:
        return State(
            list(self.slots),
            list(self.counts),
            list(self.ptes),
            [Local(**vars(one)) for one in self.actors],
            [one and Folio(**vars(one)) for one in self.folios],
            self.no_memory,
            self.ptl,
        )

    def key(self) -> tuple:
        return (
            tuple(self.slots),
            tuple(self.counts),
            tuple(self.ptes),
            tuple(tuple(vars(one).values()) for one in self.actors),
            tuple(one and tuple(vars(one).values()) for one in self.folios),
            self.no_memory,
            self.ptl,
        )


@dataclass
class Step:
    state: State
    actor: int
    flaw: str = ""
    transient: bool = False  # a failure that need not come again


def bit_below(order: int) -> int:
    return (1 << order) - 1


@dataclass
class Model:
    form: Any  # the switches of a form
    actors: list[Actor]
    slots: int

    def start(self) -> State:
        half = self.slots // 2
        state = State(
            [f"shadow {1 + (i >= half)}" for i in range(self.slots)],
            [1] * self.slots,
            ["swap"] * self.slots,
            [],
            [None] * len(self.actors),
        )
        for actor in self.actors:
            first = {"fault": "LOOK", "freeing": "ZAP", "swapout": "SLOT"}.get(actor.kind, "LOOK_AGAIN")
            one = Local(first)
            if actor.kind in ("readahead", "zswap", "shmem"):
                one.mask = actor.orders | self.form.adds_order_0
                if actor.kind == "zswap":
                    self.begin(state, one)
            state.actors.append(one)
        return state

    # --- the range of a request

    def block(self, a: int, order: int) -> range:
        first = self.actors[a].target >> order << order
        return range(first, first + (1 << order))

    def own_range(self, a: int) -> range:
        """Of freeing and swapout."""
        return self.block(a, self.actors[a].orders.bit_length() - 1)

    # --- folios

    def put(self, s: State, number: int, refs: int = 1) -> None:
        folio = s.folios[number]
        assert folio is not None
        folio.refs -= refs
        if folio.refs == 0:
            s.folios[number] = None

    def del_from_cache(self, s: State, number: int, shadow: str) -> None:
        folio = s.folios[number]
        assert folio is not None
        for i, slot in enumerate(s.slots):
            if slot == number:
                s.slots[i] = shadow if s.counts[i] else FREE
        folio.cached = False
        self.put(s, number, 1 << folio.order)

    def add_to_cache(self, s: State, a: int, order: int) -> None:
        number = s.actors[a].found
        assert number is not None
        folio = s.folios[number]
        assert folio is not None
        for i in self.block(a, order):
            s.slots[i] = number
        folio.cached = folio.locked = True
        folio.refs += 1 << order

    # --- the loop of a form

    def begin(self, s: State, one: Local) -> None:
        one.order = one.mask.bit_length() - 1 if self.form.thp else 0
        one.pc = "CHECK" if self.form.checks_under_lock else "FRAME"

    def end(self, one: Local) -> None:
        one.__init__("DONE")

    def add_check(self, s: State, a: int, order: int) -> int:
        target = self.actors[a].target
        if isinstance(s.slots[target], int):
            return EEXIST
        if s.counts[target] == 0:
            return ENOENT
        if any(isinstance(s.slots[i], int) or s.counts[i] == 0 for i in self.block(a, order)):
            return EBUSY
        return OK

    def failed(self, s: State, a: int, error: int) -> str:
        """What swap_cache_alloc_folio, and its caller, do about the error of an attempt. Returns a flaw."""
        one, kind = s.actors[a], self.actors[a].kind
        flaw = ""
        if error in (EEXIST, ENOENT):
            if error == EEXIST and self.form.counts_eexist and one.order > 0:
                flaw = "fallback counted on -EEXIST"
            if error == ENOENT or kind == "zswap":
                self.end(one)
            else:
                one.pc, one.order = "LOOK_AGAIN", 0
            return flaw
        if self.form.ends_at_order_0 and one.order == 0:
            self.end(one)
            return flaw
        left = one.mask & bit_below(one.order) if self.form.thp else one.mask
        if self.form.ends_at_empty_mask and left == 0:
            self.end(one)
            return flaw
        if left == 0:
            self.end(one)
            return "goes on with order -1"
        one.order = left.bit_length() - 1 if self.form.thp else 0
        one.pc = "CHECK" if self.form.checks_under_lock else "FRAME"
        return flaw

    # --- steps

    def steps(self, s: State) -> Iterator[Step]:
        for a, one in enumerate(s.actors):
            if one.pc != "DONE":
                yield from getattr(self, one.pc)(s, a)

    def one_step(self, s: State, a: int) -> tuple[State, Local]:
        after = s.copy()
        return after, after.actors[a]

    def look(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        slot = after.slots[self.actors[a].target]
        if isinstance(slot, int):
            if self.actors[a].kind == "fault":
                folio = after.folios[slot]
                assert folio is not None
                folio.refs += 1
                one.__init__("LOCK", found=slot)
            else:
                self.end(one)
            yield Step(after, a)
            return
        if one.pc == "LOOK" or (self.actors[a].kind == "shmem" and not self.form.checks_under_lock):
            one.pc = "SUIT"
        else:
            self.begin(after, one)
        yield Step(after, a)

    LOOK = LOOK_AGAIN = look

    def SUIT(self, s: State, a: int) -> Iterator[Step]:
        fault = self.actors[a].kind == "fault"
        if fault and s.ptl is not None:
            return
        after, one = self.one_step(s, a)
        offered = self.actors[a].orders
        mask = 1
        for order in range(offered.bit_length() - 1, 0, -1):
            block = self.block(a, order)
            fits = not fault or all(s.ptes[i] == "swap" for i in block)
            if not self.form.checks_under_lock and any(isinstance(s.slots[i], int) for i in block):
                fits = False
            if offered >> order & 1 and fits:
                mask |= 1 << order
        one.mask = mask if self.form.thp else 1
        if self.form.checks_under_lock:
            one.pc = "LOOK_AGAIN"
        else:
            self.begin(after, one)
        yield Step(after, a)

    def CHECK(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        error = self.add_check(s, a, one.order)
        flaw = ""
        if error:
            flaw = self.failed(after, a, error)
        else:
            one.pc = "FRAME"
        yield Step(after, a, flaw)

    def FRAME(self, s: State, a: int) -> Iterator[Step]:
        if not s.no_memory:
            after, one = self.one_step(s, a)
            one.found = after.folios.index(None)
            after.folios[one.found] = Folio(one.order)
            one.pc = "INSERT" if self.form.checks_under_lock else "CHARGE_FIRST"
            yield Step(after, a)
        yield from self.out_of_memory(s, a)

    def out_of_memory(self, s: State, a: int) -> Iterator[Step]:
        """ENOMEM for this attempt, and now or again as the last word."""
        for last in (True,) if s.no_memory else (False, True):
            after, one = self.one_step(s, a)
            after.no_memory = last
            flaw = ""
            if one.pc == "CHARGE":
                one.pc = "UNDO"
            else:
                if one.found is not None:
                    self.put(after, one.found)
                    one.found = None
                flaw = self.failed(after, a, ENOMEM)
            yield Step(after, a, flaw, transient=not last)

    def INSERT(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        error = self.add_check(s, a, one.order) if self.form.second_check else OK
        flaw = ""
        assert one.found is not None
        if error:
            self.put(after, one.found)
            one.found = None
            flaw = self.failed(after, a, error)
        else:
            target = self.actors[a].target
            if any(s.counts[i] == 0 for i in self.block(a, one.order)):
                flaw = "folio over a free slot"
            if any(isinstance(s.slots[i], int) for i in self.block(a, one.order)):
                flaw = "slot in two folios"
            word = s.slots[target]
            one.shadow = word if isinstance(word, str) and word != FREE else EMPTY
            self.add_to_cache(after, a, one.order)
            one.pc = "CHARGE"
        yield Step(after, a, flaw)

    def CHARGE(self, s: State, a: int) -> Iterator[Step]:
        if not s.no_memory:
            after, one = self.one_step(s, a)
            one.pc, one.shadow = "READ", EMPTY
            yield Step(after, a)
        yield from self.out_of_memory(s, a)

    def UNDO(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        back = one.shadow if self.form.undo_keeps_shadow else EMPTY
        kept = [i for i in self.block(a, one.order) if s.counts[i]]
        self.del_from_cache(after, one.found, back)
        flaw = "undo with another shadow" if kept and back != one.shadow else ""
        one.shadow = EMPTY
        one.pc = "RELEASE"
        yield Step(after, a, flaw)

    def RELEASE(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        folio = after.folios[one.found]
        assert folio is not None
        folio.locked = False
        self.put(after, one.found)
        one.found = None
        yield Step(after, a, self.failed(after, a, ENOMEM))

    def CHARGE_FIRST(self, s: State, a: int) -> Iterator[Step]:
        if not s.no_memory:
            after, one = self.one_step(s, a)
            one.pc = "ADD"
            yield Step(after, a)
        yield from self.out_of_memory(s, a)

    def ADD(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        error = OK
        for i in self.block(a, one.order):
            if isinstance(s.slots[i], int):
                error = EEXIST
                break
            if s.counts[i] == 0:
                error = ENOENT
                break
        if error == OK:
            self.add_to_cache(after, a, one.order)
            one.pc = "READ"
        elif error == EEXIST and one.order == 0 and self.actors[a].kind != "zswap":
            one.pc = "LOOK_HOLDING"
        else:
            self.put(after, one.found)
            self.end(one)
        yield Step(after, a)

    def LOOK_HOLDING(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        slot = after.slots[self.actors[a].target]
        assert one.found is not None
        if isinstance(slot, int):
            self.put(after, one.found)
            if self.actors[a].kind == "fault":
                folio = after.folios[slot]
                assert folio is not None
                folio.refs += 1
                one.__init__("LOCK", found=slot)
            else:
                self.end(one)
        else:
            one.pc = "ADD"
        yield Step(after, a)

    def READ(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        number = one.found
        assert number is not None
        folio = after.folios[number]
        assert folio is not None
        folio.locked = False
        if self.actors[a].kind == "fault":
            one.__init__("LOCK", found=number)
        else:
            self.put(after, number)
            self.end(one)
        yield Step(after, a)

    def LOCK(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        folio = after.folios[one.found]
        assert folio is not None
        if folio.locked:
            return
        folio.locked = True
        one.pc = "PTL" if s.slots[self.actors[a].target] == one.found else "BACK"
        yield Step(after, a)

    def PTL(self, s: State, a: int) -> Iterator[Step]:
        if s.ptl is not None:
            return
        after, one = self.one_step(s, a)
        after.ptl = a
        assert one.found is not None
        folio = after.folios[one.found]
        assert folio is not None
        if s.ptes[self.actors[a].target] != "swap":
            one.pc = "BACK"
        elif all(s.ptes[i] == "swap" for i in self.block(a, folio.order)):
            one.pc, one.whole = "PUT", True
        elif folio.order > 0 and not folio.anon:
            one.pc = "DROP"
        else:
            one.pc = "PUT"
        yield Step(after, a)

    def DROP(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        self.del_from_cache(after, one.found, EMPTY)
        one.pc = "BACK"
        yield Step(after, a)

    def PUT(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        folio = after.folios[one.found]
        assert folio is not None
        for i in self.block(a, folio.order if one.whole else 0):
            after.counts[i] -= 1
            after.ptes[i] = "mapping"
        one.whole = False
        one.pc = "MAP"
        yield Step(after, a)

    def MAP(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        folio = after.folios[one.found]
        assert folio is not None
        for i, pte in enumerate(s.ptes):
            if pte == "mapping":
                after.ptes[i] = one.found
                folio.refs += 1
        folio.anon = True
        one.pc = "FREE"
        yield Step(after, a)

    def FREE(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        if not any(count for slot, count in zip(s.slots, s.counts, strict=True) if slot == one.found):
            self.del_from_cache(after, one.found, EMPTY)
        one.pc = "BACK"
        yield Step(after, a)

    def BACK(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        folio = after.folios[one.found]
        assert folio is not None
        folio.locked = False
        if after.ptl == a:
            after.ptl = None
        self.put(after, one.found)
        self.end(one)
        yield Step(after, a)

    def ZAP(self, s: State, a: int) -> Iterator[Step]:
        if s.ptl is not None:
            return
        after, one = self.one_step(s, a)
        for i in self.own_range(a):
            if s.ptes[i] == "swap":
                after.ptes[i] = "zapping"
            elif isinstance(s.ptes[i], int):
                after.ptes[i] = "none"
                self.put(after, s.ptes[i])
        if "zapping" in after.ptes:
            after.ptl = a
            one.pc = "PUT_ZAPPED"
        else:
            self.end(one)
        yield Step(after, a)

    def PUT_ZAPPED(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        for i, pte in enumerate(s.ptes):
            if pte == "zapping":
                after.ptes[i] = "none"
                after.counts[i] -= 1
                if after.counts[i] == 0 and not isinstance(after.slots[i], int):
                    after.slots[i] = FREE
        one.pc = "RECLAIM"
        yield Step(after, a)

    def RECLAIM(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        for number, folio in enumerate(s.folios):
            if folio is None or folio.locked or not folio.cached or number in s.ptes:
                continue
            its = [i for i, slot in enumerate(s.slots) if slot == number]
            if set(its) & set(self.own_range(a)) and not any(s.counts[i] for i in its):
                self.del_from_cache(after, number, EMPTY)
                yield Step(after, a)
                return
        after.ptl = None
        self.end(one)
        yield Step(after, a)

    def SLOT(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        block = self.own_range(a)
        if any(s.slots[i] != FREE for i in block):
            self.end(one)
            yield Step(after, a)
            return
        number = after.folios.index(None)
        order = self.actors[a].orders.bit_length() - 1
        # one reference of reclaim, one a page table entry of its own pages, one a slot
        after.folios[number] = Folio(order, 1 + 2 * len(block), locked=True, anon=True, cached=True)
        for i in block:
            after.slots[i] = number
        one.__init__("UNMAP", found=number)
        yield Step(after, a)

    def UNMAP(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        assert one.found is not None
        for i in self.own_range(a):
            after.counts[i] += 1
        self.put(after, one.found, len(self.own_range(a)))
        one.whole = True
        one.pc = "LEAVE"
        yield Step(after, a)

    def LEAVE(self, s: State, a: int) -> Iterator[Step]:
        after, one = self.one_step(s, a)
        number = one.found
        assert number is not None
        folio = after.folios[number]
        assert folio is not None
        if folio.refs == 1 + len(self.own_range(a)):
            self.del_from_cache(after, number, OUT)
        else:
            folio.locked = False
        self.put(after, number)
        one.__init__("DONE", whole=True)
        yield Step(after, a)

    # --- what must hold

    def wrong(self, s: State) -> str:
        """The first rule that the state breaks."""
        for number, folio in enumerate(s.folios):
            its = [i for i, slot in enumerate(s.slots) if slot == number]
            if folio is not None and folio.cached:
                if len(its) != 1 << folio.order:
                    return "slot in two folios"
            elif its:
                return "slot of a folio that is gone"
        for i, slot in enumerate(s.slots):
            swapped = s.ptes[i] in ("swap", "zapping")
            for a, one in enumerate(s.actors):
                if self.actors[a].kind == "swapout" and one.whole and i in self.own_range(a):
                    swapped += 1
            if s.counts[i] != swapped:
                return "count lost"
            if not isinstance(slot, int) and (slot == FREE) != (s.counts[i] == 0):
                return "count lost"
        for number, folio in enumerate(s.folios):
            held = sum(one.found == number for one in s.actors) + s.ptes.count(number)
            if folio is None:
                if held:
                    return "reference leaked"
                continue
            if folio.cached:
                held += 1 << folio.order
            for one in s.actors:
                if one.pc == "UNMAP" and one.found == number:
                    held += 1 << folio.order
            if folio.refs != held:
                return "reference leaked"
        for a, one in enumerate(s.actors):
            if one.pc in ("CHARGE", "UNDO", "READ") and any(
                s.slots[i] != one.found for i in self.block(a, one.order)
            ):
                return "success for a slot of another"
        return ""


@dataclass
class Explored:
    states: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # steps to the first of the kind


def explore(model: Model) -> Explored:
    """Breadth first. A state that breaks a rule is counted and not gone on from."""
    found = Explored()
    start = model.start()
    depth = {start.key(): 0}
    edges: dict[tuple, list[tuple[int, tuple, bool]]] = {}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        key = state.key()
        wrong = model.wrong(state)
        if wrong:
            found.kinds.setdefault(wrong, depth[key])
            edges[key] = []
            continue
        out = edges[key] = []
        for step in model.steps(state):
            after = step.state.key()
            if step.flaw:
                found.kinds.setdefault(step.flaw, depth[key] + 1)
            out.append((step.actor, after, step.transient))
            if after not in depth:
                depth[after] = depth[key] + 1
                queue.append(step.state)
        if not out and any(one.pc != "DONE" for one in state.actors):
            found.kinds.setdefault("deadlock", depth[key])
    found.states = len(depth)
    fair = fair_cycles(edges, len(model.actors))
    if fair:
        found.kinds["never returns"] = min(depth[key] for key in fair)
    return found


def fair_cycles(edges: dict, actors: int) -> set:
    """States of strongly connected parts in which every actor moves or cannot move at times."""
    lasting = {key: [(a, to) for a, to, transient in out if not transient] for key, out in edges.items()}
    fair = set()
    for part in strong_parts(lasting):
        inside = set(part)
        moves = {a for key in part for a, to in lasting[key] if to in inside}
        if not moves:
            continue
        resting = {a for a in range(actors) if any(all(b != a for b, *_ in edges[key]) for key in part)}
        if moves | resting == set(range(actors)):
            fair |= inside
    return fair


def strong_parts(edges: dict) -> Iterator[list]:
    """Tarjan's, without recursion."""
    number: dict = {}
    low: dict = {}
    stack: list = []
    on: set = set()
    for root in edges:
        if root in number:
            continue
        work = [(root, iter(edges[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on.add(root)
        while work:
            key, rest = work[-1]
            for _, to in rest:
                if to not in number:
                    number[to] = low[to] = len(number)
                    stack.append(to)
                    on.add(to)
                    work.append((to, iter(edges[to])))
                    break
                if to in on:
                    low[key] = min(low[key], number[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[key])
                if low[key] == number[key]:
                    part = []
                    while True:
                        one = stack.pop()
                        on.discard(one)
                        part.append(one)
                        if one == key:
                            break
                    yield part
