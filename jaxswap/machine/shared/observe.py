"""What a machine of several processes shows from outside."""

import numpy as np
from jaxtyping import Int64

from jaxswap.machine.observe import Pages
from jaxswap.machine.shared import state as sharing
from jaxswap.machine.shared.state import Folio, Sharing
from jaxswap.machine.state import MachineState, Plane
from jaxswap.machine.tables import HUGE
from jaxswap.swaptable.cluster_table import BASE, layout_of
from jaxswap.swaptable.geometry import CLUSTER
from jaxswap.swaptable.lanes import SPARE

_ORDER = Folio._fields.index("order")
_FLAGS = Folio._fields.index("flags")


def pages_of(state: MachineState, place: int, npages: int) -> Pages:
    """The pages of the process at a place, of the only lane of a state, as far as DUMP and FOLIOS look."""
    s = sharing.of(state)
    mine = slice(place * sharing.room(state), place * sharing.room(state) + npages)
    words, at = np.asarray(s.pages)[mine, 0], np.asarray(state.slots)[mine, 0].astype(np.int64)
    kind = words & sharing.KIND
    folios = np.asarray(s.folios)[:-SPARE, 0].reshape(-1, sharing.FIELDS)
    order = np.where(kind == sharing.PRESENT, folios[np.where(kind == sharing.PRESENT, at, 0), _ORDER], 0)
    planes = np.zeros((len(Plane), npages), bool)
    planes[Plane.PRESENT] = kind == sharing.PRESENT
    planes[Plane.SWAPPED] = kind == sharing.SWAPPED
    planes[Plane.ZEROPAGE] = kind == sharing.ZEROPAGE
    for i, plane in enumerate((Plane.O0, Plane.O1, Plane.O2, Plane.O3)):
        planes[plane] = order >> i & 1 == 1
    bases = np.asarray(layout_of(state.clusters, BASE))[:, 0].astype(np.int64) * CLUSTER
    blocks = slice(mine.start // CLUSTER, (mine.start + sharing.room(state)) // CLUSTER)
    huge = np.asarray(state.tables)[blocks, 0] == HUGE
    return Pages(planes, at, bases, huge)


def leaving(s: Sharing) -> dict[str, Int64[np.ndarray, " lanes"]]:
    """What the pages still in memory were good for, judged as if they left now."""
    words = np.asarray(s.pages)[:-SPARE]
    lanes = np.arange(words.shape[1])
    present = words & sharing.KIND == sharing.PRESENT
    touched, back = words & sharing.TOUCHED != 0, words & sharing.CAMEBACK != 0
    needed = present & touched & back
    cache = np.asarray(s.cache)[:-SPARE]
    flags = np.asarray(s.folios)[np.maximum(cache, 0) * sharing.FIELDS + _FLAGS, lanes[None]]
    unused = (cache >= 0) & (flags & sharing.USED == 0)

    def total(members: np.ndarray) -> np.ndarray:
        return members.sum(axis=0, dtype=np.int64)

    return {
        "useless_swapin": total(present & back & ~touched) + total(unused),
        "useless_touch": total(present & ~back & ~touched),
        "needed_pages": total(needed),
        "covered_pages": total(needed & (words & sharing.LARGE != 0)),
    }
