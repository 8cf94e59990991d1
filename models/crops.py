"""Crop detection from the thumbnail: how crops are drawn, what a constant answer scores, and the network.

Shapes: B batch, N samples, C channels, H height, W width; a rectangle is (x1, x2, y1, y2), in that order, as
fractions of the original frame; an uncropped photo is (0, 1, 0, 1).
Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021 (arXiv 2011.11831), and the authors' code.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.backbones import ResidualTrunk
from models.metrics import rectangle_iou, size_factor
from models.recipes import CropLaw, ModelSpec

WHOLE = (0.0, 1.0, 0.0, 1.0)
CROP_DRAWS = 5  # uniform numbers that one rectangle takes


def draw_rectangles(draws_N5: NDArray[np.float64], law: CropLaw) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
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


@dataclass(frozen=True)
class TrivialAnswers:
    """The constant answers that score best under a crop law, without looking at any photo."""

    margin: float  # the best centred rectangle on crops is (margin, 1 - margin) on both axes
    edges: tuple[float, float, float, float]  # medians of x1, x2, y1, y2 over crops
    size_factor_crops: float  # median over crops
    size_factor_half: float  # a median where every other photo is whole: any value from the largest crop to 1


def trivial_answers(law: CropLaw, samples: int = 20_000) -> TrivialAnswers:
    """The best constants under ``law``, by Monte Carlo with a fixed seed."""
    draws = np.random.default_rng(0).random((samples, CROP_DRAWS))
    draws[:, 0] = -1.0  # every sample a crop
    rectangles, _ = draw_rectangles(draws, law)
    margins = np.arange(0, 0.25, 0.01)
    scores = [rectangle_iou(rectangles, np.array([m, 1 - m, m, 1 - m])).mean() for m in margins]
    x1, x2, y1, y2 = np.median(rectangles, axis=0).round(3).tolist()
    return TrivialAnswers(
        margin=float(margins[int(np.argmax(scores))].round(3)),
        edges=(x1, x2, y1, y2),
        size_factor_crops=float(np.median(size_factor(rectangles)).round(2)),
        size_factor_half=law.max_size_factor,
    )


class CropThumbnailNet(nn.Module):
    """RGB, y and x [B, 5, H, W] -> x1, x2, y1, y2 (linear) and the crop logit [B, 5]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(5, spec.depths, spec.widths, spec.stem)
        self.embed = nn.Linear(spec.widths[-1], spec.embedding)
        sizes = (spec.embedding, *spec.hidden)
        layers = [(nn.Linear(a, b), nn.ReLU(inplace=True)) for a, b in pairwise(sizes)]
        self.head = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(sizes[-1], 5))
        # The rectangle starts at the whole frame, not at zero: otherwise the first epochs only move four biases.
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([*WHOLE, 0.0]))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        embedding_BD: Tensor = self.embed(self.trunk(image_BCHW))
        outputs_B5: Tensor = self.head(embedding_BD)
        return outputs_B5
