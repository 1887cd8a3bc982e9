"""Tables of swap slots and bulk kernels over millions of them. See docs/swaptable.md."""

from jaxswap.swaptable.alloc import (
    Levels,
    Queues,
    Requests,
    alloc_alone,
    alloc_queued,
    cache_alloc,
    levels_of,
    make_queues,
    make_requests,
    passing,
)
from jaxswap.swaptable.check import SecondCheck, add_check, add_check_second, check_kept, check_table
from jaxswap.swaptable.entry import Entry, SwapTable, decode, encode, make_table
from jaxswap.swaptable.forms import FORMS, MERGED, Form, form_named
from jaxswap.swaptable.outcome import REASONS, Outcome
from jaxswap.swaptable.planes import CheckPlanes, Planes, keep, pyramid, suits, table_planes

__all__ = [
    "FORMS",
    "MERGED",
    "REASONS",
    "CheckPlanes",
    "Entry",
    "Form",
    "Levels",
    "Outcome",
    "Planes",
    "Queues",
    "Requests",
    "SecondCheck",
    "SwapTable",
    "add_check",
    "add_check_second",
    "alloc_alone",
    "alloc_queued",
    "cache_alloc",
    "check_kept",
    "check_table",
    "decode",
    "encode",
    "form_named",
    "keep",
    "levels_of",
    "make_queues",
    "make_requests",
    "make_table",
    "passing",
    "pyramid",
    "suits",
    "table_planes",
]
