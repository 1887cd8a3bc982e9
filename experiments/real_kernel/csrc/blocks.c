/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocks of a recording: page maps, folios, counters. */
#include "shared.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* An entry of /proc/PID/pagemap */
enum { SWAPPED = 1, PRESENT = 2 };
static int entry_state(uint64_t entry) { return entry >> 62; }
static unsigned entry_type(uint64_t entry) { return entry & 31; }
static uint64_t entry_slot(uint64_t entry) { return entry >> 5 & ((1ull << 50) - 1); }
static uint64_t entry_frame(uint64_t entry) { return entry & ((1ull << 55) - 1); }

/* Bits of /proc/kpageflags */
enum { REFERENCED = 2, LRU = 5, ACTIVE = 6, SWAPCACHE = 13, HEAD = 15, TAIL = 16 };

static uint64_t *page_map(pid_t pid)
{
    static uint64_t *entries;
    static size_t length;
    char path[60];
    snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
    if (!entries)
        entries = malloc(length = shared->npages * sizeof *entries);
    int file = open(path, O_RDONLY);
    ssize_t got = pread(file, entries, length, (uintptr_t)shared->base / PAGE * sizeof *entries);
    close(file);
    if (got != (ssize_t)length) {
        fail("%s cannot be read", path);
        return NULL;
    }
    return entries;
}

/* Whether page j goes on with the run that started at page i. */
static int same_run(const uint64_t *entries, long i, long j)
{
    int state = entry_state(entries[i]), next = entry_state(entries[j]);
    if (state & PRESENT)
        return next & PRESENT;
    if (state == SWAPPED)
        return next == SWAPPED && entry_type(entries[j]) == entry_type(entries[i]) &&
               entry_slot(entries[j]) == entry_slot(entries[i]) + (j - i);
    return !next;
}

void print_dump(const char *label, pid_t pid)
{
    const uint64_t *entries = page_map(pid);
    if (!entries)
        return;
    printf("DUMP %s\n", label);
    for (long i = 0, j; i < shared->npages; i = j) {
        for (j = i + 1; j < shared->npages && same_run(entries, i, j);)
            j++;
        if (entry_state(entries[i]) == SWAPPED)
            printf("S %ld %ld t%u %lu\n", i, j - i, entry_type(entries[i]), entry_slot(entries[i]));
        else
            printf("%c %ld %ld\n", entry_state(entries[i]) ? 'P' : 'N', i, j - i);
    }
    printf("ENDDUMP\n");
}

static uint64_t frame_flags(uint64_t frame)
{
    static int file = -1;
    uint64_t flags = 0;
    if (file < 0)
        file = open("/proc/kpageflags", O_RDONLY);
    if (pread(file, &flags, sizeof flags, frame * sizeof flags) != sizeof flags)
        fail("/proc/kpageflags cannot be read");
    return flags;
}

static int bit(uint64_t flags, int which) { return flags >> which & 1; }

void print_folios(const char *label, pid_t pid)
{
    const uint64_t *entries = page_map(pid);
    if (!entries)
        return;
    printf("FOLIOS %s\n", label);
    for (long i = 0, j; i < shared->npages; i = j) {
        j = i + 1;
        if (!(entry_state(entries[i]) & PRESENT))
            continue;
        uint64_t first = entry_frame(entries[i]), flags = frame_flags(first);
        for (; j < shared->npages && entry_state(entries[j]) & PRESENT; j++) {
            uint64_t frame = entry_frame(entries[j]), next = frame_flags(frame);
            if (bit(flags, HEAD) ? frame != first + (j - i) || !bit(next, TAIL)
                                 : bit(flags, TAIL) || bit(next, HEAD) || bit(next, TAIL))
                break;
        }
        printf("%s %ld %ld\n", bit(flags, HEAD) ? "F" : bit(flags, TAIL) ? "TAIL" : "s", i, j - i);
    }
    printf("ENDFOLIOS\n");
}

static char *contents(const char *folder, const char *name)
{
    static char text[16384];
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_RDONLY);
    ssize_t length = 0, got;
    while (file >= 0 && (got = read(file, text + length, sizeof text - 1 - length)) > 0)
        length += got;
    if (file >= 0)
        close(file);
    text[length] = 0;
    return text;
}

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void print_sizes(void)
{
    for (int kb = 8; kb <= 2048; kb *= 2) {
        char folder[100];
        struct dirent **entries;
        snprintf(folder, sizeof folder, THP "/hugepages-%dkB/stats", kb);
        int count = scandir(folder, &entries, visible, alphasort), printed = 0;
        for (int i = 0; i < count; i++) {
            long value = atol(contents(folder, entries[i]->d_name));
            if (value > 0) {
                if (!printed++)
                    printf(" %dkB:", kb);
                printf(" %s=%ld", entries[i]->d_name, value);
            }
            free(entries[i]);
        }
        if (count > 0)
            free(entries);
        if (printed)
            printf("\n");
    }
}

static void print_vmstat(const char *const *prefixes, int zeros_too)
{
    char name[80];
    long value;
    /* Folds what each CPU has counted into the totals. */
    int refresh = open("/proc/sys/vm/stat_refresh", O_WRONLY);
    if (refresh < 0 || write(refresh, "1", 1) < 0)
        fail("/proc/sys/vm/stat_refresh cannot be written");
    close(refresh);
    FILE *file = fopen("/proc/vmstat", "r");
    printf(" vmstat:");
    while (file && fscanf(file, "%79s %ld", name, &value) == 2)
        for (const char *const *prefix = prefixes; *prefix && (value || (zeros_too && strncmp(name, "zswp", 4))); prefix++)
            if (!strncmp(name, *prefix, strlen(*prefix))) {
                printf(" %s=%ld", name, value);
                break;
            }
    if (file)
        fclose(file);
    printf("\n");
}

