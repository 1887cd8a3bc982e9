"""A figure as files: how all of them look, and the PNG and PDF of one."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from jaxswap.workload.files import write_atomic

WIDTH = 7.0
COLUMN = 3.33
"""Inches: two columns of a paper, and one."""
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "pdf.fonttype": 42,
    "figure.dpi": 200,
}


def write_image(
    draw: Callable[[], Figure],
    stem: Path,
    style: Mapping[Any, Any] = STYLE,
    smaller: Callable[[bytes], bytes] = lambda png: png,
) -> Path:
    """Write STEM.png and STEM.pdf; returns the path of the PNG.

    draw is called under the style. smaller: what is done to the PNG before it is written.
    """
    with matplotlib.rc_context(dict(style)):
        figure = draw()
        # no date, so that equal results give equal files
        for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata)
            made = buffer.getvalue()
            write_atomic(
                stem.with_name(f"{stem.name}.{suffix}"), smaller(made) if suffix == "png" else made, "figure"
            )
    return stem.with_name(f"{stem.name}.png")
