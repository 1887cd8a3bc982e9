/* Range check of (slot, order) pairs, first form. Slot words as in jaxswap/swaptable/entry.py. */
#include <pthread.h>
#include <stdint.h>

enum { CLUSTER = 512, NOT_THERE = -2, IS_BUSY = -16, IS_CACHED = -17 };
#define MAX_THREADS 64

struct job {
    const uint32_t *data;      /* slot words, or kept nibbles */
    const uint8_t *has_table;
    const uint32_t *slots;
    const int32_t *orders;
    int32_t *errnos;
    long from, to;
};

static inline int scan(const uint32_t *words, uint32_t slot, int order)
{
    uint32_t target = words[slot], size = 1u << order, first = slot & ~(size - 1);
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
    }
    return 0;
}

static void *scan_part(void *argument)
{
    struct job *job = argument;
    for (long i = job->from; i < job->to; i++) {
        uint32_t slot = job->slots[i];
        job->errnos[i] = job->has_table[slot / CLUSTER] ? scan(job->data, slot, job->orders[i]) : NOT_THERE;
    }
    return 0;
}

static void *kept_part(void *argument)
{
    struct job *job = argument;
    for (long i = job->from; i < job->to; i++) {
        uint32_t slot = job->slots[i];
        int code = job->data[slot / 8] >> (slot % 8 * 4) & 15;
        int other = code == 15 ? IS_CACHED : code == 0 ? NOT_THERE : IS_BUSY;
        job->errnos[i] = code < 14 && job->orders[i] < code ? 0 : other;
    }
    return 0;
}

static void split(void *(*part)(void *), struct job whole, long n, int threads)
{
    pthread_t thread[MAX_THREADS];
    struct job jobs[MAX_THREADS];
    for (int t = 0; t < threads; t++) {
        jobs[t] = whole;
        jobs[t].from = n * t / threads;
        jobs[t].to = n * (t + 1) / threads;
        if (t)
            pthread_create(&thread[t], 0, part, &jobs[t]);
    }
    part(&jobs[0]);
    for (int t = 1; t < threads; t++)
        pthread_join(thread[t], 0);
}

void check_scan(const uint32_t *words, const uint8_t *has_table, const uint32_t *slots, const int32_t *orders,
                int32_t *errnos, long n, int threads)
{
    struct job job = {words, has_table, slots, orders, errnos, 0, 0};
    split(scan_part, job, n, threads);
}

void check_kept(const uint32_t *kept, const uint8_t *has_table, const uint32_t *slots, const int32_t *orders,
                int32_t *errnos, long n, int threads)
{
    struct job job = {kept, has_table, slots, orders, errnos, 0, 0};
    split(kept_part, job, n, threads);
}
