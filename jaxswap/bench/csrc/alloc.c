/* Swap-cache allocation with order fallback, request after request. Slot words as in jaxswap/swaptable/entry.py.
   With more threads, each takes the requests to its share of the clusters, in index order. */
#include <pthread.h>
#include <stdint.h>

enum { CLUSTER = 512, WORDS = 16, NOT_THERE = -2, NO_MEMORY = -12, IS_BUSY = -16, IS_CACHED = -17, INVALID = -22 };
#define MAX_THREADS 64
#define FLAGS 0xF8000000u

struct job {
    uint32_t *words;
    const uint16_t *ids;
    const uint8_t *has_table;
    uint32_t *cached;            /* planes; 0 to scan slots instead */
    const uint32_t *unfit, *zero, *edge;
    const uint32_t *slots, *orders, *frames, *charges, *folios;
    long n;
    int32_t *errnos;
    int8_t *got;
    uint32_t *stepped;
    uint8_t *thrown;
    int part, parts;
};

static int scan(const struct job *job, uint32_t slot, int order, int with_ids)
{
    const uint32_t *words = job->words;
    uint32_t target = words[slot], size = 1u << order, first = slot & ~(size - 1);
    if (!job->has_table[slot / CLUSTER])
        return NOT_THERE;
    if ((target & 3) == 3)
        return IS_BUSY;
    if ((target & 3) == 2)
        return IS_CACHED;
    if (target >> 28 == 0)
        return NOT_THERE;
    if (order == 0)
        return 0;
    for (uint32_t s = first; s < first + size; s++) {
        uint32_t word = words[s];
        if ((word & 2) || word >> 28 == 0 || ((word ^ target) >> 27 & 1))
            return IS_BUSY;
        if (with_ids && job->ids[s] != job->ids[slot])
            return IS_BUSY;
    }
    return 0;
}

/* the same from bit planes; unfit is bad or count 0 */
static int look(const struct job *job, uint32_t slot, int order, int with_ids)
{
    uint32_t word = slot / 32, bit = slot % 32, size = 1u << order, first = slot & ~(size - 1);
    if (!job->has_table[slot / CLUSTER])
        return NOT_THERE;
    if (job->unfit[word] >> bit & 1 || job->cached[word] >> bit & 1) {
        uint32_t target = job->words[slot];
        return (target & 3) == 3 ? IS_BUSY : (target & 3) == 2 ? IS_CACHED : NOT_THERE;
    }
    if (order == 0)
        return 0;
    uint32_t flag = job->zero[word] >> bit & 1 ? ~0u : 0;
    uint32_t block = order < 5 ? ((1u << size) - 1) << first % 32 : ~0u;
    uint32_t count = order <= 5 ? 1 : size / 32;
    for (uint32_t w = first / 32; w < first / 32 + count; w++) {
        uint32_t conflict = job->cached[w] | job->unfit[w] | (job->zero[w] ^ flag);
        if (with_ids)
            conflict |= w == first / 32 ? job->edge[w] & ~(1u << first % 32) : job->edge[w];
        if (conflict & block)
            return IS_BUSY;
    }
    return 0;
}

static void put(struct job *job, uint32_t slot, int order, uint32_t word, int cached)
{
    uint32_t size = 1u << order, first = slot & ~(size - 1);
    for (uint32_t s = first; s < first + size; s++)
        job->words[s] = (job->words[s] & FLAGS) | word;
    if (!job->cached || !cached)
        return;
    uint32_t block = order < 5 ? ((1u << size) - 1) << first % 32 : ~0u;
    uint32_t count = order <= 5 ? 1 : size / 32;
    for (uint32_t w = first / 32; w < first / 32 + count; w++)
        job->cached[w] |= block;
}

static int check(const struct job *job, uint32_t slot, int order, int with_ids)
{
    return job->cached ? look(job, slot, order, with_ids) : scan(job, slot, order, with_ids);
}

static int attempt(struct job *job, long i, int order)
{
    uint32_t slot = job->slots[i];
    int error = check(job, slot, order, 0);
    if (error)
        return error;
    if (!(job->frames[i] >> order & 1))
        return NO_MEMORY;
    error = check(job, slot, order, 1);
    if (error) {
        job->thrown[i]++;
        return error;
    }
    uint32_t shadow = (job->words[slot] & ~FLAGS & ~3u) | 1;
    if (!(job->charges[i] >> order & 1)) {
        put(job, slot, order, shadow, 0);
        job->thrown[i]++;
        return NO_MEMORY;
    }
    put(job, slot, order, job->folios[i] << 2 | 2, 1);
    return 0;
}

static void *run(void *argument)
{
    struct job *job = argument;
    for (long i = 0; i < job->n; i++) {
        uint32_t orders = job->orders[i];
        if (job->parts > 1 && (int)(job->slots[i] / CLUSTER % job->parts) != job->part)
            continue;
        job->got[i] = -1;
        job->stepped[i] = 0;
        job->thrown[i] = 0;
        job->errnos[i] = INVALID;
        if (orders == 0 || orders >> 10)
            continue;
        while (orders) {
            int order = 31 - __builtin_clz(orders);
            int error = attempt(job, i, order);
            job->errnos[i] = error;
            if (!error)
                job->got[i] = order;
            if (order == 0 || (error != IS_BUSY && error != NO_MEMORY))
                break;
            job->stepped[i] |= 1u << order;
            orders &= ~(1u << order);
        }
    }
    return 0;
}

void alloc_batch(uint32_t *words, const uint16_t *ids, const uint8_t *has_table, uint32_t *cached,
                 const uint32_t *unfit, const uint32_t *zero, const uint32_t *edge, const uint32_t *slots,
                 const uint32_t *orders, const uint32_t *frames, const uint32_t *charges, const uint32_t *folios,
                 long n, int32_t *errnos, int8_t *got, uint32_t *stepped, uint8_t *thrown, int threads)
{
    pthread_t thread[MAX_THREADS];
    struct job jobs[MAX_THREADS];
    for (int t = 0; t < threads; t++) {
        struct job job = {words, ids, has_table, cached, unfit, zero, edge, slots, orders, frames, charges, folios,
                          n, errnos, got, stepped, thrown, t, threads};
        jobs[t] = job;
        if (t)
            pthread_create(&thread[t], 0, run, &jobs[t]);
    }
    run(&jobs[0]);
    for (int t = 1; t < threads; t++)
        pthread_join(thread[t], 0);
}
