/* SPDX-License-Identifier: Apache-2.0
 *
 * Page table, faults, swap-out, memory cgroup and classic two-list reclaim of one process on one CPU.
 * Behaviour of mm/memory.c, mm/madvise.c, mm/vmscan.c, mm/workingset.c and mm/memcontrol.c in Linux 7.2 / 7.3
 * with a synchronous swap device; the statistics that reclaim reads are fresh in every pass. */
#ifndef JAXSWAP_MEMORY_H
#define JAXSWAP_MEMORY_H

#include "folios.h"
#include "slots.h"

enum { LOWEST_ORDER = 2, HIGHEST_ORDER = 8, ORDERS = HIGHEST_ORDER + 1, BLOCK = 512 };
enum { ORDER_MASK = 0x1fc, SWAPPINESS = 60, BATCH = 32, SHRINK_BATCH = 128, STOCK = 64, KERNEL_PAGES = 1, RETRIES = 16 };
enum advice { PLAIN, HUGE, NOHUGE };

/* A page-table entry: state in the two high bits, below it the folio or the slot. */
enum page_state { P_NONE, P_ZERO, P_PRESENT, P_SWAPPED };
enum { STATE_SHIFT = 30, VALUE_MASK = (1 << STATE_SHIFT) - 1 };
enum page_flag { NONZERO = 1, YOUNG = 2, TOUCHED = 4, SWAPPED_IN = 8, LARGE = 16, PAGE_FLAGS = 32 };

enum path { FIRST_TOUCH, SWAP_IN, PATHS };
enum reason { VMA_EDGE, ALIGNMENT, PTE_GAP, ZERO_FLAG, CACHED, CHARGE, REASONS };

enum order_counter {
    ANON_FAULT_ALLOC,
    ANON_FAULT_FALLBACK,
    ANON_FAULT_FALLBACK_CHARGE,
    SWPIN,
    SWPIN_FALLBACK,
    SWPIN_FALLBACK_CHARGE,
    SWPOUT,
    SWPOUT_FALLBACK,
    SPLIT,
    CHARGE_REFUSED,
    ORDER_COUNTERS
};

enum counter {
    PGMAJFAULT,
    PSWPIN,
    PSWPOUT,
    SWPIN_ZERO,
    SWPOUT_ZERO,
    PGSCAN,
    PGSTEAL,
    PGACTIVATE,
    PGDEACTIVATE,
    PGREFILL,
    WORKINGSET_REFAULT,
    WORKINGSET_ACTIVATE,
    WORKINGSET_RESTORE,
    MEMCG_MAX,
    ACCESSES,
    FAULTS,
    THROWN_FOLIOS,
    THROWN_PAGES,
    USELESS_SWAPIN,
    USELESS_TOUCH,
    NEEDED_PAGES,
    COVERED_PAGES,
    COUNTERS
};

struct counters {
    int64_t plain[COUNTERS];
    int64_t order[ORDER_COUNTERS][ORDERS];
    int64_t refused[PATHS][REASONS][ORDERS];
    int64_t left[PAGE_FLAGS / TOUCHED]; /* pages that left, by what the flags from TOUCHED up say of them */
};

/* The VMA an operation lies in. */
struct vma {
    uint32_t start, end;
    enum advice advice;
};

struct machine {
    uint32_t npages;
    uint32_t *pte;
    uint32_t *shadow; /* of a swapped page: nonresident age << 1 | workingset; its folio while it is cached */
    uint8_t *flags;
    uint8_t *table; /* 2 MiB blocks that have a page table */
    struct folios folios;
    struct swap_device device;
    unsigned always, madvise;
    int64_t limit; /* pages; 0: no limit */
    int64_t usage, stock;
    int64_t nr_deferred; /* of the shrinker of the deferred split list, what it put off */
    uint32_t age;
    int64_t anon_cost, counted_cost, activations, activations_seen, flushed_active, flushed_total;
    /* of the list of folios that is being reclaimed */
    int64_t list_reclaimed, list_activated, list_cost;
    bool oom;
    struct counters n;
};

static bool charge(struct machine *m, int64_t nr, bool may_reclaim, unsigned order);

static inline uint32_t make_pte(enum page_state state, uint32_t value) { return (uint32_t)state << STATE_SHIFT | value; }
static inline enum page_state pte_state(uint32_t pte) { return (enum page_state)(pte >> STATE_SHIFT); }
static inline uint32_t pte_value(uint32_t pte) { return pte & VALUE_MASK; }

