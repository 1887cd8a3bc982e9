"""Timings beside plain C, on the machine at hand."""
