"""Replaying a workload on lanes: `[groups, words, width]` state, groups shared out over the devices.

On CPU a group is one lane and each device takes its groups one after the other (`lax.map`); elsewhere one
group holds many lanes that go in lock step. The machine is the same.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int32, Int64

from jaxswap.errors import InputError
from jaxswap.machine import cgroups, counters, frames, generations, heuristic, observe, settings
from jaxswap.machine.future import with_future
from jaxswap.machine.kept import Halfway, Keeper
from jaxswap.machine.lane import PAGE, Lane, params_of
from jaxswap.machine.memory import COPIES, bytes_of, check_memory
from jaxswap.machine.profile import PROFILES, model_version
from jaxswap.machine.program import SET, STREAM, Compiled, Program, compile_workload, is_shared
from jaxswap.machine.shared import devices as shared_devices
from jaxswap.machine.shared import observe as shared_observe
from jaxswap.machine.shared import state as shared
from jaxswap.machine.state import LEAST_CLUSTERS, MachineParams, MachineState, init, room
from jaxswap.machine.step import step
from jaxswap.policy import Policy
from jaxswap.policy.describe import foresees
from jaxswap.swaptable.clusters import Clusters, Device, swapon
from jaxswap.swaptable.lanes import SPARE
from jaxswap.workload import Kind, Workload, write_recording

CHUNK = 50_000  # operations a call: some milliseconds on one lane, against one copy of a lane's state
FEW = 64  # lanes of a device; fewer have longer calls, which cost a millisecond or two each
MOST_PAGES = 1 << 18  # accesses a call, and pages of ranges: a counter's 32 bits hold 16,384 for each
BY_PAGE = "a machine with several processes, cgroups or CPUs, on a device other than zram, or with zswap,"
LATER = "take 6.18 or later"  # what to do where the rules of 6.12 are not modelled
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReplayResult:
    """Counters of every lane at the end of a replay.

    counters: a row a lane, a column a name of COUNTERS, the pages still in memory judged as if they left.
    oom: lanes ended by the OOM killer; their counters stop there.
    """

    counters: Int64[np.ndarray, "lanes counters"]
    oom: Bool[np.ndarray, " lanes"]

    def counter(self, name: str) -> Int64[np.ndarray, " lanes"]:
        """One counter of every lane. Raises KeyError for a name that is not in COUNTERS."""
        if name not in counters.COUNTERS:
            raise KeyError(name)
        return self.counters[:, counters.COUNTERS.index(name)]


@dataclass(frozen=True)
class OneReplay:
    """A replay of one lane with what its DUMP, FOLIOS, STATS and ECHO operations showed.

    blocks: as read_recording's. counters: by name, at the end. clusters: of the swap devices then.
    """

    workload: Workload
    lane: Lane
    profile: str
    blocks: list[tuple]
    counters: dict[str, int]
    oom: bool
    clusters: Clusters | None = None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the blocks as a recording; the file appears whole or not at all."""
        lane = self.lane
        header = {
            "kernel": self.profile,
            "model": f"jaxswap {model_version(self.profile)}",
            "workload": self.workload.name,
            "policy": ":".join(
                [lane.policy, ",".join(f"{k}={v}" for k, v in lane.policy_params.items())]
            ).rstrip(":"),
            **lane.settings(),
        }
        killed = "CHILD DIED memory cgroup out of memory" if self.oom else ""
        write_recording(path, header, self.blocks, len(self.workload) + 1, killed)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def advance(
    states: MachineState, params: MachineParams, ops: Program, span: Int32[Array, "2"], *, mesh: Mesh
) -> MachineState:
    """Operations span[0] .. span[1] - 1 on all groups; counters start at zero."""

    def group(
        carry: tuple[MachineState, MachineParams], ops: Program, span: Int32[Array, "2"]
    ) -> MachineState:
        state, params = carry
        state = replace(state, n=jax.tree.map(jnp.zeros_like, state.n))
        return lax.fori_loop(span[0], span[1], lambda i, state: step(state, params, ops, i), state)

    def share(
        states: MachineState, params: MachineParams, ops: Program, span: Int32[Array, "2"]
    ) -> MachineState:
        return lax.map(lambda carry: group(carry, ops, span), (states, params))

    over = P("groups")
    shared = jax.shard_map(share, mesh=mesh, in_specs=(over, over, P(), P()), out_specs=over, check_vma=False)
    return shared(states, params, ops, span)