static inline bool slot_cached(const struct machine *m, uint32_t slot)
{
    return test_bit(m->device.clusters[slot / CLUSTER].cached, slot % CLUSTER);
}

static inline bool slot_zero(const struct machine *m, uint32_t slot)
{
    return test_bit(m->device.clusters[slot / CLUSTER].zero, slot % CLUSTER);
}

static void machine_reset(struct machine *m)
{
    memset(m->pte, 0, m->npages * sizeof *m->pte);
    memset(m->flags, 0, m->npages);
    memset(m->table, 0, (m->npages + BLOCK - 1) / BLOCK);
    folios_reset(&m->folios);
    device_reset(&m->device);
    m->usage = KERNEL_PAGES;
    m->stock = STOCK - KERNEL_PAGES;
    m->nr_deferred = 0;
    m->anon_cost = m->counted_cost = m->activations = m->activations_seen = 0;
    m->flushed_active = m->flushed_total = m->list_reclaimed = m->list_activated = m->list_cost = 0;
    m->age = 0;
    m->oom = false;
    memset(&m->n, 0, sizeof m->n);
}

/* Counters */

/* A page of a folio goes: was it of use? Kept by flags, so that no page costs a branch. */
static inline void count_leaving(struct machine *m, unsigned flags) { m->n.left[flags / TOUCHED]++; }

/* Add up the pages that left. */
static struct counters counters_now(const struct machine *m)
{
    struct counters n = m->n;
    for (unsigned flags = 0; flags < PAGE_FLAGS; flags += TOUCHED) {
        int64_t left = n.left[flags / TOUCHED];
        if (!(flags & TOUCHED))
            n.plain[flags & SWAPPED_IN ? USELESS_SWAPIN : USELESS_TOUCH] += left;
        else if (flags & SWAPPED_IN) {
            n.plain[NEEDED_PAGES] += left;
            n.plain[COVERED_PAGES] += flags & LARGE ? left : 0;
        }
    }
    return n;
}

static inline void count_refused(struct machine *m, enum path path, enum reason reason, unsigned orders, unsigned got)
{
    for (orders = orders >> (got + 1) << (got + 1); orders; orders &= orders - 1)
        m->n.refused[path][reason][__builtin_ctz(orders)]++;
}

static inline void count_thrown(struct machine *m, unsigned order)
{
    m->n.order[CHARGE_REFUSED][order]++;
    m->n.plain[THROWN_FOLIOS]++;
    m->n.plain[THROWN_PAGES] += 1 << order;
}

/* The counters with the pages that are still in memory judged as if they left now. */
static void count_end(struct machine *m)
{
    for (uint32_t v = 0; v < m->npages; v++) {
        enum page_state state = pte_state(m->pte[v]);
        if (state == P_PRESENT)
            count_leaving(m, m->flags[v]);
        else if (state == P_SWAPPED && slot_cached(m, pte_value(m->pte[v])))
            m->n.plain[USELESS_SWAPIN]++;
    }
}

/* Faults */

/* Orders that sysfs and the advice allow. */
static inline unsigned allowed_orders(const struct machine *m, const struct vma *vma)
{
    if (vma->advice == NOHUGE)
        return 0;
    return (m->always | (vma->advice == HUGE ? m->madvise : 0)) & ORDER_MASK;
}

/* Those of the orders whose aligned range around v lies inside the VMA. */
static inline unsigned orders_inside(const struct vma *vma, uint32_t v, unsigned orders)
{
    while (orders) {
        unsigned top = 31 - (unsigned)__builtin_clz(orders);
        uint32_t base = v >> top << top;
        if (base >= vma->start && base + (1u << top) <= vma->end)
            break;
        orders &= ~(1u << top);
    }
    return orders;
}

/* Those of the orders whose aligned range of entries goes on as v's entry does, by `step` a page. Ranges nest, so
 * from the lowest order up each page is looked at once. */
static inline unsigned orders_uniform(const struct machine *m, uint32_t v, unsigned orders, uint32_t step)
{
    uint32_t pte = m->pte[v], low = v, high = v + 1;
    unsigned uniform = 0;
    for (unsigned rest = orders; rest; rest &= rest - 1) {
        unsigned order = (unsigned)__builtin_ctz(rest);
        uint32_t base = v >> order << order, end = base + (1u << order);
        for (uint32_t q = base; q < low; q++)
            if (m->pte[q] != pte - (v - q) * step)
                return uniform;
        for (uint32_t q = high; q < end; q++)
            if (m->pte[q] != pte + (q - v) * step)
                return uniform;
        low = base;
        high = end;
        uniform |= 1u << order;
    }
    return uniform;
}

