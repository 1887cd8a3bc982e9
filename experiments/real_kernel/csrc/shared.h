/* SPDX-License-Identifier: Apache-2.0
 *
 * What the controller and the processes of a workload share: one mapping, touched first by the controller.
 *
 * The controller reads the workload and prints; it never maps the region. Process 0 and the children it forks
 * hold the region and do the memory operations, one at a time: the controller writes a line here, wakes one
 * process and waits. The region is the only private memory a process touches between two operations. */
#ifndef REAL_KERNEL_SHARED_H
#define REAL_KERNEL_SHARED_H

#include <stdint.h>
#include <sys/types.h>

#define CGROUPS "/sys/fs/cgroup"
#define THP "/sys/kernel/mm/transparent_hugepage"

enum { PAGE = 4096, PROCESSES = 16, LINE = 400, ZIPF_PAGES = 16384 };

struct shared {
    unsigned char *base; /* of the region, the same in every process */
    long npages;
    long bad;              /* pages that did not hold what was written to them */
    long accesses, writes; /* of generated accesses */
    long major_faults, minor_faults;
    int drain;         /* empty this CPU's LRU batches after each operation */
    int cpu;           /* where the next operation runs */
    char line[LINE];   /* the next operation */
    char failed[LINE]; /* why the last operation could not be done; empty if it was */
    pid_t pid[PROCESSES]; /* 0: no such process */
    int go[PROCESSES], done; /* eventfds */
    uint64_t zipf[ZIPF_PAGES];
};

extern struct shared *shared;
extern unsigned char *filled[PROCESSES]; /* a byte a page: it holds the page's pattern */

/* Serves operations as process `self` until EXIT. */
void serve(int self) __attribute__((noreturn));

/* Generated accesses (INIT, SEQ, UNI, ZIPF, HOT, STRIDE); 0 if the line holds none. */
int generated(const char *line);

/* Says why an operation failed; the controller ends the run. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Blocks on standard output. */
void print_dump(const char *label, pid_t pid);
void print_folios(const char *label, pid_t pid);
void print_stats(const char *label, const char *cgroup, const char *named, int free_blocks);

#endif
