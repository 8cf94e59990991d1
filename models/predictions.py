"""What a network says about the fixed samples of a split."""

import numpy as np
import torch
from torch import nn

from models.loader import FrameStore
from models.networks import forward
from models.specs import Recipe
from models.systems import Arrays, Samples, System


@torch.no_grad()
def predict(model: nn.Module, system: System, store: FrameStore, samples: Samples, recipe: Recipe) -> Arrays:
    """Every output [N, ...] in the order of the samples, without gradients, with the network's running statistics."""
    model.eval()
    parts = np.array_split(np.arange(len(samples)), range(recipe.batch_size, len(samples), recipe.batch_size))
    found: dict[str, list[np.ndarray]] = {}
    for rows_B, photos in zip(parts, store.stream([samples.photo_N[part] for part in parts]), strict=True):
        outputs = forward(model, system.draw_fixed(photos, samples, rows_B).inputs, recipe)
        for name, value in outputs.items():
            found.setdefault(name, []).append(value.cpu().numpy())
    return {name: np.concatenate(values).astype(np.float64) for name, values in found.items()}
