/* Hash join: chained buckets over 120,000 rows of a build table, probed by 120,000 rows in random order. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BUILD 120000
#define PROBE 120000
#define BUCKETS (1 << 17)

struct row {
	uint64_t key;
	uint64_t payload[5];
	struct row *next;
};

static uint64_t state = 88172645463325252ull;

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint32_t bucket(uint64_t key)
{
	return (uint32_t)(key * 0x9E3779B97F4A7C15ull >> 47);
}

int main(void)
{
	struct row *build = calloc(BUILD, sizeof *build);
	struct row **heads = calloc(BUCKETS, sizeof *heads);
	uint64_t *out = malloc(PROBE * 2 * sizeof *out);
	uint64_t found = 0;

	if (!build || !heads || !out)
		return 1;
	for (uint32_t i = 0; i < BUILD; i++) {
		struct row *row = &build[i];
		struct row **head = &heads[bucket(i)];

		row->key = i;
		row->payload[i % 5] = draw();
		row->next = *head;
		*head = row;
	}
	for (uint32_t i = 0; i < PROBE; i++) {
		/* two of three probes find a row */
		uint64_t key = draw() % (BUILD * 3 / 2);

		for (struct row *row = heads[bucket(key)]; row; row = row->next)
			if (row->key == key) {
				out[2 * found] = key;
				out[2 * found + 1] = row->payload[key % 5];
				found++;
			}
	}
	printf("%llu\n", (unsigned long long)found);
	return 0;
}
