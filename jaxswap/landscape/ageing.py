"""Swap tables aged by the slot allocator: memory that is swapped out, freed in parts, written again.

Nothing here decides where a page goes: every slot is taken and given back by jaxswap.swaptable.clusters
(mm/swapfile.c: folio_alloc_swap, swap_put_entries_direct; 7.2 and 7.3), one device, one CPU. What is drawn is
only what the program does. Memory is as large as the device and lies in blocks of 2^b pages that are written
and reclaimed together. A step looks at one block:

* While fewer slots are in use than wanted, its pages that are not in swap are swapped out in ascending
  order. If none of it is in swap they have been written anew as folios of the step's order; else, as memory
  with swapped pages around it is (alloc_anon_folio), as small pages.
* Else its slots are given back (MADV_DONTNEED): those of one page, or all.

A folio that finds no slots is split, and its pieces follow as in shrink_folio_list: the first, then from the
last one down. Pieces that are all zero become the shared zero page (mm/huge_memory.c), so that the slots they
find are given back unused; a folio that is all zero has its slots flagged so (swap_writeout).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32

from jaxswap.swaptable import bits, clusters
from jaxswap.swaptable.clusters import Clusters, SlotRules
from jaxswap.swaptable.geometry import CLUSTER
from jaxswap.swaptable.lanes import SPARE, load, load1, repeat, store, when

Lane = Int32[Array, " L"]
Flag = Bool[Array, " L"]
Block = Int32[Array, "block L"]

WHOLE = -1  # page of a step that frees all of its block
NOT_IN_SWAP = -1
CHUNK = 1 << 15  # steps that go to the device together


class Life(NamedTuple):
    """What a program does while a table ages.

    block: order of the blocks. mix: share of blocks written as folios of each order, 0 to 9. single: share of
    frees that give back one page. zero: share of pages that hold only zeros. occupancy: share of the usable
    slots in use.
    """

    block: int
    mix: tuple[float, ...]
    single: float
    zero: float
    occupancy: float


class Steps(NamedTuple):
    """Steps in turn: the block, the order its folios have if it is written anew, the page of it that is freed
    (WHOLE: all)."""

    block: Int32[Array | np.ndarray, "steps *L"]
    order: Int32[Array | np.ndarray, "steps *L"]
    page: Int32[Array | np.ndarray, "steps *L"]


def zero_pages(life: Life, pages: int, seed: int) -> Bool[np.ndarray, "pages"]:
    """Which pages hold only zeros, always."""
    return np.random.default_rng([seed, 0]).random(pages, np.float32) < life.zero


def steps(life: Life, blocks: int, seed: int) -> Iterator[Steps]:
    """The steps of a life in chunks, without end: every block once in ascending order, then any at random."""
    random = np.random.default_rng([seed, 1])
    taken = 0
    while True:
        block = random.integers(0, blocks, CHUNK, dtype=np.int32)
        ascending = np.arange(taken, taken + CHUNK, dtype=np.int32)
        order = random.choice(len(life.mix), CHUNK, p=life.mix).astype(np.int32)
        page = random.integers(0, 1 << life.block, CHUNK, dtype=np.int32)
        page[random.random(CHUNK) >= life.single] = WHOLE
        yield Steps(np.where(ascending < blocks, ascending, block), order, page)
        taken = min(taken + CHUNK, blocks)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ageing:
    """A device and the memory that is swapped to it.

    places: twice the slot of each page, plus 1 where that is flagged zero; -1 for a page that is not in swap.
    zero: pages of zeros. wanted: slots to be in use. written: slots taken so far.
    """

    clusters: Clusters
    rules: SlotRules
    places: Int32[Array, "pages+512 L"]
    zero: Bool[Array, "pages+512 L"]
    wanted: Lane
    written: Lane


def begin(
    c: Clusters, rules: SlotRules, zero: Bool[np.ndarray, "pages L"], wanted: Int32[np.ndarray, " L"]
) -> Ageing:
    """A device just swapped on (jaxswap.swaptable.swapon) without a slot cache, no page in swap yet."""
    spare = np.zeros((SPARE, zero.shape[1]), bool)
    return Ageing(
        c,
        jax.tree.map(jnp.asarray, rules),
        jnp.full((zero.shape[0] + SPARE, zero.shape[1]), NOT_IN_SWAP, jnp.int32),
        jnp.asarray(np.concatenate([zero, spare])),
        jnp.asarray(wanted, jnp.int32),
        jnp.zeros(zero.shape[1], jnp.int32),
    )


class _Out(NamedTuple):
    """A block on its way out. at: pages before it are done with. low, high: pieces of a split folio that are
    left; fresh: none of them has gone yet."""

    ageing: Ageing
    row: Block
    at: Lane
    low: Lane
    high: Lane
    fresh: Flag


def _first(wanted: Bool[Array, "block L"], number: Block) -> Lane:
    """The lowest page that is wanted, or the block's size."""
    return jnp.min(jnp.where(wanted, number, wanted.shape[0]), axis=0)


def _last(wanted: Bool[Array, "block L"], number: Block) -> Lane:
    """The highest page that is wanted, or -1."""
    return jnp.max(jnp.where(wanted, number, -1), axis=0)


