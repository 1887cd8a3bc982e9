/* SPDX-License-Identifier: Apache-2.0
 *
 * Breaks the guest's free memory into small pieces and stays behind to keep it so:
 *
 *     fragment BYTES
 *
 * Of every aligned 64 kB of memory that was free one page is locked, the other 15 are free: no free piece is
 * larger than 32 kB. BYTES of memory, evenly spread, stay free in whole 64 kB, and the CPUs' own lists of free
 * pages are emptied, so that these are whole for the page allocator too. Returns when it is done; a child holds
 * the locked pages, which compaction leaves alone (compact_unevictable_allowed is 0). 2 MiB pages and all mTHP
 * sizes must be off, and stay off but for 64 kB and 1 MiB while it runs. Exit status 1 and a line "FAILED ..." if it
 * could not be done. */
#define _GNU_SOURCE
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

enum { BLOCK = 16, CHUNK = 256, LEAST = 98304 }; /* pages; kB that stay free: the kernel reclaims at 66 MiB */

static void stop(const char *what)
{
    printf("FAILED fragment: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static long number_in(const char *path, const char *name)
{
    char word[80];
    long value = -1;
    FILE *file = fopen(path, "r");
    if (!file)
        stop(path);
    if (!name && fscanf(file, "%ld", &value) != 1)
        stop(path);
    while (name && fscanf(file, "%79s %ld", word, &value) >= 1 && strcmp(word, name))
        ;
    fclose(file);
    return value;
}

static void set(const char *path, const char *value)
{
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, value, strlen(value)) < 0)
        stop(path);
    close(file);
}

static unsigned char *locked(size_t length)
{
    unsigned char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mlock2(memory, length, MLOCK_ONFAULT))
        stop("memory");
    return memory;
}

static void release(unsigned char *memory, long pages)
{
    if (pages && madvise(memory, pages * PAGE, MADV_DONTNEED_LOCKED))
        stop("release");
}

/* Gives back all pages but those whose frame begins an aligned 64 kB; returns how many stay, in kept. */
static long thin_out(unsigned char *memory, long pages, unsigned char **kept)
{
    int file = open("/proc/self/pagemap", O_RDONLY);
    long count = 0, first = 0; /* of the pages that go */
    for (long i = 0; i < pages; i++) {
        uint64_t entry;
        if (pread(file, &entry, sizeof entry, ((uintptr_t)memory / PAGE + i) * sizeof entry) != sizeof entry)
            stop("/proc/self/pagemap");
        if ((entry & ((1ull << 55) - 1)) % BLOCK)
            continue;
        release(memory + first * PAGE, i - first);
        first = i + 1;
        kept[count++] = memory + i * PAGE;
    }
    release(memory + first * PAGE, pages - first);
    close(file);
    return count;
}

/* Takes folios of some kB until there are none; returns how many pages were touched. */
static long take(int kb, unsigned char *memory, long pages)
{
    char enabled[100], refused[100];
    snprintf(enabled, sizeof enabled, THP "/hugepages-%dkB/enabled", kb);
    snprintf(refused, sizeof refused, THP "/hugepages-%dkB/stats/anon_fault_fallback", kb);
    long before = number_in(refused, NULL), touched = 0;
    set(enabled, "always");
    for (; touched < pages && number_in(refused, NULL) == before; touched += kb * 1024 / PAGE)
        memory[touched * PAGE] = 1;
    set(enabled, "never");
    return touched;
}

/* A fault that may reclaim and finds no block large enough has every CPU give its free pages back. */
static void empty_lists(long pages)
{
    unsigned char *memory = locked((pages + CHUNK) * PAGE);
    memory += -(uintptr_t)memory % (CHUNK * PAGE);
    if (madvise(memory, pages * PAGE, MADV_HUGEPAGE))
        stop("memory");
    set(THP "/defrag", "madvise");
    release(memory, take(1024, memory, pages));
    set(THP "/defrag", "never");
}

static void arrange(long whole)
{
    long pages = number_in("/proc/meminfo", "MemTotal:") / 4, taken = 0;
    unsigned char *memory = locked(pages * PAGE), *rest = locked((pages + BLOCK) * PAGE);
    rest += -(uintptr_t)rest % (BLOCK * PAGE);
    unsigned char **kept = calloc(pages / BLOCK + CHUNK, sizeof *kept);
    memset(kept, 0, (pages / BLOCK + CHUNK) * sizeof *kept);
    while (taken + CHUNK < pages && number_in("/proc/meminfo", "MemFree:") > LEAST)
        for (long end = taken + CHUNK; taken < end; taken++)
            memory[taken * PAGE] = 1;
    long count = thin_out(memory, taken, kept), blocks = whole / PAGE / BLOCK;
    take(64, rest, pages);
    if (blocks > count)
        blocks = count;
    for (long i = 0; i < count; i++)
        if ((i + 1) * blocks / count > i * blocks / count)
            release(kept[i], 1);
    empty_lists(pages);
}

int main(int argc, char **arguments)
{
    int ready[2];
    char byte = 0;
    if (argc != 2 || pipe(ready))
        return 1;
    pid_t pid = fork();
    if (pid < 0)
        stop("fork");
    if (!pid) {
        set("/proc/self/oom_score_adj", "-1000");
        arrange(atol(arguments[1]));
        fflush(stdout);
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    return read(ready[0], &byte, 1) != 1;
}
