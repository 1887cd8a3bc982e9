"""Where each lane stands inside an operation: a place in the rules, and what the rules have in hand there.

The rules of this machine call each other: a fault charges memory, which reclaims, which takes slots, which
drops folios from the swap cache. So each rule is a place that a lane stays at for a turn, with the place to
return to in a register. It is compiled once, however many others call it.
"""

import enum
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxswap.machine.fault import Access, Plan
from jaxswap.machine.state import Flag, Lane, Mask
from jaxswap.machine.work import Work, gfp_kernel, work_of


class At(enum.IntEnum):
    """Places. The first are where an operation begins, the others what may follow."""

    DONE = 0
    ACCESS = enum.auto()
    AHEAD = enum.auto()
    ZAP = enum.auto()
    LET_GO = enum.auto()
    CUT = enum.auto()
    PAGEOUT = enum.auto()
    COOL = enum.auto()
    FORK = enum.auto()
    EXIT = enum.auto()
    WINDOW_COPY = enum.auto()
    SET = enum.auto()
    WORKER = enum.auto()
    SPLIT_BLOCK = enum.auto()
    ZAPPED = enum.auto()
    FORK_TABLES = enum.auto()
    JOIN = enum.auto()
    OBJECTS = enum.auto()
    CUT_LINK = enum.auto()
    SPLIT_DEFERRED = enum.auto()
    # Faults
    FAULT = enum.auto()
    CHARGE = enum.auto()
    CHARGE_WORK = enum.auto()
    TABLE = enum.auto()
    HUGE = enum.auto()
    HUGE_FOLIO = enum.auto()
    ARRIVE = enum.auto()
    MAP = enum.auto()
    MAPPED = enum.auto()
    PROTECTED = enum.auto()
    REUSE = enum.auto()
    COPY = enum.auto()
    COPIED = enum.auto()
    FAULT_END = enum.auto()
    READ_AROUND = enum.auto()
    READ_NEXT = enum.auto()
    READ = enum.auto()
    READ_END = enum.auto()
    # Slots
    PUT = enum.auto()
    PUT_CACHED = enum.auto()
    ALLOC = enum.auto()
    ALLOC_HINT = enum.auto()
    ALLOC_DRAW = enum.auto()
    ALLOC_LIST = enum.auto()
    ALLOC_FIND = enum.auto()
    ALLOC_RECLAIM = enum.auto()
    ALLOC_RECLAIMED = enum.auto()
    FULL_CLUSTER = enum.auto()
    DROP = enum.auto()
    RECLAIM_WORK = enum.auto()
    # Going out
    SHRINK = enum.auto()
    SHRUNK = enum.auto()
    SPLIT = enum.auto()
    PIECE = enum.auto()
    PIECE_OUT = enum.auto()
    PIECE_PASSED = enum.auto()
    OUT = enum.auto()
    OUT_SLOTS = enum.auto()
    OUT_UNMAP = enum.auto()
    OUT_WRITE = enum.auto()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Registers:
    """What each lane has in hand.

    at: its place; home: where the next part of the operation begins; cursor, stop: the part of it still to
    do; base: page of place 0. back_*: the place to return to.

    drop, dropped: folio to take out of the swap cache, whether it went. put_slot, put_end: slots whose
    entries are gone. alloc_order, rank, device, visited, cluster, hinted, start, turn, scanned, most, fill,
    slot: a search for slots and its answer (start is also where advice began; scanned, most: clusters tried
    and to try of nonfull and frag; fill: slots the CPU's hand still wants). due: set of devices whose full
    clusters the worker is to look through; rounds: how many of those of `device` are left. out, out_done:
    folio to swap out, whether it found slots. shrink, piece, pieces: folio that is to go, its pieces. split:
    folio being split; before, active: its neighbour and its list; deferred: how many of the deferred split
    list are to be split. zaps_table: pages given back may take their
    page table along.

    begun: the access has faulted before. access, plan, work: of the fault. ask, tried, refused,
    got: its charge. folio: that is mapped or copied; past: read past the swap cache. low, pages: what was
    mapped; fixes: it becomes exclusive if the swap cache lets go of the folio (while one goes out: it has
    content). window: readahead state of the access's VMA; around, left, reading: first page, or slot, of
    the window, how many it has, the next one; source: the slot being read.
    """

    at: Lane
    home: Lane
    cursor: Lane
    stop: Lane
    base: Lane
    back_drop: Lane
    back_put: Lane
    back_alloc: Lane
    back_full: Lane
    back_work: Lane
    back_out: Lane
    back_shrink: Lane
    back_split: Lane
    back_cut: Lane
    back_charge: Lane
    drop: Lane
    dropped: Flag
    put_slot: Lane
    put_end: Lane
    alloc_order: Lane
    rank: Lane
    device: Lane
    visited: Lane
    cluster: Lane
    hinted: Flag
    start: Lane
    turn: Lane
    scanned: Lane
    most: Lane
    fill: Lane
    slot: Lane
    due: Lane
    rounds: Lane
    out: Lane
    out_done: Flag
    shrink: Lane
    piece: Lane
    pieces: Lane
    split: Lane
    before: Lane
    active: Flag
    deferred: Lane
    zaps_table: Flag
    begun: Flag
    access: Access
    plan: Plan
    work: Work
    ask: Lane
    tried: Mask
    refused: Mask
    got: Lane
    folio: Lane
    past: Flag
    fixes: Flag
    low: Lane
    pages: Lane
    window: Lane
    around: Lane
    left: Lane
    reading: Lane
    source: Lane


def blank(annotation: Any, lanes: tuple[int, ...]) -> Any:
    """A value of zeros of the type that a field is annotated with; fields with a default have that."""
    if annotation is Flag:
        return jnp.zeros(lanes, bool)
    if annotation is Mask:
        return jnp.zeros(lanes, jnp.uint32)
    if annotation is Work:
        zero = jnp.zeros(lanes, jnp.int32)
        return work_of(zero, zero.astype(jnp.uint32), zero.astype(jnp.uint32), gfp_kernel(zero), zero != 0)
    if hasattr(annotation, "_fields"):
        types, defaults = annotation.__annotations__, annotation._field_defaults
        return annotation(**{name: blank(types[name], lanes) for name in types if name not in defaults})
    return jnp.zeros(lanes, jnp.int32)


def registers(lanes: tuple[int, ...]) -> Registers:
    """Nothing in hand."""
    types = Registers.__annotations__
    return Registers(**{name: blank(types[name], lanes) for name in types})


def assign(regs: Registers, on: Flag, **values: Lane | Flag | Mask | int | bool) -> Registers:
    """Registers set in the lanes that are on."""
    new = {}
    for name, value in values.items():
        old = getattr(regs, name)
        new[name] = jnp.where(on, jnp.asarray(value).astype(old.dtype), old)
    return replace(regs, **new)


def select[T](on: Flag, new: T, old: T) -> T:
    """A tree of the new values in the lanes that are on, else of the old ones."""
    return jax.tree.map(lambda a, b: jnp.where(on, a, b), new, old)
