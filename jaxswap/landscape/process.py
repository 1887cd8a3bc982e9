"""A snapshot of a real process, device by device, as faults can be asked on."""

import numpy as np

from jaxswap.errors import InputError
from jaxswap.landscape.faults import Snapshot, make_snapshot
from jaxswap.swaptable.geometry import CLUSTER
from jaxswap.workload.snapshot import Snapshot as Taken


def by_device(taken: Taken) -> dict[int, Snapshot]:
    """The anonymous pages in swap of a process, by the number of the swap device.

    What a pagemap does not show is taken to be none: zero flags, folios in the swap cache. Slots of others
    and the rest of a device need not be known. Raises InputError where no page is in swap.
    """
    starts = np.array([vma.start for vma in taken.vmas], np.int64)
    ends = np.array([vma.end for vma in taken.vmas], np.int64)
    found = {}
    for device in np.unique(taken.device[taken.swapped & ~taken.shared]).tolist():
        here = np.flatnonzero((taken.device == device) & ~taken.shared)
        slot, vma = taken.slot[here], taken.vma[here]
        slots = (int(slot.max()) // CLUSTER + 1) * CLUSTER
        found[device] = make_snapshot(taken.page[here], slot, slots, starts[vma], ends[vma])
    if not found:
        raise InputError(
            "no anonymous page of the process is in swap; take the snapshot under memory pressure"
        )
    return found
