"""Heuristics that look at what is around a fault: its neighbours, its slot's history, the room there is."""

import jax.numpy as jnp
import numpy as np

from jaxswap.policy.base import (
    Decision,
    Features,
    Flag,
    Lane,
    Mask,
    Memory,
    Param,
    Params,
    Policy,
    highest,
    offer,
    size,
    up_to,
)

TOUCH = Param("touch", 0, 0, 1, "1: at first touch too; 0: there as the kernel")
SHIFT = Param("shift", 4, 0, 16, "log2 of how many folios of an order must fit")
_LOG2 = Param("log2", 3, 0, 5, "log2 of the PTEs sampled, evenly apart")
_STATE = Param("state", 0, 0, 2, "0: present, 1: swapped, 2: young")
_EVERY = np.array([sum(1 << at for at in range(0, 32, 32 >> log2)) for log2 in range(6)], np.uint32)


def spared(seen: Features, touch: Lane) -> Flag:
    """First touches that the parameter `touch` leaves to the kernel's rule."""
    return seen.first_touch & (touch == 0)


def sampled(pages: Mask, log2: Lane) -> Lane:
    """How many of 2^log2 of the 32 PTEs, evenly apart from the first on, are in a set."""
    return size(pages & jnp.asarray(_EVERY)[jnp.clip(log2, 0, 5)])


def room(seen: Features, shift: Lane) -> Mask:
    """The orders of which 2^shift folios fit below the limit."""
    left = seen.headroom >> shift
    top = jnp.minimum(highest(left.astype(jnp.uint32)), 9)
    return jnp.where(left > 0, up_to(jnp.maximum(top, 0)), 0)


def _pages(seen: Features, state: Lane) -> Mask:
    """The PTEs in a state, of the parameter `state`."""
    return jnp.where(state == 0, seen.present, jnp.where(state == 1, seen.swapped, seen.young))


def _density(params: Params, memory: Memory, seen: Features) -> Decision:
    least, log2, state, touch = params[:4]
    spares = spared(seen, touch)
    orders = jnp.where(spares | (sampled(_pages(seen, state), log2) >= least), seen.candidates, 0)
    none = jnp.zeros_like(log2)
    return Decision(orders, memory, jnp.where(spares, 0, 1 << log2), none)


def _refault(params: Params, memory: Memory, seen: Features) -> Decision:
    old, log2 = params[0] == 1, params[1]
    recent = jnp.where(log2 == 0, seen.recent, seen.distance < (1 << log2))
    orders = jnp.where(seen.first_touch | (recent ^ old), seen.candidates, 0)
    return Decision(orders, memory, jnp.zeros_like(log2), (~seen.first_touch).astype(jnp.int32))


def _headroom(params: Params, memory: Memory, seen: Features) -> Decision:
    shift, touch = params[:2]
    orders = jnp.where(spared(seen, touch), seen.candidates, seen.candidates & room(seen, shift))
    return offer(orders, memory)


def _ask(params: Params, memory: Memory, seen: Features) -> Decision:
    charge, frame, slots, least, log2, state = params[:6]
    orders = seen.candidates
    orders = jnp.where(charge == 1, orders & seen.chargeable, orders)
    orders = jnp.where(frame == 1, orders & seen.frames, orders)
    looks = ~seen.first_touch & (orders != 0) & (least > 0)
    sparse = looks & (sampled(_pages(seen, state), log2) < least)
    orders = jnp.where(sparse, 0, orders)
    reads = ~seen.first_touch & (orders != 0) & (slots == 1)
    read = jnp.where(reads, jnp.int32(1) << highest(orders), 0)
    return Decision(
        jnp.where(reads, orders & seen.suitable, orders), memory, jnp.where(looks, 1 << log2, 0), read
    )


def _zswap_rfc(params: Params, memory: Memory, seen: Features) -> Decision:
    order, least, veto, fill = params[:4]
    goes = (sampled(seen.young, jnp.full_like(order, 3)) >= least) & (seen.fill <= fill)
    goes = goes & ~((veto == 1) & seen.recent)
    orders = jnp.where(seen.first_touch, seen.candidates, jnp.where(goes, seen.candidates & up_to(order), 0))
    read = ~seen.first_touch
    return Decision(orders, memory, jnp.where(read, 8, 0), jnp.where(read, veto, 0))