static inline void map_new_folio(struct machine *m, uint32_t base, unsigned order)
{
    uint32_t id = folio_new(&m->folios, base, order, 1u << order, F_MAPPED);
    for (uint32_t q = base; q < base + (1u << order); q++)
        m->pte[q] = make_pte(P_PRESENT, id);
    memset(m->flags + base, YOUNG, 1u << order);
    lru_add_new(&m->folios, id);
}

static void first_touch(struct machine *m, const struct vma *vma, uint32_t v)
{
    unsigned allowed = allowed_orders(m, vma);
    unsigned inside = orders_inside(vma, v, allowed);
    unsigned orders = orders_uniform(m, v, inside, 0);
    unsigned got = 0, refused = 0;
    for (unsigned rest = orders; rest;) {
        unsigned order = 31 - (unsigned)__builtin_clz(rest);
        if (charge(m, 1 << order, vma->advice == HUGE, order)) {
            got = order;
            break;
        }
        m->n.order[ANON_FAULT_FALLBACK_CHARGE][order]++;
        m->n.order[ANON_FAULT_FALLBACK][order]++;
        count_thrown(m, order);
        refused |= 1u << order;
        rest &= ~(1u << order);
    }
    bool alive = (got || charge(m, 1, true, 0)) && !m->oom;
    count_refused(m, FIRST_TOUCH, VMA_EDGE, allowed & ~inside, got);
    count_refused(m, FIRST_TOUCH, PTE_GAP, inside & ~orders, got);
    count_refused(m, FIRST_TOUCH, CHARGE, refused, got);
    if (!alive)
        return;
    if (got)
        m->n.order[ANON_FAULT_ALLOC][got]++;
    map_new_folio(m, v >> got << got, got);
}

static inline void refault(struct machine *m, struct folio *f, uint32_t shadow)
{
    int64_t nr = folio_pages(f);
    m->n.plain[WORKINGSET_REFAULT] += nr;
    int64_t distance = (m->age - (shadow >> 1)) & 0x7fffffff;
    if (distance > (m->device.free_slots ? m->flushed_active : 0))
        return;
    f->flags |= F_ACTIVE;
    m->age += (uint32_t)nr;
    m->activations += nr;
    m->n.plain[WORKINGSET_ACTIVATE] += nr;
    if (shadow & 1) {
        f->flags |= F_WORKINGSET;
        m->n.plain[WORKINGSET_RESTORE] += nr;
        m->counted_cost += BATCH * nr;
    }
}

/* A folio for swapped pages, on its list and read. */
static uint32_t read_folio(struct machine *m, uint32_t base, unsigned order, uint32_t slot, uint32_t shadow)
{
    uint32_t id = folio_new(&m->folios, base, order, 0, 0);
    struct folio *f = &m->folios.pool[id];
    refault(m, f, shadow);
    lru_add_new(&m->folios, id);
    if (slot_zero(m, slot))
        m->n.plain[SWPIN_ZERO] += folio_pages(f);
    else {
        m->n.plain[PSWPIN] += folio_pages(f);
        m->n.order[SWPIN][order]++;
    }
    return id;
}

/* Map all pages of a folio; the slots of a synchronous device are freed at once. */
static inline void map_read_folio(struct machine *m, uint32_t id)
{
    struct folio *f = &m->folios.pool[id];
    uint32_t base = f->base, nr = 1u << f->order;
    unsigned arrived = YOUNG | SWAPPED_IN | (f->order ? LARGE : 0);
    slot_put(&m->device, pte_value(m->pte[base]), nr);
    f->mapped = (uint16_t)nr;
    f->flags |= F_MAPPED;
    for (uint32_t q = base; q < base + nr; q++) {
        m->pte[q] = make_pte(P_PRESENT, id);
        m->flags[q] = (uint8_t)((m->flags[q] & NONZERO) | arrived);
    }
}

