"""The search for heuristics: a typed space, proposals, rounds of replays, held-out workloads."""
