"""How crops are drawn, where the cells of a crop lie in its frame, and what answers score that look at no photo.

Shapes: N samples, P = 16 cells or patches, row by row (class = column + 4 x row); a rectangle is (x1, x2, y1, y2), in
that order, as fractions of the original frame; an uncropped photo is (0, 1, 0, 1).
Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021 (arXiv 2011.11831), and the authors' code.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.crops.spec import GRID, CropLaw
from models.metrics import rectangle_iou, size_factor

Floats = NDArray[np.float64]
WHOLE = (0.0, 1.0, 0.0, 1.0)
EDGES = ("left", "right", "top", "bottom")
CROP_DRAWS = 5  # uniform numbers that one rectangle takes
CELLS = GRID * GRID

_CENTRE = (np.arange(GRID) + 0.5) / GRID
CELL_CENTRES_P2: Floats = np.stack([np.tile(_CENTRE, GRID), np.repeat(_CENTRE, GRID)], axis=1)  # x, y


def draw_rectangles(draws_N5: Floats, law: CropLaw) -> tuple[Floats, NDArray[np.bool_]]:
    """Rectangles [N, 4] and whether each is a crop [N], from five uniform numbers in [0, 1) a sample.

    The linear size factor s is U(min, max) on both axes, so the aspect ratio stays; the place is uniform, then
    one of the four edges, drawn uniformly, is pinned to the frame's border: every crop touches at least one border.
    """
    chance, size, place_x, place_y, edge = draws_N5.T
    is_crop = chance < law.crop_probability
    s = np.where(is_crop, law.min_size_factor + size * (law.max_size_factor - law.min_size_factor), 1.0)
    side = np.minimum((edge * 4).astype(int), 3)
    x1 = np.select([side == 0, side == 1], [np.zeros_like(s), 1 - s], place_x * (1 - s))
    y1 = np.select([side == 2, side == 3], [np.zeros_like(s), 1 - s], place_y * (1 - s))
    return np.stack([x1, np.minimum(x1 + s, 1), y1, np.minimum(y1 + s, 1)], axis=1), is_crop


def pinned_edge(rectangle_N4: Floats) -> NDArray[np.int64]:
    """Which of ``EDGES`` a crop touches [N]: the one nearest to the frame's border."""
    x1, x2, y1, y2 = rectangle_N4.T
    return np.stack([x1, 1 - x2, y1, 1 - y2]).argmin(axis=0)


def patch_labels(rectangle_N4: Floats) -> NDArray[np.int64]:
    """Class [N, 16] of the cell of the original frame in which the centre of each cell of the crop lies."""
    x1, x2, y1, y2 = rectangle_N4.T[..., None]
    x_NP = x1 + CELL_CENTRES_P2[:, 0] * (x2 - x1)
    y_NP = y1 + CELL_CENTRES_P2[:, 1] * (y2 - y1)
    column, row = (np.floor(GRID * place).astype(np.int64).clip(0, GRID - 1) for place in (x_NP, y_NP))
    return column + GRID * row


def cell_distance(first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """Distance between the centres of two cells, in cells; any shape."""
    gap = CELL_CENTRES_P2[first] - CELL_CENTRES_P2[second]
    return GRID * np.hypot(gap[..., 0], gap[..., 1])


@dataclass(frozen=True)
class TrivialAnswers:
    """The constant answers that score best under a crop law, without looking at any photo.

    Those about cells are for samples of which every other one is whole.
    """

    margin: float  # the best centred rectangle on crops is (margin, 1 - margin) on both axes
    edges: tuple[float, float, float, float]  # medians of x1, x2, y1, y2 over crops
    size_factor_crops: float  # median over crops
    size_factor_half: float  # a median where every other photo is whole: any value from the largest crop to 1
    cell: int  # the commonest class of a patch
    central_cell: int  # the class nearest to all others
    cell_shares: tuple[float, ...]  # how often a patch belongs to each class


def trivial_answers(law: CropLaw, samples: int = 20_000) -> TrivialAnswers:
    """The best constants under ``law``, by Monte Carlo with a fixed seed."""
    draws = np.random.default_rng(0).random((samples, CROP_DRAWS))
    draws[:, 0] = -1.0  # every sample a crop
    rectangles, _ = draw_rectangles(draws, law)
    margins = np.arange(0, 0.25, 0.01)
    scores = [rectangle_iou(rectangles, np.array([m, 1 - m, m, 1 - m])).mean() for m in margins]
    x1, x2, y1, y2 = np.median(rectangles, axis=0).round(3).tolist()
    shares = np.bincount(patch_labels(rectangles).ravel(), minlength=CELLS) / (samples * CELLS)
    shares = shares / 2 + 0.5 / CELLS
    cells = np.arange(CELLS)
    distances = cell_distance(cells[:, None], cells[None]) @ shares
    return TrivialAnswers(
        margin=float(margins[int(np.argmax(scores))].round(3)),
        edges=(x1, x2, y1, y2),
        size_factor_crops=float(np.median(size_factor(rectangles)).round(2)),
        size_factor_half=law.max_size_factor,
        cell=int(shares.argmax()),
        central_cell=int(distances.argmin()),
        cell_shares=tuple(shares.tolist()),
    )