/* The check of the swap cache for an aligned range of slots: REASONS, or why it is -EBUSY. */
static inline enum reason check_range(const struct machine *m, uint32_t slot, unsigned order, bool zero)
{
    const struct cluster *c = &m->device.clusters[slot / CLUSTER];
    unsigned first = slot % CLUSTER >> order << order, n = 1u << order;
    uint64_t flip = zero ? ~0ull : 0;
    for (unsigned at = first; at < first + n; at += 64) {
        unsigned shift = at & 63;
        uint64_t wanted = low_bits(n) << shift;
        uint64_t cached = c->cached[at >> 6] & wanted;
        uint64_t busy = cached | ((c->zero[at >> 6] ^ flip) & wanted);
        if (busy)
            return busy & -busy & cached ? CACHED : ZERO_FLAG;
    }
    return REASONS;
}

static void swap_in(struct machine *m, const struct vma *vma, uint32_t v)
{
    uint32_t slot = pte_value(m->pte[v]), shadow = m->shadow[v];
    unsigned allowed = allowed_orders(m, vma);
    unsigned inside = orders_inside(vma, v, allowed);
    unsigned aligned = inside & ((2u << __builtin_ctz((v ^ slot) | 1u << 9)) - 1);
    unsigned orders = orders_uniform(m, v, aligned, 1);
    unsigned refused[REASONS] = {[VMA_EDGE] = allowed & ~inside, [ALIGNMENT] = inside & ~aligned, [PTE_GAP] = aligned & ~orders};
    bool zero = slot_zero(m, slot);
    unsigned got = 0;
    /* All checks come before the first charge, which may empty the cache. */
    enum reason busy[ORDERS];
    for (unsigned rest = orders; rest; rest &= rest - 1) {
        unsigned order = (unsigned)__builtin_ctz(rest);
        busy[order] = check_range(m, slot, order, zero);
    }
    for (unsigned rest = orders; rest;) {
        unsigned order = 31 - (unsigned)__builtin_clz(rest);
        enum reason why = busy[order];
        if (why == REASONS) {
            if (charge(m, 1 << order, vma->advice == HUGE, order)) {
                got = order;
                break;
            }
            why = CHARGE;
            m->n.order[SWPIN_FALLBACK_CHARGE][order]++;
            count_thrown(m, order);
        }
        m->n.order[SWPIN_FALLBACK][order]++;
        refused[why] |= 1u << order;
        rest &= ~(1u << order);
    }
    bool alive = (got || charge(m, 1, true, 0)) && !m->oom;
    for (enum reason why = 0; why < REASONS; why++)
        count_refused(m, SWAP_IN, why, refused[why], got);
    if (!alive)
        return;
    m->n.plain[PGMAJFAULT]++;
    map_read_folio(m, read_folio(m, v >> got << got, got, slot, shadow));
}

/* stores: the fault of a swapped page is one of a write; a page with content is read first. */
static void fault(struct machine *m, const struct vma *vma, uint32_t v, bool write, bool stores)
{
    if (!m->table[v / BLOCK]) {
        if (!charge(m, 1, true, 0))
            return;
        m->table[v / BLOCK] = 1;
    }
    switch (pte_state(m->pte[v])) {
    case P_NONE:
        if (write)
            first_touch(m, vma, v);
        else
            m->pte[v] = make_pte(P_ZERO, 0);
        break;
    case P_ZERO:
        if (charge(m, 1, true, 0))
            map_new_folio(m, v, 0);
        break;
    default:
        if (slot_cached(m, pte_value(m->pte[v])))
            map_read_folio(m, m->shadow[v]);
        else
            swap_in(m, vma, v);
        if (stores)
            lru_drain(&m->folios);
    }
}

/* One access to each page of [start, end): `set` and `keep` change the flags of a page once it is there. */
static inline void access_pages(struct machine *m, const struct vma *vma, uint32_t start, uint32_t end, bool write,
                                unsigned set, unsigned keep)
{
    if (m->oom)
        return;
    for (uint32_t v = start; v < end; v++) {
        enum page_state state = pte_state(m->pte[v]);
        if (state != P_PRESENT && (write || state != P_ZERO)) {
            fault(m, vma, v, write, write && !(m->flags[v] & keep & NONZERO));
            if (m->oom) {
                m->n.plain[ACCESSES] += v + 1 - start;
                return;
            }
            m->n.plain[FAULTS]++;
            state = pte_state(m->pte[v]);
        }
        if (state == P_PRESENT)
            m->flags[v] = (uint8_t)((m->flags[v] & keep) | set);
    }
    m->n.plain[ACCESSES] += end - start;
}

/* Ranges: WILLNEED and DONTNEED */

