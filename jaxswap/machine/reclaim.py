"""The memory cgroup: charging pages, and the classic two-list LRU that gives them back.

Source of the rules: mm/memcontrol.c (try_charge_memcg), mm/vmscan.c (do_try_to_free_pages,
prepare_scan_control, get_scan_count, shrink_lruvec, shrink_inactive_list, shrink_active_list,
folio_check_references), 7.3; mm/swap.c (lru_note_cost), 7.2. How old the statistics are by which it decides
says Lane.flush.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import blocks, cgroups, deferred, lru, rows, tlb
from jaxswap.machine.counters import Counts, count
from jaxswap.machine.rows import once, only
from jaxswap.machine.state import MEMCG_CHARGE_BATCH, Flag, Lane, MachineParams, MachineState, Mask, Plane
from jaxswap.machine.swapout import SWAP_CLUSTER_MAX, swap_left
from jaxswap.machine.work import (
    ACTIVE,
    BATCH,
    CHARGE,
    END,
    HIGH,
    IDLE,
    INACTIVE,
    MAX_RECLAIM_RETRIES,
    PASS,
    SETTLE,
    SLAB,
    Gfp,
    Work,
    change,
)
from jaxswap.swaptable import bits
from jaxswap.swaptable.lanes import repeat, surely, when

MAX_SWAPPINESS = 200
HZ = 250  # of Debian's kernels
DELAY_PRECISION, DELAY_SCALING = 20, 14  # MEMCG_DELAY_PRECISION_SHIFT, MEMCG_DELAY_SCALING_SHIFT
PAGE_ALLOC_COSTLY_ORDER = 3
DEF_PRIORITY = 12


def limit_of(state: MachineState, params: MachineParams) -> Lane:
    """memory.max of the cgroup that is charged."""
    return cgroups.limit_of(state, params.limit, params.limits)


def fitting_orders(state: MachineState, params: MachineParams) -> Mask:
    """Orders whose charge succeeds without reclaim."""
    room = jnp.maximum(state.stock, limit_of(state, params) - state.used - state.stock)
    fits = (np.uint32(2) << (31 - lax.clz(jnp.maximum(room, 1))).astype(jnp.uint32)) - np.uint32(1)
    return only(fits, room > 0)


def try_charge(
    state: MachineState, params: MachineParams, order: Lane, first: Flag, gfp: Gfp, on: Flag
) -> tuple[MachineState, Flag]:
    """Charge 2^order pages without reclaim: from the stock, by a batch in the first round, or alone.

    gfp: of large charges; those that may not wait take no batch.
    """
    pages = jnp.int32(1) << order
    batches = first & (gfp.spins | (order == 0))
    batch = jnp.where(batches, jnp.maximum(pages, MEMCG_CHARGE_BATCH), pages)
    stocked, total, limit = state.stock >= pages, state.used + state.stock, limit_of(state, params)
    done = on & (stocked | (total + pages <= limit))
    take = jnp.where(total + batch <= limit, batch, pages)
    stock = jnp.where(stocked, state.stock - pages, state.stock + take - pages)
    state = replace(
        state,
        used=jnp.where(done, state.used + pages, state.used),
        stock=jnp.where(done, stock, state.stock),
    )
    if params.high is not None:
        beyond = done & ~stocked & (state.used + state.stock > params.high)
        state = replace(state, over_high=state.over_high + jnp.where(beyond, take, 0))
    return state, done


def at_once(state: MachineState, before: MachineState, order: Lane, gfp: Gfp) -> Flag:
    """Whether a charge has just gone through that finds so much beyond memory.high that it works it off."""
    more = state.over_high > jnp.maximum(before.over_high, MEMCG_CHARGE_BATCH)
    return more & (gfp.reclaims | (order == 0))


def charge(state: MachineState, work: Work, params: MachineParams, on: Flag) -> tuple[MachineState, Work]:
    """A round of try_charge_memcg; where it fails, reclaim comes next, or a lower order."""
    before = state
    state, done = try_charge(state, params, work.order, work.first, work.gfp, on)
    failed = on & ~done
    may = work.gfp.reclaims | (work.order == 0)
    state = replace(state, n=count(state.n, failed & (may | params.rules.counts_all_max), memcg_max=1))
    work = change(work, done, phase=IDLE)
    if params.high is not None:
        state, work = work_off(state, work, done & at_once(state, before, work.order, work.gfp))
    work = change(work, failed & may, first=False)
    goal = jnp.maximum(jnp.int32(1) << work.order, SWAP_CLUSTER_MAX)
    return state, _give_up(_begin_reclaim(work, goal, failed & may), failed & ~may)


def _begin_reclaim(work: Work, goal: Lane, on: Flag) -> Work:
    """try_to_free_mem_cgroup_pages, to free `goal` pages."""
    return change(work, on, phase=PASS, goal=goal, priority=DEF_PRIORITY, attempt=0, total=0, skipped=False)


def work_off(state: MachineState, work: Work, on: Flag) -> tuple[MachineState, Work]:
    """mem_cgroup_handle_over_high begins: what was charged beyond memory.high is to be reclaimed."""
    high = state.over_high
    on = on & (high > 0) & ~state.oom
    work = change(work, on, phase=HIGH, high=high, goal=high, retries=MAX_RECLAIM_RETRIES)
    return replace(state, over_high=jnp.where(on, 0, high)), work


def look_at_high(state: MachineState, work: Work, params: MachineParams) -> tuple[MachineState, Work]:
    """reclaim_high: reclaim if the cgroup is above memory.high; if not, all is done."""
    if params.high is None:
        return state, work
    on = work.phase == HIGH
    above = on & (state.used + state.stock > params.high)
    state = replace(state, n=count(state.n, above, memcg_high=1))
    work = _begin_reclaim(work, jnp.maximum(work.goal, SWAP_CLUSTER_MAX), above)
    return state, change(work, on & ~above, phase=IDLE, high=0)


def _end_high(state: MachineState, params: MachineParams, work: Work, on: Flag) -> Work:
    """mem_cgroup_handle_over_high goes on while the process would have to sleep long, and reclaim finds some.

    The sleep that then follows is not modelled.
    """
    assert params.high is not None
    excess = jnp.maximum(state.used + state.stock - params.high, 0)
    none = work.total == 0
    stops = on & (~_sleeps_long(excess, params.high, work.high) | (none & (work.retries == 0)))
    work = replace(work, retries=work.retries - (on & none))
    work = change(work, on & ~stops, phase=HIGH, goal=SWAP_CLUSTER_MAX)
    return change(work, stops, phase=IDLE, high=0)


def _sleeps_long(excess: Lane, high: Lane, pages: Lane) -> Flag:
    """calculate_high_delay: whether the sleep for `pages` pages is longer than 10 ms."""
    high = jnp.maximum(high, 1)
    whole, rest, part = excess // high, (excess % high).astype(jnp.uint32), jnp.zeros_like(excess)
    for _ in range(DELAY_PRECISION):
        rest = rest << 1
        fits = rest >= high.astype(jnp.uint32)
        rest = jnp.where(fits, rest - high.astype(jnp.uint32), rest)
        part = part << 1 | fits
    # overage * overage * HZ >> DELAY_PRECISION + DELAY_SCALING of 20 bits, in words of 32.
    a, b = part >> 10, part & 1023
    middle = 2 * a * b * HZ + (b * b * HZ >> 10)
    jiffies = (a * a * HZ + (middle >> 10)) >> DELAY_SCALING
    return (whole > 0) | (jiffies * pages // MEMCG_CHARGE_BATCH > HZ // 100)


def _give_up(work: Work, on: Flag) -> Work:
    """This order is refused: charge the next lower one, or none where this was order 0."""
    bit = jnp.uint32(1) << work.order.astype(jnp.uint32)
    lower = jnp.maximum(bits.highest(work.tried & (bit - jnp.uint32(1))), 0)
    large = on & (work.order > 0)
    work = replace(work, refused=jnp.where(large, work.refused | bit, work.refused))
    work = change(work, on & ~large, phase=IDLE)
    return change(
        work, large, phase=CHARGE, order=lower, first=True, drained=False, retries=MAX_RECLAIM_RETRIES
    )


def note_cost(state: MachineState, params: MachineParams, cost: Lane, on: Flag) -> MachineState:
    """lru_note_cost of the anonymous lists; in 7.3 pgrotate, pgreclaim_pageout and workingset_restore."""
    counts, total = params.rules.samples_cost, state.anon_cost + cost
    total = jnp.where(total > state.flushed_total >> 2, total >> 1, total)
    return replace(
        state,
        anon_cost=jnp.where(on & ~counts, total, state.anon_cost),
        counted_cost=lru.add_cost(state.counted_cost, jnp.where(on & counts, cost, 0)),
    )


def _sample_cost(state: MachineState, params: MachineParams, on: Flag) -> MachineState:
    """prepare_scan_control of 7.3: adds the cost that was flushed since the last scan began, and halves all
    to at most a quarter of the lists' sizes of the last flush.
    """
    on = on & params.rules.samples_cost
    total, most = state.anon_cost + state.flushed_cost, state.flushed_total >> 2
    halvings = jnp.maximum(lax.clz(most) - lax.clz(total), 0)
    total = total >> jnp.where(total >> halvings > most, halvings + 1, halvings)
    return replace(
        state,
        anon_cost=jnp.where(on, total, state.anon_cost),
        flushed_cost=jnp.where(on, 0, state.flushed_cost),
    )


def begin(state: MachineState, params: MachineParams, work: Work, on: Flag) -> tuple[MachineState, Work]:
    """The next batch of a pass over the lists, of the next pass if it is to begin."""
    state, work = _begin_pass(state, params, work, on & (work.phase == PASS))
    begins = on & (work.phase == BATCH)
    state = lru.drain(state, begins & (work.low | _goes_on(work, work.goal)))
    return state, _next_batch(work, work.goal, begins)


def _begin_pass(
    state: MachineState, params: MachineParams, work: Work, on: Flag
) -> tuple[MachineState, Work]:
    """prepare_scan_control, by the statistics of the last flush, and get_scan_count at one priority."""
    state = lru.flush_statistics(state, on & (params.flush == 0))
    state = _sample_cost(state, params, on)
    (inactive, active), cost = lru.sizes(state), state.anon_cost
    low = state.flushed_total - state.flushed_active < state.flushed_active
    deactivate = (work.attempt == 2) | low | (state.flushed_activations != state.refaults_seen)
    anon = lax.div(params.swappiness * (3 * cost + 1), 2 * cost + 1)
    file = lax.div((MAX_SWAPPINESS - params.swappiness) * (3 * cost + 1), cost + 1)
    scans = (swap_left(state, params) > 0) & (params.swappiness > 0)

    def share(size: Lane, priority: Lane) -> Lane:
        scan = size >> priority
        scan = jnp.where(priority > 0, lax.div(scan * anon, jnp.maximum(anon + file, 1)), scan)
        return jnp.where(scans, scan, 0)

    def idle(priority: Lane) -> Flag:
        return ~low & (share(inactive, priority) == 0)

    low, deactivate, anon, file = once((low, deactivate, anon, file))
    state, priority = deferred.pass_over(state, work.priority, idle, on)

    return state, change(
        work,
        on,
        phase=BATCH,
        priority=priority,
        left=share(inactive, priority),
        left_active=share(active, priority),
        done=0,
        deactivate=deactivate,
        low=low,
    )


def _goes_on(work: Work, target: Lane) -> Flag:
    """Whether a pass has pages left to scan for."""
    return (work.left > 0) & (work.done < target)


def _next_batch(work: Work, target: Lane, on: Flag) -> Work:
    """The next turn of shrink_lruvec's loop; the last one only rebalances the lists."""
    last = ~_goes_on(work, target)
    batch = jnp.where(last, 0, jnp.minimum(work.left, SWAP_CLUSTER_MAX))
    active = jnp.where(last, 0, jnp.minimum(work.left_active, SWAP_CLUSTER_MAX))
    rebalance = jnp.where(work.low, SWAP_CLUSTER_MAX, 0)
    return change(
        work,
        on,
        phase=INACTIVE,
        last=last,
        left=work.left - batch,
        left_active=work.left_active - active,
        want=batch,
        scanned=0,
        kept=-1,
        want_active=jnp.where(last, rebalance, jnp.where(work.deactivate, active, 0)),
        skipped=work.skipped | ((active > 0) & ~work.deactivate),
    )


