/* SPDX-License-Identifier: Apache-2.0
 *
 * Swap slot allocator of one device: clusters of 512 slots on lists, one hint per order, one CPU.
 * Behaviour of mm/swapfile.c in Linux 7.2 / 7.3 on a synchronous block device without discard. */
#ifndef JAXSWAP_SLOTS_H
#define JAXSWAP_SLOTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER = 512, CLUSTER_WORDS = CLUSTER / 64, MAX_ORDER = 9 };
enum { NO_SLOT = -1 };
enum cluster_flag { OFF_LIST, FREE, NONFULL, FRAG, FULL };

/* List numbers, which are also the numbers of the list heads behind the clusters. */
enum { LIST_FREE, LIST_FULL, LIST_NONFULL, LIST_FRAG = LIST_NONFULL + MAX_ORDER + 1, LISTS = LIST_FRAG + MAX_ORDER + 1 };

struct cluster {
    uint64_t used[CLUSTER_WORDS]; /* not NULL; bad slots included */
    uint64_t cached[CLUSTER_WORDS];
    uint64_t zero[CLUSTER_WORDS];
    uint32_t prev, next;
    uint16_t count;
    uint8_t order, flag;
};

struct swap_device {
    struct cluster *clusters; /* nclusters, then one head for each list */
    uint32_t nclusters, nslots;
    int64_t free_slots;
    uint32_t hint[MAX_ORDER + 1]; /* 0: none */
};