def _swap_out(
    a: Ageing, row: Block, zero: Bool[Array, "block L"], order: Lane, on: Flag
) -> tuple[Ageing, Block]:
    """Swap out all pages of a block that are not in swap, as folios of 2^order."""
    size = row.shape[0]
    number, no = jnp.arange(size, dtype=jnp.int32)[:, None], jnp.zeros_like(on)

    def waiting(out: _Out) -> Flag:
        rest = _first((out.row < 0) & (number >= out.at[None]), number) < size
        return on & ((out.low < out.high) | rest)

    def folio(out: _Out) -> _Out:
        active = waiting(out)
        piece = out.low < out.high
        down = piece & ~out.fresh
        left = (number >= out.low[None]) & (number < jnp.where(out.fresh, out.low + 1, out.high)[None])
        rest = (out.row < 0) & (number >= out.at[None])
        page = jnp.where(piece, jnp.where(down, out.high - 1, out.low), _first(rest, number))
        page = bits.once(page)
        small = piece | (order == 0)
        nobodys = piece & jnp.any(zero & (number == page[None]), axis=0)
        alike = jnp.where(piece[None], left & ~zero, rest)
        up = _first(~alike & (number > page[None]), number) - page
        under = page - _last(~alike & (number < page[None]), number)
        want = jnp.where(small & ~nobodys, jnp.where(down, under, up), 1)
        kind = bits.once(jnp.where(small, 0, order))
        c, slot, got = clusters.alloc(out.ageing.clusters, out.ageing.rules, 0, kind, bits.once(want), active)
        found = active & (slot >= 0)
        returns = found & nobodys
        c = when(returns, lambda c: clusters.put(c, 0, slot, jnp.ones_like(slot), no, returns), c)
        pages = bits.once(jnp.where(found, got << kind, 0))
        offset = jnp.where(down[None], page[None] - number, number - page[None])
        mine = (offset >= 0) & (offset < pages[None]) & ~nobodys[None]
        flag = jnp.where(small[None], zero, jnp.all(zero | ~mine, axis=0)[None])
        splits = active & ~found & ~small
        # A page that finds no slot stays.
        after = page + jnp.where(splits, jnp.int32(1) << order, jnp.maximum(pages, 1))
        low = jnp.where(splits, page, out.low + (piece & out.fresh))
        high = jnp.where(splits, after, out.high - jnp.where(down, jnp.maximum(pages, 1), 0))
        return _Out(
            replace(out.ageing, clusters=c, written=out.ageing.written + jnp.where(nobodys, 0, pages)),
            jnp.where(mine, 2 * (slot[None] + offset) + flag, out.row),
            jnp.where(active & ~piece, after, out.at),
            jnp.where(active, low, out.low),
            jnp.where(active, high, out.high),
            jnp.where(active, splits, out.fresh),
        )

    none = jnp.zeros_like(order)
    out = repeat(waiting, folio, _Out(a, row, none, none, none, jnp.zeros_like(on)))
    return out.ageing, out.row


def _give_back(a: Ageing, row: Block, page: Lane, on: Flag) -> tuple[Ageing, Block]:
    """Give back the slots of one page of a block, or of all, run after run of consecutive ones."""
    size = row.shape[0]
    number = jnp.arange(size, dtype=jnp.int32)[:, None]
    chosen = (row >= 0) & ((page == WHOLE)[None] | (number == page[None])) & on[None]
    slot = row >> 1
    before = jnp.concatenate([jnp.full_like(slot[:1], -2), slot[:-1]])
    follows = jnp.concatenate([jnp.zeros_like(chosen[:1]), chosen[:-1]])
    follows = chosen & follows & (slot == before + 1) & (slot & (CLUSTER - 1) != 0)
    begins = lax.optimization_barrier(chosen & ~follows)

    def run(carry: tuple[Clusters, Lane]) -> tuple[Clusters, Lane]:
        c, at = carry
        active = at < size
        end = _first(~follows & (number > at[None]), number)
        first = jnp.sum(jnp.where(number == at[None], slot, 0), axis=0)
        length = bits.once(end - at)
        c = clusters.put(c, 0, bits.once(first), length, length > 1, active)
        following = _first(begins & (number > at[None]), number)
        return c, jnp.where(active, following, at)

    c, _ = repeat(lambda carry: carry[1] < size, run, (a.clusters, _first(begins, number)))
    return replace(a, clusters=c), jnp.where(chosen, NOT_IN_SWAP, row)


def _step(a: Ageing, size: int, block: Lane, order: Lane, page: Lane, on: Flag) -> Ageing:
    start = block * size
    row, places = load(a.places, start, size)
    zero, zeros = load(a.zero, start, size)
    a = replace(a, places=places, zero=zeros)
    out = on & (a.clusters.total - a.clusters.free < a.wanted)
    some_in_swap = jnp.any(row >= 0, axis=0)
    order = bits.once(jnp.where(some_in_swap, 0, order))
    leaves = out & jnp.any(row < 0, axis=0)
    frees = on & ~out & some_in_swap
    a, row = when(leaves, lambda x: _swap_out(*x, zero, order, leaves), (a, row))
    a, row = when(frees, lambda x: _give_back(*x, page, frees), (a, row))
    return replace(a, places=store(a.places, start, row, leaves | frees))


@jax.jit(static_argnames="size", donate_argnums=0)
def advance(a: Ageing, steps: Steps, start: Lane, goal: Lane, *, size: int) -> tuple[Ageing, Lane]:
    """Steps ([steps, L] each) of blocks of `size` pages from `start` until `goal` slots have been taken in
    all, or the steps are over: (ageing, the step to go on with)."""
    count = steps.block.shape[0]

    def going(carry: tuple[Ageing, Lane]) -> Flag:
        return (carry[1] < count) & (carry[0].written < goal)

    def turn(carry: tuple[Ageing, Lane]) -> tuple[Ageing, Lane]:
        on = going(carry)
        a, at = carry
        here = jnp.minimum(at, count - 1)
        block, order, page = (load1(jnp.asarray(column), here)[0] for column in steps)
        return _step(a, size, block, order, page, on), at + on

    return repeat(going, turn, (a, start))
