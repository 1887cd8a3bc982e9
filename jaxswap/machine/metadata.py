"""What the swap tables of a kernel version cost in memory.

Source: struct swap_cluster_info, struct swap_info_struct and their tables (mm/swap.h, mm/swapfile.c), with
cgroups, 64-bit, by BTF of the kernels in jaxswap.machine.profile. Left out: zswap's entries, the table of
counts above what a slot's entry holds, and the swap address spaces and radix trees of 6.12.
"""

from typing import NamedTuple

from jaxswap.machine.profile import SLOTS, Profile


class Metadata(NamedTuple):
    """Bytes. static: allocated at swapon. dynamic: of clusters in use."""

    static: int
    dynamic: int

    @property
    def total(self) -> int:
        """Both."""
        return self.static + self.dynamic


def metadata(profile: Profile, slots: int, in_use: int) -> Metadata:
    """Of a device of so many slots, `in_use` of whose clusters have a slot in use."""
    clusters = -(-slots // SLOTS)
    static = clusters * profile.cluster_bytes + slots * profile.slot_bytes + slots * profile.slot_bits // 8
    return Metadata(static, in_use * profile.table_bytes)
