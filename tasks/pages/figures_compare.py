"""The figure of a comparison, in the style of ``figures.py``: what each arm gains over the trivial answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tasks.pages.figures import ACCENT, INK, KEPT, MUTED, REJECTED, SECOND, drawing

COLOURS = (KEPT, SECOND, ACCENT, REJECTED)  # of the arms in their order; more begin again
WIDTH_INCHES, PANEL_INCHES, MARGIN_INCHES = 5.6, 1.35, 0.45
BAR_WIDTH = 0.55


def ablation(figures: Sequence[Mapping[str, Any]]) -> bytes:
    """One panel a figure: a bar for each arm, from the baseline (dashed) to its value, with the 95 % interval.

    Dots are single seeds. ``figures``: as ``models.comparison.compare`` gives them; an arm without a figure has a gap.
    """
    arms = list(dict.fromkeys(each["arm"] for figure in figures for each in figure["arms"]))
    with drawing("ablation", heights=[1.0] * max(1, len(figures))) as sheet:
        sheet.figure.set_size_inches(WIDTH_INCHES, MARGIN_INCHES + PANEL_INCHES * max(1, len(figures)))
        for axes, figure in zip(sheet.panels, figures, strict=False):
            _panel(axes, figure, arms)
        last = sheet.panels[-1]
        last.set_xticks(range(len(arms)), [arm.replace("_", " ") for arm in arms])
        last.set_xlim(-0.6, max(0, len(arms) - 1) + 0.6)
    return sheet.svg


def _panel(axes: Axes, figure: Mapping[str, Any], arms: Sequence[str]) -> None:
    """The arms of one figure; its name and the better direction above, the baseline dashed."""
    axes.use_sticky_edges = False  # a bar begins at the baseline, which is to be seen
    baseline = figure["baseline"]
    for each in figure["arms"]:
        place, colour = arms.index(each["arm"]), COLOURS[arms.index(each["arm"]) % len(COLOURS)]
        axes.bar(place, each["value"] - baseline, BAR_WIDTH, bottom=baseline, color=colour, alpha=0.75)
        reach = np.clip([[each["value"] - each["low"]], [each["high"] - each["value"]]], 0, None)
        axes.errorbar(place, each["value"], yerr=reach, fmt="none", ecolor=INK, elinewidth=1.1, capsize=4)
        seeds = list(each["by_seed"].values())
        if len(seeds) > 1:
            shift = np.linspace(-0.12, 0.12, len(seeds))
            axes.plot(place + shift, seeds, "o", color=INK, markersize=2.5, alpha=0.7)
    axes.axhline(baseline, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    unit = f", {figure['unit']}" if figure["unit"] else ""
    axes.set_title(f"{figure['label']}{unit}: {figure['better']} is better", loc="left", fontsize=8.5, color=INK)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
