"""Candidates in, scores out: the space of settings, metrics, objectives, and the run that measures them."""
