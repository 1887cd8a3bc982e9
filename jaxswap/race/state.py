"""Many states of one block and its actors at once, and each packed into a few 64-bit words.

A state is a column of small numbers: what every slot's word says (mm/swap_table.h), its count, every page
table entry, what each actor is at and holds, every folio, whether memory is gone for good, who holds the
page-table lock.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

FREE, SHADOW, IN_FOLIO = 0, 1, 5
"""Words of a slot: free; ``SHADOW + v`` for the shadows 0 (empty) to 3; ``IN_FOLIO + k`` for folio k."""
OUT = SHADOW + 3
"""The shadow that swap-out leaves."""
NONE, SWAP, ZAPPING, MAPPING, MAPPED = 0, 1, 2, 3, 4
"""Page table entries: none; the swap entry; cleared, its count not put yet; its count put, not mapped yet;
``MAPPED + k`` to folio k."""

PCS = (
    "DONE",
    "LOOK",
    "SUIT",
    "LOOK_AGAIN",
    "CHECK",
    "FRAME",
    "INSERT",
    "CHARGE",
    "UNDO",
    "RELEASE",
    "CHARGE_FIRST",
    "ADD",
    "LOOK_HOLDING",
    "READ",
    "LOCK",
    "PTL",
    "DROP",
    "PUT",
    "MAP",
    "FREE",
    "BACK",
    "ZAP",
    "PUT_ZAPPED",
    "RECLAIM",
    "SLOT",
    "UNMAP",
    "LEAVE",
)
"""What an actor does next. :mod:`jaxswap.race.steps` has a function for each."""
PC = {name: number for number, name in enumerate(PCS)}

Row = UInt8[np.ndarray, "n"]
Rows = UInt8[np.ndarray, "_ n"]


@dataclass(frozen=True)
class Layout:
    """Which row of a matrix of states is what."""

    actors: int
    slots: int

    @property
    def bits(self) -> list[int]:
        """Bits a row needs, in the order of the rows of :class:`States`."""
        wide = (MAPPED + self.actors).bit_length()
        word = (IN_FOLIO + self.actors).bit_length()
        each_slot = [word, 1, wide]
        each_actor = [len(PCS).bit_length(), 3, 5, 2, 3, 1]
        each_folio = [(2 * self.slots + self.actors + 1).bit_length(), 3, 1, 1, 1]
        return [
            *(bits for bits in each_slot for _ in range(self.slots)),
            *(bits for bits in each_actor for _ in range(self.actors)),
            *(bits for bits in each_folio for _ in range(self.actors)),
            1,
            3,
        ]

    @cached_property
    def parts(self) -> list[slice]:
        """Rows of each attribute of :class:`States` but the last two."""
        edges = accumulate([self.slots] * 3 + [self.actors] * 11, initial=0)
        return [slice(first, last) for first, last in pairwise(edges)]

    @cached_property
    def places(self) -> list[tuple[int, int, int]]:
        """(word, shift, mask) of each row."""
        places, word, used = [], 0, 0
        for bits in self.bits:
            if used + bits > 64:
                word, used = word + 1, 0
            places.append((word, used, (1 << bits) - 1))
            used += bits
        return places

    @property
    def words(self) -> int:
        return self.places[-1][0] + 1


class States:
    """States side by side; every attribute is a view of the rows of ``matrix`` (uint8 [rows, n])."""

    def __init__(self, layout: Layout, matrix: Rows) -> None:
        self.layout, self.matrix = layout, matrix
        parts = [matrix[rows] for rows in layout.parts]
        self.slots, self.counts, self.ptes = parts[:3]
        self.pc, self.order, self.mask, self.shadow, self.found, self.whole = parts[3:9]
        """Of actors: next step; order in hand; mask; shadow of the target; folio held + 1; see
        :mod:`jaxswap.race.steps`."""
        self.refs, self.size, self.locked, self.anon, self.cached = parts[9:14]
        """Of folios; ``size`` is the order. A folio without references does not exist: all are 0."""
        self.no_memory, self.ptl = matrix[-2], matrix[-1]

    @property
    def n(self) -> int:
        return self.matrix.shape[1]

    def take(self, index: Int[np.ndarray, "m"] | Bool[np.ndarray, "n"]) -> "States":
        """A copy of some."""
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return States(self.layout, self.matrix.take(index, axis=1))

    def copy(self) -> "States":
        return States(self.layout, self.matrix.copy())

    def pack(self) -> UInt64[np.ndarray, "n words"]:
        packed = np.zeros((self.n, self.layout.words), np.uint64)
        for row, (word, shift, _) in zip(self.matrix, self.layout.places, strict=True):
            packed[:, word] |= row.astype(np.uint64) << np.uint64(shift)
        return packed


def unpack(layout: Layout, packed: UInt64[np.ndarray, "n words"]) -> States:
    """Inverse of :meth:`States.pack`."""
    matrix = np.empty((len(layout.bits), len(packed)), np.uint8)
    columns = [np.ascontiguousarray(packed[:, word]) for word in range(layout.words)]
    for row, (word, shift, mask) in zip(matrix, layout.places, strict=True):
        row[:] = (columns[word] >> np.uint64(shift)) & np.uint64(mask)
    return States(layout, matrix)
