"""The search for heuristics: a typed space, ways to propose settings, rounds of replays, fits."""
