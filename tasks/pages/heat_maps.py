"""Heat-maps of patches: where, in the original frame, each of the sixteen patches of a photo seems to come from.

Patches and cells are numbered row by row (y, then x). Each patch's 4 x 4 map stands where the patch is in the photo.
"""

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image, ImageDraw

from tasks.pages.figures import PALETTE

GRID = 4
GAP_PX = 6
COLOURS = colormaps["magma"]
LEAST_PEAK = 0.25  # of a map: below it no cell is brightest, and a map that says nothing stays dark


def heat_maps(
    probabilities: npt.NDArray[np.floating], width_px: int, height_px: int,
    true_cells: npt.NDArray[np.integer] | None = None,
) -> Image.Image:  # fmt: skip
    """Sixteen maps (16 patches x 16 cells), bright for probable; the true cell has a green frame."""
    sheet = Image.new("RGB", (width_px, height_px), "white")
    pen = ImageDraw.Draw(sheet)
    wide, high = ((side - GAP_PX * (GRID - 1)) / GRID for side in (width_px, height_px))
    for patch, shares in enumerate(np.asarray(probabilities, np.float64).reshape(GRID**2, GRID**2)):
        row, column = divmod(patch, GRID)
        left, top = column * (wide + GAP_PX), row * (high + GAP_PX)
        colours = (255 * COLOURS(shares / max(float(shares.max()), LEAST_PEAK))[:, :3]).astype(np.uint8)
        for cell in range(GRID**2):
            pen.rectangle(_cell(cell, left, top, wide, high), fill=tuple(colours[cell].tolist()))
        if true_cells is not None:
            pen.rectangle(_cell(int(true_cells[patch]), left, top, wide, high), outline=PALETTE["true"], width=2)
    return sheet


def _cell(cell: int, left: float, top: float, wide: float, high: float) -> tuple[int, int, int, int]:
    """The pixels of a cell of the map at (left, top), first and last included."""
    row, column = divmod(cell, GRID)
    x, y = (round(start + side * place / GRID) for start, side, place in ((left, wide, column), (top, high, row)))
    x_end, y_end = (
        round(start + side * (place + 1) / GRID) - 1 for start, side, place in ((left, wide, column), (top, high, row))
    )
    return x, y, x_end, y_end
