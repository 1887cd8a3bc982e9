"""What must hold in every state.

A slot belongs to the folio that says so (mm/swap_table.h, ``folio->swap``); its count is the number of swap
entries in page tables that name it; a folio has a reference for each slot of the cache, for each page table
entry and for each actor that holds it; who has put a folio over a range has all of it until the read is done.
"""

import numpy as np
from jaxtyping import Bool, UInt8

from jaxswap.race.state import FREE, IN_FOLIO, MAPPED, PC, SWAP, ZAPPING, States
from jaxswap.race.steps import Steps

RULES = (
    "",
    "slot in two folios",
    "slot of a folio that is gone",
    "count lost",
    "reference leaked",
    "success for a slot of another",
)
"""Names of the rules, by number."""


def broken(steps: Steps, s: States) -> UInt8[np.ndarray, "n"]:
    """The first of :data:`RULES` that each state breaks, 0 for none."""
    wrong = np.zeros(s.n, np.uint8)

    def rule(number: int, breaks: Bool[np.ndarray, "n"]) -> None:
        wrong[breaks & (wrong == 0)] = number

    folios = range(s.layout.actors)
    ranges = {a: r for a, r in enumerate(steps.ranges) if steps.start[a].kind == "swapout"}
    sizes = [np.where(s.cached[k] == 1, 1 << s.size[k], 0).astype(np.uint8) for k in folios]
    slots = [(s.slots == IN_FOLIO + k).sum(0) for k in folios]
    for k in folios:
        rule(1, (s.cached[k] == 1) & (slots[k] != sizes[k]))
        rule(2, (slots[k] > 0) & (s.cached[k] == 0))

    entries = ((s.ptes == SWAP) | (s.ptes == ZAPPING)).astype(np.uint8)
    for a, its in ranges.items():
        entries += its[:, None] & (s.whole[a] == 1)
    lost = s.counts != entries
    lost |= (s.slots < IN_FOLIO) & ((s.slots == FREE) != (s.counts == 0))
    rule(3, lost.any(0))

    for k in folios:
        held = (s.found == k + 1).sum(0) + (s.ptes == MAPPED + k).sum(0) + sizes[k]
        for a in ranges:
            held += np.where((s.pc[a] == PC["UNMAP"]) & (s.found[a] == k + 1), 1 << s.size[k], 0)
        rule(4, held != s.refs[k])

    for a, block in enumerate(steps.blocks):
        owns = np.isin(s.pc[a], [PC["CHARGE"], PC["UNDO"], PC["READ"]])
        others = (s.slots != s.found[a] - 1 + IN_FOLIO) & block.T[:, s.order[a]]
        rule(5, owns & others.any(0))
    return wrong
