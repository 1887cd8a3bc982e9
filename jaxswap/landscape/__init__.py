"""Snapshots of swap: tables aged by the slot allocator, and what each order would get on them."""