def replay_lanes(
    workload: Workload,
    lanes: Sequence[Lane],
    profile: str = "7.3",
    progress: Progress | None = None,
    width: int | None = None,
    keeper: Keeper | None = None,
    share: float = 1.0,
    heuristics: Sequence[Policy] = (),
) -> ReplayResult:
    """Replay a workload on every lane.

    progress(done, total) is called between chunks, in lane-operations. width: lanes of a group that go in
    lock step; by default 1 on CPU and all of a device's elsewhere. keeper: is asked where to begin, and
    offered the replay between chunks. share: of the workload's accesses, its first; the counter `accesses`
    says how many they were. heuristics: that the compiled program has besides those the lanes ask, so that
    replays of different ones have one program. Raises InputError for a lane that cannot be built, a workload
    operation the machine does not have, or too little memory.
    """
    run = Replay(workload, lanes, profile, width, heuristics=heuristics)
    ops, accesses = run.beginning(share)
    total = run.done(ops) * len(lanes)
    kept = keeper.read(run.halfway(0)) if keeper else None
    begin = run.go_on(kept) if kept else 0
    if progress:
        progress(run.done(begin) * len(lanes), total)
    for start, stop in run.calls(begin, ops):
        run.advance(start, stop)
        if progress:
            progress(run.done(stop) * len(lanes), total)
        if keeper and stop < ops:
            keeper.offer(run.halfway(stop))
    return run.result(accesses)


def replay_one(workload: Workload, lane: Lane, profile: str = "7.3") -> OneReplay:
    """Replay a workload on one lane and keep what its DUMP, FOLIOS, STATS and ECHO operations show."""
    return replay_each(workload, [lane], profile)[0]


def replay_each(workload: Workload, lanes: Sequence[Lane], profile: str = "7.3") -> list[OneReplay]:
    """Replay a workload on every lane and keep what its DUMP, FOLIOS, STATS and ECHO operations show, up to
    where the OOM killer ended it. Raises InputError as `replay_lanes` does.
    """
    run = Replay(workload, lanes, profile, devices=1)
    blocks: list[list[tuple]] = [[] for _ in lanes]
    at = 0
    for position, index in run.compiled.marks:
        run.advance(at, position)
        at = position
        kind, label = Kind(workload.kind[index]), workload.text.get(index, "")
        killed = run.oom()
        if killed.all():
            break
        for i in np.flatnonzero(~killed).tolist():
            if kind is Kind.ECHO:
                shown: Any = None
            elif kind is Kind.STATS:
                shown = observe.stats(observe.named(run.totals[i])) | run.memory_of_cgroups(i)
            else:
                show = observe.dump if kind is Kind.DUMP else observe.folios
                shown = show(run.pages(int(run.compiled.homes[index]), i))
            blocks[i].append((kind.name, label, shown))
    run.advance(at, run.compiled.ops)
    result = run.result()
    return [
        OneReplay(
            workload,
            lane,
            profile,
            blocks[i],
            dict(zip(counters.COUNTERS, row, strict=True)),
            oom,
            run.lane_state(i).clusters,
        )
        for i, (lane, row, oom) in enumerate(
            zip(lanes, result.counters.tolist(), result.oom.tolist(), strict=True)
        )
    ]


def _weights(compiled: Compiled) -> tuple[Int64[np.ndarray, " ops"], Int64[np.ndarray, " ops"]]:
    """Behind each operation: lane-operations, and accesses and pages of ranges, from the first on."""
    kinds, starts, ends = (
        np.asarray(x)[: compiled.ops]
        for x in (compiled.program.kind, compiled.program.start, compiled.program.end)
    )
    stream = kinds == STREAM
    weight = np.where(stream, ends - starts, kinds < SET)
    pages = np.where(stream | (kinds < SET), ends - starts, 1)
    return weight.cumsum(dtype=np.int64), pages.cumsum(dtype=np.int64)


def pieces(
    bounds: Sequence[tuple[Int64[np.ndarray, " ops"], int]], start: int, stop: int
) -> Iterator[tuple[int, int]]:
    """Operations start .. stop - 1 as (first, behind the last) of pieces.

    bounds: sums behind each operation, and what a piece of more than one operation has less of.
    """
    while start < stop:
        ends = [np.searchsorted(sums, (sums[start - 1] if start else 0) + most) for sums, most in bounds]
        end = min(max(start + 1, int(min(ends))), stop)
        yield start, end
        start = end