def scan_inactive(
    state: MachineState, params: MachineParams, work: Work, on: Flag
) -> tuple[MachineState, Work, Lane]:
    """shrink_inactive_list: rotate or activate folios at the tail, up to one that is to go, the victim (-1:
    without one the scan is over).
    """
    no = jnp.zeros(on.shape, bool)
    sentinel = lru.sentinel(state, no)

    def tail(state: MachineState, work: Work, victim: Lane) -> tuple[Lane, Flag, MachineState]:
        v, state = lru.tail(state, no)
        more = (work.scanned < work.want) & (v != sentinel) & (v != work.kept)
        return v, on & more & (victim < 0), state

    def visit(carry: tuple[MachineState, Work, Lane]) -> tuple[MachineState, Work, Lane]:
        state, work, victim = carry
        v, more, state = once(tail(state, work, victim))
        more = surely(more)
        row, state = rows.get(state, v)
        order = once(jnp.where(row.has(Plane.PRESENT, v), row.order(v), 0))
        size = once(jnp.int32(1) << order)
        broken = once(more & row.has(Plane.PARTIAL, v))
        near = (row[Plane.YOUNG] & rows.folio(v, order) & row.of_order(order)) != 0
        wide = more & (order > 5)

        def look_far() -> Flag:
            members, _ = blocks.folio(state, v, order)
            (young,), _ = blocks.planes(state, v, (Plane.YOUNG,))
            return bits.some(members & young)

        # One process counts once, however many pages of the folio it used.
        young, table = lax.optimization_barrier(
            (jnp.where(wide, lax.cond(jnp.any(wide), look_far, lambda: near), near), state.rows)
        )
        state = replace(state, rows=table)
        young = once(more & young)
        activate = once(young & row.has(Plane.REFERENCED, v))

        def rotate(state: MachineState) -> MachineState:
            sure = surely(young)
            members = blocks.members(state, v, order, broken)

            def mark(state: MachineState, at: Lane, on: Flag) -> MachineState:
                row, state = rows.get(state, at)
                pages = blocks.in_row(members, at, order, broken)
                row = tlb.make_old(row, params, pages)
                row = row.add((pages, (Plane.REFERENCED,)), (only(pages, activate), (Plane.ACTIVE,)))
                return rows.put(state, at, row, on)

            base = v >> order << order
            state = rows.each(base, base + size, mark, state, sure)
            state = lru.rotate(state, v, no, activate, size, sure)
            grown = jnp.where(activate, size, 0)

            def promote(n: Counts) -> Counts:
                return count(n, surely(activate), pgactivate=size)

            return replace(state, n=when(activate, promote, state.n), age_at_end=state.age_at_end + grown)

        state = when(young, rotate, state)
        work = replace(
            work,
            scanned=work.scanned + jnp.where(more, size, 0),
            kept=jnp.where(young & ~activate & (work.kept < 0), v, work.kept),
        )
        return state, work, jnp.where(more & ~young, v, victim)

    start = (state, work, jnp.full_like(work.want, -1))
    state, work, victim = repeat(lambda carry: tail(*carry)[1], visit, start)
    return state, change(work, on & (victim < 0), phase=SETTLE), victim


