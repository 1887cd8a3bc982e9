/* SPDX-License-Identifier: Apache-2.0
 *
 * Folios and the two anonymous LRU lists: a pool with a stack of free numbers, lists linked by number. */
#ifndef JAXSWAP_FOLIOS_H
#define JAXSWAP_FOLIOS_H

#include <stdint.h>

static const uint32_t NO_FOLIO = UINT32_MAX;

enum { INACTIVE, ACTIVE, FIRST_FOLIO }; /* numbers 0 and 1 are the heads of the lists */
enum { LRU_BATCH = 31 };
enum folio_flag { F_ACTIVE = 1, F_REFERENCED = 2, F_WORKINGSET = 4, F_MAPPED = 8 };

struct folio {
    uint32_t base; /* first page; a page may be gone from it or belong to a later folio */
    uint32_t prev, next;
    uint32_t earlier, later; /* on the deferred split list, whose head is folio 0 */
    uint16_t mapped; /* pages in the page table; 0 in the swap cache only */
    uint8_t order, flags;
};

struct folios {
    struct folio *pool;
    uint32_t *unused;
    uint32_t nunused, capacity;
    int64_t pages[2]; /* of the inactive and the active list */
    int64_t deferred; /* folios on the deferred split list */
    int64_t waiting[2]; /* small folios at their heads that the kernel has in its batch and does not count yet */
};

static inline int64_t folio_pages(const struct folio *f) { return 1ll << f->order; }

static void folios_reset(struct folios *s)
{
    for (uint32_t list = INACTIVE; list <= ACTIVE; list++)
        s->pool[list] = (struct folio){.prev = list, .next = list};
    s->nunused = s->capacity;
    for (uint32_t i = 0; i < s->capacity; i++)
        s->unused[i] = FIRST_FOLIO + s->capacity - 1 - i;
    s->deferred = s->pages[INACTIVE] = s->pages[ACTIVE] = s->waiting[INACTIVE] = s->waiting[ACTIVE] = 0;
}

static inline uint32_t folio_new(struct folios *s, uint32_t base, unsigned order, unsigned mapped, unsigned flags)
{
    uint32_t id = s->unused[--s->nunused];
    s->pool[id] = (struct folio){.base = base, .mapped = (uint16_t)mapped, .order = (uint8_t)order, .flags = (uint8_t)flags};
    return id;
}

static inline void folio_free(struct folios *s, uint32_t id) { s->unused[s->nunused++] = id; }

static inline unsigned folio_list(const struct folio *f) { return f->flags & F_ACTIVE ? ACTIVE : INACTIVE; }

/* On the tail side of `place`. */
static inline void lru_insert_after(struct folios *s, uint32_t place, uint32_t id)
{
    struct folio *f = &s->pool[id];
    f->prev = place;
    f->next = s->pool[place].next;
    s->pool[f->next].prev = id;
    s->pool[place].next = id;
    s->pages[folio_list(f)] += folio_pages(f);
}

static inline void lru_add(struct folios *s, uint32_t id) { lru_insert_after(s, folio_list(&s->pool[id]), id); }

static inline void lru_drain(struct folios *s) { s->waiting[INACTIVE] = s->waiting[ACTIVE] = 0; }

static inline int64_t lru_size(const struct folios *s, int list) { return s->pages[list] - s->waiting[list]; }

/* A new folio: a small one waits until LRU_BATCH are there or a large one comes. */
static inline void lru_add_new(struct folios *s, uint32_t id)
{
    const struct folio *f = &s->pool[id];
    lru_add(s, id);
    s->waiting[folio_list(f)]++;
    if (f->order || s->waiting[INACTIVE] + s->waiting[ACTIVE] == LRU_BATCH)
        lru_drain(s);
}

static inline void lru_remove(struct folios *s, uint32_t id)
{
    struct folio *f = &s->pool[id];
    s->pool[f->prev].next = f->next;
    s->pool[f->next].prev = f->prev;
    s->pages[folio_list(f)] -= folio_pages(f);
}

/* Behind all others on the deferred split list. */
static inline void defer_split(struct folios *s, uint32_t id)
{
    uint32_t last = s->pool[0].earlier;
    s->pool[id].earlier = last;
    s->pool[id].later = 0;
    s->pool[last].later = s->pool[0].earlier = id;
    s->deferred++;
}

static inline void undefer_split(struct folios *s, uint32_t id)
{
    const struct folio *f = &s->pool[id];
    s->pool[f->earlier].later = f->later;
    s->pool[f->later].earlier = f->earlier;
    s->deferred--;
}

#endif
