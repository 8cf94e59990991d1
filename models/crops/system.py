"""Crop detection as a system: how a batch of photos becomes inputs and a loss, and outputs become figures.

Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021 (arXiv 2011.11831), and the authors' code.
Shapes: B photos of a batch, N samples of a split, P = 16 patches, K = 16 cells; a rectangle is (x1, x2, y1, y2).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.crops import aberrations
from models.crops.answers import answer_rows, prediction_rows, read_outputs
from models.crops.judging import mean_scores
from models.crops.law import CELLS
from models.crops.networks import CropNet
from models.crops.patches import render_patches
from models.crops.pictures import mapped_samples, pictures
from models.crops.samples import SamplePlan, fixed_samples, plan_samples, samples_as_given, training_truth
from models.crops.spec import CropSpec, PatchSpec
from models.crops.thumbnails import render_thumbnails
from models.errors import ConfigError
from models.loader import PhotoBatch, Split
from models.metrics import PhotoBootstrap, against_constant, auroc, best_threshold
from models.specs import Recipe
from models.systems import Arrays, Batch, Judgement, Probabilities, Samples, Tensors


class CropSystem:
    """The system of a ``CropSpec``: by the thumbnail, by patches, or by both."""

    def __init__(self, recipe: Recipe) -> None:
        if not isinstance(recipe.system, CropSpec):
            raise ConfigError(f"recipe {recipe.name!r} is not about crops", recipe=recipe.name)
        self.recipe, self.spec = recipe, recipe.system
        if self.spec.patches:
            _check_patches_fit(recipe, self.spec.patches)

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return CropNet(self.spec)

    def example(self, photos: int) -> Tensors:
        """Thumbnails and patches, all zero."""
        inputs = {}
        if half := self.spec.thumbnail:
            inputs["thumbnail"] = torch.zeros(photos, 5, half.height, half.width)
        if patches := self.spec.patches:
            inputs["patches"] = torch.zeros(photos, CELLS, 3, patches.patch_px, patches.patch_px)
        return inputs

    def draw(self, photos: PhotoBatch, seed: int, epoch: int) -> Batch:
        """Each photo whole or cropped, as the law has it."""
        plan = plan_samples(photos.keys_B, seed, epoch, self.spec)
        truth = training_truth(plan, photos.keys_B, seed, epoch, self.spec)
        return Batch(self._inputs(photos, plan), _targets(truth, photos.frame_BCHW.device))

    def samples(self, split: Split) -> Samples:
        """Each photo once whole and several times cropped."""
        return fixed_samples(split, self.spec)

    def as_given(self, split: Split) -> Samples:
        """Each photo once, as it is."""
        return samples_as_given(split, self.spec)

    def draw_fixed(self, photos: PhotoBatch, samples: Samples, rows_B: NDArray[np.int64]) -> Batch:
        """The samples numbered ``rows_B``."""
        truth = {name: value[rows_B] for name, value in samples.targets.items()}
        return Batch(self._inputs(photos, samples.plan.take(rows_B)), _targets(truth, photos.frame_BCHW.device))

    def _inputs(self, photos: PhotoBatch, plan: SamplePlan) -> Tensors:
        """``thumbnail`` [B, 5, h, w] from the small frames, ``patches`` [B, 16, 3, p, p] from the large ones."""
        inputs, law, kernels = {}, self.spec.crop_law, self.spec.kernels
        if half := self.spec.thumbnail:
            inputs["thumbnail"] = render_thumbnails(photos.frame_BCHW, plan, half, law, kernels)
        if patches := self.spec.patches:
            assert photos.detail_BCHW is not None  # the recipe's pack has details: CropSpec.claims
            inputs["patches"] = render_patches(photos.detail_BCHW, plan, patches, law, kernels, photos.frame_BCHW)
        return inputs

    def losses(self, outputs: Tensors, targets: Tensors) -> Tensors:
        """Squared error of the rectangle (mean of 4), cross-entropy of the call and of each patch's cell (sum of 16).

        Source: the authors' code, with the weights of ``CropLossSpec``.
        """
        spec = self.spec.loss
        rectangle_B = (outputs["rectangle"] - targets["rectangle"]).square().mean(1)
        crop_B = functional.binary_cross_entropy_with_logits(outputs["crop"], targets["crop"], reduction="none")
        total_B = spec.rectangle_weight * rectangle_B + spec.crop_weight * crop_B
        terms = {"rectangle": rectangle_B, "crop": crop_B}
        if "location" in outputs:
            logits_BKP = outputs["location"].transpose(1, 2)
            location_B = functional.cross_entropy(logits_BKP, targets["location"], reduction="none").sum(1)
            total_B, terms = total_B + spec.location_weight * location_B, {**terms, "location": location_B}
        return {"total": total_B, **terms}

    def figures(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        """Every mean figure, with the undecided threshold of 0, and the area under the ROC curve."""
        law, truth_N4 = self.spec.crop_law, samples.targets["rectangle"]
        is_crop_N, weight_N = samples.targets["crop"] > 0.5, samples.weight_N
        scores = mean_scores(truth_N4, is_crop_N, read_outputs(outputs, {}, law), law)
        area = float(auroc(outputs["crop"], is_crop_N, weight_N[None])[0])
        means = {
            each.name: float(np.average(each.scores_N, weights=weight_N * each.counts_N))
            for each in scores
            if each.name != "patch_top1_own_cell"  # the figure of patch_top1, beside another baseline
        }
        return {**means, "crop_auroc": area}

    def decide(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        """The threshold of the logit from which on a crop is called."""
        return {"threshold": best_threshold(outputs["crop"], samples.targets["crop"] > 0.5, samples.weight_N)}

    def probabilities(self, outputs: Arrays, samples: Samples) -> Sequence[Probabilities]:
        """How sure the network is of a crop, and of the cell of each patch."""
        numbers_N = np.arange(len(samples))
        is_crop_N = (samples.targets["crop"] > 0.5).astype(np.int64)
        found = [Probabilities("crop", "Crop or whole", outputs["crop"][:, None], is_crop_N, numbers_N)]
        if "location" in outputs:
            logits_MK = outputs["location"].reshape(-1, CELLS)
            label_M = samples.targets["location"].astype(np.int64).ravel()
            found.append(Probabilities("location", "Patch location", logits_MK, label_M, np.repeat(numbers_N, CELLS)))
        return found

    def judge(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> Judgement:
        """Call, rectangle, size factor and patch places, each beside the answer of one who looks at no photo."""
        spec, answers = self.spec.evaluation, read_outputs(outputs, decisions, self.spec.crop_law)
        is_crop_N = samples.targets["crop"] > 0.5
        bootstrap = PhotoBootstrap(samples.photo_N, len(split), spec.bootstrap_replicates, spec.bootstrap_seed)
        area = bootstrap.auroc(answers.logit_N, is_crop_N, samples.weight_N)
        label = "Crop or whole, area under the ROC curve"
        rows = mapped_samples(samples, split)
        return Judgement(
            scores=mean_scores(samples.targets["rectangle"], is_crop_N, answers, self.spec.crop_law),
            predictions=prediction_rows(split, samples, answers, np.isin(np.arange(len(samples)), rows)),
            figures=[against_constant("crop_auroc", label, "", "higher", area, 0.5, "coin")],
            pictures=pictures(split, samples, answers, self.spec.crop_law, bootstrap, rows),
        )

    def answers(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> pa.Table:
        """Probability of a crop, rectangle, size factor; of the patches their cells, heat-maps and what they imply."""
        return answer_rows(split, samples, read_outputs(outputs, decisions, self.spec.crop_law))

    def perturbations(self) -> dict[str, Sequence[float]]:
        """Traces of the lens and of colour, added or taken away (``models.crops.aberrations``)."""
        return aberrations.STRENGTHS

    def perturb(self, photos: PhotoBatch, name: str, strength: float) -> PhotoBatch:
        """The photos with their frames and details perturbed, before they are cropped."""
        if name not in aberrations.STRENGTHS:
            raise ConfigError(f"crops know no perturbation {name!r}: one of {', '.join(aberrations.STRENGTHS)}")
        detail = photos.detail_BCHW
        return replace(
            photos,
            frame_BCHW=aberrations.perturbed(photos.frame_BCHW, name, strength),
            detail_BCHW=None if detail is None else aberrations.perturbed(detail, name, strength),
        )


def _check_patches_fit(recipe: Recipe, patches: PatchSpec) -> None:
    """Raise ``ConfigError`` if the least intermediate picture cannot hold a patch."""
    height, width = recipe.pack.detail_height or 0, recipe.pack.detail_width or 1
    least_px = round(patches.scale.min_px * min(1.0, height / width))
    if patches.patch_px > least_px:
        message = (
            f"recipe {recipe.name!r}: system.patches.patch_px must be at most {least_px}: a patch lies in its picture"
        )
        raise ConfigError(message, recipe=recipe.name)


def _targets(truth: Arrays, device: torch.device) -> Tensors:
    """``rectangle`` [B, 4], ``crop`` [B] (0 or 1), ``location`` [B, 16], each patch's class; none without truth."""
    if not truth:
        return {}
    return {
        "rectangle": torch.as_tensor(truth["rectangle"], dtype=torch.float32, device=device),
        "crop": torch.as_tensor(truth["crop"], dtype=torch.float32, device=device),
        "location": torch.as_tensor(truth["location"], device=device),
    }
