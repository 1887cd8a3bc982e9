"""Heuristics that are asked at swap-out: does a large folio leave whole, or is it split before?"""

import jax.numpy as jnp

from jaxswap.policy.base import (
    Decision,
    Features,
    Leaving,
    Memory,
    Param,
    Params,
    Policy,
    Verdict,
    offer,
    unread,
)


def _candidates(params: Params, memory: Memory, seen: Features) -> Decision:
    return offer(seen.candidates, memory)


def _keep_whole_to(params: Params, memory: Memory, leaving: Leaving) -> Verdict:
    order, fill, cluster = params[:3]
    lacks = (cluster == 1) & ~leaving.cluster
    return unread((leaving.order <= order) & (leaving.fill <= fill) & ~lacks)


def _split_sparse(params: Params, memory: Memory, leaving: Leaving) -> Verdict:
    least, state = params[:2]
    size = jnp.int32(1) << leaving.order
    full = jnp.where(state == 0, leaving.young, jnp.where(state == 1, leaving.touched, size - leaving.zeros))
    return Verdict(16 * full >= least * size, jnp.where(state == 0, size, 0), jnp.where(state == 2, size, 0))


SWAPOUT = (
    Policy(
        "keep_whole_to",
        "folios up to `order` leave memory whole, larger ones are split first; faults as the kernel",
        _candidates,
        params=(
            Param("order", 4, 1, 9, "folio order of the cap; 1 splits all"),
            Param("fill", 64, 0, 64, "split all where more 64ths of all slots are in use"),
            Param("cluster", 0, 0, 1, "1: split all while no device has a free cluster"),
        ),
        leave_whole=_keep_whole_to,
        c="""\
/* shrink_folio_list, before folio_alloc_swap of a large folio */
whole = folio_order(folio) <= order && 64 * used_slots() / total_swap_pages <= fill;
if (cluster && list_empty(&si->free_clusters)) /* of every device */
    whole = false;
if (!whole && split_folio_to_list(folio, folio_list))
    goto activate_locked;""",
    ),
    Policy(
        "split_sparse",
        "folios of which less than `least` 16ths are in a state are split before they leave memory",
        _candidates,
        params=(
            Param("least", 8, 0, 16, "16ths of the pages that must be in the state for it to leave whole"),
            Param(
                "state",
                1,
                0,
                2,
                "0: young PTE, 1: used since mapped (bits no kernel keeps), 2: not all zeros",
            ),
        ),
        leave_whole=_split_sparse,
        c="""\
/* shrink_folio_list, before folio_alloc_swap of a large folio */
for (i = 0; i < folio_nr_pages(folio); i++)
    full += pte_young(ptep_get(pte + i)); /* or test_bit(i, used), !pages_identical(page + i, ZERO_PAGE(0)) */
if (16 * full < least << folio_order(folio) && split_folio_to_list(folio, folio_list))
    goto activate_locked;""",
    ),
)