static void print_swaps(void)
{
    char line[200];
    FILE *file = fopen("/proc/swaps", "r");
    for (int number = 0; file && fgets(line, sizeof line, file); number++) {
        for (char *c = line; *c; c++)
            if (*c == '\t')
                *c = ' ';
        if (number)
            printf(" swaps: %s", line);
    }
    if (file)
        fclose(file);
}

static void print_free_blocks(void)
{
    char zone[20];
    long count;
    FILE *file = fopen("/proc/buddyinfo", "r");
    while (file && fscanf(file, " Node %*d, zone %19s", zone) == 1) {
        printf(" buddyinfo-%s:", zone);
        for (int kb = 4; fscanf(file, "%ld", &count) == 1; kb *= 2)
            printf(" %dkB=%ld", kb, count);
        printf("\n");
    }
    if (file)
        fclose(file);
}

/* Of each zone with memory: free pages, watermarks, what is kept from user pages, and free pages of the CPUs. */
static void print_zones(void)
{
    char line[200], zone[20] = "";
    long free = 0, min = 0, low = 0, high = 0, kept = 0, lists = 0, value;
    FILE *file = fopen("/proc/zoneinfo", "r");
    for (int more = file != NULL; more;) {
        more = fgets(line, sizeof line, file) != NULL;
        char next[20] = "";
        int begins = more && sscanf(line, "Node %*d, zone %19s", next) == 1;
        if ((begins || !more) && free)
            printf(" zoneinfo-%s: free=%ld min=%ld low=%ld high=%ld reserve=%ld lists=%ld\n", zone, free, min, low, high,
                   kept, lists);
        if (begins) {
            snprintf(zone, sizeof zone, "%s", next);
            lists = 0;
        }
        sscanf(line, " pages free %ld", &free);
        sscanf(line, " min %ld", &min);
        sscanf(line, " low %ld", &low);
        sscanf(line, " high %ld", &high);
        if (strstr(line, " protection: (")) /* by the highest zone of a request; the last is for user pages */
            kept = atol(strrchr(line, ' '));
        if (sscanf(line, " count: %ld", &value) == 1)
            lists += value;
    }
    if (file)
        fclose(file);
}

static void print_free_memory(void)
{
    print_free_blocks();
    print_zones();
}

static void print_file(const char *folder, const char *prefix, const char *name)
{
    printf(" %s%s:", prefix, name);
    for (char *line = strtok(contents(folder, name), "\n"); line; line = strtok(NULL, "\n")) {
        char *space = strchr(line, ' ');
        if (space && !atol(space + 1))
            continue;
        if (space)
            *space = '=';
        printf(" %s", line);
    }
    printf("\n");
}

static void print_cgroup(const char *folder, const char *prefix)
{
    static const char *const files[] = {"memory.current", "memory.peak", "memory.swap.current", "memory.events",
                                        "memory.swap.events", "memory.stat"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        print_file(folder, prefix, files[i]);
}

static void print_named_cgroups(const char *names)
{
    char words[400], folder[200], prefix[100];
    snprintf(words, sizeof words, "%s", names);
    for (char *at, *word = strtok_r(words, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
        snprintf(folder, sizeof folder, CGROUPS "/%.90s", word);
        snprintf(prefix, sizeof prefix, "%.90s/", word);
        print_cgroup(folder, prefix);
    }
}

static const char *const swap_counters[] = {"pswp",       "swpin",         "swpout",     "swap_ra",          "zswp",
                                            "thp_swpout", "nr_swapcached", "pgmajfault", "nr_anon_partial", NULL};
static const char *const reclaim_counters[] = {
    "pswp",           "swpin",        "swpout",        "swap_ra",       "pgmajfault",     "pgfault",
    "workingset",     "pgscan",       "pgsteal",       "pgactivate",    "pgdeactivate",   "pgrotated",
    "nr_swapcached",  "pgrefill",     "pgreuse",       "kswapd",        "pageoutrun",     "allocstall",
    "compact_",       "thp_split",    "thp_defer",     "nr_active_anon", "nr_inactive_anon", "pglazyfree",
    "zswp",           NULL};

void print_stats(const char *label, const char *cgroup, const char *named, int free_blocks)
{
    if (!cgroup && !named) {
        printf("STATS %s\n", label);
        print_sizes();
        print_vmstat(swap_counters, 1);
        print_swaps();
        if (free_blocks)
            print_free_memory();
        printf("ENDSTATS bad=%ld\n", shared->bad);
        return;
    }
    if (named) /* A read leaves up to 64 updates out; the worker that adds them comes every 2 s. */
        nanosleep(&(struct timespec){.tv_sec = 2, .tv_nsec = 200000000}, NULL);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("STATS %s t=%ld.%03ld\n", label, (long)now.tv_sec, now.tv_nsec / 1000000);
    print_sizes();
    print_vmstat(reclaim_counters, 0);
    if (free_blocks)
        print_free_memory();
    if (cgroup)
        print_cgroup(cgroup, "");
    if (named)
        print_named_cgroups(named);
    printf("ENDSTATS acc=%ld wr=%ld majflt=%ld minflt=%ld bad=%ld\n", shared->accesses, shared->writes,
           shared->major_faults, shared->minor_faults, shared->bad);
}
