"""The memory cgroup: charging pages, and the classic two-list LRU that gives them back.

Source of the rules: mm/memcontrol.c (try_charge_memcg), mm/vmscan.c (do_try_to_free_pages,
prepare_scan_control, get_scan_count, shrink_lruvec, shrink_inactive_list, shrink_active_list,
folio_check_references), mm/swap.c (lru_note_cost), 7.3. Statistics are flushed at every pass of a reclaim,
where the kernel may use values up to some seconds old.
"""

from dataclasses import replace

import jax.numpy as jnp
from jax import lax

from jaxswap.machine import blocks, lru
from jaxswap.machine.counters import count
from jaxswap.machine.state import Flag, Lane, MachineParams, MachineState, Mask, Plane, pages_room
from jaxswap.machine.swapout import SWAP_CLUSTER_MAX, shrink
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import repeat, when

SWAPPINESS = 60
MEMCG_CHARGE_BATCH = 64
MAX_RECLAIM_RETRIES = 16
PAGE_ALLOC_COSTLY_ORDER = 3
DEF_PRIORITY = 12


def fitting_orders(state: MachineState, params: MachineParams) -> Mask:
    """Orders 0 to 8 whose charge succeeds without reclaim."""
    pages = jnp.int32(1) << jnp.arange(9, dtype=jnp.int32)[:, None]
    total = (state.used + state.stock)[None]
    fits = (state.stock[None] >= pages) | (total + pages <= params.limit[None])
    return jnp.sum(jnp.where(fits, pages, 0), axis=0).astype(jnp.uint32)


def _try(state: MachineState, params: MachineParams, pages: Lane, batch: Lane, on: Flag) -> tuple[MachineState, Flag]:
    """One round of try_charge: the stock, a batch, the pages alone."""
    stocked = state.stock >= pages
    total = state.used + state.stock
    take = jnp.where(total + batch <= params.limit, batch, pages)
    done = on & (stocked | (total + pages <= params.limit))
    stock = jnp.where(stocked, state.stock - pages, state.stock + take - pages)
    used = jnp.where(done, state.used + pages, state.used)
    return replace(state, used=used, stock=jnp.where(done, stock, state.stock)), done


def charge(
    state: MachineState, params: MachineParams, order: Lane, may_reclaim: Flag, on: Flag
) -> tuple[MachineState, Flag]:
    """try_charge_memcg of 2^order pages: (state, succeeded). A small charge that fails for good sets `oom`."""
    pages = jnp.int32(1) << order
    state, done = _try(state, params, pages, jnp.maximum(pages, MEMCG_CHARGE_BATCH), on)

    def attempt(carry: tuple) -> tuple:
        state, pending, drained, retries, done = carry
        state = replace(state, n=count(state.n, pending, memcg_max=1))
        pending = pending & may_reclaim
        state, progress = reclaim(state, params, jnp.maximum(pages, SWAP_CLUSTER_MAX), pending)
        short = pending & (params.limit - state.used - state.stock < pages)
        drain = short & ~drained
        state = replace(state, stock=jnp.where(drain, 0, state.stock))
        stuck = short & drained & ~(progress & (pages <= 1 << PAGE_ALLOC_COSTLY_ORDER))
        failed = stuck & (retries == 0)
        state = replace(state, oom=state.oom | (failed & (order <= PAGE_ALLOC_COSTLY_ORDER)))
        pending = pending & ~failed
        state, ok = _try(state, params, pages, pages, pending)
        return state, pending & ~ok, drained | drain, retries - stuck, done | ok

    start = (state, on & ~done, jnp.zeros_like(on), jnp.full_like(order, MAX_RECLAIM_RETRIES), done)
    state, _, _, _, done = repeat(lambda carry: carry[1], attempt, start)
    return state, done


