"""What a network says about the fixed samples of a split.

Samples are taken photo by photo, whatever their order, so that a photo's frames are read once for all of its samples.
"""

from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import nn

from models.errors import Stopped
from models.loader import FrameStore
from models.networks import forward
from models.specs import Recipe
from models.systems import Arrays, Samples, System


@torch.no_grad()
def predict(
    model: nn.Module,
    system: System,
    store: FrameStore,
    samples: Samples,
    recipe: Recipe,
    must_stop: Callable[[], bool] = lambda: False,
) -> Arrays:
    """Every output [N, ...] in the order of the samples, without gradients, with the network's running statistics.

    As many samples at a time as training sees of a batch (``accumulate``). Raises ``Stopped`` once ``must_stop`` says
    so, which is asked before each of them.
    """
    model.eval()
    order_N, size = np.argsort(samples.photo_N, kind="stable"), -(-recipe.batch_size // recipe.accumulate)
    parts = [order_N[start : start + size] for start in range(0, len(order_N), size)]
    photos = [np.unique(samples.photo_N[rows_B], return_inverse=True) for rows_B in parts]
    found: dict[str, list[np.ndarray]] = {}
    with closing(store.stream([each for each, _ in photos])) as stream:
        for rows_B, (_, place_B) in zip(parts, photos, strict=True):
            if must_stop():
                raise Stopped("stopped while the network was asked")
            outputs = forward(model, system.draw_fixed(next(stream).take(place_B), samples, rows_B).inputs, recipe)
            for name, value in outputs.items():
                found.setdefault(name, []).append(value.cpu().numpy())
    place_N = np.argsort(order_N)
    return {name: np.concatenate(values)[place_N].astype(np.float64) for name, values in found.items()}