static void will_need(struct machine *m, uint32_t start, uint32_t end)
{
    for (uint32_t v = start; v < end && !m->oom; v++) {
        uint32_t pte = m->pte[v], slot = pte_value(pte);
        if (pte_state(pte) != P_SWAPPED || slot_cached(m, slot))
            continue;
        uint32_t shadow = m->shadow[v];
        if (!charge(m, 1, true, 0))
            return;
        m->shadow[v] = read_folio(m, v, 0, slot, shadow);
        lru_drain(&m->folios);
        set_bits(m->device.clusters[slot / CLUSTER].cached, slot % CLUSTER, 1);
    }
}

static inline void unmap_page(struct machine *m, uint32_t v)
{
    uint32_t id = pte_value(m->pte[v]);
    struct folio *f = &m->folios.pool[id];
    count_leaving(m, m->flags[v]);
    lru_drain(&m->folios);
    if (f->mapped-- == folio_pages(f) && f->mapped)
        defer_split(&m->folios, id);
    if (!f->mapped) {
        if (f->order)
            undefer_split(&m->folios, id);
        lru_remove(&m->folios, id);
        m->usage -= folio_pages(f);
        folio_free(&m->folios, id);
    }
}

/* Slots are freed in runs of consecutive ones, cut at cluster borders. */
static void dont_need(struct machine *m, uint32_t start, uint32_t end)
{
    if (m->oom)
        return;
    for (uint32_t v = start; v < end;) {
        uint32_t pte = m->pte[v];
        if (pte_state(pte) != P_SWAPPED) {
            if (pte_state(pte) == P_PRESENT)
                unmap_page(m, v);
            m->pte[v] = 0;
            m->flags[v] = 0;
            v++;
            continue;
        }
        uint32_t slot = pte_value(pte), most = CLUSTER - slot % CLUSTER, n = 1;
        if (most > end - v)
            most = end - v;
        while (n < most && m->pte[v + n] == pte + n)
            n++;
        for (uint32_t i = 0; i < n; i++)
            if (slot_cached(m, slot + i)) {
                uint32_t id = m->shadow[v + i];
                m->n.plain[USELESS_SWAPIN]++;
                lru_drain(&m->folios);
                lru_remove(&m->folios, id);
                folio_free(&m->folios, id);
                m->usage--;
            }
        slot_put(&m->device, slot, n);
        memset(m->pte + v, 0, n * sizeof *m->pte);
        memset(m->flags + v, 0, n);
        v += n;
    }
    if (end - start == BLOCK && m->table[start / BLOCK]) { /* CONFIG_PT_RECLAIM */
        m->table[start / BLOCK] = 0;
        m->usage--;
        m->stock = m->stock >= STOCK ? 0 : m->stock + 1;
    }
}

/* Splitting and swap-out */

static inline void remove_mapping(struct machine *m, uint32_t base, unsigned nr, bool workingset)
{
    uint32_t shadow = m->age << 1 | workingset;
    for (uint32_t q = base; q < base + nr; q++)
        m->shadow[q] = shadow;
    m->age += nr;
    m->usage -= nr;
    m->list_reclaimed += nr;
}

/* Split a folio that is off the lists: a small folio for each mapped page with content; pages of zeros become the
 * shared zero page. Their pieces, and those of pages it had lost, are nobody's (NO_FOLIO). Returns how many pages. */
static unsigned split_off_list(struct machine *m, uint32_t id, uint32_t pieces[BLOCK])
{
    struct folio whole = m->folios.pool[id];
    unsigned found = 0, kept = 0;
    m->n.order[SPLIT][whole.order]++;
    m->usage -= folio_pages(&whole);
    if (whole.mapped < folio_pages(&whole))
        undefer_split(&m->folios, id);
    folio_free(&m->folios, id);
    uint32_t mine = make_pte(P_PRESENT, id);
    for (uint32_t q = whole.base; q < whole.base + (1u << whole.order); q++) {
        uint32_t piece = NO_FOLIO;
        if (m->pte[q] == mine && m->flags[q] & NONZERO) {
            piece = folio_new(&m->folios, q, 0, 1, whole.flags);
            kept++;
            /* The first piece may get the number of the folio itself: pages behind q still carry it. */
            m->pte[q] = make_pte(P_PRESENT, piece);
        } else if (m->pte[q] == mine) {
            count_leaving(m, m->flags[q]);
            m->pte[q] = make_pte(P_ZERO, 0);
            m->flags[q] = 0;
        }
        pieces[found++] = piece;
    }
    m->usage += kept;
    return found;
}

