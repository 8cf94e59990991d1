"""Figures of categories, in the style of ``figures.py``: what an evaluation holds in, SVG bytes out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from tasks.pages.figures import ACCENT, drawing

NAMED = 32  # labels: more are too many to be read at an axis
SIDE_INCHES = (4.1, 9.0)
INCHES_A_LABEL = 0.24
SHADES = LinearSegmentedColormap.from_list("shares", [(0, "#ffffff00"), (1, ACCENT)])


def confusion(labels: Sequence[str], photos: Sequence[Sequence[int]]) -> bytes:
    """Photos by label (rows) and by what they were called (columns), each cell as dark as its share of the row."""
    matrix = np.asarray(photos, np.float64)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with drawing("confusion") as sheet:
        side = float(np.clip(1.6 + INCHES_A_LABEL * len(labels), *SIDE_INCHES))
        sheet.figure.set_size_inches(side, side)
        axes = sheet.axes
        axes.pcolormesh(
            np.arange(len(labels) + 1) - 0.5, np.arange(len(labels) + 1) - 0.5, shares, cmap=SHADES, vmin=0, vmax=1
        )
        axes.set(xlabel="called", ylabel="label", aspect="equal")
        axes.invert_yaxis()
        axes.grid(visible=False)
        places = range(len(labels)) if len(labels) <= NAMED else []
        axes.set_xticks(places, [labels[each] for each in places], rotation=90)
        axes.set_yticks(places, [labels[each] for each in places])
        if len(labels) <= 12:
            for (row, column), count in np.ndenumerate(matrix):
                if count:
                    axes.text(column, row, f"{count:,.0f}", ha="center", va="center", fontsize=7.5)
    return sheet.svg
