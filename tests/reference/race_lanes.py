"""One sampled lane, an event at a time: the oracle of jaxswap.race.lanes.

The steps are those of the plain explorer (:class:`tests.reference.race.Model`); of the ways on, one is drawn.
So what this walks is a path of that explorer. Times are looked up in tables [order][quantile] of nanoseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log2
from typing import Any

from tests.reference.race import EEXIST, ENOENT, ENOMEM, OK, Actor, Model, State, Step

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def stream_of(seed: int, lane: int, actor: int) -> int:
    return mixed(mixed(seed + (lane + 1) * GOLDEN & MASK) + (actor + 1) * GOLDEN & MASK)


def drawn(stream: int, number: int) -> int:
    return mixed(stream + (number + 1) * GOLDEN & MASK)


def quantile(bits: int) -> int:
    return bits >> 52


def share(bits: int) -> float:
    return (bits & 0xFFFFFFFF) / 2**32


@dataclass
class Played:
    events: list[tuple[int, int, str]] = field(default_factory=list)  # time, actor, step
    count: Counter = field(default_factory=Counter)
    actors: list[Actor] = field(default_factory=list)


def people(crowd: Any, streams: Sequence[int]) -> list[Actor]:
    """The actors of a lane; crowd has the attributes of jaxswap.race.lanes.Crowd."""
    offered = [order for order in range(crowd.orders.bit_length()) if crowd.orders >> order & 1]
    found = []
    for stream in streams:
        who, where = drawn(stream, 0), drawn(stream, 1)
        room = crowd.hot_slots if share(where) < crowd.hot else crowd.slots
        target = quantile(where) * room // 4096
        order = offered[quantile(who) * len(offered) // 4096]
        end, kind = 0.0, "fault"
        for name in ("freeing", "readahead", "zswap", "shmem", "swapout"):
            end += getattr(crowd, name)
            if share(who) < end:
                kind = name
                break
        if kind in ("freeing", "swapout"):
            found.append(Actor(kind, target >> order << order, 1 << order))
        elif kind == "fault":
            found.append(Actor(kind, target, crowd.orders))
        else:
            found.append(Actor(kind, target, 1 << order if kind == "shmem" else 1))
    return found


def play(
    crowd: Any,
    seed: int,
    lane: int,
    times: Mapping[str, Sequence[Sequence[int]]],
    start: Sequence[int],
    locked: frozenset[str],
) -> Played:
    """times: of each step's name. start: when an actor begins, by quantile. locked: steps under the lock."""
    streams = [stream_of(seed, lane, actor) for actor in range(crowd.cpus)]
    played = Played(actors=people(crowd, streams))
    model = Model(crowd.form, played.actors, crowd.slots)
    state = model.start()
    at = [start[quantile(drawn(stream, 2))] for stream in streams]
    done = [3] * crowd.cpus
    since = [0] * crowd.cpus
    first = [one.pc for one in state.actors]
    for one in state.actors:
        one.pc = "ARRIVE"
    now = lock_free = 0
    while True:
        able = [
            (at[a], a)
            for a, one in enumerate(state.actors)
            if one.pc == "ARRIVE" or (one.pc != "DONE" and any(getattr(model, one.pc)(state, a)))
        ]
        if not able:
            assert all(one.pc == "DONE" for one in state.actors)
            return played
        time, a = min(able)
        now = max(now, time)
        pc = state.actors[a].pc
        bits = drawn(streams[a], done[a])
        fails = {
            "FRAME": crowd.frame_fails[state.actors[a].order],
            "CHARGE": crowd.charge_fails,
            "CHARGE_FIRST": crowd.charge_fails,
        }
        if pc == "ARRIVE":
            actor = played.actors[a]
            begins = actor.kind != "fault" or state.ptes[actor.target] == "swap"
            played.count["faults"] += begins and actor.kind == "fault"
            way = Step(state.copy(), a)
            way.state.actors[a].pc = first[a] if begins else "DONE"
        else:
            ways = list(getattr(model, pc)(state, a))
            way = ways[share(bits) < fails.get(pc, 0)]
            tell(model, state, a, way, played.count)
        if pc in ("ARRIVE", "CHECK", "SUIT", "LOOK_AGAIN") and way.state.actors[a].pc == "FRAME":
            since[a] = now
        if pc in ("INSERT", "ADD") and way.state.actors[a].pc in ("CHARGE", "READ"):
            bin = floor(8 * log2(max(1, now - since[a])))
            played.count["window", state.actors[a].order, bin] += 1
        played.events.append((now, a, pc))
        state = way.state
        done[a] += 1
        one = state.actors[a]
        if one.pc == "DONE":
            continue
        takes = times[one.pc][one.order][quantile(bits)]
        begin = now
        if one.pc in locked:
            begin = max(now, lock_free)
            lock_free = begin + takes
            played.count["locks", one.pc] += 1
            played.count["held", one.pc] += takes
            played.count["waited", one.pc] += begin - now
        at[a] = begin + takes


def tell(model: Model, s: State, a: int, way: Any, count: Counter) -> None:
    """Count what this step did."""
    pc, order, error = s.actors[a].pc, s.actors[a].order, OK
    after = way.state.actors[a]
    if pc in ("CHECK", "INSERT", "ADD"):
        error = model.add_check(s, a, order)
        if pc == "ADD":
            slots = [(s.slots[i], s.counts[i]) for i in model.block(a, order)]
            bad = [slot for slot in slots if isinstance(slot[0], int) or slot[1] == 0]
            error = (EEXIST if isinstance(bad[0][0], int) else ENOENT) if bad else OK
        count["check", pc != "CHECK", error, order] += 1
        thrown = error != OK and pc != "CHECK" and after.pc != "LOOK_HOLDING"
        count["thrown", order] += thrown
        count["inserted", order] += pc != "CHECK" and error == OK
        count["retries"] += error == EEXIST and after.pc in ("LOOK_AGAIN", "LOOK_HOLDING")
    if pc == "LOOK_HOLDING" and after.pc != "ADD":
        count["thrown", order] += 1
    if pc in ("FRAME", "CHARGE", "CHARGE_FIRST"):
        count["no_frame" if pc == "FRAME" else "no_charge", order] += way.transient
        count["frames", order] += pc == "FRAME" and not way.transient
        if way.transient and pc != "CHARGE":
            error = ENOMEM
    if pc == "RELEASE":
        error = ENOMEM
    if pc == "DROP":
        folio = s.folios[s.actors[a].found]  # pyright: ignore[reportArgumentType, reportCallIssue]
        assert folio is not None
        count["dropped", folio.order] += 1
    if order > 0 and error not in (OK, ENOENT, EEXIST) and pc != "ADD":
        count["fallback", order] += 1
