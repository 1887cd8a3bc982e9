"""Counters into tables that paste into a mail, and figures with their numbers beside them."""
