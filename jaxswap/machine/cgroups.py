"""Several cgroups side by side: the scalars and LRU lists of each, and what is charged to whom.

A machine's own scalars (`MachineState.used`, `inactive`, ..) are those of one cgroup at a time, the one that
is entered; the others wait in a table. Rules therefore need not know of cgroups: whoever acts for one enters
it first. Where all processes are in one cgroup there is none of this. Cgroup 0 is the root, which every
process starts in and which has no limit.

Source of the rules: mm/memcontrol.c (drain_all_stock), mm/workingset.c (workingset_age_nonresident,
workingset_eviction), mm/swap.c (struct cpu_fbatches), 7.3.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32

from jaxswap.swaptable.lanes import SPARE, load1, store1, surely, when

if TYPE_CHECKING:
    from jaxswap.machine.state import MachineState

Lane = Int32[Array, " L"]
Flag = Bool[Array, " L"]

SCALARS = (
    "inactive",
    "active",
    "waiting",
    "waiting_active",
    "used",
    "stock",
    "nr_deferred",
    "age",
    "anon_cost",
    "counted_cost",
    "flushed_cost",
    "activations",
    "refaults_seen",
    "flushed_active",
    "flushed_total",
    "flushed_activations",
)
"""Fields of MachineState that each cgroup has of its own."""
WAITING, USED, STOCK, FLUSHED_ACTIVE = (
    SCALARS.index(name) for name in ("waiting", "used", "stock", "flushed_active")
)
OWNER, BY_ROOT = 15, 16  # the word of a slot: the cgroup that is charged; evicted for the root
MOST = 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cgroups:
    """entered: the cgroup whose scalars the state has. words: SCALARS of each, of the entered one old.
    root_age: nonresident age of the root. of_process: cgroup of the process at each place. of_table: that is
    charged for the page table of each block. of_slot: that is charged for each slot, and BY_ROOT.
    """

    entered: Lane
    words: Int32[Array, "cgroups scalars L"]
    root_age: Lane
    of_process: Int32[Array, "processes L"]
    of_table: Int32[Array, "blocks L"]
    of_slot: Int32[Array, "slots L"]


def fresh(state: "MachineState", cgroups: int, processes: int, blocks: int, slots: int) -> "MachineState":
    """A machine just made, with `cgroups` cgroups, all processes in the root."""
    lanes = state.used.shape[0]
    zero = jnp.zeros((lanes,), jnp.int32)
    return replace(
        state,
        cgroups=Cgroups(
            zero,
            jnp.zeros((cgroups, len(SCALARS), lanes), jnp.int32),
            zero,
            jnp.zeros((processes, lanes), jnp.int32),
            jnp.zeros((blocks + SPARE, lanes), jnp.int32),
            jnp.zeros((slots + SPARE, lanes), jnp.int32),
        ),
    )


def _rows(c: Cgroups) -> np.ndarray:
    return np.arange(c.words.shape[0], dtype=np.int32)[:, None]


def _one(values: Int32[Array, "rows L"], at: Lane) -> Lane:
    """One row of a small table."""
    rows = np.arange(values.shape[0], dtype=np.int32)[:, None]
    return jnp.sum(jnp.where(rows == at[None], values, 0), axis=0)


def all_words(state: "MachineState") -> Int32[Array, "cgroups scalars L"]:
    """SCALARS of every cgroup as they are now."""
    assert state.cgroups is not None
    mine = jnp.stack([getattr(state, name) for name in SCALARS])
    here = _rows(state.cgroups)[:, :, None] == state.cgroups.entered[None, None]
    return jnp.where(here, mine[None], state.cgroups.words)


def enter(state: "MachineState", cgroup: Lane, on: Flag) -> "MachineState":
    """From now on the state's scalars and lists are this cgroup's."""
    if state.cgroups is None:
        return state
    goes = on & (cgroup != state.cgroups.entered)

    def change(state: "MachineState") -> "MachineState":
        assert state.cgroups is not None
        active, words = surely(goes), all_words(state)
        entered = jnp.where(active, cgroup, state.cgroups.entered)
        here = _rows(state.cgroups)[:, :, None] == entered[None, None]
        own = jnp.sum(jnp.where(here, words, 0), axis=0)
        fields = dict(zip(SCALARS, own, strict=True))
        return replace(state, **fields, cgroups=replace(state.cgroups, words=words, entered=entered))

    return when(goes, change, state)


def within(
    state: "MachineState", cgroup: Lane, on: Flag, act: Callable[["MachineState"], "MachineState"]
) -> "MachineState":
    """`act` in a cgroup, and back to the one that is entered now."""
    if state.cgroups is None:
        return act(state)
    before = state.cgroups.entered
    return enter(act(enter(state, cgroup, on)), before, on)


def of_process(state: "MachineState", place: Lane) -> Lane:
    """The cgroup of the process at a place."""
    return jnp.zeros_like(place) if state.cgroups is None else _one(state.cgroups.of_process, place)


def move(state: "MachineState", place: Lane, cgroup: Lane, on: Flag) -> "MachineState":
    """A process goes to a cgroup; what was charged stays where it is."""
    if state.cgroups is None:
        return state
    rows = np.arange(state.cgroups.of_process.shape[0], dtype=np.int32)[:, None]
    moved = jnp.where((rows == place[None]) & on[None], cgroup[None], state.cgroups.of_process)
    return replace(state, cgroups=replace(state.cgroups, of_process=moved))


def mine(state: "MachineState", place: Lane) -> Flag:
    """Whether the process at a place is in the entered cgroup."""
    if state.cgroups is None:
        return jnp.ones_like(place, bool)
    return of_process(state, place) == state.cgroups.entered


def entered(state: "MachineState", like: Lane) -> Lane:
    """The entered cgroup."""
    return jnp.zeros_like(like) if state.cgroups is None else state.cgroups.entered


# Page tables and slots


def own_table(state: "MachineState", block: Lane, on: Flag) -> "MachineState":
    """The entered cgroup has been charged for the page table of a block."""
    if (c := state.cgroups) is None:
        return state
    return replace(state, cgroups=replace(c, of_table=store1(c.of_table, block, c.entered, on)))


def enter_owner(state: "MachineState", block: Lane, on: Flag) -> "MachineState":
    """Enter the cgroup that is charged for the page table of a block."""
    if (c := state.cgroups) is None:
        return state
    owner, tables = load1(c.of_table, block)
    return enter(replace(state, cgroups=replace(c, of_table=tables)), owner, on)


def slot_word(state: "MachineState", slot: Lane) -> tuple[Lane, "MachineState"]:
    """The word of a slot."""
    if (c := state.cgroups) is None:
        return jnp.zeros_like(slot), state
    word, slots = load1(c.of_slot, slot)
    return word, replace(state, cgroups=replace(c, of_slot=slots))


# What cgroups share


def drain(state: "MachineState", on: Flag) -> "MachineState":
    """No folio of a cgroup that is not entered waits for its lists (the batch before them is the CPU's)."""
    if (c := state.cgroups) is None:
        return state
    rows = np.arange(len(SCALARS), dtype=np.int32)[None, :, None]
    waits = (rows == WAITING) | (rows == WAITING + 1)
    return replace(state, cgroups=replace(c, words=jnp.where(waits & on[None, None], 0, c.words)))


def waiting_elsewhere(state: "MachineState") -> Lane:
    """Folios of other cgroups that wait for their lists."""
    if (c := state.cgroups) is None:
        return jnp.zeros_like(state.waiting)
    return jnp.sum(jnp.where(_rows(c) == c.entered[None], 0, c.words[:, WAITING]), axis=0)


def drain_stock(state: "MachineState", on: Flag) -> "MachineState":
    """drain_all_stock: of all cgroups, if the entered one has any."""
    state_stock = state.stock
    if (c := state.cgroups) is not None:
        rows = np.arange(len(SCALARS), dtype=np.int32)[None, :, None]
        goes = (rows == STOCK) & (on & (state_stock > 0))[None, None]
        state = replace(state, cgroups=replace(c, words=jnp.where(goes, 0, c.words)))
    return replace(state, stock=jnp.where(on, 0, state_stock))


def age_root(state: "MachineState", pages: Lane) -> "MachineState":
    """workingset_age_nonresident: the root ages with its children."""
    if (c := state.cgroups) is None:
        return state
    return replace(state, cgroups=replace(c, root_age=c.root_age + pages))


def evictor(state: "MachineState", by_root: Flag) -> tuple[Lane, Lane]:
    """Of the cgroup whose reclaim took a folio, the root or the entered one: its age, and its active pages as
    of the last flush."""
    if (c := state.cgroups) is None:
        return state.age, state.flushed_active
    active_of_all = jnp.sum(all_words(state)[:, FLUSHED_ACTIVE], axis=0)
    return (
        jnp.where(by_root, c.root_age, state.age),
        jnp.where(by_root, active_of_all, state.flushed_active),
    )


def limit_of(state: "MachineState", limit: Lane, limits: Int32[Array, "cgroups L"] | None) -> Lane:
    """memory.max of the entered cgroup."""
    return limit if limits is None or state.cgroups is None else _one(limits, state.cgroups.entered)
