/* SPDX-License-Identifier: Apache-2.0
 *
 * Several threads fault on the same swapped-out ranges:
 *
 *     threads THREADS ROUNDS RANGES MODE
 *
 * The region is RANGES aligned ranges of 64 kB. In every round thread 0 pages all of it out, then all threads,
 * thread t on CPU t modulo the number of CPUs, do what MODE says:
 *
 *     same      walk all pages in order, together at the start of each range
 *     near      together at each range, each thread reads another page of it
 *     nearw     as near, but writes
 *     rand      read pages at random
 *     evict     every other thread pages out ranges at random, the others read
 *     evicthot  as evict, in the first 64 pages
 *     dn        thread 1 drops single pages and pages out ranges, the others read
 *     willneed  together at each range, every other thread asks for two pages with MADV_WILLNEED
 *     fork      no threads: THREADS - 1 children share the swapped-out region, and all read it
 *
 * Prints one line "MT MODE ... bad=N": N pages did not hold what was written to them. Exit status 1 if there are. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define RANGE 16L /* pages */
#define HUGE_BLOCK (2UL << 20)

static unsigned char *base;
static int threads, rounds;
static long ranges, pages;
static const char *mode;
static volatile long bad;
static volatile int arrived, generation;
static volatile unsigned long sink;

static int is(const char *name)
{
	return !strcmp(mode, name);
}

/* Spins, so that all leave it within the time of a few instructions. */
static void together(void)
{
	int now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == threads) {
		arrived = 0;
		__atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
		return;
	}
	for (unsigned spins = 0; __atomic_load_n(&generation, __ATOMIC_ACQUIRE) == now; spins++)
		if (spins > 2000) {
			sched_yield();
			spins = 0;
		}
}

static uint64_t mark(long page)
{
	return (uint64_t)page << 32 | 0xabcd;
}

/* A dropped page reads as zero. */
static void check(long page)
{
	uint64_t found = *(volatile uint64_t *)(base + page * PAGE + 8);

	if (found && found != mark(page))
		__atomic_add_fetch(&bad, 1, __ATOMIC_RELAXED);
	sink += found;
}

static void fill(long page)
{
	uint64_t *word = (uint64_t *)(base + page * PAGE), x = (uint64_t)page * 0x9E3779B97F4A7C15ULL + 1;

	for (long i = 2; i < PAGE / 8; i++) { /* compresses by half */
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		word[i] = i & 3 ? ((uint64_t)page << 32 | i) : (x | 1);
	}
	word[0] = 1;
	word[1] = mark(page);
}

static void hint(long page, long count, int advice)
{
	madvise(base + page * PAGE, count * PAGE, advice);
}

static void page_out(long page)
{
	hint(page & -RANGE, RANGE, MADV_PAGEOUT);
}

static void on_cpu(long number)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(number % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
	sched_setaffinity(0, sizeof cpus, &cpus);
}

static void one_round(long thread, int round, unsigned *seed)
{
	if (is("same"))
		for (long page = 0; page < pages; page++) {
			if (page % RANGE == 0)
				together();
			check(page);
		}
	for (long range = 0; range < ranges && (is("near") || is("nearw")); range++) {
		long page = range * RANGE + (thread * 5 + round) % RANGE;

		together();
		if (is("near"))
			check(page);
		else
			*(volatile unsigned char *)(base + page * PAGE + 4000) ^= 1;
	}
	for (long range = 0; range < ranges && is("willneed"); range++) {
		together();
		if (thread & 1)
			hint(range * RANGE + 3, 2, MADV_WILLNEED);
		else
			check(range * RANGE + 8);
	}
	for (long i = 0; i < ranges * 2 && is("rand"); i++)
		check(rand_r(seed) % pages);
	for (long i = 0; i < ranges * 4 && (is("evict") || is("evicthot")); i++) {
		long page = rand_r(seed) % (is("evict") ? pages : 64);

		if (thread & 1)
			page_out(page);
		else
			check(page);
	}
	for (long i = 0; i < ranges * 4 && is("dn"); i++) {
		long page = rand_r(seed) % pages;

		if (thread != 1)
			check(page);
		else if (i & 1)
			hint(page, 1, MADV_DONTNEED);
		else
			page_out(page);
	}
}

static void *thread_main(void *argument)
{
	long thread = (long)argument;
	unsigned seed = 977 + thread * 131 + 7;

	on_cpu(thread);
	for (int round = 0; round < rounds; round++) {
		together();
		if (thread == 0 && madvise(base, pages * PAGE, MADV_PAGEOUT))
			perror("MADV_PAGEOUT");
		together();
		one_round(thread, round, &seed);
	}
	return 0;
}

static void share_with_children(void)
{
	madvise(base, pages * PAGE, MADV_PAGEOUT);
	for (int child = 0; child < threads - 1; child++)
		if (!fork()) {
			on_cpu(child + 1);
			for (long page = 0; page < pages; page++)
				check((page + child * 3) % pages);
			_exit(bad ? 1 : 0);
		}
	for (long page = 0; page < pages; page++)
		check(page);
	for (int status; wait(&status) > 0;)
		bad += status != 0;
}

int main(int count, char **word)
{
	struct timespec from, to;
	pthread_t other[64];

	if (count != 5 || atoi(word[1]) < 1 || atoi(word[1]) > 64)
		return 2;
	threads = atoi(word[1]);
	rounds = atoi(word[2]);
	ranges = atol(word[3]);
	pages = ranges * RANGE;
	mode = word[4];
	base = mmap(0, pages * PAGE + HUGE_BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return 2;
	base = (unsigned char *)(((uintptr_t)base + HUGE_BLOCK - 1) & -HUGE_BLOCK);
	madvise(base, pages * PAGE, MADV_HUGEPAGE);
	for (long page = 0; page < pages; page++)
		fill(page);
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (is("fork")) {
		for (int round = 0; round < rounds; round++)
			share_with_children();
	} else {
		for (long thread = 1; thread < threads; thread++)
			pthread_create(&other[thread], 0, thread_main, (void *)thread);
		thread_main(0);
		for (long thread = 1; thread < threads; thread++)
			pthread_join(other[thread], 0);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("MT %s T=%d R=%d NF=%ld bad=%ld sec=%.2f\n", mode, threads, rounds, ranges, bad,
	       (to.tv_sec - from.tv_sec) + (to.tv_nsec - from.tv_nsec) / 1e9);
	return bad != 0;
}
