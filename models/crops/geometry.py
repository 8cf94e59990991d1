"""The rectangle that sixteen heat-maps imply, in closed form: a second estimate, and how well the patches agree.

Each patch's heat-map says where in the original frame the patch was. A crop is a line in both coordinates:
original x' = s x + x1 and y' = s y + y1, with one size factor s. The weighted least squares over the patches have a
closed form; the residual tells whether the sixteen tell one story.

Shapes: N samples, P = 16 patches, K = 16 cells of the original frame; the axis 2 is (x, y).
"""

from dataclasses import dataclass

import numpy as np

from models.crops.law import CELL_CENTRES_P2, Floats
from models.crops.spec import GRID

CELL_VARIANCE = 1 / (12 * GRID**2)  # of a place that is uniform in its cell: what even a sure answer leaves open


@dataclass(frozen=True)
class ClosedForm:
    """Rectangles [N, 4] inside the frame, and the residual of the fit [N], a root mean square in sides of the frame.

    The smaller the residual, the better the patches agree. Sure answers that are all right leave about 0.06 and overlap
    crops by 0.81 on average, since a cell's centre stands for the whole cell; answers that share what they expect
    among neighbouring cells leave less.
    """

    rectangle_N4: Floats
    residual_N: Floats


def closed_form(probability_NPK: Floats, least_size_factor: float) -> ClosedForm:
    """The least-squares rectangle of the expected original places of all patches, each weighted by how sure it is.

    No crop is smaller than ``least_size_factor``: unsure heat-maps all expect the middle, as if the crop were tiny.
    """
    place_NP2 = probability_NPK @ CELL_CENTRES_P2
    spread_NP2 = probability_NPK @ CELL_CENTRES_P2**2 - place_NP2**2
    weight_NP2 = 1 / (spread_NP2.clip(min=0) + CELL_VARIANCE)
    total_N12 = weight_NP2.sum(1, keepdims=True)
    centre_N12 = (weight_NP2 * CELL_CENTRES_P2).sum(1, keepdims=True) / total_N12
    mean_N12 = (weight_NP2 * place_NP2).sum(1, keepdims=True) / total_N12
    offset_NP2, moved_NP2 = CELL_CENTRES_P2 - centre_N12, place_NP2 - mean_N12
    size_N11 = (weight_NP2 * offset_NP2 * moved_NP2).sum((1, 2), keepdims=True)
    size_N11 = size_N11 / (weight_NP2 * offset_NP2**2).sum((1, 2), keepdims=True)
    residual_NP2 = moved_NP2 - size_N11 * offset_NP2
    residual_N = np.sqrt((weight_NP2 * residual_NP2**2).sum((1, 2)) / total_N12.sum((1, 2)))
    size_N1 = size_N11[:, 0].clip(least_size_factor, 1)
    low_N2 = (mean_N12[:, 0] - size_N1 * centre_N12[:, 0]).clip(0, 1 - size_N1)
    high_N2 = low_N2 + size_N1
    rectangle_N4 = np.stack([low_N2[:, 0], high_N2[:, 0], low_N2[:, 1], high_N2[:, 1]], axis=1)
    return ClosedForm(rectangle_N4, residual_N)