/* Split a folio on the lists: the pieces take its place, the first nearest to the tail, then from the last. */
static void split_on_list(struct machine *m, uint32_t id)
{
    uint32_t pieces[BLOCK], before = m->folios.pool[id].prev;
    lru_remove(&m->folios, id);
    unsigned n = split_off_list(m, id, pieces);
    for (unsigned i = 0; i < n; i++) {
        uint32_t piece = pieces[i ? n - i : 0];
        if (piece != NO_FOLIO)
            lru_insert_after(&m->folios, before, piece);
    }
}

static inline void activate(struct machine *m, uint32_t id)
{
    struct folio *f = &m->folios.pool[id];
    f->flags |= F_ACTIVE;
    m->n.plain[PGACTIVATE] += folio_pages(f);
    m->list_activated += folio_pages(f);
    lru_add(&m->folios, id);
}

/* Write a wholly mapped folio to swap and free it; false if there are no slots. */
static bool swap_out(struct machine *m, uint32_t id)
{
    struct folio f = m->folios.pool[id];
    int64_t slot = slot_alloc(&m->device, f.order);
    if (slot == NO_SLOT)
        return false;
    unsigned nr = 1u << f.order, content = 0;
    for (uint32_t i = 0; i < nr; i++) {
        uint32_t q = f.base + i;
        unsigned flags = m->flags[q];
        count_leaving(m, flags);
        content |= flags;
        m->flags[q] = flags & NONZERO;
        m->pte[q] = make_pte(P_SWAPPED, (uint32_t)slot + i);
    }
    if (content & NONZERO) {
        m->n.plain[PSWPOUT] += nr;
        m->n.order[SWPOUT][f.order]++;
        m->list_cost += BATCH * nr;
    } else {
        set_bits(m->device.clusters[slot / CLUSTER].zero, (unsigned)(slot % CLUSTER), nr);
        m->n.plain[SWPOUT_ZERO] += nr;
    }
    remove_mapping(m, f.base, nr, f.flags & F_WORKINGSET);
    folio_free(&m->folios, id);
    return true;
}

/* A piece that nobody maps takes a slot and gives it back unwritten. */
static void pass_through(struct machine *m)
{
    int64_t slot = slot_alloc(&m->device, 0);
    if (slot != NO_SLOT) {
        slot_put(&m->device, (uint32_t)slot, 1);
        return;
    }
    m->n.plain[PGACTIVATE]++;
    m->list_activated++;
}

static inline void swap_out_or_activate(struct machine *m, uint32_t id)
{
    if (id == NO_FOLIO)
        pass_through(m);
    else if (!swap_out(m, id))
        activate(m, id);
}

/* One folio off the lists that is to go. */
static void shrink_folio(struct machine *m, uint32_t id)
{
    struct folio f = m->folios.pool[id];
    if (!(f.flags & F_MAPPED)) {
        uint32_t slot = pte_value(m->pte[f.base]);
        remove_mapping(m, f.base, 1, f.flags & F_WORKINGSET);
        clear_bits(m->device.clusters[slot / CLUSTER].cached, slot % CLUSTER, 1);
        folio_free(&m->folios, id);
        m->n.plain[USELESS_SWAPIN]++;
        return;
    }
    if (!f.order) {
        swap_out_or_activate(m, id);
        return;
    }
    if (f.mapped == 1u << f.order) {
        if (swap_out(m, id))
            return;
        m->n.order[SWPOUT_FALLBACK][f.order]++;
    }
    uint32_t pieces[BLOCK];
    unsigned n = split_off_list(m, id, pieces);
    if (n)
        swap_out_or_activate(m, pieces[0]);
    for (unsigned i = n; i-- > 1;)
        swap_out_or_activate(m, pieces[i]);
}

/* PAGEOUT and COLD: folios wholly inside the range, ascending; others are split first. Returns how many. */
static unsigned collect_folios(struct machine *m, uint32_t start, uint32_t end, uint32_t found[BLOCK])
{
    unsigned n = 0;
    lru_drain(&m->folios);
    for (uint32_t v = start; v < end;) {
        uint32_t pte = m->pte[v];
        if (pte_state(pte) != P_PRESENT) {
            v++;
            continue;
        }
        const struct folio *f = &m->folios.pool[pte_value(pte)];
        uint32_t nr = 1u << f->order;
        if (nr > 1 && (f->base != v || f->mapped != nr || v + nr > end)) {
            split_on_list(m, pte_value(pte));
            continue;
        }
        found[n++] = pte_value(pte);
        v += nr;
    }
    return n;
}

