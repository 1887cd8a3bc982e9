/* A graph of 2^15 nodes and 2^19 edges with skewed degrees (R-MAT): built as CSR, searched in breadth, then two
 * rounds of PageRank. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define SCALE 15
#define NODES (1u << SCALE)
#define EDGES (1u << 19)

static uint64_t state = 0x853c49e6748fea9bull;

static uint32_t draw(void)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33);
}

int main(void)
{
	uint32_t *from = malloc(EDGES * sizeof *from), *to = malloc(EDGES * sizeof *to);
	uint32_t *start = calloc(NODES + 1, sizeof *start), *target = malloc(EDGES * sizeof *target);
	uint32_t *depth = malloc(NODES * sizeof *depth), *queue = malloc(NODES * sizeof *queue);
	/* 64 bytes a node, as in a graph with properties */
	struct node { double rank, next; uint64_t property[6]; } *node = calloc(NODES, sizeof *node);
	uint32_t head = 0, tail = 0;
	double sum = 0;

	if (!from || !to || !start || !target || !depth || !queue || !node)
		return 1;
	for (uint32_t e = 0; e < EDGES; e++) {
		uint32_t a = 0, b = 0, bits = draw(), more = draw();

		for (int level = 0; level < SCALE; level++) {
			/* quarters with odds 9/16, 3/16, 3/16, 1/16 */
			a = a << 1 | ((bits >> 2 * level & 3) == 0);
			b = b << 1 | ((more >> 2 * level & 3) == 0);
		}
		from[e] = a * 40503u % NODES;
		to[e] = b * 40503u % NODES;
		start[from[e] + 1]++;
	}
	for (uint32_t v = 0; v < NODES; v++)
		start[v + 1] += start[v];
	for (uint32_t e = EDGES; e-- > 0;)
		target[--start[from[e] + 1]] = to[e];
	/* start[v + 1] is now where v begins */
	for (uint32_t v = 0; v < NODES; v++)
		start[v] = start[v + 1];
	start[NODES] = EDGES;
	free(from);
	free(to);

	for (uint32_t v = 0; v < NODES; v++) {
		depth[v] = UINT32_MAX;
		node[v].rank = 1.0 / NODES;
	}
	depth[0] = 0;
	queue[tail++] = 0;
	while (head < tail) {
		uint32_t v = queue[head++];

		for (uint32_t e = start[v]; e < start[v + 1]; e++)
			if (depth[target[e]] == UINT32_MAX) {
				depth[target[e]] = depth[v] + 1;
				queue[tail++] = target[e];
			}
	}
	for (int round = 0; round < 2; round++) {
		for (uint32_t v = 0; v < NODES; v++)
			for (uint32_t e = start[v]; e < start[v + 1]; e++)
				node[target[e]].next += 0.85 * node[v].rank / (start[v + 1] - start[v]);
		for (uint32_t v = 0; v < NODES; v++) {
			node[v].rank = 0.15 / NODES + node[v].next;
			node[v].next = 0;
		}
	}
	for (uint32_t v = 0; v < NODES; v++)
		sum += node[v].rank;
	printf("%u reached, sum %g\n", tail, sum);
	return 0;
}
