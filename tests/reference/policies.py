"""Plain-Python twins of the heuristics of jaxswap.policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Seen(NamedTuple):
    """What a heuristic may look at: as jaxswap.policy.Features."""

    first_touch: bool
    candidates: int
    suitable: int
    page: int = 0
    headroom: int = 1 << 30
    fill: int = 0
    distance: int = 0
    recent: bool = False
    present: int = 0
    swapped: int = 0
    young: int = 0
    block: int = 0
    frames: int = 0x3FF
    chargeable: int = 0x3FF
    future: Sequence[int] = (1 << 30,) * 512


class Leaving(NamedTuple):
    """What it may look at of a folio that is to leave memory: as jaxswap.policy.Leaving."""

    order: int
    page: int = 0
    workingset: bool = False
    fill: int = 0
    cluster: bool = True
    block: int = 0
    young: int = 0
    touched: int = 0
    zeros: int = 0


def highest(mask: int) -> int:
    return mask.bit_length() - 1


def lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def up_to(order: int) -> int:
    return (2 << order) - 1


class Twin(NamedTuple):
    decide: Callable[..., tuple[int, int, int]]  # (params, memory, seen) -> (mask, ptes read, slots read)
    learn: Callable[..., None] = lambda params, memory, first_touch, failed, got: None
    note: Callable[..., int] = lambda params, block, first_touch, failed, got: block
    # (params, memory, leaving) -> (whole, PTEs read, pages of content read); None: not asked
    leave_whole: Callable[..., tuple[bool, int, int]] | None = None


def _kernel(params, memory, seen):
    return seen.candidates, 0, 0


def _never(params, memory, seen):
    return seen.candidates if seen.first_touch else 0, 0, 0


def _cap(params, memory, seen):
    return seen.candidates if seen.first_touch else seen.candidates & up_to(params[0]), 0, 0


def _single(params, memory, seen):
    return seen.candidates if seen.first_touch else seen.candidates & (1 << params[0]), 0, 0


def _lookahead(params, memory, seen):
    if seen.first_touch:
        return seen.candidates, 0, 0
    return seen.suitable, 0, 1 << highest(seen.candidates)


def _backoff(params, memory, seen):
    path = 0 if seen.first_touch else 2
    if memory[path + 1]:
        memory[path + 1] -= 1
        return 0, 0, 0
    return seen.candidates, 0, 0


def _backoff_learn(params, memory, first_touch, failed, got):
    path = 0 if first_touch else 2
    if failed:
        memory[path] = min(memory[path] + 1, params[0])
        memory[path + 1] = 1 << memory[path]
    elif got:
        memory[path] = 0


def sampled(word: int, log2: int) -> int:
    """How many of 2^log2 of the 32 pages, evenly apart from the first on, are in a set."""
    return sum(word >> at & 1 for at in range(0, 32, 32 >> log2))


def _density(params, memory, seen):
    least, log2, state, touch = params
    if seen.first_touch and not touch:
        return seen.candidates, 0, 0
    dense = sampled((seen.present, seen.swapped, seen.young)[state], log2) >= least
    return seen.candidates if dense else 0, 1 << log2, 0


def _refault(params, memory, seen):
    old, log2 = params
    if seen.first_touch:
        return seen.candidates, 0, 0
    recent = seen.distance < 1 << log2 if log2 else seen.recent
    return seen.candidates if recent != old else 0, 0, 1


def _room(seen, shift):
    """The orders of which 2^shift folios fit below the limit."""
    return up_to(min(highest(seen.headroom >> shift), 9)) if seen.headroom >> shift else 0


def _headroom(params, memory, seen):
    shift, touch = params
    if seen.first_touch and not touch:
        return seen.candidates, 0, 0
    return seen.candidates & _room(seen, shift), 0, 0


def _window(params, memory, seen):
    start, touch = params
    if seen.first_touch and not touch:
        return seen.candidates, 0, 0
    top = memory[0 if seen.first_touch else 1] or start
    return seen.candidates & up_to(max(top, lowest(seen.candidates))), 0, 0


def _window_learn(params, memory, first_touch, failed, got):
    at = 0 if first_touch else 1
    top = memory[at] or params[0]
    if failed:
        memory[at] = max(top - 1, 2)
    elif got >= top:
        memory[at] = min(top + 1, 9)


def _window_headroom(params, memory, seen):
    start, shift, touch = params
    if seen.first_touch and not touch:
        return seen.candidates, 0, 0
    return _window((start, touch), memory, seen)[0] & _room(seen, shift), 0, 0


def _last(params, memory, seen):
    step, touch = params
    if seen.first_touch and not touch:
        return seen.candidates, 0, 0
    known = seen.block >> (4 if seen.first_touch else 0) & 15
    if not known:
        return seen.candidates, 0, 0
    return seen.candidates & up_to(max(known - 1 + step, lowest(seen.candidates))), 0, 0


def _last_note(params, block, first_touch, failed, got):
    if not failed and not got:
        return block
    shift = 4 if first_touch else 0
    return block & ~(15 << shift) | (got + 1) << shift


def _zswap_rfc(params, memory, seen):
    order, least, veto, fill = params
    if seen.first_touch:
        return seen.candidates, 0, 0
    goes = sampled(seen.young, 3) >= least and not (veto and seen.recent) and seen.fill <= fill
    return seen.candidates & up_to(order) if goes else 0, 8, veto


def _ask(params, memory, seen):
    charge, frame, slots, least, log2, state = params
    orders = seen.candidates
    if charge:
        orders &= seen.chargeable
    if frame:
        orders &= seen.frames
    if seen.first_touch:
        return orders, 0, 0
    ptes = read = 0
    if orders and least:
        ptes = 1 << log2
        pages = (seen.present, seen.swapped, seen.young)[state]
        if sampled(pages, log2) < least:
            orders = 0
    if orders and slots:
        read = 1 << highest(orders)
        orders &= seen.suitable
    return orders, ptes, read


def linear_features(memory, seen, order):
    """What the linear rule weighs for an order."""
    outcomes = memory[0] >> 4 * (order - 2) & 15
    return (
        1,
        order,
        max(-8, min(8, seen.headroom.bit_length() - 1 - order)),
        int(seen.recent),
        seen.fill >> 3,
        seen.present.bit_count() >> 2,
        seen.young.bit_count() >> 2,
        outcomes - 16 if outcomes & 8 else outcomes,
    )


def _linear(params, memory, seen):
    if seen.first_touch:
        return seen.candidates, 0, 0
    orders = sum(
        1 << order
        for order in range(2, 10)
        if sum(w * f for w, f in zip(params, linear_features(memory, seen, order), strict=True)) > 0
    )
    return seen.candidates & orders, 32, 1


def _linear_learn(params, memory, first_touch, failed, got):
    if first_touch:
        return
    word = memory[0] & 0xFFFF_FFFF
    for order in range(2, 10):
        place = 4 * (order - 2)
        value = (word >> place & 15 ^ 8) - 8
        value += (got == order) - (failed >> order & 1)
        word = word & ~(15 << place) | (max(-8, min(7, value)) & 15) << place
    memory[0] = word - (1 << 32) if word >> 31 else word


def _clairvoyant(params, memory, seen):
    log2, share, room = params
    if seen.first_touch:
        return seen.candidates, 0, 0
    for order in range(9, 1, -1):
        size = 1 << order
        base = seen.page // size * size
        used = sum(until <= 1 << log2 for until in seen.future[base : base + size])
        succeeds = seen.candidates & seen.suitable & seen.frames & size and (
            not room or seen.headroom >= size
        )
        if succeeds and 100 * used >= share * size:
            return size, 0, 0
    return 0, 0, 0


def _keep_whole_to(params, memory, leaving):
    order, fill, cluster = params
    lacks = cluster and not leaving.cluster
    return leaving.order <= order and leaving.fill <= fill and not lacks, 0, 0


def _split_sparse(params, memory, leaving):
    least, state = params
    size = 1 << leaving.order
    full = (leaving.young, leaving.touched, size - leaving.zeros)[state]
    return 16 * full >= least * size, size * (state == 0), size * (state == 2)


POLICIES = {
    "kernel": Twin(_kernel),
    "never": Twin(_never),
    "cap": Twin(_cap),
    "single": Twin(_single),
    "lookahead": Twin(_lookahead),
    "backoff": Twin(_backoff, _backoff_learn),
    "density": Twin(_density),
    "refault": Twin(_refault),
    "headroom": Twin(_headroom),
    "window": Twin(_window, _window_learn),
    "last": Twin(_last, note=_last_note),
    "window_headroom": Twin(_window_headroom, _window_learn),
    "zswap_rfc": Twin(_zswap_rfc),
    "ask": Twin(_ask),
    "linear": Twin(_linear, _linear_learn),
    "keep_whole_to": Twin(_kernel, leave_whole=_keep_whole_to),
    "split_sparse": Twin(_kernel, leave_whole=_split_sparse),
    "clairvoyant": Twin(_clairvoyant),
}
