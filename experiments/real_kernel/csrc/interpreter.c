/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a workload inside the guest and prints its recording:
 *
 *     interpreter WORKLOAD [-m "SIZES"] [-g CGROUP] [-c "NAMES"] [-w] [-b]
 *
 * -m  mTHP sizes in kB to enable once everything but the region is in place: "16 64m" (m: madvise)
 * -g  folder of a cgroup that process 0 joins before it maps the region; after each operation a line
 *     "OP ... : seconds s" says how long it took
 * -c  the cgroups that CGROUP operations name, which exist; STATS print their files too, as NAME/memory.stat
 * -w  after each PAGEOUT wait until nothing is under writeback (devices that write asynchronously)
 * -b  STATS also say how many blocks of each size are free (/proc/buddyinfo)
 *
 * The last line is "OPS n bad=m", or "OPSDONE dead" where a process was killed. Exit status 1 and a line
 * "FAILED ..." if an operation could not be done. */
#define _GNU_SOURCE
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared *shared;
unsigned char *filled[PROCESSES];
static const char *cgroup, *named, *sizes;
static int settle, free_blocks, dead;
static long scans; /* of khugepaged, before the region is mapped */

static void *share(size_t length)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return memset(memory, 0, length); /* it is there, and charged to the controller, from now on */
}

static void prepare(void)
{
    shared = share(sizeof *shared);
    shared->drain = get_nprocs() > 1;
    shared->done = eventfd(0, 0);
    for (int i = 0; i < PROCESSES; i++)
        shared->go[i] = eventfd(0, 0);
    double total = 0;
    for (int i = 0; i < ZIPF_PAGES; i++)
        shared->zipf[i] = total += floor(ldexp(pow(i + 1, -0.99), 40));
}

static void set_file(const char *path, const char *value)
{
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, value, strlen(value)) < 0)
        fail("%s: %s", path, strerror(errno));
    if (file >= 0)
        close(file);
}

/* khugepaged scans when it starts and whenever its list stops being empty, then sleeps (for good: the guest's
 * script has said so). With pages_to_scan 1 a scan ends at the first 2 MiB it looks at, so a process that heads
 * the list with a large empty range keeps it away from the workload. */
static void keep_khugepaged_away(void)
{
    enum { EMPTY = 1 << 30 };
    uint64_t count = 1;
    if (!fork()) {
        char *empty = mmap(NULL, EMPTY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (empty == MAP_FAILED)
            fail("the empty range: %s", strerror(errno));
        /* A range enters the list only if it has a page and if 2 MiB pages are enabled at that moment. */
        empty[EMPTY - 1] = 1;
        set_file(THP "/hugepages-2048kB/enabled", "always");
        if (madvise(empty, EMPTY, MADV_HUGEPAGE))
            fail("the empty range: %s", strerror(errno));
        set_file(THP "/hugepages-2048kB/enabled", "never");
        if (write(shared->done, &count, sizeof count) == sizeof count)
            for (;;)
                pause();
        _exit(1);
    }
    if (read(shared->done, &count, sizeof count) != sizeof count)
        fail("the empty range: no answer");
}

/* How often khugepaged has come to the end of its list, where the workload's processes are. */
static long khugepaged_scans(void)
{
    long count = -1;
    FILE *file = fopen(THP "/khugepaged/full_scans", "r");
    if (!file || fscanf(file, "%ld", &count) != 1)
        fail("khugepaged/full_scans cannot be read");
    if (file)
        fclose(file);
    return count;
}

static void enable_sizes(void)
{
    char words[400], path[100];
    snprintf(words, sizeof words, "%s", sizes ? sizes : "");
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
        size_t length = strlen(word);
        int advised = word[length - 1] == 'm';
        snprintf(path, sizeof path, THP "/hugepages-%.*skB/enabled", (int)length - advised, word);
        set_file(path, advised ? "madvise" : "always");
    }
}

/* Wakes a process for one operation and waits for its end. */
static void tell(int process, const char *line)
{
    uint64_t count = 1;
    struct pollfd done = {.fd = shared->done, .events = POLLIN};
    int status;
    if (process < 0 || process >= PROCESSES || !shared->pid[process]) {
        fail("there is no process %d: %s", process, line);
        return;
    }
    snprintf(shared->line, sizeof shared->line, "%s", line);
    if (write(shared->go[process], &count, sizeof count) != sizeof count)
        fail("process %d cannot be woken", process);
    if (!strncmp(line, "EXIT", 4)) {
        /* A process that can be waited for has given its memory back. */
        waitpid(shared->pid[process], &status, 0);
        shared->pid[process] = 0;
        return;
    }
    while (poll(&done, 1, 200) != 1)
        if (waitpid(shared->pid[process], &status, WNOHANG) == shared->pid[process]) {
            printf("CHILD DIED status %x in op %s after %ld accesses\n", status, line, shared->accesses);
            shared->pid[process] = 0;
            dead = 1;
            return;
        }
    if (read(shared->done, &count, sizeof count) != sizeof count)
        fail("process %d does not answer", process);
}