static inline uint64_t low_bits(unsigned n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

static inline void set_bits(uint64_t *words, unsigned first, unsigned n)
{
    while (n) {
        unsigned shift = first & 63, here = n < 64 - shift ? n : 64 - shift;
        words[first >> 6] |= low_bits(here) << shift;
        first += here;
        n -= here;
    }
}

static inline void clear_bits(uint64_t *words, unsigned first, unsigned n)
{
    while (n) {
        unsigned shift = first & 63, here = n < 64 - shift ? n : 64 - shift;
        words[first >> 6] &= ~(low_bits(here) << shift);
        first += here;
        n -= here;
    }
}

static inline bool test_bit(const uint64_t *words, unsigned bit) { return words[bit >> 6] >> (bit & 63) & 1; }

static inline uint32_t cluster_list(const struct cluster *c)
{
    switch (c->flag) {
    case FREE: return LIST_FREE;
    case FULL: return LIST_FULL;
    case NONFULL: return LIST_NONFULL + c->order;
    default: return LIST_FRAG + c->order;
    }
}

static inline void cluster_unlink(struct swap_device *d, struct cluster *c)
{
    d->clusters[c->prev].next = c->next;
    d->clusters[c->next].prev = c->prev;
    c->flag = OFF_LIST;
}

static inline void cluster_to_tail(struct swap_device *d, struct cluster *c, enum cluster_flag flag)
{
    c->flag = flag;
    uint32_t head = d->nclusters + cluster_list(c), self = (uint32_t)(c - d->clusters);
    c->next = head;
    c->prev = d->clusters[head].prev;
    d->clusters[c->prev].next = self;
    d->clusters[head].prev = self;
}

/* To the tail of the list of `flag`; a cluster that carries the flag keeps its place. */
static inline void cluster_move(struct swap_device *d, struct cluster *c, enum cluster_flag flag)
{
    if (c->flag == flag)
        return;
    if (c->flag != OFF_LIST)
        cluster_unlink(d, c);
    cluster_to_tail(d, c, flag);
}

static inline struct cluster *cluster_take_first(struct swap_device *d, uint32_t list)
{
    uint32_t first = d->clusters[d->nclusters + list].next;
    if (first >= d->nclusters)
        return NULL;
    cluster_unlink(d, &d->clusters[first]);
    return &d->clusters[first];
}

static void device_reset(struct swap_device *d)
{
    memset(d->clusters, 0, (d->nclusters + LISTS) * sizeof *d->clusters);
    memset(d->hint, 0, sizeof d->hint);
    d->free_slots = (int64_t)d->nslots - 1;
    for (uint32_t list = 0; list < LISTS; list++)
        d->clusters[d->nclusters + list].prev = d->clusters[d->nclusters + list].next = d->nclusters + list;
    set_bits(d->clusters[0].used, 0, 1); /* the header */
    d->clusters[0].count = 1;
    unsigned rest = d->nslots % CLUSTER;
    if (rest) {
        set_bits(d->clusters[d->nclusters - 1].used, rest, CLUSTER - rest);
        d->clusters[d->nclusters - 1].count += (uint16_t)(CLUSTER - rest);
    }
    for (uint32_t i = 0; i < d->nclusters; i++)
        cluster_to_tail(d, &d->clusters[i], d->clusters[i].count ? NONFULL : FREE);
}

/* First free aligned run of 2^order slots at or after `start` (a multiple of 2^order), or -1. */
static inline int find_free(const uint64_t *used, unsigned start, unsigned order)
{
    static const uint64_t aligned[6] = {~0ull,
                                        0x5555555555555555ull,
                                        0x1111111111111111ull,
                                        0x0101010101010101ull,
                                        0x0001000100010001ull,
                                        0x0000000100000001ull};
    if (order >= 6) {
        unsigned words = 1u << (order - 6);
        for (unsigned at = start >> 6; at + words <= CLUSTER_WORDS; at += words) {
            uint64_t any = 0;
            for (unsigned i = 0; i < words; i++)
                any |= used[at + i];
            if (!any)
                return (int)(at << 6);
        }
        return -1;
    }
    uint64_t wanted = ~0ull << (start & 63);
    for (unsigned at = start >> 6; at < CLUSTER_WORDS; at++) {
        uint64_t free = ~used[at] & wanted;
        for (unsigned k = 0; k < order; k++)
            free &= free >> (1u << k);
        free &= aligned[order];
        if (free)
            return (int)(at << 6) + __builtin_ctzll(free);
        wanted = ~0ull;
    }
    return -1;
}

/* Scan one cluster, put it on the list it now belongs to, and set the hint of the order. */
static int64_t cluster_scan(struct swap_device *d, struct cluster *c, unsigned start, unsigned order)
{
    unsigned size = 1u << order;
    uint32_t base = (uint32_t)(c - d->clusters) * CLUSTER, after = 0;
    int found = c->count + size <= CLUSTER ? find_free(c->used, start, order) : -1;
    if (found >= 0) {
        if (!c->count)
            c->order = (uint8_t)order;
        set_bits(c->used, (unsigned)found, size);
        c->count += (uint16_t)size;
        d->free_slots -= size;
        if (c->count < CLUSTER && (unsigned)found + 2 * size <= CLUSTER)
            after = base + (uint32_t)found + size;
    }
    cluster_move(d, c, c->count == CLUSTER ? FULL : FRAG);
    d->hint[order] = after;
    return found < 0 ? NO_SLOT : (int64_t)base + found;
}

static int64_t slot_alloc_slow(struct swap_device *d, unsigned order)
{
    struct cluster *c;
    int64_t slot;
    if (order < MAX_ORDER)
        while ((c = cluster_take_first(d, LIST_NONFULL + order)))
            if ((slot = cluster_scan(d, c, 0, order)) != NO_SLOT)
                return slot;
    if ((c = cluster_take_first(d, LIST_FREE)) && (slot = cluster_scan(d, c, 0, order)) != NO_SLOT)
        return slot;
    if (order < MAX_ORDER && (c = cluster_take_first(d, LIST_FRAG + order)) &&
        (slot = cluster_scan(d, c, 0, order)) != NO_SLOT)
        return slot;
    if (order)
        return NO_SLOT;
    /* A cluster on these lists has a free slot, so the first one met serves order 0. */
    for (unsigned stolen = 1; stolen <= MAX_ORDER; stolen++)
        if ((c = cluster_take_first(d, LIST_FRAG + stolen)) || (c = cluster_take_first(d, LIST_NONFULL + stolen)))
            return cluster_scan(d, c, 0, 0);
    return NO_SLOT;
}

/* First slot of a run of 2^order, or NO_SLOT. */
static int64_t slot_alloc(struct swap_device *d, unsigned order)
{
    uint32_t hint = d->hint[order];
    if (hint) {
        struct cluster *c = &d->clusters[hint / CLUSTER];
        if ((c->flag == NONFULL || c->flag == FRAG) && (!order || c->order == order)) {
            int64_t slot = cluster_scan(d, c, hint % CLUSTER, order);
            if (slot != NO_SLOT)
                return slot;
        }
    }
    return slot_alloc_slow(d, order);
}

/* Free n slots, all in one cluster. */
static void slot_put(struct swap_device *d, uint32_t slot, unsigned n)
{
    struct cluster *c = &d->clusters[slot / CLUSTER];
    unsigned first = slot % CLUSTER;
    clear_bits(c->used, first, n);
    clear_bits(c->cached, first, n);
    clear_bits(c->zero, first, n);
    c->count -= (uint16_t)n;
    d->free_slots += n;
    cluster_move(d, c, c->count ? NONFULL : FREE);
    if (!c->count)
        c->order = 0;
}

#endif