AROUND = (
    Policy(
        "density",
        "large where at least `least` of 2^log2 PTEs, of the 32 aligned around the page, are in a state",
        _density,
        params=(
            Param("least", 2, 0, 32, "PTEs that must be in the state"),
            _LOG2,
            _STATE,
            TOUCH,
        ),
        c="""\
pte = vmf->pte - pte_index(addr) % 32;
for (i = 0; i < 32; i += 32 >> log2)
    dense += pte_present(ptep_get(pte + i)); /* or is_swap_pte, pte_young */
return dense >= least ? candidates : 0;""",
    ),
    Policy(
        "refault",
        "swap-in large only where the refault distance of the slot is short, or only where it is long",
        _refault,
        params=(
            Param("old", 0, 0, 1, "1: large where the distance is long, 0: where it is short"),
            Param("log2", 0, 0, 30, "short is below 2^log2 pages evicted; 0: by workingset_test_recent"),
        ),
        c="""\
shadow = swap_cache_get_shadow(entry);
recent = log2 ? refault_distance(shadow) < 1UL << log2
          : workingset_test_recent(shadow, false, &workingset, false);
return recent != old ? candidates : 0;""",
    ),
    Policy(
        "headroom",
        "orders of which 2^shift folios fit below memory.max",
        _headroom,
        params=(SHIFT, TOUCH),
        c="""\
left = (READ_ONCE(memcg->memory.max) - page_counter_read(&memcg->memory)) >> shift;
return left > 0 ? candidates & GENMASK(ilog2(left), 0) : 0;""",
    ),
    Policy(
        "ask",
        "orders for which charge, frame and slots can be had now; swap-in only where PTEs around are dense",
        _ask,
        params=(
            Param("charge", 1, 0, 1, "1: that can be charged now, or whose charge may reclaim"),
            Param("frame", 1, 0, 1, "1: that have a free block of page frames now"),
            Param("slots", 0, 0, 1, "1: at swap-in, that the swap table's check would pass (read last)"),
            Param("least", 0, 0, 32, "at swap-in, PTEs that must be in the state; 0: none is read"),
            _LOG2,
            _STATE,
        ),
        c="""\
if (charge && !gfpflags_allow_blocking(gfp)) {
    room = max(READ_ONCE(memcg->memory.max) - page_counter_read(&memcg->memory), stocked(memcg));
    candidates &= room > 0 ? GENMASK(ilog2(room), 0) : 0;
}
while (frame && candidates && !free_block_of_order(top = ilog2(candidates)))
    __clear_bit(top, &candidates);
if (first_touch || !candidates)
    return candidates;
pte = vmf->pte - pte_index(addr) % 32;
for (i = 0; least && i < 32; i += 32 >> log2)
    dense += pte_present(ptep_get(pte + i)); /* or is_swap_pte, pte_young */
if (dense < least)
    return 0;
return slots ? lookahead(candidates) : candidates;""",
    ),
    Policy(
        "zswap_rfc",
        "the large swap-in proposed for zswap: cap, young PTEs among 8, recent refault veto, fill veto",
        _zswap_rfc,
        params=(
            Param("order", 4, 2, 9, "folio order of the cap"),
            Param("young", 0, 0, 8, "of 8 PTEs, evenly apart among the 32 around, those that must be young"),
            Param("veto", 1, 0, 1, "1: small where the refault is recent (workingset_test_recent)"),
            Param("fill", 64, 0, 64, "small where more 64ths of all slots are in use"),
        ),
        c="""\
pte = vmf->pte - pte_index(addr) % 32;
for (i = 0; i < 32; i += 4)
    dense += pte_young(ptep_get(pte + i));
if (dense < young || 64 * used_slots() / total_swap_pages > fill)
    return 0;
if (veto && workingset_test_recent(swap_cache_get_shadow(entry), false, &workingset, false))
    return 0;
return candidates & GENMASK(order, 0);""",
    ),
)
