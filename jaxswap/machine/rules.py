"""The rules of a kernel version as values of a compiled program, so that one program serves all versions."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxswap.machine.profile import Profile
from jaxswap.swaptable.clusters import SlotRules

_SWITCHES = (
    "filtered",
    "free_after_map",
    "ascending_pieces",
    "keep_huge_zero",
    "reclaim_tables",
    "reuse_large",
    "remembers_owners",
    "counts_swpin",
    "counts_fallback",
    "samples_cost",
    "counts_all_max",
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rules:
    """Switches of a Profile, a bit each, a word a lane; and those of the slot allocator."""

    bits: jax.Array
    slots: SlotRules

    def _has(self, switch: str) -> jax.Array:
        return self.bits & np.uint32(1 << _SWITCHES.index(switch)) != 0

    @property
    def filtered(self) -> jax.Array:
        """Conflicts in the swap table silently narrow the orders."""
        return self._has("filtered")

    @property
    def free_after_map(self) -> jax.Array:
        """Slots of a synchronous device go when the folio is mapped."""
        return self._has("free_after_map")

    @property
    def ascending_pieces(self) -> jax.Array:
        """Pieces of a split folio go out in ascending order."""
        return self._has("ascending_pieces")

    @property
    def keep_huge_zero(self) -> jax.Array:
        """A write to the 2 MiB zero page makes small pages."""
        return self._has("keep_huge_zero")

    @property
    def reclaim_tables(self) -> jax.Array:
        """DONTNEED of a whole block gives its page table back."""
        return self._has("reclaim_tables")

    @property
    def reuse_large(self) -> jax.Array:
        """A write to a page of a large folio may use it in place."""
        return self._has("reuse_large")

    @property
    def remembers_owners(self) -> jax.Array:
        """Whether a large folio is shared is read off the owners it remembers, not guessed."""
        return self._has("remembers_owners")

    @property
    def counts_swpin(self) -> jax.Array:
        """The counter swpin exists."""
        return self._has("counts_swpin")

    @property
    def counts_fallback(self) -> jax.Array:
        """The counters swpin_fallback and swpin_fallback_charge exist."""
        return self._has("counts_fallback")

    @property
    def samples_cost(self) -> jax.Array:
        """The cost of reclaim is taken from flushed statistics when a scan begins."""
        return self._has("samples_cost")

    @property
    def counts_all_max(self) -> jax.Array:
        """A charge refused for memory.max counts as its event, even if it may not reclaim."""
        return self._has("counts_all_max")


def slot_rules(profiles: Sequence[Profile]) -> SlotRules:
    """The rules of the slot allocator of some profiles, as numpy: [profiles]."""
    rows = [
        SlotRules.of(
            nonfull_first=profile.nonfull_first,
            fill_nonfull=profile.fill_nonfull,
            scan_all_frag=profile.scan_all_frag,
            device_hints=profile.device_hints,
        )
        for profile in profiles
    ]
    return SlotRules(np.array(rows, np.uint32))  # pyright: ignore[reportArgumentType]


def rules_of(profile: Profile, lanes: int) -> Rules:
    """The rules of a profile for some lanes, as numpy: [lanes]."""
    bits = sum(getattr(profile, switch) << i for i, switch in enumerate(_SWITCHES))
    return Rules(np.full(lanes, bits, np.uint32), slot_rules([profile] * lanes))  # pyright: ignore[reportArgumentType]