def settle(state: MachineState, params: MachineParams, work: Work, on: Flag) -> tuple[MachineState, Work]:
    """What shrink_inactive_list does after a batch: counts, cost, age."""
    some, done = on & (work.scanned > 0), state.reclaimed
    state = replace(state, n=count(state.n, some, pgscan=work.scanned, pgsteal=done))
    state = note_cost(state, params, state.cost_at_end + work.scanned - done, some)
    state = cgroups.age_root(state, jnp.where(on, state.age_at_end, 0))
    state = replace(
        state,
        age=state.age + jnp.where(on, state.age_at_end, 0),
        age_at_end=jnp.where(on, 0, state.age_at_end),
        cost_at_end=jnp.where(on, 0, state.cost_at_end),
        reclaimed=jnp.where(on, 0, state.reclaimed),
    )
    return state, change(work, on, phase=ACTIVE, done=work.done + done)


def scan_active(
    state: MachineState, params: MachineParams, work: Work, on: Flag
) -> tuple[MachineState, Work]:
    """shrink_active_list: move folios from the tail to the head of the inactive list, to the batch's end."""
    yes = jnp.ones(on.shape, bool)
    sentinel = lru.sentinel(state, yes)

    def tail(state: MachineState, scanned: Lane) -> tuple[Lane, Flag, MachineState]:
        v, state = lru.tail(state, yes)
        return v, on & (scanned < work.want_active) & (v != sentinel), state

    def visit(carry: tuple[MachineState, Lane]) -> tuple[MachineState, Lane]:
        state, scanned = carry
        v, more, state = once(tail(state, scanned))
        more = surely(more)
        row, state = rows.get(state, v)
        order = once(jnp.where(row.has(Plane.PRESENT, v), row.order(v), 0))
        size = once(jnp.int32(1) << order)
        broken = once(more & row.has(Plane.PARTIAL, v))
        members, table = lax.optimization_barrier((blocks.members(state, v, order, broken), state.rows))
        state = replace(state, rows=table)

        def mark(state: MachineState, at: Lane, on: Flag) -> MachineState:
            row, state = rows.get(state, at)
            pages = blocks.in_row(members, at, order, broken)
            row = tlb.make_old(row, params, pages, Plane.ACTIVE)
            return rows.put(state, at, row.add((pages, (Plane.WORKINGSET,))), on)

        base = v >> order << order
        state = rows.each(base, base + size, mark, state, more)
        state = lru.rotate(state, v, yes, ~yes, size, more)
        state = replace(state, n=count(state.n, more, pgdeactivate=size, pgrefill=size))
        return state, scanned + jnp.where(more, size, 0)

    state, _ = repeat(lambda carry: tail(*carry)[1], visit, (state, jnp.zeros_like(work.want)))
    # A last batch that has nothing to rebalance is left out.
    over = work.last | ~(_goes_on(work, work.goal) | work.low)
    return state, change(work, on, phase=jnp.where(over, SLAB, BATCH))


