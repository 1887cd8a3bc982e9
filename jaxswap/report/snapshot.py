"""A snapshot of a process as text: its pages by swap device, and how whole its 64 kB blocks are."""

import numpy as np

from jaxswap.report.tables import text_table
from jaxswap.workload.snapshot import Snapshot

_ORDERS = (2, 3, 4, 5, 6, 7, 8, 9)


def snapshot_text(snapshot: Snapshot) -> str:
    """Header; a row a swap device; and how many aligned blocks of pages are in aligned blocks of slots."""
    swapped = snapshot.swapped
    lines = [f"{key:<10}{value}" for key, value in snapshot.about.items()]
    lines.append(f"{'VMAs':<10}{len(snapshot.vmas):,}")
    lines.append(f"{'present':<10}{int((~swapped).sum()):,} pages")
    lines.append(f"{'swapped':<10}{int(swapped.sum()):,} pages")
    rows = []
    for device in np.unique(snapshot.device[swapped]).tolist():
        here = snapshot.device == device
        cells = [str(device), f"{int(here.sum()):,}"]
        rows.append(cells + [f"{whole_blocks(snapshot, device, order):,}" for order in _ORDERS])
    if rows:
        header = ["device", "pages", *(f"{4 << order}kB" for order in _ORDERS)]
        lines += [
            "",
            "aligned blocks of pages that are in aligned blocks of slots:",
            text_table(header, rows, 1),
        ]
    return "\n".join(lines)


def whole_blocks(snapshot: Snapshot, device: int, order: int) -> int:
    """Aligned blocks of 2^order pages of one VMA that lie in order in an aligned block of slots of the
    device: what a swap-in of the order needs (mm/memory.c, alloc_swap_folio; 7.3)."""
    here = np.flatnonzero(snapshot.device == device)
    page, slot, vma = snapshot.page[here], snapshot.slot[here], snapshot.vma[here]
    inside = (page & ((1 << order) - 1)) == (slot & ((1 << order) - 1))
    block = np.stack([vma[inside], page[inside] >> order, slot[inside] >> order], axis=1)
    _, counts = np.unique(block, axis=0, return_counts=True)
    return int((counts == 1 << order).sum())