static void wait_for_writeback(void)
{
    for (long under = 1; under;) {
        char name[80];
        set_file("/proc/sys/vm/stat_refresh", "1");
        FILE *file = fopen("/proc/vmstat", "r");
        while (file && fscanf(file, "%79s %ld", name, &under) == 2 && strcmp(name, "nr_writeback"))
            ;
        if (file)
            fclose(file);
        if (under)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static void join(int process, const char *folder)
{
    char line[300];
    snprintf(line, sizeof line, "JOIN %s/cgroup.procs", folder);
    tell(process, line);
}

static void start(const char *line)
{
    long npages = 0;
    sscanf(line, "%*s %ld", &npages);
    shared->npages = npages;
    for (int i = 0; i < PROCESSES; i++)
        filled[i] = share(npages);
    pid_t pid = fork();
    if (!pid)
        serve(0);
    shared->pid[0] = pid;
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* the controller's memory shows in no mTHP counter */
    if (cgroup)
        join(0, cgroup);
    else
        tell(0, "MADVHUGE 0 0"); /* changes nothing; after it the process is known to be up */
    enable_sizes();
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* khugepaged looks around and goes to sleep */
    scans = khugepaged_scans();
    tell(0, line);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* Cuts "@C " and "pN " from the front of a line; returns the process. */
static int prefixes(char **line)
{
    int process = 0, used = 0;
    shared->cpu = 0;
    if (sscanf(*line, " @%d %n", &shared->cpu, &used) == 1 && used)
        *line += used;
    used = 0;
    if (sscanf(*line, " p%d %n", &process, &used) == 1 && used)
        *line += used;
    return process;
}

static void run(char *line)
{
    char op[40] = "", first[300] = "", second[100] = "";
    int process = prefixes(&line);
    sscanf(line, "%39s %299s %99s", op, first, second);
#define IS(name) (!strcmp(op, name))
    if (IS("REGION"))
        start(line);
    else if (!shared->npages)
        fail("before REGION: %s", line);
    else if (IS("DUMP") || IS("FOLIOS")) {
        if (process < 0 || process >= PROCESSES || !shared->pid[process])
            fail("there is no process %d: %s", process, line);
        else
            (IS("DUMP") ? print_dump : print_folios)(first, shared->pid[process]);
    } else if (IS("STATS"))
        print_stats(first, cgroup, named, free_blocks);
    else if (IS("CGROUP")) {
        char folder[200];
        snprintf(folder, sizeof folder, CGROUPS "/%.100s", first);
        join(process, folder);
    } else if (IS("SET"))
        set_file(first, second);
    else if (IS("ECHO"))
        printf("%s\n", line);
    else {
        double started = seconds();
        tell(process, line);
        if (cgroup || named)
            printf("OP %s : %.3f s\n", line, seconds() - started);
        if (settle && IS("PAGEOUT"))
            wait_for_writeback();
    }
#undef IS
}

int main(int count, char **arguments)
{
    char line[LINE];
    long operations = 0;
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    for (int option; (option = getopt(count, arguments, "m:g:c:wb")) != -1;) {
        sizes = option == 'm' ? optarg : sizes;
        cgroup = option == 'g' ? optarg : cgroup;
        named = option == 'c' ? optarg : named;
        settle |= option == 'w';
        free_blocks |= option == 'b';
    }
    FILE *file = fopen(arguments[optind] ? arguments[optind] : "", "r");
    if (!file) {
        perror("workload");
        return 1;
    }
    prepare();
    keep_khugepaged_away();
    while (!dead && !*shared->failed && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char word[2];
        if (sscanf(line, "%1s", word) != 1 || *word == '#')
            continue;
        operations++;
        run(line);
        fflush(stdout);
    }
    if (shared->npages && khugepaged_scans() != scans)
        fail("khugepaged has come as far as the workload");
    if (*shared->failed) {
        printf("FAILED %s\n", shared->failed);
        return 1;
    }
    if (dead) {
        print_stats("died", cgroup, named, free_blocks);
        printf("OPSDONE dead\n");
        return 0;
    }
    for (int i = PROCESSES - 1; i >= 0; i--)
        if (shared->pid[i])
            tell(i, "EXIT");
    printf("OPS %ld bad=%ld\n", operations, shared->bad);
    return 0;
}
