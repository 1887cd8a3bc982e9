"""Named kernel versions, and the rules of the swap path in which they differ.

Every field is a rule that a recording shows; docs/kernel-versions.md has the same as a table. Sources name
the kernel file and function of the first release in which the rule holds.
"""

from dataclasses import dataclass

SLOTS = 512  # of a cluster


@dataclass(frozen=True)
class Profile:
    """A kernel version.

    name: as users write it. version: of our model of it; raised whenever the same input gives other numbers.
    source: where the rules were read and the kernel they were checked against.

    Slots (mm/swapfile.c)
      columns: columns in which swapon walks the clusters to fill the free list: column by column; 1 is
        ascending (setup_swap_map_and_extents of 6.12 against setup_clusters of 6.18).
      nonfull_first: nonfull clusters are scanned before a free one is taken (cluster_alloc_swap_entry,
        6.18).
      scan_all_frag: all frag clusters are scanned, not one (cluster_alloc_swap_entry of 6.12).
      fill_nonfull: a cluster being filled is on nonfull, not on frag (cluster_alloc_range of 6.12 against
        relocate_cluster of 6.18); nonfull clusters move to frag when they are scanned.
      scans_to_end: a scan of the last cluster ends with the device, so that the hint behind its last slot is
      none;
        if false it points at bad slots and is tried in vain (alloc_swap_scan_cluster, 7.1).
      device_hints: the per-CPU hint is kept by each device, not once for all (percpu_cluster of 6.12).
      slot_cache: order-0 slots a CPU takes at a time, and gives back at a time (mm/swap_slots.c of 6.12);
        0: none.
      stepped_priority: a device without a priority gets one below the last such, from -2 down; if false all
        get -1 and rotate (swapon; 7.0).

    Swap-in (mm/memory.c do_swap_page, mm/swap_state.c)
      bypass: on a synchronous device a slot of count 1 is read past the swap cache and the page becomes
        exclusive; one of a higher count is read like on other devices (do_swap_page of 6.12 and 6.18; gone
        in 7.0).
      free_after_map: on a synchronous device the slots of a swapped-in folio are given back as soon as it
        is mapped (should_try_to_free_swap, 7.0); before, a folio found in the swap cache kept them after a
        read.
      filtered: a range with a cached slot or unequal zero flags is no candidate and counts nothing
        (can_swapin_thp until 7.1); if false it is refused when tried and counts swpin_fallback
        (__swap_cache_add_check, 7.2).
      memcg_in_batch: slots of another cgroup end the batch of PTEs (swap_pte_batch of 6.13 to 7.1).

    Memory (mm/memory.c, mm/huge_memory.c, mm/madvise.c)
      ascending_pieces: the pieces of a folio that got no slots go out as 0, 1, .. 15, not 0, 15, .. 1
        (__split_huge_page of 6.12).
      keep_huge_zero: a write to the 2 MiB zero page makes small pages; if false it makes a 2 MiB folio
        (do_huge_zero_wp_pmd, 6.13).
      reclaim_tables: DONTNEED of a whole 2 MiB block gives its page table back, so that a 2 MiB folio fits
        again (CONFIG_PT_RECLAIM, 6.14).
      gathers_calls: folios unmapped by DONTNEED are looked at when the whole call is done; if false when each
      VMA
        is (madvise_do_behavior, 6.16).
      reuse_large: a write to a page of a large folio that only this process maps still uses it in place
        (__wp_can_reuse_large_anon_folio, 6.15); if false it is copied.
      remembers_owners: whether a large folio is shared is read off the two processes it remembers as mapping
      it
        (folio_maybe_mapped_shared, 6.15); if false it is guessed from its first page
        (folio_likely_mapped_shared of 6.12).

    Reclaim (mm/vmscan.c, mm/swap.c)
      samples_cost: what reclaim has cost is counted as statistics, added up when a scan begins as far as they
        were flushed, and halved until it is small (prepare_scan_control, 7.3); if false it is added at once
        and halved once (lru_note_cost until 7.2).

    Counters
      counts_swpin, counts_fallback: the mTHP counters swpin, and swpin_fallback and swpin_fallback_charge,
        exist (6.13, 6.14).
      counts_all_max: a charge refused for memory.max counts in `max` of memory.events; if false only one that
        may reclaim does (try_charge_memcg until 7.2).

    Memory of the tables (struct swap_cluster_info; BTF of the kernels)
      cluster_bytes: of each cluster, used or not. slot_bytes: of each slot, used or not (swap_map, cgroup
        ids).
      slot_bits: bitmaps over all slots (zeromap). table_bytes: of each cluster in use.
    """

    name: str
    version: int
    source: str
    columns: int = 1
    nonfull_first: bool = True
    scan_all_frag: bool = False
    fill_nonfull: bool = False
    scans_to_end: bool = False
    device_hints: bool = False
    slot_cache: int = 0
    stepped_priority: bool = False
    bypass: bool = False
    free_after_map: bool = True
    filtered: bool = False
    memcg_in_batch: bool = False
    ascending_pieces: bool = False
    keep_huge_zero: bool = False
    reclaim_tables: bool = True
    gathers_calls: bool = True
    reuse_large: bool = True
    remembers_owners: bool = True
    samples_cost: bool = False
    counts_swpin: bool = True
    counts_fallback: bool = True
    counts_all_max: bool = False
    cluster_bytes: int = 48
    slot_bytes: int = 0
    slot_bits: int = 0
    table_bytes: int = 8 * SLOTS + 2 * SLOTS


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "6.12",
            6,
            "clusters by order with swap_map; checked against Debian's 6.12.95",
            columns=32,
            nonfull_first=False,
            scan_all_frag=True,
            fill_nonfull=True,
            device_hints=True,
            slot_cache=64,
            scans_to_end=True,
            stepped_priority=True,
            bypass=True,
            free_after_map=False,
            filtered=True,
            ascending_pieces=True,
            keep_huge_zero=True,
            reclaim_tables=False,
            gathers_calls=False,
            reuse_large=False,
            remembers_owners=False,
            counts_swpin=False,
            counts_fallback=False,
            cluster_bytes=24,
            slot_bytes=3,
            slot_bits=1,
            table_bytes=0,
        ),
        Profile(
            "6.18",
            6,
            "swap table phase I; checked against Debian's 6.18.15",
            scans_to_end=True,
            stepped_priority=True,
            bypass=True,
            free_after_map=False,
            filtered=True,
            memcg_in_batch=True,
            cluster_bytes=32,
            slot_bytes=3,
            slot_bits=1,
            table_bytes=8 * SLOTS,
        ),
        Profile(
            "7.0",
            4,
            "swap table phase II; checked against Debian's 7.0.13",
            scans_to_end=True,
            filtered=True,
            memcg_in_batch=True,
            cluster_bytes=32,
            slot_bytes=3,
            slot_bits=1,
            table_bytes=8 * SLOTS,
        ),
        Profile(
            "7.1",
            4,
            "swap table phase III; checked against Debian's 7.1.13",
            filtered=True,
            memcg_in_batch=True,
            cluster_bytes=40,
            slot_bytes=2,
            slot_bits=1,
            table_bytes=8 * SLOTS,
        ),
        Profile("7.2", 6, "swap table phase IV as merged; checked against Debian's 7.2.12"),
        Profile(
            "7.3",
            6,
            "swap table phase IV as merged; checked against Debian's 7.3.4",
            samples_cost=True,
            counts_all_max=True,
        ),
    )
}


def model_version(profile: str) -> str:
    """Name of the model of a profile, for manifests: "7.3-v1"."""
    return f"{profile}-v{PROFILES[profile].version}"