def note_cost(state: MachineState, cost: Lane, on: Flag) -> MachineState:
    """lru_note_cost of the anonymous lists; halved against the list sizes of the last flush."""
    total = state.anon_cost + cost
    total = jnp.where(total > state.flushed_total // 4, total // 2, total)
    return replace(state, anon_cost=jnp.where(on, total, state.anon_cost))


def reclaim(state: MachineState, params: MachineParams, target: Lane, on: Flag) -> tuple[MachineState, Flag]:
    """try_to_free_mem_cgroup_pages: (state, whether anything was reclaimed)."""

    def turn(carry: tuple) -> tuple:
        state, priority, attempt, total, skipped, going = carry
        state, done, skip = _shrink_lruvec(state, priority, target, attempt == 2, going)
        total, skipped = total + done, skipped | skip
        last = going & ((total >= target) | (priority == 0))
        state = replace(state, refaults_seen=jnp.where(last, state.activations, state.refaults_seen))
        attempt = attempt + last
        over = last & ((total > 0) | (attempt == 3) | ((attempt == 2) & ~skipped))
        priority = jnp.where(last, DEF_PRIORITY, priority - 1)
        return state, priority, attempt, total, skipped, going & ~over

    zero = jnp.zeros_like(target)
    start = (state, jnp.full_like(target, DEF_PRIORITY), zero, zero, jnp.zeros_like(on), on)
    state, _, _, total, _, _ = repeat(lambda carry: carry[5], turn, start)
    return state, total > 0


def _shrink_lruvec(
    state: MachineState, priority: Lane, target: Lane, force: Flag, on: Flag
) -> tuple[MachineState, Lane, Flag]:
    """One pass over both lists at one priority: (state, pages reclaimed, an active scan was left out)."""
    inactive, active, cost = state.inactive, state.active, state.anon_cost
    low = on & (inactive < active)
    deactivate = force | low | (state.activations != state.refaults_seen)
    anon = SWAPPINESS * (3 * cost + 1) // (2 * cost + 1)
    file = (200 - SWAPPINESS) * (3 * cost + 1) // (cost + 1)

    def share(size: Lane) -> Lane:
        scan = size >> priority
        scan = jnp.where(priority > 0, scan * anon // (anon + file), scan)
        return jnp.where(on & (state.clusters.free > 0), scan, 0)

    left, left_active = share(inactive), share(active)
    state = replace(
        state,
        flushed_active=jnp.where(on, active, state.flushed_active),
        flushed_total=jnp.where(on, active + inactive, state.flushed_total),
    )

    def turn(carry: tuple) -> tuple:
        state, left, left_active, done, skipped, going = carry
        # The last turn only rebalances the lists.
        last = going & ~((left > 0) & (done < target))
        batch = jnp.where(going & ~last, jnp.minimum(left, SWAP_CLUSTER_MAX), 0)
        batch_active = jnp.where(going & ~last, jnp.minimum(left_active, SWAP_CLUSTER_MAX), 0)
        state, gained = _shrink_inactive_list(state, batch)
        scan = jnp.where(deactivate, batch_active, 0)
        state = _shrink_active_list(state, jnp.where(last & low, SWAP_CLUSTER_MAX, scan))
        skipped = skipped | ((batch_active > 0) & ~deactivate)
        return state, left - batch, left_active - batch_active, done + gained, skipped, going & ~last

    zero = jnp.zeros_like(target)
    start = (state, left, left_active, zero, jnp.zeros_like(on), on)
    state, _, _, done, skipped, _ = repeat(lambda carry: carry[5], turn, start)
    return state, done, skipped


def _shrink_inactive_list(state: MachineState, want: Lane) -> tuple[MachineState, Lane]:
    """Scan `want` pages from the tail of the inactive list: (state, pages reclaimed)."""
    no = jnp.zeros(want.shape, bool)
    sentinel = lru.sentinel(state, no)

    def more(carry: tuple) -> Flag:
        state, scanned, kept = carry
        tail, _ = lru.tail(state, no)
        return (scanned < want) & (tail != sentinel) & (tail != kept)

    def visit(carry: tuple) -> tuple:
        state, scanned, kept = carry
        on = more(carry)
        v, state = lru.tail(state, no)
        block, page = v // 512, v % 512
        planes, state = blocks.get(state, block)
        order = jnp.where(planes.has(Plane.PRESENT, page), planes.order(page), 0)
        size = jnp.int32(1) << order
        folio = planes.folio(page, order)
        references = _references(folio, planes[Plane.YOUNG], planes.has(Plane.PARTIAL, page))
        young = on & (references > 0)
        activate = young & (planes.has(Plane.REFERENCED, page) | (references > 1))
        keep = young & ~activate

        def rotate(state: MachineState) -> MachineState:
            before, state = blocks.get(state, block)
            pages = bits.only(folio, young)
            after = before.clear(pages, Plane.YOUNG).set(pages, Plane.REFERENCED)
            after = after.set(bits.only(pages, activate), Plane.ACTIVE)
            state = blocks.put(state, block, before, after, young)
            state = lru.remove(state, v, no, size, young)
            state = lru.add(state, v, activate, size, young)
            return replace(
                state,
                n=count(state.n, activate, pgactivate=size),
                age_at_end=state.age_at_end + jnp.where(activate, size, 0),
            )

        state = when(young, rotate, state)
        state = shrink(state, block, bits.only(bits.one(page), on & ~young))
        scanned = scanned + jnp.where(on, size, 0)
        return state, scanned, jnp.where(keep & (kept < 0), v, kept)

    zero = jnp.zeros_like(want)
    state, scanned, _ = repeat(more, visit, (state, zero, zero - 1))
    some, done = scanned > 0, state.reclaimed
    n = count(state.n, some, pgscan=scanned, pgsteal=done)
    state = note_cost(replace(state, n=n), state.cost_at_end + scanned - done, some)
    state = replace(
        state, age=state.age + state.age_at_end, age_at_end=zero, cost_at_end=zero, reclaimed=zero
    )
    return state, done


def _references(folio: bits.Bits, young: bits.Bits, partial: Flag) -> Lane:
    """folio_referenced: runs of mapped pages with a young one. A whole folio is one run."""
    young = folio & young

    def runs(_: None) -> Lane:
        # Spread each run's young pages down to its first page, and count the first pages.
        reach, spread = folio, young
        for shift in (1, 2, 4, 8, 16, 32, 64, 128):
            spread = spread | (_down(spread, shift) & reach)
            reach = reach & _down(reach, shift)
        return bits.size(spread & folio & ~bits.up(folio))

    def whole(_: None) -> Lane:
        return bits.some(young).astype(jnp.int32)

    return lax.cond(jnp.any(partial), runs, whole, None)


def _down(members: bits.Bits, shift: int) -> bits.Bits:
    """Every member minus `shift`."""
    words, small = divmod(shift, 32)
    moved = jnp.concatenate([members[words:], jnp.zeros_like(members[:words])])
    if small == 0:
        return lax.optimization_barrier(moved)
    above = jnp.concatenate([moved[1:], jnp.zeros_like(moved[:1])])
    return lax.optimization_barrier((moved >> jnp.uint32(small)) | (above << jnp.uint32(32 - small)))


def _shrink_active_list(state: MachineState, want: Lane) -> MachineState:
    """Move `want` pages from the tail of the active list to the head of the inactive one."""
    yes = jnp.ones(want.shape, bool)
    sentinel = pages_room(state) + 1

    def more(carry: tuple) -> Flag:
        state, scanned = carry
        return (scanned < want) & (lru.tail(state, yes)[0] != sentinel)

    def visit(carry: tuple) -> tuple:
        state, scanned = carry
        on = more(carry)
        v, state = lru.tail(state, yes)
        block, page = v // 512, v % 512
        planes, state = blocks.get(state, block)
        mapped = planes.has(Plane.PRESENT, page)
        order = jnp.where(mapped, planes.order(page), 0)
        size = jnp.int32(1) << order
        folio = jnp.where(mapped[None], planes.folio(page, order), bits.one(page))
        pages = bits.only(folio, on)
        after = planes.clear(pages, Plane.YOUNG, Plane.ACTIVE).set(pages, Plane.WORKINGSET)
        state = blocks.put(state, block, planes, after, on)
        state = lru.remove(state, v, yes, size, on)
        state = lru.add(state, v, ~yes, size, on)
        state = replace(state, n=count(state.n, on, pgdeactivate=size))
        return state, scanned + jnp.where(on, size, 0)

    return repeat(more, visit, (state, jnp.zeros_like(want)))[0]
