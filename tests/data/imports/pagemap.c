/* Prints the words of /proc/self/pagemap for a mapping of 2 MiB, half of it swapped out in folios of 64 kB. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 512

static void copy(const char *path)
{
	char line[4096];
	FILE *file = fopen(path, "r");

	printf("FILE %s\n", path);
	while (file && fgets(line, sizeof line, file))
		fputs(line, stdout);
	printf("END\n");
}

int main(void)
{
	char *large = mmap(0, 4 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start = (char *)(((uintptr_t)large + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
	uint64_t words[PAGES];

	mmap(start, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (int page = 0; page < PAGES - 64; page++)
		memset(start + page * 4096, page + 1, 4096);
	madvise(start, 256 * 4096, MADV_PAGEOUT);
	for (int page = 0; page < 64; page += 5)
		start[page * 4096] = 1;
	madvise(start + 100 * 4096, 20 * 4096, MADV_DONTNEED);
	int file = open("/proc/self/pagemap", O_RDONLY);
	if (pread(file, words, sizeof words, (uintptr_t)start / 4096 * 8) != sizeof words)
		return 1;
	copy("/proc/self/maps");
	copy("/proc/self/comm");
	copy("/proc/swaps");
	printf("WORDS %lx\n", (unsigned long)start / 4096);
	for (int page = 0; page < PAGES; page++)
		printf("%016lx%c", (unsigned long)words[page], page % 4 == 3 ? '\n' : ' ');
	printf("END\n");
	return 0;
}