class Replay:
    """A replay under way: compiled workload, states of all lanes, counters added up so far."""

    def __init__(
        self,
        workload: Workload,
        lanes: Sequence[Lane],
        profile: str = "7.3",
        width: int | None = None,
        devices: int | None = None,
        heuristics: Sequence[Policy] = (),
    ) -> None:
        if profile not in PROFILES:
            raise InputError(f"kernel: no profile {profile!r}; there are {', '.join(PROFILES)}")
        if not lanes:
            raise InputError("replay: no lanes")
        for lane in lanes:
            lane.check()
        swaps = {lane.devices for lane in lanes}
        if len(swaps) > 1:
            raise InputError("swap: all lanes of one replay have devices of the same size")
        if len({lane.cpus for lane in lanes}) > 1:
            raise InputError("cpus: all lanes of one replay have as many CPUs")
        if len({lane.lru for lane in lanes}) > 1:
            raise InputError("lru: all lanes of one replay have the same")
        self.workload, self.count = workload, len(lanes)
        _check_devices(lanes, workload, profile)
        rules = PROFILES[profile]
        by_page = any(lane.special for lane in lanes) or goes_by_page(workload, lanes[0], profile)
        devices_of_all = swaps.pop()
        discards = any(device.discard for device in devices_of_all)
        flushes = any(lane.flush != 0 for lane in lanes)
        self.compiled = compile_workload(
            workload, by_page, rules.gathers_calls, worker=discards, flushes=flushes
        )
        _check_cgroups(lanes, workload, profile)
        if self.compiled.by_page:
            for key in ("high", "swap_max", "flush", "switch", "phase"):
                if any(getattr(lane, key) != getattr(Lane(), key) for lane in lanes):
                    raise InputError(f"{key}: {BY_PAGE} has none")
        _check_frames(lanes, self.compiled.by_page)
        chosen = jax.local_devices()[:devices]
        on_cpu = chosen[0].platform == "cpu"
        each = -(-len(lanes) // len(chosen))
        self.width = width or (1 if on_cpu else each)
        groups = -(-len(lanes) // self.width)
        self.groups = -(-groups // len(chosen)) * len(chosen)
        # The last lane is repeated to fill the groups up.
        filled = [*lanes, *[lanes[-1]] * (self.groups * self.width - len(lanes))]
        cpus = max(lanes[0].cpus, int(workload.cpu.max(initial=0)) + 1)
        swapped_on = _swapon(devices_of_all, profile, self.width, cpus)
        pages = room(workload.npages)
        begin = functools.partial(init, pages, swapped_on, self.width)
        if lanes[0].lru == "mglru" and any(lane.limited for lane in lanes):
            if self.compiled.by_page:
                raise InputError(f"lru: {BY_PAGE} has the classic LRU only")

            def begin() -> MachineState:
                state = init(pages, swapped_on, self.width)
                return replace(state, generations=generations.fresh(pages // 512 + SPARE, self.width))

        if self.compiled.by_page:
            begin = functools.partial(
                shared.init,
                self.compiled.processes,
                self.compiled.room,
                self.compiled.windows,
                swapped_on,
                self.width,
                self.compiled.cgroups,
            )
        one = jax.eval_shape(begin)
        page_frames = self._frames(filled)
        held = bytes_of(page_frames)
        check_memory(COPIES * (bytes_of(one) * self.groups + held), len(lanes), chosen)
        self.mesh = Mesh(np.array(chosen), ("groups",), axis_types=(AxisType.Auto,))
        spread = NamedSharding(self.mesh, P("groups"))
        params = params_of(
            filled,
            PROFILES[profile],
            int(swapped_on.free[0]),
            workload.cgroups,
            self.compiled.cgroups,
            heuristics,
        )
        remembers = heuristic.remembers(params.heuristics)
        program = self.compiled.program
        if any(foresees(rule) for rule in params.heuristics):
            if self.compiled.by_page:
                raise InputError(
                    f"policy: {BY_PAGE} has none that knows the accesses to come; leave clairvoyant out"
                )
            program = with_future(self.compiled, pages)
        params = jax.tree.map(self._grouped, params)
        start = jax.tree.map(
            lambda x: np.broadcast_to(x, (self.groups, *x.shape)),
            jax.device_get(begin()),
        )
        page_cluster, zswap = (
            self._grouped(np.array([getattr(lane, name) for lane in filled], np.uint32))
            for name in ("page_cluster", "zswap")
        )
        booted = jax.device_get(settings.start(params.always, params.madvise, page_cluster))
        phase = self._grouped(np.array([lane.phase for lane in filled], np.int32))
        start = replace(
            start,
            settings=np.moveaxis(booted, 0, 1),
            frames=page_frames,
            clock=phase,
            ended=phase,
            last_flush=phase - phase % np.maximum(params.flush, 1),
            last_switch=phase - phase % np.maximum(0 if params.switch is None else params.switch, 1),
        )
        if remembers:
            blocks = room(self.workload.npages) // 512 + SPARE
            start = replace(start, noted=np.zeros((self.groups, blocks, self.width), np.int32))
        if start.sharing is not None:
            start = replace(start, sharing=shared_devices.online(start.sharing, devices_of_all, zswap != 0))
        self.states: MachineState = jax.device_put(start, spread)
        self.params: MachineParams = jax.device_put(params, spread)
        self.program: Program = jax.device_put(program, NamedSharding(self.mesh, P()))
        self.totals = np.zeros((len(lanes), len(counters.COUNTERS) - 1), np.int64)
        self._weight, self._pages = _weights(self.compiled)

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        """[lanes, ...] as [groups, ..., width]."""
        return np.moveaxis(x.reshape(self.groups, self.width, *x.shape[1:]), 1, -1)

    def _frames(self, lanes: Sequence[Lane]) -> frames.PageFrames | None:
        """The page frames of the lanes, [groups, words, width]."""
        given = [lane.frames for lane in lanes if lane.frames is not None]
        if not given:
            return None
        found = frames.init(given, room(self.workload.npages))
        return jax.tree.map(
            lambda x: np.moveaxis(x.reshape(*x.shape[:-1], self.groups, self.width), -2, 0), found
        )

    def calls(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Operations start .. stop - 1 as (first, behind the last) of calls that are short enough."""
        each = self.groups * self.width // self.mesh.size
        longest = CHUNK * max(1, FEW // each)
        return pieces(((self._weight, longest), (self._pages, MOST_PAGES)), start, stop)

    def advance(self, start: int, stop: int) -> None:
        """Run some operations and add up their counters."""
        for span in self.calls(start, stop):
            self.states = advance(
                self.states, self.params, self.program, np.array(span, np.int32), mesh=self.mesh
            )
            counts = counters.flat(jax.device_get(self.states.n))
            self.totals += counts.reshape(-1, counts.shape[-1])[: self.count].astype(np.int64)

    def beginning(self, share: float) -> tuple[int, int]:
        """(operations, accesses) of the first share of the workload, as Compiled.beginning cuts it."""
        if share < 1:
            return self.compiled.beginning(share)
        return self.compiled.ops, self.workload.accesses

    def done(self, at: int) -> int:
        """Lane-operations of a lane before operation `at`."""
        return int(self._weight[at - 1]) if at else 0

    def halfway(self, at: int) -> Halfway:
        """The replay as it is, operations 0 .. at - 1 done."""
        return Halfway(at, self.totals, jax.tree.leaves(self.states))

    def go_on(self, kept: Halfway) -> int:
        """Go on from there: the operation that is next."""
        states, tree = jax.tree.flatten(self.states)
        placed = [jax.device_put(x, now.sharding) for x, now in zip(kept.arrays, states, strict=True)]
        self.states, self.totals = jax.tree.unflatten(tree, placed), kept.totals
        return kept.at

    def lane_state(self, lane: int = 0) -> MachineState:
        """The state of one lane."""
        group, place = divmod(lane, self.width)
        return jax.tree.map(lambda x: x[group][..., place : place + 1], self.states)

    def memory_of_cgroups(self, lane: int) -> dict[str, int]:
        """memory.current of the cgroups that the workload names."""
        if self.states.cgroups is None:
            return {}
        state = self.lane_state(lane)
        words = np.asarray(cgroups.all_words(state))[:, :, 0]
        charged = words[:, cgroups.USED] + words[:, cgroups.STOCK]
        named = enumerate(self.workload.cgroups, 1)
        return {f"{name}/memory.current": int(charged[number]) * PAGE for number, name in named}

    def pages(self, place: int, lane: int) -> observe.Pages:
        """The pages of a process of a lane."""
        state, npages = self.lane_state(lane), self.workload.npages
        if state.sharing is None:
            return observe.pages_of(state, npages)
        return shared_observe.pages_of(state, place, npages)

    def oom(self) -> Bool[np.ndarray, " lanes"]:
        """Lanes the OOM killer has ended."""
        return np.asarray(self.states.oom).reshape(-1)[: self.count]

    def _leaving(self) -> dict[str, Int64[np.ndarray, " lanes"]]:
        def lanes_last(x: Array) -> np.ndarray:
            return np.moveaxis(np.asarray(x), 1, 0).reshape(x.shape[1], -1)

        if self.states.sharing is None:
            return observe.leaving(lanes_last(self.states.rows))
        return shared_observe.leaving(jax.tree.map(lanes_last, self.states.sharing))

    def result(self, accesses: int | None = None) -> ReplayResult:
        """The counters, with the pages still in memory judged. accesses: done so far, by default all."""
        done = np.full((self.count, 1), self.workload.accesses if accesses is None else accesses, np.int64)
        values = np.concatenate([done, self.totals], axis=1)
        for name, amount in self._leaving().items():
            values[:, counters.COUNTERS.index(name)] += amount[: self.count]
        return ReplayResult(values, self.oom())


def lane_bytes(
    workload: Workload, lane: Lane, profile: str = "7.3", heuristics: Sequence[Policy] = ()
) -> int:
    """Bytes that a lane takes while a call runs; the state of a one-lane replay is built to find it.

    heuristics: that the program has besides the lane's.
    """
    replay = Replay(workload, [lane], profile, width=1, devices=1, heuristics=heuristics)
    return COPIES * bytes_of(replay.states)


def goes_by_page(workload: Workload, lane: Lane, profile: str) -> bool:
    """Whether the machine of `machine.shared` replays it: there are several processes, CPUs or cgroups, slots
    of mapped folios may stay in the swap cache, or there is zswap or a special device.
    """
    kept = not PROFILES[profile].free_after_map and bool((workload.kind == Kind.WILLNEED).any())
    return kept or _zswap_line(workload) > 0 or bool(lane.special) or is_shared(workload)


def _zswap_line(workload: Workload) -> int:
    """Line of the first SET that switches zswap on; 0 if none does."""
    places = np.flatnonzero(workload.kind == Kind.SET).tolist()
    found = (int(workload.line[i]) for i in places if workload.text[i].split() == [settings.ZSWAP, "Y"])
    return next(found, 0)


def _check_devices(lanes: Sequence[Lane], workload: Workload, profile: str) -> None:
    """Raise InputError where devices, or zswap, cannot be replayed."""
    if not PROFILES[profile].slot_cache:
        return
    for lane in lanes:
        for key, special in lane.special.items():
            raise InputError(f"{key}: {special} is not modelled with the rules of {profile}; {LATER}")
    if line := _zswap_line(workload):
        where = f"{workload.path or workload.name}:{line}"
        raise InputError(f"{where}: zswap is not modelled with the rules of {profile}; {LATER}")


def _check_cgroups(lanes: Sequence[Lane], workload: Workload, profile: str) -> None:
    """Raise InputError where cgroups, or limits that belong to none of them, cannot be replayed."""
    named = workload.cgroups
    if named and PROFILES[profile].filtered:
        i = int(np.flatnonzero(workload.kind == Kind.CGROUP)[0])
        raise InputError(
            f"{workload.path or workload.name}:{workload.line[i]}: CGROUP is not modelled with the rules of "
            f"{profile}; take 7.2 or later"
        )
    for lane in lanes:
        for name in lane.limits:
            if name not in named:
                those = ", ".join(named) or "none"
                raise InputError(f"limit: the workload names no cgroup {name}; it names {those}")
        if named and (lane.limit, lane.high, lane.swap_max) != (None, None, None):
            raise InputError(
                f"limit: the workload names cgroups (CGROUP {named[0]}), so each limit is of one of them: "
                f"write {named[0]}=32M"
            )


def _check_frames(lanes: Sequence[Lane], by_page: bool) -> None:
    """Raise InputError where page frames cannot be replayed."""
    framed = {lane.frames is not None for lane in lanes}
    if len(framed) > 1:
        raise InputError("frames: either all lanes of one replay have page frames or none has")
    if True in framed and by_page:
        raise InputError(
            "frames: page frames are modelled for one process on one CPU and zram only, and with the rules "
            "of 6.12 and 6.18 without WILLNEED"
        )


def _swapon(devices: Sequence[Device], name: str, lanes: int, cpus: int) -> Clusters:
    """The devices as the kernel of a profile leaves them, in arrays for a power of two of clusters."""
    profile = PROFILES[name]
    room = max(LEAST_CLUSTERS, 1 << (sum(device.clusters for device in devices) - 1).bit_length())
    return swapon(
        devices,
        room,
        lanes,
        columns=profile.columns,
        scans_to_end=profile.scans_to_end,
        stepped_priority=profile.stepped_priority,
        slot_cache=profile.slot_cache > 0,
        cpus=cpus,
    )
