/* SPDX-License-Identifier: Apache-2.0
 *
 * Generated accesses: one line of a workload that stands for many, as docs/workloads.md gives them. */
#include "shared.h"
#include <stdio.h>
#include <string.h>

static uint64_t state; /* of splitmix64 */

static uint64_t draw(void)
{
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

static uint64_t mark(long v) { return (uint64_t)v << 32 | 0xabcd; }

static void go_to(long v, int writes)
{
    volatile unsigned char *page = shared->base + v * PAGE;
    if (writes) {
        page[4000] ^= 1;
        shared->writes++;
    } else if (*(volatile uint64_t *)(page + 8) != mark(v))
        shared->bad++;
    shared->accesses++;
}

static void init(void)
{
    for (long v = 0; v < shared->npages; v++) {
        uint64_t *words = (uint64_t *)(shared->base + v * PAGE);
        words[1] = mark(v);
        words[0] = v + 1;
        for (int i = 2; i < 8; i++)
            words[i] = v * 7 + i;
    }
}

static long zipf_rank(uint64_t x)
{
    uint64_t y = x % shared->zipf[shared->npages - 1];
    long low = 0, high = shared->npages - 1;
    while (low < high) {
        long middle = (low + high) / 2;
        if (shared->zipf[middle] > y)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int generated(const char *line)
{
    char op[40] = "";
    long a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, npages = shared->npages;
    sscanf(line, "%39s %ld %ld %ld %ld %ld %ld", op, &a, &b, &c, &d, &e, &f);
#define IS(name) (!strcmp(op, name))
    if (IS("INIT"))
        init();
    else if (IS("SEQ")) {
        state = e;
        for (long pass = 0; pass < c; pass++)
            for (long v = 0; v < b; v++)
                go_to(a + v, (long)(draw() & 1023) < d);
    } else if (IS("UNI")) {
        state = e;
        for (long i = 0; i < c; i++) {
            uint64_t r = draw();
            go_to(a + (r >> 10) % b, (long)(r & 1023) < d);
        }
    } else if (IS("ZIPF") && npages <= ZIPF_PAGES) {
        state = c;
        for (long i = 0; i < a; i++) {
            uint64_t r = draw(), rank = zipf_rank(r >> 10);
            go_to(d ? rank : (rank * 0x9E3779B1ull & (npages - 1)), (long)(r & 1023) < b);
        }
    } else if (IS("HOT")) {
        state = f;
        for (long i = 0; i < d; i++) {
            uint64_t r = draw(), h = (r >> 10) & 1023, y = r >> 20;
            go_to((long)h < c ? a + y % b : y % npages, (long)(r & 1023) < e);
        }
    } else if (IS("STRIDE")) {
        state = d;
        for (long i = 0; i < b; i++)
            go_to(i * a % npages, (long)(draw() & 1023) < c);
    } else
        return 0;
    return 1;
#undef IS
}
