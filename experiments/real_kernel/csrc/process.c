/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory operations of one process. */
#define _GNU_SOURCE
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static const struct {
    const char *name;
    int advice;
} advices[] = {
    {"DONTNEED", MADV_DONTNEED}, {"PAGEOUT", MADV_PAGEOUT},   {"COLD", MADV_COLD},
    {"WILLNEED", MADV_WILLNEED}, {"MADVHUGE", MADV_HUGEPAGE}, {"MADVNOHUGE", MADV_NOHUGEPAGE},
};

static int me, on_cpu;
static void *untouched; /* a page that is never used: advice on it has no effect of its own */

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(shared->failed, sizeof shared->failed, format, arguments);
    va_end(arguments);
}

static unsigned char *page(long v) { return shared->base + v * PAGE; }

static uint64_t mark(long v) { return (uint64_t)v << 32 | 0xabcd; }

/* Half noise, half order: data that a compressor halves, and no word of which is zero for long. */
static void fill(long v)
{
    uint64_t *words = (uint64_t *)page(v), x = (uint64_t)v * 0x9E3779B97F4A7C15ull + 1;
    for (unsigned i = 0; i < PAGE / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = i & 3 ? (uint64_t)v << 32 | i : x | 1;
    }
    words[1] = mark(v);
    filled[me][v] = 1;
}

static void touch(long v)
{
    if (filled[me][v])
        *(volatile unsigned char *)(page(v) + 4000) ^= 1;
    else
        fill(v);
}

static void look(long v)
{
    uint64_t word = *(volatile uint64_t *)(page(v) + 8);
    if (filled[me][v] && word != mark(v))
        shared->bad++;
}

static void zero(long v)
{
    memset(page(v), 0, PAGE);
    filled[me][v] = 0;
}

static void map_region(const char *line)
{
    char advice[20] = "plain";
    long npages = 0;
    sscanf(line, "%*s %ld %19s", &npages, advice);
    size_t length = npages * PAGE, block = 2ul << 20;
    unsigned char *got = mmap(NULL, length + 2 * block, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) {
        fail("REGION: %s", strerror(errno));
        return;
    }
    unsigned char *base = (unsigned char *)(((uintptr_t)got + block - 1) & ~(block - 1));
    if (base > got)
        munmap(got, base - got);
    munmap(base + length, got + length + 2 * block - (base + length));
    shared->base = base;
    if (!strcmp(advice, "huge") && madvise(base, length, MADV_HUGEPAGE))
        fail("REGION huge: %s", strerror(errno));
    if (!strcmp(advice, "nohuge") && madvise(base, length, MADV_NOHUGEPAGE))
        fail("REGION nohuge: %s", strerror(errno));
}

static void become_child(long child)
{
    if (child < 1 || child >= PROCESSES || shared->pid[child]) {
        fail("FORK %ld: a number from 1 to %d that no process has is needed", child, PROCESSES - 1);
        return;
    }
    /* A child of the controller, which is then the one to wait for it, whoever forks it. */
    pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        fail("FORK: %s", strerror(errno));
    else if (pid == 0)
        serve(child);
    else {
        memcpy(filled[child], filled[me], shared->npages);
        shared->pid[child] = pid;
    }
}

static void join(const char *path)
{
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, "0", 1) != 1)
        fail("%s: %s", path, strerror(errno));
    close(file);
}

static void move_to_cpu(void)
{
    if (shared->cpu == on_cpu)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(shared->cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("@%d: %s", shared->cpu, strerror(errno));
    on_cpu = shared->cpu;
}

static void operation(const char *line)
{
    char op[40] = "";
    long v = 0, n = 1;
    sscanf(line, "%39s %ld %ld", op, &v, &n);
#define IS(name) (!strcmp(op, name))
    if (IS("EXIT"))
        _exit(0);
    if (IS("REGION")) {
        map_region(line);
        return;
    }
    if (IS("JOIN")) {
        join(line + 5);
        return;
    }
    if (IS("FORK")) {
        become_child(v);
        return;
    }
    if (generated(line))
        return;
    if (v < 0 || n < 0 || v + n > shared->npages) {
        fail("outside the region: %s", line);
        return;
    }
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
        if (IS(advices[i].name)) {
            if (madvise(page(v), n * PAGE, advices[i].advice))
                fail("%s: %s", line, strerror(errno));
            if (advices[i].advice == MADV_DONTNEED)
                memset(filled[me] + v, 0, n);
            return;
        }
    void (*access)(long) = IS("TOUCH") || IS("FILL")   ? touch
                           : IS("READ") || IS("READN") ? look
                           : IS("ZERO")                ? zero
                                                       : NULL;
    if (!access)
        fail("unknown operation: %s", line);
    for (long i = 0; access && i < n; i++)
        access(v + i);
#undef IS
}

void serve(int self)
{
    uint64_t count;
    me = self;
    if (!untouched) {
        untouched = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        volatile char stack[65536]; /* its pages come into being here, not under the workload */
        for (size_t i = 0; i < sizeof stack; i += PAGE / 2)
            stack[i] = 1;
    }
    for (;;) {
        if (read(shared->go[self], &count, sizeof count) != sizeof count)
            _exit(1);
        move_to_cpu();
        operation(shared->line);
        if (shared->drain)
            madvise(untouched, PAGE, MADV_COLD); /* begins by emptying this CPU's batches */
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        shared->major_faults = usage.ru_majflt;
        shared->minor_faults = usage.ru_minflt;
        count = 1;
        if (write(shared->done, &count, sizeof count) != sizeof count)
            _exit(1);
    }
}
