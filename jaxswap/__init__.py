"""Sweep large-folio order heuristics on a model of the Linux swap path."""

__version__ = "0.1.0"
