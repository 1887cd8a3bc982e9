/* SPDX-License-Identifier: Apache-2.0
 *
 * The plain C machine of the bench: one page, one folio, one lane at a time.
 *
 *   machine show FILE ALWAYS,MADVISE,LIMIT,SLOTS
 *       the DUMP, FOLIOS and STATS blocks in the form of a recording, then the counters of the whole run
 *   machine time FILE REPEATS ALWAYS,MADVISE,LIMIT,SLOTS ...
 *       REPEATS times: every lane from a fresh state, one after the other; nanoseconds of each repeat
 *
 * ALWAYS and MADVISE are masks of orders, LIMIT is in pages (0: none), SLOTS in slots.
 * FILE holds 32-bit words in the machine's byte order: the magic number, pages, operations, bytes of labels; then the
 * operations, five words each (kind | advice << 16, first page, end, VMA start, VMA end); then the labels. DUMP, FOLIOS and
 * STATS have the place and the length of their label in the words of first page and end. */
#define _POSIX_C_SOURCE 200809L

#include "memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum { MAGIC = 0x314d534a };

/* As jaxswap.workload.Kind numbers them. */
enum kind {
    TOUCH = 0,
    READ = 1,
    ZERO = 2,
    DONTNEED = 3,
    PAGEOUT = 4,
    COLD = 5,
    WILLNEED = 6,
    DUMP = 12,
    FOLIOS = 13,
    STATS = 14
};

struct op {
    uint16_t kind, advice;
    uint32_t start, end; /* of a block: place and length of its label */
    uint32_t vma_start, vma_end;
};

struct program {
    uint32_t npages, nops;
    struct op *ops;
    char *labels;
};

struct lane {
    unsigned always, madvise;
    int64_t limit;
    uint32_t slots;
};

static const char *const ORDER_NAMES[ORDER_COUNTERS] = {
    [ANON_FAULT_ALLOC] = "anon_fault_alloc",
    [ANON_FAULT_FALLBACK] = "anon_fault_fallback",
    [ANON_FAULT_FALLBACK_CHARGE] = "anon_fault_fallback_charge",
    [SWPIN] = "swpin",
    [SWPIN_FALLBACK] = "swpin_fallback",
    [SWPIN_FALLBACK_CHARGE] = "swpin_fallback_charge",
    [SWPOUT] = "swpout",
    [SWPOUT_FALLBACK] = "swpout_fallback",
    [SPLIT] = "split",
    [CHARGE_REFUSED] = "charge_refused",
};

static const char *const NAMES[COUNTERS] = {
    [PGMAJFAULT] = "pgmajfault",
    [PSWPIN] = "pswpin",
    [PSWPOUT] = "pswpout",
    [SWPIN_ZERO] = "swpin_zero",
    [SWPOUT_ZERO] = "swpout_zero",
    [PGSCAN] = "pgscan",
    [PGSTEAL] = "pgsteal",
    [PGACTIVATE] = "pgactivate",
    [PGDEACTIVATE] = "pgdeactivate",
    [PGREFILL] = "pgrefill",
    [WORKINGSET_REFAULT] = "workingset_refault_anon",
    [WORKINGSET_ACTIVATE] = "workingset_activate_anon",
    [WORKINGSET_RESTORE] = "workingset_restore_anon",
    [MEMCG_MAX] = "memcg_max",
    [ACCESSES] = "accesses",
    [FAULTS] = "faults",
    [THROWN_FOLIOS] = "thrown_folios",
    [THROWN_PAGES] = "thrown_pages",
    [USELESS_SWAPIN] = "useless_swapin",
    [USELESS_TOUCH] = "useless_touch",
    [NEEDED_PAGES] = "needed_pages",
    [COVERED_PAGES] = "covered_pages",
};

static const char *const PATH_NAMES[PATHS] = {[FIRST_TOUCH] = "touch", [SWAP_IN] = "swapin"};

static const char *const REASON_NAMES[REASONS] = {
    [VMA_EDGE] = "vma_edge",
    [ALIGNMENT] = "alignment",
    [PTE_GAP] = "pte_gap",
    [ZERO_FLAG] = "zero_flag",
    [CACHED] = "cached",
    [CHARGE] = "charge",
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "machine: %s\n", what);
    exit(2);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

/* Set-up */

