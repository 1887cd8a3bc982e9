"""What a machine of several processes knows: page-table entries, folios by number, counts of the slots.

Page v of process k is page k * room + v of the page tables. `MachineState.slots` has of a swapped page its
slot, of a present one the number of its folio; the LRU links go from folio to folio; shadows belong to slots.
Every array has a trailing lane axis L. Source: struct folio, struct page (PageAnonExclusive), mm/swap_table.h
(counts), 7.3.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt32

from jaxswap.machine import cgroups
from jaxswap.machine import state as machine
from jaxswap.machine.state import LISTS, Flag, Lane, MachineState, Mask
from jaxswap.swaptable.cluster_table import HINTS, devices
from jaxswap.swaptable.clusters import Clusters, capacity
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, store1, surely

# The word of a page: what it is, then flags.
NONE, ZEROPAGE, PRESENT, SWAPPED, KIND = 0, 1, 2, 3, 3
EXCLUSIVE, NONZERO, YOUNG, TOUCHED, CAMEBACK, LARGE = 4, 8, 16, 32, 64, 128

# Flags of a folio.
DIRTY, PARTIAL, AHEAD, USED, MARKED = 1, 2, 4, 8, 16
ACTIVE, REFERENCED, WORKINGSET, LISTED = 32, 64, 128, 256
CONTENT = 512  # nobody maps it, and it is not all zeros
MEMCG = 10  # above this bit: the cgroup that is charged for it

FIELDS = 16  # words of a folio
STRAYS = 1024  # folios there is room for beside one a page
FIRST_HITS = 4  # of readahead, before any
BLOCK = 512


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sharing:
    """The part of the state that only several processes need.

    pages: word of each page. folios: FIELDS words each. spare: numbers of folios that do not exist, `left` of
    them. counts, cache: of each slot its count and the folio in the swap cache, -1 for none. pieces: of the
    folio being split, the new folios, then whether somebody maps them. first, last: folios that lost a
    mapping in the call under way, linked; -1 for none. deferred: of each cgroup, folios on the deferred split
    list; come: that ever came to one. ahead: three words a readahead state of a VMA: page
    of the last fault + 1 (0 before the first), window, hits. processes: nothing but a row each of the
    processes there is room for, so that the shape tells how many.

    devices: what each device is. hints: where each that is rotational goes on, HINTS words each. homes: page
    of the region that each slot was taken for. around: state of swap_cluster_readahead: slot of its device
    + 1, window, hits. switches: of readahead and zswap. See machine.shared.devices.
    """

    pages: UInt32[Array, "pages L"]
    folios: Int32[Array, "words L"]
    spare: Int32[Array, "folios L"]
    left: Lane
    counts: Int32[Array, "slots L"]
    cache: Int32[Array, "slots L"]
    pieces: Int32[Array, "pieces L"]
    first: Lane
    last: Lane
    ahead: Int32[Array, "words L"]
    processes: Int32[Array, "processes L"]
    deferred: Int32[Array, "cgroups L"]
    come: Lane
    devices: Int32[Array, "devices L"]
    hints: Int32[Array, "hints L"]
    homes: Int32[Array, "slots L"]
    around: Int32[Array, "words L"]
    switches: Lane


class Folio(NamedTuple):
    """2^order pages from page `base` of the region. place: first slot in the swap cache, or -1. maps: how
    many page-table entries map it. owner0, owner1 (-1: none), owned0, owned1: as _mm_id, _mm_id_mapcount.
    gather: the next folio that lost a mapping, -1 at the end, -2 if it is not among them. queued: its number
    in the order of coming to the deferred split list, 0 if it is not there. base is -1 once it is gone.
    """

    base: Lane
    order: Lane
    place: Lane
    maps: Lane
    owner0: Lane
    owner1: Lane
    owned0: Lane
    owned1: Lane
    flags: Lane
    gather: Lane
    queued: Lane

    @property
    def size(self) -> Lane:
        return jnp.int32(1) << self.order

    @property
    def memcg(self) -> Lane:
        return self.flags >> MEMCG

    def has(self, flag: int) -> Flag:
        return self.flags & flag != 0


def start(
    processes: int, room: int, slots: int, windows: int, devices: int, groups: int, lanes: int
) -> Sharing:
    """Nothing mapped; `room` pages a process, a multiple of 512; plain devices; `groups` cgroups."""
    folios = processes * room + STRAYS
    spare = np.arange(folios + SPARE, dtype=np.int32)[:, None].repeat(lanes, axis=1)
    none = jnp.full((lanes,), -1, jnp.int32)
    return Sharing(
        pages=jnp.zeros((processes * room + SPARE, lanes), jnp.uint32),
        folios=jnp.full((folios * FIELDS + SPARE, lanes), -1, jnp.int32),
        spare=jnp.asarray(spare),
        left=jnp.full((lanes,), folios, jnp.int32),
        counts=jnp.zeros((slots + SPARE, lanes), jnp.int32),
        cache=jnp.full((slots + SPARE, lanes), -1, jnp.int32),
        pieces=jnp.zeros((2 * BLOCK + SPARE, lanes), jnp.int32),
        first=none,
        last=none,
        ahead=jnp.zeros((3 * windows + SPARE, lanes), jnp.int32),
        processes=jnp.zeros((processes, lanes), jnp.int32),
        deferred=jnp.zeros((groups, lanes), jnp.int32),
        come=jnp.zeros((lanes,), jnp.int32),
        devices=jnp.ones((devices, lanes), jnp.int32),
        hints=jnp.zeros((devices * HINTS + SPARE, lanes), jnp.int32),
        homes=jnp.zeros((slots + SPARE, lanes), jnp.int32),
        around=jnp.zeros((3, lanes), jnp.int32).at[2].set(FIRST_HITS),
        switches=jnp.ones((lanes,), jnp.int32),
    )


def init(
    processes: int, room: int, windows: int, swap: Clusters, lanes: int, groups: int = 1
) -> MachineState:
    """A machine with no page mapped in any process and fresh swap devices; `windows` readahead states,
    `groups` cgroups."""
    folios, pages, slot_room = processes * room + STRAYS, processes * room, capacity(swap) * BLOCK
    plain = machine.init(BLOCK, swap, lanes)
    if groups > 1:
        plain = cgroups.fresh(plain, groups, processes, pages // BLOCK, slot_room)
    all_links = folios + 2 * (groups - 1) + LISTS + SPARE
    links = jnp.arange(all_links, dtype=jnp.int32)[:, None].repeat(lanes, axis=1)
    return replace(
        plain,
        slots=jnp.zeros((pages + SPARE, lanes), jnp.int32),
        shadows=jnp.zeros((slot_room + SPARE, lanes), jnp.uint32),
        tables=jnp.zeros((pages // BLOCK + SPARE, lanes), jnp.int32),
        next=links,
        prev=links,
        sharing=start(processes, room, slot_room, windows, devices(swap), groups, lanes),
    )


def of(state: MachineState) -> Sharing:
    """The sharing of a machine that has some."""
    assert state.sharing is not None
    return state.sharing


def put(state: MachineState, **changed: Array) -> MachineState:
    """The state with fields of its sharing replaced."""
    return replace(state, sharing=replace(of(state), **changed))


def processes(state: MachineState) -> int:
    """Processes there is room for."""
    return of(state).processes.shape[0]


def room(state: MachineState) -> int:
    """Pages of each process."""
    return (of(state).pages.shape[0] - SPARE) // processes(state)


# Pages


def page(state: MachineState, v: Lane) -> tuple[Mask, Lane, MachineState]:
    """Word of a page, and its folio or slot."""
    word, pages = load1(of(state).pages, v)
    at, slots = load1(state.slots, v)
    return word, at, put(replace(state, slots=slots), pages=pages)


def set_word(state: MachineState, v: Lane, word: Mask, on: Flag) -> MachineState:
    """Change the word of a page."""
    return put(state, pages=store1(of(state).pages, v, word, on))


def set_page(state: MachineState, v: Lane, word: Mask, at: Lane, on: Flag) -> MachineState:
    """Change the word of a page and its folio or slot."""
    return set_word(replace(state, slots=store1(state.slots, v, at, on)), v, word, on)


def kind(word: Mask) -> Mask:
    """NONE, ZEROPAGE, PRESENT or SWAPPED."""
    return word & np.uint32(KIND)


def has(word: Mask, flag: int) -> Flag:
    """Whether a page has a flag."""
    return word & np.uint32(flag) != 0


# Folios


def folio(state: MachineState, number: Lane) -> tuple[Folio, MachineState]:
    """A folio by its number."""
    words, table = load(of(state).folios, number * FIELDS, FIELDS)
    return Folio(*(words[i] for i in range(len(Folio._fields)))), put(state, folios=table)


def set_folio(state: MachineState, number: Lane, folio: Folio, on: Flag) -> MachineState:
    """Write all of a folio."""
    blank = [jnp.zeros_like(folio.base)] * (FIELDS - len(folio))
    words = jnp.stack([jnp.broadcast_to(x, folio.base.shape).astype(jnp.int32) for x in (*folio, *blank)])
    return put(state, folios=store(of(state).folios, number * FIELDS, words, on))


def flagged(folio: Folio, flag: int, value: Flag) -> Folio:
    """The folio with a flag set or cleared."""
    return folio._replace(flags=jnp.where(value, folio.flags | flag, folio.flags & ~flag))


def new_number(state: MachineState, on: Flag) -> tuple[Lane, MachineState]:
    """A number for a new folio."""
    left = of(state).left - on
    number, spare = load1(of(state).spare, jnp.maximum(left, 0))
    return number, put(state, spare=spare, left=left)


def defer_split(state: MachineState, folio: Folio, on: Flag) -> tuple[MachineState, Folio]:
    """deferred_split_folio: behind all others on the list of its cgroup. The folio is still to be written."""
    come = of(state).come + on
    state = put(_count_deferred(state, folio, 1, on), come=come)
    return state, folio._replace(queued=jnp.where(on, come, folio.queued))


def _count_deferred(state: MachineState, folio: Folio, change: int, on: Flag) -> MachineState:
    rows = np.arange(of(state).deferred.shape[0], dtype=np.int32)[:, None]
    here = on[None] & (rows == folio.memcg[None])
    return put(state, deferred=of(state).deferred + jnp.where(here, change, 0))


def deferred_here(state: MachineState) -> Lane:
    """Folios on the deferred split list of the cgroup that is entered."""
    counts = of(state).deferred
    rows = np.arange(counts.shape[0], dtype=np.int32)[:, None]
    here = rows == cgroups.entered(state, counts[0])[None]
    return jnp.sum(jnp.where(here, counts, 0), axis=0)


def first_deferred(state: MachineState) -> tuple[Lane, MachineState]:
    """The folio that came first to the deferred split list of the cgroup that is entered."""
    table = of(state).folios
    words = table[:-SPARE].reshape(-1, FIELDS, table.shape[1])
    base, flags, queued = (words[:, Folio._fields.index(name)] for name in ("base", "flags", "queued"))
    here = flags >> MEMCG == cgroups.entered(state, base[0])[None]
    numbers = jnp.where((base >= 0) & (queued > 0) & here, queued, jnp.iinfo(jnp.int32).max)
    number, table = lax.optimization_barrier((jnp.argmin(numbers, axis=0).astype(jnp.int32), table))
    return number, put(state, folios=table)


def release_number(state: MachineState, number: Lane, on: Flag) -> MachineState:
    """The folio does not exist any more."""
    gone, state = folio(state, number)
    state = _count_deferred(state, gone, -1, on & (gone.queued > 0))
    table = store1(of(state).folios, number * FIELDS, jnp.full_like(number, -1), on)
    spare = store1(of(state).spare, of(state).left, number, on)
    return put(state, folios=table, spare=spare, left=of(state).left + on)


def fresh_folio(base: Lane, order: Lane, flags: Lane) -> Folio:
    """A folio that nobody maps, not in the swap cache."""
    zero = jnp.zeros_like(base)
    return Folio(base, order, zero - 1, zero, zero - 1, zero - 1, zero, zero, flags, zero - 2, zero)


# Loops


def fill(table: Array, start: Lane, size: Lane, value: Lane, on: Flag) -> Array:
    """Write one value into some consecutive words."""

    def turn(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        table, i = carry
        return store1(table, start + i, value, surely(on & (i < size))), i + 1

    return repeat(lambda carry: on & (carry[1] < size), turn, (table, jnp.zeros_like(start)))[0]


def count_up(table: Array, start: Lane, size: Lane, value: Lane, on: Flag) -> Array:
    """Write value, value + 1, .. into some consecutive words."""

    def turn(carry: tuple[Array, Lane]) -> tuple[Array, Lane]:
        table, i = carry
        return store1(table, start + i, value + i, surely(on & (i < size))), i + 1

    return repeat(lambda carry: on & (carry[1] < size), turn, (table, jnp.zeros_like(start)))[0]


def each_mapping[T](
    state: MachineState, number: Lane, seen: Folio, act, carry: T, on: Flag
) -> tuple[MachineState, T]:
    """`act(state, carry, v, i, word, on)` for every entry that maps a folio: page v, the folio's page i."""
    pages = room(state)
    end = seen.size * processes(state)

    def more(loop: tuple) -> Flag:
        return on & (loop[2] < end) & (loop[3] > 0)

    def turn(loop: tuple) -> tuple:
        state, carry, at, left = loop
        i = at & (seen.size - 1)
        v = (at >> seen.order) * pages + seen.base + i
        word, owner, state = page(state, v)
        mine = surely(more(loop)) & (kind(word) == PRESENT) & (owner == number)
        state, carry = act(state, carry, v, i, word, mine)
        return state, carry, at + 1, left - mine

    state, carry, _, _ = repeat(more, turn, (state, carry, jnp.zeros_like(number), seen.maps))
    return state, carry