static void page_out(struct machine *m, uint32_t start, uint32_t end)
{
    if (m->oom)
        return;
    uint32_t found[BLOCK];
    unsigned n = collect_folios(m, start, end, found);
    for (unsigned i = 0; i < n; i++) {
        struct folio *f = &m->folios.pool[found[i]];
        lru_remove(&m->folios, found[i]);
        if (f->flags & F_ACTIVE)
            f->flags |= F_WORKINGSET;
        f->flags &= (uint8_t)~(F_ACTIVE | F_REFERENCED);
        shrink_folio(m, found[i]);
    }
    m->list_reclaimed = m->list_activated = m->list_cost = 0;
}

static inline void deactivate(struct machine *m, uint32_t id)
{
    struct folio *f = &m->folios.pool[id];
    f->flags = (uint8_t)((f->flags & ~F_ACTIVE) | F_WORKINGSET);
    lru_add(&m->folios, id);
    m->n.plain[PGDEACTIVATE] += folio_pages(f);
}

static void cold(struct machine *m, uint32_t start, uint32_t end)
{
    if (m->oom)
        return;
    uint32_t found[BLOCK];
    unsigned n = collect_folios(m, start, end, found);
    for (unsigned i = 0; i < n; i++) {
        struct folio *f = &m->folios.pool[found[i]];
        for (uint32_t q = f->base; q < f->base + (1u << f->order); q++)
            m->flags[q] &= (uint8_t)~YOUNG;
        f->flags &= (uint8_t)~F_REFERENCED;
        if (f->flags & F_ACTIVE) {
            lru_remove(&m->folios, found[i]);
            deactivate(m, found[i]);
        }
    }
}

/* Reclaim */

/* Whether a mapped page is young; clears the young bits. */
static bool test_references(struct machine *m, uint32_t id)
{
    const struct folio *f = &m->folios.pool[id];
    uint32_t mine = make_pte(P_PRESENT, id), end = f->base + (1u << f->order);
    unsigned young = 0;
    if (!(f->flags & F_MAPPED))
        return false;
    for (uint32_t q = f->base; q < end; q++)
        if (m->pte[q] == mine) {
            young |= m->flags[q] & YOUNG;
            m->flags[q] &= (uint8_t)~YOUNG;
        }
    return young != 0;
}

/* Take folios off the tail of a list until they hold at least nr (at most 32) pages. */
static unsigned isolate(struct machine *m, uint32_t list, int64_t nr, uint32_t batch[BATCH], int64_t *scanned)
{
    unsigned n = 0;
    lru_drain(&m->folios);
    *scanned = 0;
    while (*scanned < nr && m->folios.pool[list].prev != list) {
        uint32_t id = m->folios.pool[list].prev;
        lru_remove(&m->folios, id);
        *scanned += folio_pages(&m->folios.pool[id]);
        batch[n++] = id;
    }
    return n;
}

static int64_t shrink_inactive_list(struct machine *m, int64_t nr)
{
    uint32_t batch[BATCH];
    int64_t scanned;
    unsigned n = isolate(m, INACTIVE, nr, batch, &scanned);
    m->n.plain[PGSCAN] += scanned;
    for (unsigned i = 0; i < n; i++) {
        struct folio *f = &m->folios.pool[batch[i]];
        bool referenced = test_references(m, batch[i]);
        bool before = f->flags & F_REFERENCED;
        f->flags = (uint8_t)((f->flags & ~F_REFERENCED) | (referenced ? F_REFERENCED : 0));
        if (referenced && before)
            activate(m, batch[i]);
        else if (referenced)
            lru_add(&m->folios, batch[i]);
        else
            shrink_folio(m, batch[i]);
    }
    int64_t done = m->list_reclaimed;
    m->n.plain[PGSTEAL] += done;
    if (n)
        m->counted_cost += m->list_cost + scanned - done;
    m->age += (uint32_t)m->list_activated;
    m->list_reclaimed = m->list_activated = m->list_cost = 0;
    return done;
}

static void shrink_active_list(struct machine *m, int64_t nr)
{
    uint32_t batch[BATCH];
    int64_t scanned;
    unsigned n = isolate(m, ACTIVE, nr, batch, &scanned);
    m->n.plain[PGREFILL] += scanned;
    for (unsigned i = 0; i < n; i++) {
        test_references(m, batch[i]);
        deactivate(m, batch[i]);
    }
}