static struct program read_program(const char *path)
{
    uint32_t head[4];
    struct program p = {0};
    FILE *file = fopen(path, "rb");
    if (!file)
        fail("the workload file cannot be opened");
    if (fread(head, sizeof head, 1, file) != 1 || head[0] != MAGIC)
        fail("not a workload file of this program");
    p.npages = head[1];
    p.nops = head[2];
    p.ops = allocate(p.nops, sizeof *p.ops);
    p.labels = allocate(head[3] + 1, 1);
    if (fread(p.ops, sizeof *p.ops, p.nops, file) != p.nops || fread(p.labels, 1, head[3], file) != head[3])
        fail("the workload file was cut off");
    fclose(file);
    return p;
}

static struct lane read_lane(const char *text)
{
    struct lane lane;
    if (sscanf(text, "%u,%u,%" SCNd64 ",%" SCNu32, &lane.always, &lane.madvise, &lane.limit, &lane.slots) != 4)
        fail("a lane is ALWAYS,MADVISE,LIMIT,SLOTS");
    return lane;
}

/* A machine for devices of up to `slots` slots. */
static struct machine new_machine(uint32_t npages, uint32_t slots)
{
    struct machine m = {.npages = npages};
    m.pte = allocate(npages, sizeof *m.pte);
    m.shadow = allocate(npages, sizeof *m.shadow);
    m.flags = allocate(npages, 1);
    m.table = allocate((npages + BLOCK - 1) / BLOCK, 1);
    m.folios.capacity = npages;
    m.folios.pool = allocate((size_t)npages + FIRST_FOLIO, sizeof *m.folios.pool);
    m.folios.unused = allocate(npages, sizeof *m.folios.unused);
    m.device.clusters = allocate((size_t)(slots + CLUSTER - 1) / CLUSTER + LISTS, sizeof *m.device.clusters);
    return m;
}

static void start_lane(struct machine *m, const struct lane *lane)
{
    m->always = lane->always;
    m->madvise = lane->madvise;
    m->limit = lane->limit;
    m->device.nslots = lane->slots;
    m->device.nclusters = (lane->slots + CLUSTER - 1) / CLUSTER;
    machine_reset(m);
}

/* Replay */

static inline void do_op(struct machine *m, const struct op *op)
{
    struct vma vma = {op->vma_start, op->vma_end, (enum advice)op->advice};
    switch (op->kind) {
    case TOUCH: access_pages(m, &vma, op->start, op->end, true, YOUNG | TOUCHED | NONZERO, ~0u); break;
    case READ: access_pages(m, &vma, op->start, op->end, false, YOUNG | TOUCHED, ~0u); break;
    case ZERO: access_pages(m, &vma, op->start, op->end, true, YOUNG | TOUCHED, ~(unsigned)NONZERO); break;
    case DONTNEED: dont_need(m, op->start, op->end); break;
    case PAGEOUT: page_out(m, op->start, op->end); break;
    case COLD: cold(m, op->start, op->end); break;
    case WILLNEED: will_need(m, op->start, op->end); break;
    default: break;
    }
}

/* Output */

static bool same_run(const struct machine *m, uint32_t v)
{
    uint32_t a = m->pte[v - 1], b = m->pte[v];
    if (pte_state(a) == P_SWAPPED || pte_state(b) == P_SWAPPED)
        return b == a + 1;
    return (pte_state(a) == P_NONE) == (pte_state(b) == P_NONE);
}

static void print_dump(const struct machine *m)
{
    for (uint32_t start = 0, v = 1; v <= m->npages; v++) {
        if (v < m->npages && same_run(m, v))
            continue;
        uint32_t pte = m->pte[start];
        if (pte_state(pte) == P_SWAPPED)
            printf("S %" PRIu32 " %" PRIu32 " t0 %" PRIu32 "\n", start, v - start, pte_value(pte));
        else
            printf("%c %" PRIu32 " %" PRIu32 "\n", pte_state(pte) == P_NONE ? 'N' : 'P', start, v - start);
        start = v;
    }
    puts("ENDDUMP");
}

static bool small_page(const struct machine *m, uint32_t v)
{
    enum page_state state = pte_state(m->pte[v]);
    return state == P_ZERO || (state == P_PRESENT && !m->folios.pool[pte_value(m->pte[v])].order);
}

