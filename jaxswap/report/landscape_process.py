"""What each order would get at the faults of a real process, as text."""

import numpy as np

from jaxswap.landscape.config import LandscapeConfig
from jaxswap.landscape.faults import REASONS, SWAPIN_ORDERS, Snapshot
from jaxswap.landscape.run import Asked
from jaxswap.report.landscape import NAMES
from jaxswap.report.tables import text_table
from jaxswap.swaptable.geometry import SIZE_NAMES


def process_text(
    config: LandscapeConfig, device: int, snapshot: Snapshot, alone: np.ndarray, asked: list[Asked]
) -> str:
    """Two tables of one device: each order alone, and what each heuristic gets.

    alone: faults [orders, 1 + reasons] as each_order gives them; asked: of every policy of the config.
    """
    seen = [number for number in range(len(REASONS)) if alone[:, 1 + number].any()]
    share = 100 * alone / config.faults
    rows = [
        [SIZE_NAMES[order], f"{share[row, 0]:.1f}", *(f"{share[row, 1 + number]:.1f}" for number in seen)]
        for row, order in enumerate(SWAPIN_ORDERS)
    ]
    refusals = text_table(["size", "got %", *(NAMES[REASONS[number]] for number in seen)], rows, 1)
    lines = []
    for choice, found in zip(config.policies, asked, strict=True):
        got = np.asarray(found.got) / config.faults
        pages = got @ (1 << np.arange(len(got)))
        cells = (
            f"{pages:.2f}",
            f"{100 * (1 - got[0]):.1f}",
            f"{1000 * int(found.failed) / config.faults:.2f}",
        )
        lines.append([str(choice), *cells, f"{int(found.slots) / config.faults:.3g}"])
    header = ["heuristic", "pages a fault", "large %", "failed / 1,000", "slots read a fault"]
    sizes = " ".join(SIZE_NAMES[order] for order in config.sizes)
    return (
        f"swap device {device}: {snapshot.pages:,} pages of the process, {config.faults:,} faults on them\n\n"
        f"each size, were it the only one:\n{refusals}\n\nheuristics; enabled: {sizes}\n"
        f"{text_table(header, lines, 1)}"
    )
