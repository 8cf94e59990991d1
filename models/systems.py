"""What a system offers to the engine: the one seam between what is learnt and how it is trained.

A system (crop detection, categories, ...) turns frames of photos into batches, outputs into losses, and the outputs on
the fixed samples of a split into figures. The engine (loop, checkpoint, loader, jobs) knows nothing else about it.

Shapes: B photos of a batch, N samples of a split; every tensor of ``Tensors`` has B (or N) first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, nn

from models.loader import PhotoBatch, Split
from models.specs import Recipe

Tensors = dict[str, Tensor]
Arrays = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Batch:
    """What the network gets (its forward's keyword arguments) and what it should answer."""

    inputs: Tensors
    targets: Tensors


@dataclass(frozen=True)
class Samples:
    """The fixed samples of a split, the same for ever: for each its photo, its number and weight, and the truth.

    The weights of one photo's samples sum to 1. ``plan`` is the system's own: what is done to each sample, either None
    or something with a ``take(rows_B)``.
    """

    photo_N: NDArray[np.int64]  # row of the photo in its split
    sample_N: NDArray[np.int64]
    weight_N: NDArray[np.float64]
    targets: Arrays
    plan: Any = None

    def __len__(self) -> int:
        return len(self.photo_N)

    def take(self, rows_B: NDArray[np.int64]) -> "Samples":
        """Those samples alone, with the weights that they have."""
        return Samples(
            self.photo_N[rows_B],
            self.sample_N[rows_B],
            self.weight_N[rows_B],
            {name: value[rows_B] for name, value in self.targets.items()},
            None if self.plan is None else self.plan.take(rows_B),
        )


@dataclass(frozen=True)
class Probabilities:
    """What a system is how sure of, M times: the engine fits a temperature on val and measures the calibration on test.

    ``logits_MK``: one column is the logit of yes against no (sigmoid), several are those of as many classes (softmax).
    ``truth_M``: 0 or 1, or the number of the class. ``sample_M``: which sample each belongs to (all samples once each
    for one decision a sample; 16 times for the places of 16 patches). ``name`` is a word, such as "crop": the fitted
    temperature is handed on as ``decisions["temperature_crop"]``; a calibrated logit is the logit divided by it.
    """

    name: str
    label: str
    logits_MK: NDArray[np.float64]
    truth_M: NDArray[np.int64]
    sample_M: NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """One figure that is a mean over samples: what the network scores and what the trivial answer scores on each.

    ``counts_N``: the samples that the figure is about. ``better``: "higher" or "lower".
    """

    name: str
    label: str
    unit: str
    better: str
    scores_N: NDArray[np.float64]
    baseline_N: NDArray[np.float64]
    baseline_label: str
    counts_N: NDArray[np.bool_]


@dataclass(frozen=True)
class Judgement:
    """What a system says of its outputs on the samples of test.

    ``figures``: complete figures beyond the means, such as an area under a curve, in the form of ``evaluation.json``.
    ``predictions``: one row a sample, columns of truth and prediction. ``pictures``: JSON values that the report draws.
    """

    scores: Sequence[Score]
    predictions: pa.Table
    figures: Sequence[dict[str, Any]] = ()
    pictures: dict[str, Any] = field(default_factory=dict)


class System(Protocol):
    """A system as its recipe (and, where there are labels, the classes of train) configure it."""

    recipe: Recipe

    def build(self) -> nn.Module:
        """The network with fresh weights; its forward takes ``Batch.inputs`` and returns outputs as ``Tensors``.

        The caller has seeded torch; outputs that a loss squashes itself are raw (logits).
        """
        ...

    def example(self, photos: int) -> Tensors:
        """Inputs of the right shapes, all zero, on the CPU."""
        ...

    def draw(self, photos: PhotoBatch, seed: int, epoch: int) -> Batch:
        """One training sample of each photo: a function of (seed, epoch, photo) alone."""
        ...

    def samples(self, split: Split) -> Samples:
        """The fixed samples of a split, with the truth about each."""
        ...

    def draw_fixed(self, photos: PhotoBatch, samples: Samples, rows_B: NDArray[np.int64]) -> Batch:
        """The samples numbered ``rows_B``; ``photos`` are theirs, in that order."""
        ...

    def losses(self, outputs: Tensors, targets: Tensors) -> Tensors:
        """Of each sample: "total", and the terms that it is the weighted sum of [B]."""
        ...

    def figures(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        """Figures on val, beside the loss, for every epoch's line; names without a prefix."""
        ...

    def decide(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        """What is chosen on val before test is touched, such as a threshold; the engine adds temperatures."""
        ...

    def probabilities(self, outputs: Arrays, samples: Samples) -> Sequence[Probabilities]:
        """What is to be calibrated, asked of val (with its truth) and of test; empty for a system without any."""
        ...

    def judge(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> Judgement:
        """The outputs on test against the truth and against the trivial answers."""
        ...

    def as_given(self, split: Split) -> Samples:
        """Each photo of ``split`` once, as it is: nothing is known about it."""
        ...

    def answers(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> pa.Table:
        """What the network says, one row a sample: source, photo_id, sample, and columns of the system's own."""
        ...

    def perturbations(self) -> dict[str, Sequence[float]]:
        """What test photos are also tried with, by name, and the strengths of each; 0 changes nothing."""
        ...

    def perturb(self, photos: PhotoBatch, name: str, strength: float) -> PhotoBatch:
        """The photos, changed before anything else is done to them."""
        ...
