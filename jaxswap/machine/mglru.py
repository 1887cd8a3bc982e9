"""Reclaim under a memory limit by the multi-gen LRU: aging walks, eviction, look-around.

Source of the rules: mm/vmscan.c (lru_gen_shrink_lruvec, try_to_shrink_lruvec, evict_folios, scan_folios,
sort_folio, get_tier_idx, try_to_inc_max_seq, inc_max_seq, try_to_inc_min_seq, walk_mm, lru_gen_look_around),
7.3. A cgroup without file pages, on one node with one zone, everything enabled (lru_gen/enabled is 7).
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import blocks, deferred, generations, rows, tables
from jaxswap.machine.counters import count
from jaxswap.machine.generations import ISOLATED, KEPT, MAX_NR_GENS, MAX_NR_TIERS, MIN_NR_GENS, Found, of, put
from jaxswap.machine.layout import Layout
from jaxswap.machine.reclaim import DEF_PRIORITY
from jaxswap.machine.rows import once
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.swapout import keep_in_cache, swap_left
from jaxswap.machine.work import BATCH, END, INACTIVE, PASS, SETTLE, SLAB, Work, change
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import SPARE, load1, repeat, store1, surely, when

MIN_LRU_BATCH = 64
PTES_A_LINE = 8  # of a cache line, suitable_to_scan
BLOCK = 512


def begin(
    state: MachineState, params: MachineParams, work: Work, layout: Layout, on: Flag
) -> tuple[MachineState, Work]:
    """A pass begins, if it is to; the next batch of it: age where it must be, and isolate folios."""
    begins = on & (work.phase == PASS)
    state, work = when(begins, lambda c: _begin_pass(c[0], params, c[1], surely(begins)), (state, work))
    scans = on & (work.phase == BATCH)
    return when(scans, lambda c: _isolate(c[0], c[1], layout, surely(scans)), (state, work))


def _begin_pass(
    state: MachineState, params: MachineParams, work: Work, on: Flag
) -> tuple[MachineState, Work]:
    """lru_gen_shrink_lruvec at one priority."""
    state = generations.lru_add_drain(state, on)
    first = on & (work.priority == DEF_PRIORITY) & (work.attempt == 0)
    no = jnp.zeros_like(on)
    state = put(put(state, on, walking=no), ran=of(state).ran | first)
    enough = (swap_left(state, params) >= MIN_LRU_BATCH) & (params.swappiness > 0)

    size = state.inactive

    def idle(priority: Lane) -> Flag:
        return ~enough | (size >> priority == 0)

    state, priority = deferred.pass_over(state, work.priority, idle, on)
    left = jnp.where(enough, state.inactive >> priority, 0)
    phase = jnp.where(left > 0, BATCH, SLAB)
    return state, change(work, on, phase=phase, priority=priority, left=left, done=0)


def end_pass(work: Work, on: Flag) -> Work:
    """do_try_to_free_pages: the next priority; after the last, once more if nothing came."""
    total = work.total + work.done
    last = on & ((total >= work.goal) | (work.priority == 0))
    attempt = work.attempt + last
    over = last & ((total > 0) | (attempt == 2))
    return change(
        work,
        on,
        phase=jnp.where(over, END, PASS),
        total=total,
        attempt=attempt,
        priority=jnp.where(last, DEF_PRIORITY, work.priority - 1),
    )


# Eviction


def _isolate(state: MachineState, work: Work, layout: Layout, on: Flag) -> tuple[MachineState, Work]:
    """try_to_shrink_lruvec: age if the oldest generation is too young; then take folios off it."""
    oldest = jnp.minimum(of(state).min_anon, of(state).min_file) + MIN_NR_GENS
    max_seq = of(state).max_seq
    ages = on & ((oldest > max_seq) | ((work.priority < DEF_PRIORITY) & (oldest == max_seq)))
    ages = ages & (max_seq > of(state).walked)
    state = when(ages, lambda s: _age(s, layout, surely(ages)), state)
    state = _inc_min_seq(state, on)
    state, scanned = _scan_folios(state, jnp.minimum(work.left, MIN_LRU_BATCH), on)
    state = _inc_min_seq(state, on & (scanned > 0))
    return state, change(work, on, phase=INACTIVE, scanned=scanned)


def _scan_folios(state: MachineState, most: Lane, on: Flag) -> tuple[MachineState, Lane]:
    """At most so many folios from the tail of the oldest generation: (state, pages looked at).

    A folio of another generation, or of a tier that is protected, goes there (sort_folio); others are
    isolated.
    """
    lists = of(state)
    oldest = lists.min_anon
    on = on & (lists.max_seq - oldest + 1 > MIN_NR_GENS)
    unprotected = once(_highest_unprotected(state))
    head = generations.head(state, oldest)
    zero = jnp.zeros_like(most)

    def more(carry: tuple[MachineState, Lane, Lane, Lane, Lane, Flag]) -> Flag:
        _, left, _, _, taken, empty = carry
        return on & (left > 0) & (taken < MIN_LRU_BATCH) & ~empty

    def turn(carry: tuple) -> tuple:
        state, left, scanned, moved, taken, empty = carry
        active = surely(more(carry))
        page, state = generations.tail(state, head)
        ended = page == head
        active = active & ~ended
        folio, state = generations.look(state, jnp.where(active, page, 0))
        flags = folio.flags
        elsewhere = flags.gen != generations.gen_of(oldest)
        refs = generations.refs_of(flags)
        protects = active & ~elsewhere & (generations.tier_of(refs, flags.workingset) > unprotected)
        state, folio = when(protects, lambda c: protect(c[0], c[1], surely(protects)), (state, folio))
        sorts = active & (elsewhere | protects)
        takes = active & ~sorts
        kept = folio.flags._replace(refs=jnp.where(flags.referenced, flags.refs, 0))
        state = generations.change(state, folio.page, folio.order, folio.broken, kept, True, takes)
        to = jnp.where(takes, generations.aside(state, ISOLATED), generations.head(state, folio.flags.gen))
        state = generations.move(state, folio.page, to, active)
        size = jnp.where(active, folio.size, 0)
        return (
            state,
            left - active,
            scanned + size,
            moved + jnp.where(sorts, size, 0),
            taken + jnp.where(takes, size, 0),
            empty | ended,
        )

    start = (state, most, zero, zero, zero, jnp.zeros_like(on))
    state, _, scanned, moved, taken, _ = repeat(more, turn, start)
    return replace(state, n=count(state.n, on, pgscan=taken, pgrefill=moved)), scanned


def protect(state: MachineState, folio: Found, on: Flag) -> tuple[MachineState, Found]:
    """folio_inc_gen of a folio of the oldest generation: (state, the folio as it is then)."""
    flags = folio.flags
    refs = generations.refs_of(flags)
    counts = refs + flags.workingset != generations.MOST_REFS + 2
    tier = generations.tier_of(refs, flags.workingset)
    state = generations.account(state, generations.PROTECTED, tier, folio.size, on & counts)
    flags = flags._replace(
        referenced=jnp.zeros_like(on), refs=jnp.zeros_like(refs), gen=generations.gen_of(flags.gen + 1)
    )
    state = generations.change(state, folio.page, folio.order, folio.broken, flags, False, on)
    # Another lane's folio is not protected.
    chosen = [jnp.where(on, new, old) for new, old in zip(flags, folio.flags, strict=True)]
    return state, folio._replace(flags=generations.Flags(*chosen))


def _highest_unprotected(state: MachineState) -> Lane:
    """get_tier_idx, positive_ctrl_err: protected is from the first tier of which more come back than of tier
    0."""
    back, total = generations.position(state)
    least, most = (x.astype(jnp.uint32) for x in (back[:1] + 1, total[:1] + MIN_LRU_BATCH))
    more = _larger_product((back.astype(jnp.uint32), most * 2), (least, total.astype(jnp.uint32) * 3))
    better = (back >= MIN_LRU_BATCH) & more
    found = jnp.full_like(total[0], MAX_NR_TIERS - 1)
    for tier in range(MAX_NR_TIERS - 1, 0, -1):
        found = jnp.where(better[tier], tier - 1, found)
    return found


def _larger_product(left: tuple[Mask, Mask], right: tuple[Mask, Mask]) -> Flag:
    """Whether left[0] * left[1] > right[0] * right[1], by all 64 bits of the products."""

    def product(a: Mask, b: Mask) -> tuple[Mask, Mask]:
        half = np.uint32(0xFFFF)
        low = (a & half) * (b & half)
        middle = (a >> 16) * (b & half) + (low >> 16)
        other = (a & half) * (b >> 16) + (middle & half)
        return (a >> 16) * (b >> 16) + (middle >> 16) + (other >> 16), other << 16 | (low & half)

    (high, low), (other_high, other_low) = product(*left), product(*right)
    return (high > other_high) | ((high == other_high) & (low > other_low))


def look_at(
    state: MachineState, params: MachineParams, work: Work, layout: Layout, on: Flag
) -> tuple[MachineState, Work, Lane]:
    """Isolated folios, first come first: those in use are kept, the next other one is the victim (-1: there
    is none)."""
    head = generations.aside(state, ISOLATED)

    def more(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < 0) & ~carry[2]

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, victim, over = carry
        active = surely(more(carry))
        page, state = generations.tail(state, head)
        ended = page == head
        active = active & ~ended
        folio, state = generations.look(state, jnp.where(active, page, 0))
        state, young = _look_around(state, folio, layout, active & ~folio.cached)
        used, promoted = generations.set_refs(folio.flags)
        # Kept folios have no generation; theirs says whether they are active.
        used = used._replace(gen=promoted.astype(jnp.int32))
        idle = folio.flags._replace(gen=jnp.zeros_like(folio.size))
        waits = active & ~young & (folio.order == 0) & generations.is_waiting(state, folio.page)
        state, kept = when(
            waits,
            lambda c: keep_in_cache(c[0], params, folio.page, folio.cached, surely(waits)),
            (state, jnp.zeros_like(on)),
        )
        kept = kept | (active & young)
        goes = active & ~kept
        state = replace(state, n=count(state.n, active & young & promoted, pgactivate=folio.size))

        def mark(state: MachineState) -> MachineState:
            """What is kept stays isolated, the victim is like any folio."""
            chosen = [jnp.where(young, new, old) for new, old in zip(used, idle, strict=True)]
            flags = generations.Flags(*chosen)
            found, order, broken = folio.page, folio.order, folio.broken
            state = generations.change(state, found, order, broken, flags, True, surely(kept))
            return generations.move(state, found, generations.aside(state, KEPT), surely(kept))

        def release(state: MachineState) -> MachineState:
            sure = surely(goes)
            return generations.change(state, folio.page, folio.order, folio.broken, folio.flags, False, sure)

        state = when(goes, release, when(kept, mark, state))
        return state, jnp.where(goes, folio.page, victim), over | ended

    start = (state, jnp.full_like(work.want, -1), jnp.zeros_like(on))
    state, victim, _ = repeat(more, turn, start)
    return state, change(work, on & (victim < 0), phase=SETTLE), victim


def settle(state: MachineState, work: Work, on: Flag) -> tuple[MachineState, Work]:
    """Kept folios go back, not to the oldest generation; the accounts of a batch."""
    head = generations.aside(state, KEPT)

    def turn(carry: tuple[MachineState, Flag]) -> tuple[MachineState, Flag]:
        state, left = carry
        page, state = generations.tail(state, head)
        left = left & (page != head)
        folio, state = generations.look(state, jnp.where(left, page, 0))
        active, flags = folio.flags.gen == 1, folio.flags
        old = generations.place(state, active, flags, folio.cached) == of(state).min_anon
        flags = flags._replace(referenced=flags.referenced & ~old, refs=jnp.where(old, 0, flags.refs))
        return generations.add(state, folio._replace(flags=flags), active | old, left), left

    state, _ = repeat(lambda carry: carry[1], turn, (state, on))
    done = state.reclaimed
    state = replace(
        state,
        n=count(state.n, on, pgsteal=done),
        age_at_end=jnp.where(on, 0, state.age_at_end),
        cost_at_end=jnp.where(on, 0, state.cost_at_end),
        reclaimed=jnp.where(on, 0, state.reclaimed),
    )
    done = work.done + done
    left = work.left - work.scanned
    over = (work.scanned == 0) | (done >= work.goal - work.total) | (left <= 0)
    return state, change(work, on, phase=jnp.where(over, SLAB, BATCH), done=done, left=left)


# Generations


def _inc_min_seq(state: MachineState, on: Flag) -> MachineState:
    """try_to_inc_min_seq: past generations without folios. File pages have none."""
    max_seq, oldest, oldest_file = of(state).max_seq, of(state).min_anon, of(state).min_file

    def empty(carry: tuple[MachineState, Lane]) -> tuple[Flag, MachineState]:
        state, anon = carry
        head = generations.head(state, anon)
        found, state = generations.tail(state, head)
        return on & (anon + MIN_NR_GENS <= max_seq) & (found == head), state

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        passed, state = empty(carry)
        return state, carry[1] + passed

    state, anon = repeat(lambda carry: empty(carry)[0], turn, (state, oldest))
    moves = (anon != oldest) | (oldest_file + MIN_NR_GENS <= max_seq)
    bound = max_seq - MIN_NR_GENS
    file = jnp.maximum(oldest_file, bound + 1)
    ahead, behind = (anon > bound) & (file < bound), (file > bound) & (anon < bound)
    file = jnp.where(moves, jnp.where(behind, bound, file), oldest_file)
    anon = jnp.where(moves & ahead, bound, anon)
    begins = on & (anon > oldest)
    state = when(begins, lambda s: generations.begin_oldest(s, anon, surely(begins)), state)
    return put(state, on, min_file=jnp.maximum(file, oldest_file))


def _age(state: MachineState, layout: Layout, on: Flag) -> MachineState:
    """try_to_inc_max_seq: walk the page tables of the process if it ran, then a new generation."""
    lists = of(state)
    seq = lists.max_seq
    force = on & ~lists.known
    walks = force | (on & lists.ran)
    yes = jnp.ones_like(on)
    after = jnp.uint32(1) << ((seq + 1) % 2).astype(jnp.uint32)
    cleared = lists.filters & jnp.where(walks, ~after, rows.ALL).astype(jnp.int32)[None]
    state = put(state, on, walking=yes, walked=seq)
    state = put(state, filters=cleared, live=jnp.where(walks, lists.live | after, lists.live))
    state = put(state, walks, known=yes, ran=~yes)
    state = when(walks, lambda s: _walk(s, layout, force, surely(walks)), state)
    oldest = of(state).min_anon
    full = on & (seq - oldest + 1 == MAX_NR_GENS)

    def push(state: MachineState) -> MachineState:
        state = _push_oldest(state, oldest, surely(full))
        return generations.begin_oldest(state, oldest + 1, surely(full))

    state = when(full, push, state)
    file = jnp.maximum(of(state).min_file, seq - MAX_NR_GENS + 2)
    return put(state, on, min_file=file, max_seq=seq + 1)


def _push_oldest(state: MachineState, oldest: Lane, on: Flag) -> MachineState:
    """inc_min_seq: what is left of the oldest generation goes to the tail of the next."""
    head = generations.head(state, oldest)

    def turn(carry: tuple[MachineState, Flag]) -> tuple[MachineState, Flag]:
        state, left = carry
        page, state = generations.tail(state, head)
        left = left & (page != head)
        folio, state = generations.look(state, jnp.where(left, page, 0))
        stays = left & (folio.flags.gen == generations.gen_of(oldest))
        state, folio = when(stays, lambda c: protect(c[0], c[1], surely(stays)), (state, folio))
        to = generations.head(state, folio.flags.gen)
        return generations.move(state, folio.page, to, left, to_tail=True), left

    return repeat(lambda carry: carry[1], turn, (state, on))[0]


def _walk(state: MachineState, layout: Layout, force: Flag, on: Flag) -> MachineState:
    """walk_mm: page tables that were used and that the filter names, or all of them."""
    seq = of(state).max_seq
    here, after = seq & 1, (seq + 1) & 1
    last = of(state).used.shape[0] - SPARE

    def more(carry: tuple[MachineState, Lane]) -> Flag:
        return on & (carry[1] < last)

    def turn(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, block = carry
        active = surely(more(carry))
        found, table = load1(state.tables, block)
        used, used_table = load1(of(state).used, block)
        named, filters = load1(of(state).filters, block)
        state = put(replace(state, tables=table), used=used_table, filters=filters)
        goes = active & (found == tables.TABLE) & (force | (used != 0))
        state = put(state, used=store1(of(state).used, block, jnp.zeros_like(block), goes & ~force))
        unnamed = ((of(state).live >> here.astype(jnp.uint32)) & 1 == 1) & ((named >> here) & 1 == 0)
        passes = goes & ~force & unnamed
        state = when(passes, lambda s: _make_loud(s, block, surely(passes)), state)
        walks = goes & ~passes

        def look(state: MachineState) -> MachineState:
            state, total, young = _walk_block(state, layout, block, surely(walks))
            dense = walks & (total > 0) & (young * PTES_A_LINE >= total)
            value, filters = load1(of(state).filters, block)
            return put(state, filters=store1(filters, block, value | 1 << after, dense))

        return when(walks, look, state), block + 1

    return repeat(more, turn, (state, jnp.zeros_like(seq)))[0]


def _make_loud(state: MachineState, block: Lane, on: Flag) -> MachineState:
    """The next access of any mapped page of a block is noticed, as it uses the page table."""

    def clear(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = row[Plane.PRESENT]
        return rows.put(state, at, row.clear((pages, (Plane.QUIET, Plane.QUIET_WRITE))), on)

    return rows.each(block * BLOCK, block * BLOCK + BLOCK, clear, state, on)


def _walk_block(
    state: MachineState, layout: Layout, block: Lane, on: Flag
) -> tuple[MachineState, Lane, Lane]:
    """The young pages of a block, VMA by VMA: (state, pages of VMAs, pages found)."""
    first, end = block * BLOCK, block * BLOCK + BLOCK
    zero = jnp.zeros_like(block)

    def more(carry: tuple[MachineState, Lane, Lane, Lane]) -> Flag:
        return on & layout.has(carry[1]) & (layout.start(carry[1]) < end)

    def turn(carry: tuple[MachineState, Lane, Lane, Lane]) -> tuple[MachineState, Lane, Lane, Lane]:
        state, vma, total, young = carry
        active = surely(more(carry))
        begin, stop = jnp.maximum(layout.start(vma), first), jnp.minimum(layout.end(vma), end)
        state, found = _clear_young(state, begin, stop, active)
        size = jnp.where(active, stop - begin, 0)
        return state, vma + active, total + size, young + found

    state, _, total, young = repeat(more, turn, (state, layout.find(first), zero, zero))
    return state, total, young


# Young pages


def _clear_young(state: MachineState, start: Lane, end: Lane, on: Flag) -> tuple[MachineState, Lane]:
    """Clear the young pages of a range inside one block, but those of isolated folios, and promote their
    folios (walk_pte_range): (state, how many there were, the pages of a large folio all counted)."""

    def more(carry: tuple[MachineState, Lane, Lane, Lane]) -> Flag:
        return on & (carry[1] < end)

    def turn(carry: tuple[MachineState, Lane, Lane, Lane]) -> tuple[MachineState, Lane, Lane, Lane]:
        state, at, last, found = carry
        active = surely(more(carry))
        row, state = rows.get(state, at)
        young = row[Plane.YOUNG] & row[Plane.PRESENT] & ~row[Plane.ISOLATED] & rows.rest(at, end)
        some = active & (young != 0)
        page = once(jnp.where(some, (at & -32) + bits.ctz(young), at))
        stop, name, state = _run(state, row, page, end, some)
        state = when(some, lambda s: _unyoung(s, page, stop, surely(some)), state)
        order = row.order(page)
        identity = (page >> order << order) * 16 + order
        fresh = some & (identity != last)

        def promote(state: MachineState) -> MachineState:
            folio, state = generations.look(state, jnp.where(fresh, name, 0))
            return _promote(state, folio, surely(fresh))

        state = when(fresh, promote, state)
        at = jnp.where(some, stop, jnp.where(active, (at & -32) + 32, at))
        return state, at, jnp.where(some, identity, last), found + jnp.where(some, stop - page, 0)

    zero = jnp.zeros_like(start)
    state, _, _, found = repeat(more, turn, (state, start, zero - 1, zero))
    return state, found


def _run(
    state: MachineState, row: rows.Row, page: Lane, end: Lane, on: Flag
) -> tuple[Lane, Lane, MachineState]:
    """Where the pages that map the folio of a present page end, before `end`; and what the folio is listed
    by."""
    order = row.order(page)
    near = rows.folio(page, order) & row[Plane.PRESENT] & row.of_order(order)
    up = bits.ctz(~(near >> (page & 31).astype(jnp.uint32)))
    close = once(
        (page + jnp.where(order == 0, 1, up), jnp.where(order == 0, page, (page & -32) + bits.ctz(near)))
    )

    def far() -> tuple[Lane, Lane]:
        members, _ = blocks.folio(state, page, order)
        base = page & -BLOCK
        return base + bits.from_on(~members, page & 511), base + bits.first(members)

    wide = on & (order > 5)
    stop, name = lax.cond(jnp.any(wide), far, lambda: close)
    (stop, name), table = lax.optimization_barrier(((stop, name), state.rows))
    stop, name = jnp.where(wide, stop, close[0]), jnp.where(wide, name, close[1])
    return jnp.minimum(stop, end), name, replace(state, rows=table)


def _unyoung(state: MachineState, start: Lane, end: Lane, on: Flag) -> MachineState:
    """Clear the accessed bits of present pages."""

    def clear(state: MachineState, at: Lane, on: Flag) -> MachineState:
        row, state = rows.get(state, at)
        pages = rows.rest(at, end)
        return rows.put(state, at, row.clear((pages, (Plane.YOUNG, Plane.QUIET, Plane.QUIET_WRITE))), on)

    return rows.each(start, end, clear, state, on)


def _promote(state: MachineState, folio: Found, on: Flag) -> MachineState:
    """walk_update_folio: folio_update_gen in a pass that walks, else folio_activate."""
    lists = of(state)
    walked = generations.update_gen(folio.flags, lists.max_seq)
    seen, promoted = generations.set_refs(folio.flags)
    chosen = [jnp.where(lists.walking, a, b) for a, b in zip(walked, seen, strict=True)]
    flags = generations.Flags(*chosen)
    state = generations.change(state, folio.page, folio.order, folio.broken, flags, False, on)
    young = folio.flags.gen == generations.gen_of(lists.max_seq)
    activates = on & ~lists.walking & promoted & ~young & ~generations.is_waiting(state, folio.page)
    return when(activates, lambda s: generations.activate(s, folio, surely(activates)), state)


def _look_around(state: MachineState, folio: Found, layout: Layout, on: Flag) -> tuple[MachineState, Flag]:
    """folio_referenced: whether a mapped page of the folio is young; then its neighbours are promoted."""
    base = folio.page >> folio.order << folio.order
    end = base + folio.size

    def young_in(state: MachineState, at: Lane, stop: Lane) -> tuple[Flag, MachineState]:
        def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
            state, at, found = carry
            row, state = rows.get(state, at)
            some = row[Plane.YOUNG] & rows.rest(at, stop) != 0
            go = at < stop
            return state, jnp.where(go, (at & -32) + 32, at), found | (go & some)

        state, _, found = repeat(lambda c: on & (c[1] < stop), turn, (state, at, jnp.zeros_like(on)))
        return found, state

    def more(carry: tuple[MachineState, Lane, Flag]) -> Flag:
        return on & (carry[1] < end)

    def turn(carry: tuple[MachineState, Lane, Flag]) -> tuple[MachineState, Lane, Flag]:
        state, at, found = carry
        active = surely(more(carry))
        members = blocks.members(state, folio.page, folio.order, folio.broken)
        block = base & -BLOCK
        # The next run of mapped pages: all of a whole folio.
        begin = jnp.where(folio.broken, block + bits.from_on(members, at - block), at)
        stop = jnp.where(folio.broken, block + bits.from_on(~members, begin - block), end)
        begin, stop = once((jnp.minimum(begin, end), jnp.minimum(stop, end)))
        some = active & (begin < end)
        young, state = young_in(state, jnp.where(some, begin, stop), stop)
        young = some & young
        state = when(young, lambda s: _unyoung(s, begin, stop, surely(young)), state)
        state = when(young, lambda s: _around(s, layout, begin, surely(young)), state)
        return state, jnp.where(active, stop, at), found | young

    state, _, found = repeat(more, turn, (state, base, jnp.zeros_like(on)))
    return state, found


def _around(state: MachineState, layout: Layout, page: Lane, on: Flag) -> MachineState:
    """lru_gen_look_around: the window of 64 pages in one page table and VMA."""
    block = page >> 9
    vma = layout.find(page)
    start = jnp.maximum(layout.start(vma), block * BLOCK)
    end = jnp.minimum(layout.end(vma), block * BLOCK + BLOCK)
    half = MIN_LRU_BATCH // 2
    low, high = page - start < half, end - page < half
    first = jnp.where(low, start, jnp.where(high, end - MIN_LRU_BATCH, page - half))
    large = end - start > MIN_LRU_BATCH
    first = once(jnp.where(large, first, start))
    stop = once(jnp.where(large, first + MIN_LRU_BATCH, end))
    on = on & (end - start > 1)
    state, young = _clear_young(state, first, stop, on)
    here = of(state).max_seq & 1
    dense = (young + 1) * PTES_A_LINE >= stop - first
    names = on & dense & ((of(state).live >> here.astype(jnp.uint32)) & 1 == 1)
    value, filters = load1(of(state).filters, block)
    return put(state, filters=store1(filters, block, value | 1 << here, names))
