"""The memory that swap tables take, as text: by kernel version, and after one replay."""

from jaxswap.machine.metadata import metadata
from jaxswap.machine.profile import PROFILES, SLOTS
from jaxswap.report.tables import text_table
from jaxswap.swaptable.geometry import ORDERS, PAGE_BYTES, SIZE_NAMES
from jaxswap.swaptable.stats import TableStats

_MIB = 1 << 20


def metadata_text(swap: int, percent: float) -> str:
    """A row a kernel version, for a device of `swap` bytes; percent: of clusters that have a slot in use."""
    slots = swap // PAGE_BYTES
    clusters = -(-slots // SLOTS)
    in_use = round(clusters * percent / 100)
    rows, last = [], None
    for name, profile in PROFILES.items():
        cost = metadata(profile, slots, in_use)
        change = "" if last is None else f"{(cost.static - last) / _MIB:+,.1f}"
        last = cost.static
        rows.append(
            [
                name,
                f"{cost.static / _MIB:,.1f}",
                change,
                f"{cost.static / slots:.5f}",
                f"{cost.dynamic / _MIB:,.1f}",
                f"{cost.total / _MIB:,.1f}",
            ]
        )
    head = f"{slots:,} slots, {clusters:,} clusters, {in_use:,} of them in use ({percent:g} %)"
    header = ["kernel", "static MiB", "change", "B per slot", "dynamic MiB", "total MiB"]
    return "\n\n".join([head, text_table(header, rows, 1)])


def table_text(stats: TableStats, profile: str, slots: int) -> str:
    """The state of the swap table of one lane. slots: of all devices."""
    in_use = int(stats.in_use[0])
    cost = metadata(PROFILES[profile], slots, in_use)
    free, full = int(stats.free_clusters[0]), int(stats.full_clusters[0])
    head = (
        f"swap table: {slots:,} slots, {int(stats.free_slots[0]):,} free; clusters: {free:,} free, "
        f"{full:,} full, {in_use:,} in use; metadata: {cost.static:,} bytes static, {cost.dynamic:,} dynamic"
    )
    rows = [
        [SIZE_NAMES[order], f"{int(stats.free_blocks[order, 0]):,}"]
        + [f"{float(stats.unusable_free_index[order, 0]):.3f}"]
        + [str(int(of[order, 0])) for of in (stats.nonfull, stats.frag)]
        for order in ORDERS
    ]
    header = ["size", "free blocks", "unusable_free_index", "nonfull clusters", "frag clusters"]
    return "\n".join([head, "", text_table(header, rows, 1)])
