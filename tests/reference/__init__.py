"""Plain-Python oracles: one thing at a time, written to be read beside the kernel."""
