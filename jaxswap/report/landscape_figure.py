"""The landscape's figure: a row a mix, a column an occupancy; for each order a bar an age, cut by reason."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxswap.landscape.faults import REASONS, SWAPIN_ORDERS
from jaxswap.landscape.run import Landscape
from jaxswap.report.image import WIDTH, write_image
from jaxswap.swaptable.geometry import SIZE_NAMES

_COLOURS = {
    "vma_edge": "#BBBBBB",
    "alignment": "#0072B2",
    "pte_gap": "#E69F00",
    "cached": "#56B4E9",
    "zero": "#D55E00",
    "memcg": "#009E73",
}
_OTHER = "0.2"


def draw_landscape(made: Landscape, lines: Sequence[str], stem: Path, names: Mapping[str, str]) -> None:
    """Write STEM.png and STEM.pdf; the data is in refusals.csv. names: of the reasons."""
    write_image(lambda: _figure(made, lines, names), stem)


def _figure(made: Landscape, lines: Sequence[str], names: Mapping[str, str]) -> Figure:
    config = made.config
    rows, columns = len(config.mixes), len(config.occupancies)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.35 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for mix, occupancy in np.ndindex(rows, columns):
        axes = grid[mix, occupancy]
        assert isinstance(axes, Axes)
        _panel(axes, made, mix, occupancy)
        if not mix:
            axes.set_title(f"{config.occupancies[occupancy]:.0%} of the slots in use")
        if not occupancy:
            shown = str(config.mixes[mix]).partition(" (")
            axes.set_ylabel(f"{shown[0]}\n{textwrap.fill(shown[2].rstrip(')'), 22)}\n% of faults refused")
    reasons = [reason for number, reason in enumerate(REASONS) if made.alone[..., 1 + number].any()]
    ages = ", ".join(f"{age:g}" for age in config.ages)
    figure.legend(
        handles=[Patch(color=_COLOURS.get(reason, _OTHER), label=names[reason]) for reason in reasons],
        loc="outside lower center",
        ncols=max(len(reasons), 1),
        frameon=False,
        title="refused if only this order were enabled, by the first reason\n"
        f"bars from left to right: the device written over {ages} times; "
        f"whiskers: least and most of {config.repeats} tables",
        title_fontsize=6.5,
    )
    caption = "\n".join(textwrap.fill(line, 210) for line in lines)
    figure.suptitle(caption, fontsize=5, color="0.35", x=0.01, ha="left")
    return figure


def _panel(axes: Axes, made: Landscape, mix: int, occupancy: int) -> None:
    """One mix and occupancy."""
    config = made.config
    ages = len(config.ages)
    width = 0.84 / ages
    found = 100 * made.alone[mix, occupancy] / config.faults  # repeats, ages, orders, outcomes
    x = np.arange(len(SWAPIN_ORDERS))
    for age in range(ages):
        place = x + (age - (ages - 1) / 2) * width
        below = np.zeros(len(x))
        for number, reason in enumerate(REASONS):
            height = found[:, age, :, 1 + number].mean(axis=0)
            if height.any():
                colour = _COLOURS.get(reason, _OTHER)
                axes.bar(place, height, 0.88 * width, below, color=colour, linewidth=0, zorder=2)
            below += height
        refused = 100 - found[:, age, :, 0]
        axes.vlines(place, refused.min(axis=0), refused.max(axis=0), color="black", linewidth=0.7, zorder=3)
    axes.set_xticks(x, [SIZE_NAMES[order].removesuffix("kB") for order in SWAPIN_ORDERS])
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 25))
    axes.grid(axis="y", color="0.9", linewidth=0.4, zorder=0)
    axes.tick_params(length=2, width=0.4)
    if axes.get_subplotspec().is_last_row():  # pyright: ignore[reportOptionalMemberAccess]
        axes.set_xlabel("order, as folio size in kB")
