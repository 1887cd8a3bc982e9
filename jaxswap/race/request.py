"""What to explore, from the words of the command line."""

import re
from dataclasses import dataclass

from jaxswap.errors import InputError
from jaxswap.race.start import KINDS, MOST_ACTORS, MOST_SLOTS
from jaxswap.swaptable.forms import FORMS

OTHERS = tuple(kind for kind in KINDS if kind != "fault")


@dataclass(frozen=True)
class Request:
    """An exploration of a form for each of some sets of actors."""

    variant: str
    actors: tuple[tuple[str, ...], ...]
    """Kinds of the actors of each set, the faulting CPUs first."""
    slots: int
    orders: int
    """Mask."""


def request_of(variant: str, cpus: int, actors: str, slots: int, orders: str | None) -> Request:
    """variant: a name of FORMS. cpus: faulting CPUs. actors: ``each`` (every other kind in turn, one at a
    time), ``none``, or kinds with commas, together. orders: such as ``0..3`` or ``0,2,3``; None: all that
    fit. InputError names the option.
    """
    if variant not in FORMS:
        raise InputError(f"--variant {variant}: is none of {', '.join(FORMS)}")
    if slots not in (1, 2, 4, 8, MOST_SLOTS):
        raise InputError(f"--slots {slots}: one aligned block has 1, 2, 4, 8 or {MOST_SLOTS} slots")
    top = slots.bit_length() - 1
    mask = (2 << top) - 1 if orders is None else _order_mask(orders)
    if not mask & 1 or mask.bit_length() - 1 > top:
        raise InputError(f"--orders {orders}: write order 0 and others up to {top}, for example 0..{top}")
    sets = {"each": [[kind] for kind in OTHERS], "none": [[]]}.get(actors) or [actors.split(",")]
    for kind in (kind for one in sets for kind in one):
        if kind not in OTHERS:
            raise InputError(f"--actors {actors}: {kind!r} is none of {', '.join(OTHERS)}, nor each or none")
    if not 0 <= cpus <= MOST_ACTORS or not 1 <= cpus + max(map(len, sets)) <= MOST_ACTORS:
        raise InputError(f"--cpus {cpus}: with the other actors there may be 1 to {MOST_ACTORS}")
    if cpus + min(map(len, sets)) < 1:
        raise InputError("--cpus 0 --actors none: nobody would do anything")
    return Request(variant, tuple(("fault",) * cpus + tuple(one) for one in sets), slots, mask)


def _order_mask(text: str) -> int:
    if found := re.fullmatch(r"(\d)\.\.(\d)", text):
        first, last = map(int, found.groups())
        if first <= last:
            return (2 << last) - (1 << first)
    elif re.fullmatch(r"\d(,\d)*", text):
        return sum({1 << int(order) for order in text.split(",")})
    raise InputError(f"--orders {text}: write 0..3 or 0,2,3")