def end_pass(state: MachineState, work: Work, target: Lane, on: Flag) -> tuple[MachineState, Work]:
    """do_try_to_free_pages: the next priority; after the last, once more if nothing came, then by force."""
    total = work.total + work.done
    last = on & ((total >= target) | (work.priority == 0))
    state = replace(state, refaults_seen=jnp.where(last, state.flushed_activations, state.refaults_seen))
    attempt = work.attempt + last
    over = last & ((total > 0) | (attempt == 3) | ((attempt == 2) & ~work.skipped))
    return state, change(
        work,
        on,
        phase=jnp.where(over, END, PASS),
        total=total,
        attempt=attempt,
        priority=jnp.where(last, DEF_PRIORITY, work.priority - 1),
    )


def end_reclaim(
    state: MachineState, params: MachineParams, work: Work, pages: Lane, on: Flag
) -> tuple[MachineState, Work]:
    """try_charge_memcg after a reclaim: drain the stock once, retry, or fail; but first the OOM killer is
    called, and as many retries follow.
    """
    if params.high is not None:
        for_high = on & (work.high > 0)
        work = _end_high(state, params, work, for_high)
        on = on & ~for_high
    short = on & (limit_of(state, params) - state.used - state.stock < pages)
    drain = short & ~work.drained
    state = cgroups.drain_stock(state, drain)
    progress = (work.total > 0) & (pages <= 1 << PAGE_ALLOC_COSTLY_ORDER)
    again = work.gfp.retries | (work.order == 0)
    stuck = short & work.drained & ~(progress & again)
    failed = stuck & ((work.retries == 0) | ~again)
    kills = failed & again & (work.order <= PAGE_ALLOC_COSTLY_ORDER) & ~state.oom
    failed = failed & ~kills
    state = replace(state, oom=state.oom | kills)
    retries = jnp.where(kills, MAX_RECLAIM_RETRIES, work.retries - stuck)
    work = replace(work, retries=retries, drained=work.drained | drain)
    return state, _give_up(change(work, on & ~failed, phase=CHARGE), failed)