static void print_folios(const struct machine *m)
{
    for (uint32_t v = 0, end; v < m->npages; v = end) {
        enum page_state state = pte_state(m->pte[v]);
        end = v + 1;
        if (state == P_NONE || state == P_SWAPPED)
            continue;
        const char *what = "TAIL";
        if (small_page(m, v)) {
            for (what = "s"; end < m->npages && small_page(m, end);)
                end++;
        } else if (m->folios.pool[pte_value(m->pte[v])].base == v) {
            for (what = "F"; end < m->npages && m->pte[end] == m->pte[v];)
                end++;
        }
        printf("%s %" PRIu32 " %" PRIu32 "\n", what, v, end - v);
    }
    puts("ENDFOLIOS");
}

/* The non-zero counters: a line for each size, one for the others, one for the orders refused. */
static void print_stats(const struct machine *m)
{
    const struct counters n = counters_now(m);
    for (unsigned order = LOWEST_ORDER; order <= HIGHEST_ORDER; order++) {
        printf(" %ukB:", 4u << order);
        for (unsigned i = 0; i < ORDER_COUNTERS; i++)
            if (n.order[i][order])
                printf(" %s=%" PRId64, ORDER_NAMES[i], n.order[i][order]);
        putchar('\n');
    }
    fputs(" vmstat:", stdout);
    for (unsigned i = 0; i < COUNTERS; i++)
        if (n.plain[i])
            printf(" %s=%" PRId64, NAMES[i], n.plain[i]);
    fputs("\n refused:", stdout);
    for (unsigned path = 0; path < PATHS; path++)
        for (unsigned reason = 0; reason < REASONS; reason++)
            for (unsigned order = LOWEST_ORDER; order <= HIGHEST_ORDER; order++)
                if (n.refused[path][reason][order])
                    printf(" %s/%s/%ukB=%" PRId64, PATH_NAMES[path], REASON_NAMES[reason], 4u << order,
                           n.refused[path][reason][order]);
    puts("\nENDSTATS bad=0");
}

static void show(const struct program *p, const struct lane *lane)
{
    struct machine m = new_machine(p->npages, lane->slots);
    start_lane(&m, lane);
    for (const struct op *op = p->ops; op < p->ops + p->nops; op++) {
        if (op->kind < DUMP) {
            do_op(&m, op);
            continue;
        }
        printf("%s %.*s\n", op->kind == DUMP ? "DUMP" : op->kind == FOLIOS ? "FOLIOS" : "STATS", (int)op->end,
               p->labels + op->start);
        if (op->kind == DUMP)
            print_dump(&m);
        else if (op->kind == FOLIOS)
            print_folios(&m);
        else
            print_stats(&m);
    }
    count_end(&m);
    puts(m.oom ? "END oom" : "END");
    print_stats(&m);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void time_lanes(struct program *p, unsigned repeats, char **texts, unsigned nlanes)
{
    struct lane *lanes = allocate(nlanes, sizeof *lanes);
    int64_t *ns = allocate(repeats, sizeof *ns), lane_faults = 0;
    uint32_t slots = 1, kept = 0;
    for (unsigned i = 0; i < nlanes; i++) {
        lanes[i] = read_lane(texts[i]);
        slots = lanes[i].slots > slots ? lanes[i].slots : slots;
    }
    for (uint32_t i = 0; i < p->nops; i++)
        if (p->ops[i].kind < DUMP)
            p->ops[kept++] = p->ops[i];
    struct machine m = new_machine(p->npages, slots);
    for (unsigned r = 0; r < repeats; r++)
        for (unsigned i = 0; i < nlanes; i++) {
            start_lane(&m, &lanes[i]);
            int64_t start = now();
            for (uint32_t at = 0; at < kept; at++)
                do_op(&m, &p->ops[at]);
            ns[r] += now() - start;
            lane_faults += m.n.plain[FAULTS];
        }
    for (unsigned r = 0; r < repeats; r++)
        printf("ns %" PRId64 "\n", ns[r]);
    qsort(ns, repeats, sizeof *ns, compare);
    printf("median %" PRId64 " min %" PRId64 " operations %" PRIu32 " lanes %u faults %" PRId64 "\n", ns[repeats / 2], ns[0],
           kept, nlanes, lane_faults);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "show")) {
        struct program p = read_program(argv[2]);
        struct lane lane = read_lane(argv[3]);
        show(&p, &lane);
    } else if (argc >= 5 && !strcmp(argv[1], "time")) {
        struct program p = read_program(argv[2]);
        int repeats = atoi(argv[3]);
        if (repeats < 1)
            fail("REPEATS must be at least 1");
        time_lanes(&p, (unsigned)repeats, argv + 4, (unsigned)argc - 4);
    } else
        fail("usage: machine show FILE LANE | machine time FILE REPEATS LANE ...");
    return 0;
}