static int64_t shrink_lists(struct machine *m, int priority, int64_t target, bool force, bool *skipped)
{
    int64_t rest[2] = {0, 0}, done = 0;
    int64_t size[2] = {lru_size(&m->folios, INACTIVE), lru_size(&m->folios, ACTIVE)};
    m->flushed_active = size[ACTIVE];
    m->flushed_total = size[INACTIVE] + size[ACTIVE];
    m->anon_cost += m->counted_cost;
    m->counted_cost = 0;
    while (m->anon_cost > m->flushed_total / 4)
        m->anon_cost /= 2;
    int64_t cost = m->anon_cost;
    bool low = size[INACTIVE] < size[ACTIVE];
    bool may_deactivate = force || low || m->activations != m->activations_seen;
    int64_t anon = SWAPPINESS * (3 * cost + 1) / (2 * cost + 1);
    int64_t file = (200 - SWAPPINESS) * (3 * cost + 1) / (cost + 1);
    if (m->device.free_slots)
        for (int list = INACTIVE; list <= ACTIVE; list++) {
            rest[list] = size[list] >> priority;
            if (priority)
                rest[list] = rest[list] * anon / (anon + file);
        }
    while (rest[INACTIVE]) {
        int64_t batch = rest[INACTIVE] < BATCH ? rest[INACTIVE] : BATCH;
        rest[INACTIVE] -= batch;
        done += shrink_inactive_list(m, batch);
        if (rest[ACTIVE]) {
            batch = rest[ACTIVE] < BATCH ? rest[ACTIVE] : BATCH;
            rest[ACTIVE] -= batch;
            if (may_deactivate)
                shrink_active_list(m, batch);
            else
                *skipped = true;
        }
        if (done >= target)
            break;
    }
    if (low)
        shrink_active_list(m, BATCH);
    return done;
}

/* The shrinker of the deferred split list, after each pass. What becomes free is not counted as reclaimed. */
static void shrink_slab(struct machine *m, int priority)
{
    int64_t freeable = m->folios.deferred;
    if (!freeable)
        return;
    int64_t delta = (freeable >> priority) * 2, scanned = 0;
    int64_t left = (m->nr_deferred >> priority) + delta;
    if (left > 2 * freeable)
        left = 2 * freeable;
    while ((left >= SHRINK_BATCH || left >= freeable) && m->folios.deferred) {
        int64_t batch = left < SHRINK_BATCH ? left : SHRINK_BATCH;
        for (int64_t i = 0; i < batch && m->folios.deferred; i++)
            split_on_list(m, m->folios.pool[0].later);
        scanned += batch;
        left -= batch;
    }
    int64_t rest = m->nr_deferred + delta - scanned;
    m->nr_deferred = rest < 0 ? 0 : rest > 2 * freeable ? 2 * freeable : rest;
}

static int64_t reclaim(struct machine *m, int64_t target)
{
    int64_t total = 0;
    bool skipped = false;
    for (int attempt = 0; attempt < 3 && !total; attempt++) {
        if (attempt == 2 && !skipped)
            break;
        for (int priority = 12; priority >= 0 && total < target; priority--) {
            total += shrink_lists(m, priority, target, attempt == 2, &skipped);
            shrink_slab(m, priority);
        }
        m->activations_seen = m->activations;
    }
    return total;
}

/* The memory cgroup. False: refused; at the orders for which the kernel kills, the machine has ended. */
static bool charge(struct machine *m, int64_t nr, bool may_reclaim, unsigned order)
{
    if (!m->limit)
        return true;
    int64_t batch = nr > STOCK || !may_reclaim ? nr : STOCK;
    bool drained = false;
    for (int retries = RETRIES;;) {
        if (m->stock >= nr) {
            m->stock -= nr;
            m->usage += nr;
            return true;
        }
        int64_t room = m->limit - m->usage - m->stock;
        if (room >= nr) {
            m->usage += nr;
            m->stock += room >= batch ? batch - nr : 0;
            return true;
        }
        batch = nr;
        m->n.plain[MEMCG_MAX]++;
        if (!may_reclaim)
            return false;
        int64_t progress = reclaim(m, nr > BATCH ? nr : BATCH);
        if (m->limit - m->usage - m->stock >= nr)
            continue;
        if (!drained) {
            m->stock = 0;
            drained = true;
            continue;
        }
        if (progress && nr <= 8)
            continue;
        if (retries--)
            continue;
        if (order > 3 || m->oom)
            return false;
        m->oom = true; /* and the process that is killed tries on */
        retries = RETRIES;
    }
}

#endif
