"""Pressure cells as text: a row each, a summary line, and every counter of one cell."""

from collections.abc import Sequence

from jaxswap.pressure import HeldCell
from jaxswap.report.tables import text_table

ROW = "{:<10}{:<38}{:<16}{:>8}  {}"


def cell_row(held: HeldCell) -> str:
    """Kernel, cell, boots, counters inside their bounds, and the one nearest to them or farthest outside."""
    cell, inside, remark = held.cell, "", ""
    if held.refused:
        why = held.refused.removeprefix(f"{cell.boots[0].path}: ") if cell.boots else held.refused
        remark = f"not modelled: {why}" if cell.boots else f"not compared: {why}"
    elif held.oom:
        remark = "OUTSIDE: every replay was killed, the boots were not"
    elif worst := held.worst:
        inside = f"{sum(count.inside for count in held.bound)}/{len(held.bound)}"
        remark = f"{worst.name} {worst.ours}, boots {worst.range}"
        remark += f"; {held.killed} of {held.replays} replays killed" if held.killed else ""
        remark = remark if held.inside else f"OUTSIDE: {remark}"
    killed = f" ({len(cell.killed)} killed)" if cell.killed else ""
    kernel = cell.header.get("kernel", "")
    return ROW.format(kernel, cell.name, f"{len(cell.boots)}{killed}", inside, remark).rstrip()


def cells_summary(found: Sequence[HeldCell]) -> str:
    """How many cells are inside, outside, not modelled, and how many have no boot that lived."""
    inside, outside = (sum(getattr(held, name) for held in found) for name in ("inside", "outside"))
    dead = sum(not held.cell.boots for held in found)
    text = f"{inside} of {len(found)} cells inside the bounds, {outside} outside, "
    text += f"{len(found) - inside - outside - dead} not modelled"
    return text + (f", {dead} with every boot killed" if dead else "")


def cell_text(held: HeldCell) -> str:
    """Every counter of a cell: ours, the boots, how far ours is from their median, the verdict."""
    cell, several = held.cell, held.replays > 1
    head = [
        f"{cell.name}: {len(cell.boots)} boot{'s' * (len(cell.boots) > 1)} of {cell.header.get('kernel')}"
    ]
    head += [f"left out, as its process was killed: {boot.path}" for boot in cell.killed]
    if held.oom:
        return "\n".join([*head, "OUTSIDE: the OOM killer ended every replay; the boots lived"])
    if several:
        head.append(
            f"{held.replays} replays (each began at another time between two flushes of the statistics, or "
            f"with the free memory of another boot), {held.killed} of them killed; ours is the median of the "
            "others"
        )
    rows = []
    for count in held.counts:
        if count.ours is None:
            continue
        verdict = "no bound" if count.bounds is None else "inside" if count.inside else "OUTSIDE"
        off = f"{100 * (count.ours / count.middle - 1):+.2f} %" if count.middle else ""
        replays = [count.range_of_replays] if several else []
        rows.append([count.name, str(count.ours), *replays, count.range, off, verdict])
    columns = ["counter", "ours", *["replays"] * several, "boots", "off median", ""]
    return "\n".join([*head, text_table(columns, rows, 1)])
