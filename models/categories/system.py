"""Photo categories: one label a photo, of those that train has.

Shapes: B photos of a batch, N samples (each photo once), K classes; images [B, 3, H, W].
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.augment import YIQ, augment, normalise
from models.categories import judging
from models.categories.labels import class_numbers
from models.categories.networks import build_network
from models.categories.spec import CategorySpec
from models.errors import ConfigError
from models.loader import PhotoBatch, Split
from models.metrics import PhotoBootstrap
from models.randomness import other_keys, uniform_draws
from models.resampling import crop_and_resize
from models.specs import Recipe
from models.systems import Arrays, Batch, Judgement, Probabilities, Samples, Score, Tensors

WHOLE = (0.0, 1.0, 0.0, 1.0)
TEMPERATURE = "temperature_label"


class CategorySystem:
    """The system of a ``CategorySpec`` with the classes of train (``models.categories.labels.classes_of``)."""

    def __init__(self, recipe: Recipe, classes: Sequence[str]) -> None:
        if not isinstance(recipe.system, CategorySpec):
            raise ConfigError(f"recipe {recipe.name!r} is not about categories", recipe=recipe.name)
        if len(classes) < 2:
            message = f"recipe {recipe.name!r} needs at least two labels to tell apart: give RUN.json its labels"
            raise ConfigError(message, recipe=recipe.name, classes=list(classes))
        self.recipe, self.spec, self.classes = recipe, recipe.system, tuple(classes)

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return build_network(self.spec.network, len(self.classes), self.spec.width)

    def example(self, photos: int) -> Tensors:
        """Images, all zero."""
        return {"image": torch.zeros(photos, 3, self.spec.input_px, self.spec.input_px)}

    def draw(self, photos: PhotoBatch, seed: int, epoch: int) -> Batch:
        """A random part of each photo in random colours, and its class."""
        numbers_B = class_numbers(photos.labels, self.classes, "train")
        if self.spec.shuffled_labels:
            chance_B = uniform_draws("shuffled labels", seed, 0, other_keys(photos.keys_B), 1)[:, 0]
            numbers_B = (chance_B * len(self.classes)).astype(np.int64)
        image_B3HW = augment(photos.frame_BCHW, photos.keys_B, seed, epoch, self.spec.augment, self.spec.input_px)
        label_B = torch.from_numpy(numbers_B).to(image_B3HW.device, non_blocking=True)
        return Batch({"image": normalise(image_B3HW)}, {"label": label_B})

    def samples(self, split: Split) -> Samples:
        """Each photo once, whole; ``ConfigError`` names labels that train lacks and counts photos without one."""
        numbers_N = class_numbers(split.labels, self.classes, split.name)
        return replace(self.as_given(split), targets={"label": numbers_N.astype(np.float64)})

    def as_given(self, split: Split) -> Samples:
        """Each photo once, whole, whatever its label."""
        photos = len(split)
        return Samples(np.arange(photos), np.zeros(photos, np.int64), np.ones(photos), {})

    def draw_fixed(self, photos: PhotoBatch, samples: Samples, rows_B: NDArray[np.int64]) -> Batch:
        """The whole photos as the network sees them."""
        frame_BCHW = photos.frame_BCHW
        whole_B4 = torch.tensor(WHOLE).expand(len(frame_BCHW), 4)
        image_B3HW = crop_and_resize(frame_BCHW, whole_B4, (self.spec.input_px, self.spec.input_px))
        labels = {name: torch.as_tensor(value[rows_B]).to(frame_BCHW.device) for name, value in samples.targets.items()}
        return Batch({"image": normalise(image_B3HW)}, labels)

    def losses(self, outputs: Tensors, targets: Tensors) -> Tensors:
        """Cross-entropy, with the recipe's label smoothing."""
        loss_B: Tensor = functional.cross_entropy(
            outputs["label"],
            targets["label"].long(),
            reduction="none",
            label_smoothing=self.spec.label_smoothing,
        )
        return {"total": loss_B, "label": loss_B}

    def figures(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        """Accuracy, and top-5 accuracy where there are more than five classes."""
        scores = self._scores(outputs, samples, 1.0)
        return {each.name: float(each.scores_N.mean()) for each in scores if each.better == "higher"}

    def decide(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        """Nothing beside the temperature, which the engine fits to ``probabilities``."""
        return {}

    def probabilities(self, outputs: Arrays, samples: Samples) -> Sequence[Probabilities]:
        """How sure the network is of each label."""
        return [Probabilities("label", "Label", outputs["label"], _truth(samples), np.arange(len(samples)))]

    def judge(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> Judgement:
        """Accuracy, macro figures and likelihood, each beside the best constant answer."""
        spec, truth_N = self.spec.evaluation, _truth(samples)
        called_N = judging.ranked(outputs["label"])[:, 0]
        bootstrap = PhotoBootstrap(samples.photo_N, len(split), spec.bootstrap_replicates, spec.bootstrap_seed)
        temperature = decisions.get(TEMPERATURE, 1.0)
        logp_NK = judging.log_probabilities(outputs["label"], temperature)
        return Judgement(
            scores=self._scores(outputs, samples, temperature),
            predictions=judging.prediction_rows(split, samples, self.classes, logp_NK, truth_N),
            figures=judging.macro_figures(truth_N, called_N, len(self.classes), bootstrap),
            pictures=judging.pictures(truth_N, called_N, self.classes),
        )

    def _scores(self, outputs: Arrays, samples: Samples, temperature: float) -> list[Score]:
        return list(judging.mean_scores(judging.log_probabilities(outputs["label"], temperature), _truth(samples)))

    def answers(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> pa.Table:
        """The likeliest labels of each photo and their calibrated probabilities."""
        logp_NK = judging.log_probabilities(outputs["label"], decisions.get(TEMPERATURE, 1.0))
        return judging.answer_rows(split, samples, self.classes, logp_NK)

    def perturbations(self) -> dict[str, Sequence[float]]:
        """Light (the factor of brightness less 1) and the share of colour that is taken away."""
        return {"brightness": (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6), "greyness": (0.0, 0.5, 1.0)}

    def perturb(self, photos: PhotoBatch, name: str, strength: float) -> PhotoBatch:
        """The photos, lighter, darker or greyer; uint8 as they were."""
        frame_BCHW = photos.frame_BCHW.float()
        if name == "brightness":
            changed_BCHW = frame_BCHW * (1 + strength)
        elif name == "greyness":
            weight_C = frame_BCHW.new_tensor(YIQ[0])
            grey_B1HW = torch.einsum("bchw,c->bhw", frame_BCHW, weight_C)[:, None]
            changed_BCHW = frame_BCHW + strength * (grey_B1HW - frame_BCHW)
        else:
            raise ConfigError(f"categories know no perturbation {name!r}: one of {', '.join(self.perturbations())}")
        return replace(photos, frame_BCHW=changed_BCHW.round().clamp(0, 255).to(torch.uint8))


def _truth(samples: Samples) -> NDArray[np.int64]:
    """The class of each sample [N]."""
    truth_N: NDArray[Any] = samples.targets["label"].astype(np.int64)
    return truth_N
