"""The search for heuristics: a typed space, proposals, rounds of replays, fits, held-out workloads."""
