"""Page frames: free lists of blocks of 2^order frames, and the states they may start in.

Knows nothing of pages, folios or workloads.
"""

from jaxswap.frames.recorded import free_blocks
from jaxswap.frames.start import (
    Frames,
    Start,
    buddyinfo_text,
    frames_text,
    parse_buddyinfo,
    parse_frames,
)

__all__ = [
    "Frames",
    "Start",
    "buddyinfo_text",
    "frames_text",
    "free_blocks",
    "parse_buddyinfo",
    "parse_frames",
]
