"""What a network says about photos: the fixed samples of a split, and its outputs on them.

Shapes: N samples, P photos, B batch; outputs are x1, x2, y1, y2 and the crop logit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.loader import FrameStore
from models.networks import forward
from models.recipes import Recipe
from models.transforms import SamplePlan, plan_fixed_sample, render


@dataclass(frozen=True)
class FixedSamples:
    """Each photo once whole and several times cropped, the same for ever; weighted so that the halves are equal."""

    photo_N: NDArray[np.int64]  # row of the photo in its split
    sample_N: NDArray[np.int64]  # 0 is the whole frame
    weight_N: NDArray[np.float64]  # those of one photo sum to 1
    plan: SamplePlan

    @property
    def rectangle_N4(self) -> NDArray[np.float64]:
        """The true rectangles."""
        return self.plan.rectangle_N4

    @property
    def is_crop_N(self) -> NDArray[np.bool_]:
        """Which samples are crops."""
        return self.plan.is_crop_N


def fixed_samples(keys_P: NDArray[np.uint64], recipe: Recipe) -> FixedSamples:
    """The evaluation samples of the photos with these keys, sample number by sample number."""
    crops = recipe.evaluation.crops_per_photo
    plans = [plan_fixed_sample(keys_P, number, recipe) for number in range(crops + 1)]
    names = SamplePlan.__dataclass_fields__
    sample_N = np.repeat(np.arange(crops + 1), len(keys_P))
    return FixedSamples(
        photo_N=np.tile(np.arange(len(keys_P)), crops + 1),
        sample_N=sample_N,
        weight_N=np.where(sample_N == 0, 0.5, 0.5 / crops),
        plan=SamplePlan(*(np.concatenate([getattr(plan, name) for plan in plans]) for name in names)),
    )


@torch.no_grad()
def predict(model: nn.Module, store: FrameStore, samples: FixedSamples, recipe: Recipe) -> NDArray[np.float64]:
    """Outputs [N, 5] in the order of the samples, without gradients, with the running statistics of the network."""
    model.eval()
    outputs = []
    for start in range(0, len(samples.photo_N), recipe.batch_size):
        part = np.arange(start, min(start + recipe.batch_size, len(samples.photo_N)))
        image_B5HW = render(store.batch(samples.photo_N[part]), samples.plan.take(part), recipe)
        outputs.append(forward(model, image_B5HW, recipe).cpu().numpy())
    return np.concatenate(outputs).astype(np.float64)
