"""What is done to a photo to make a sample of it, decided before any pixel is touched.

The draws of both halves of the network stand in fixed columns, so that the thumbnail network, the patch network and
the joint network see the same crops of the same photos under the same seed: their runs pair.

Shapes: N samples; the last axis of the arrays of two is (thumbnail, patches), of the mirrored (x, y).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crops.law import CELLS, CROP_DRAWS, WHOLE, draw_rectangles, patch_labels
from models.crops.spec import CropSpec, ScaleLaw
from models.loader import Split
from models.randomness import other_keys, uniform_draws
from models.systems import Arrays, Samples

NO_SCALE = ScaleLaw(0, 0, max_noise_std=0.0)  # of a half that a network does not have
FLIPS = ("horizontal", "vertical")


@dataclass(frozen=True)
class SamplePlan:
    """What is done to each of N samples."""

    rectangle_N4: NDArray[np.float64]
    is_crop_N: NDArray[np.bool_]
    width_px_N2: NDArray[np.int64]  # of the whole sample after the first reduction
    noise_std_N2: NDArray[np.float64]
    noise_key_N2: NDArray[np.int64]
    is_mirrored_N2: NDArray[np.bool_]  # the frame, before it is cropped
    jitter_px_NP2: NDArray[np.int64]  # x and y by which each patch is moved from its cell's centre
    kernel_N: NDArray[np.int64]  # its place in the spec's kernels
    factor_N3: NDArray[np.float64]  # of brightness, contrast and saturation

    def take(self, rows: NDArray[np.int64]) -> "SamplePlan":
        """The plan of those samples alone."""
        return SamplePlan(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def targets(self) -> Arrays:
        """The truth: ``rectangle`` [N, 4], ``crop`` [N], 1 or 0, and ``location`` [N, 16], the class of each patch."""
        location_NP: Any = patch_labels(self.rectangle_N4)
        return {"rectangle": self.rectangle_N4, "crop": self.is_crop_N.astype(np.float64), "location": location_NP}


def plan_samples(keys_N: NDArray[np.uint64], seed: int, epoch: int, spec: CropSpec) -> SamplePlan:
    """One training sample of each photo, as the laws of ``spec`` draw it for this epoch."""
    draws = uniform_draws("crops", seed, epoch, keys_N, CROP_DRAWS + 8 + 2 * CELLS + 4)
    rectangle_N4, is_crop_N = draw_rectangles(draws[:, :CROP_DRAWS], spec.crop_law)
    scale, mirrored, moved, kernel, colours = np.split(
        draws[:, CROP_DRAWS:], np.cumsum([6, 2, 2 * CELLS, 1]).tolist(), axis=1
    )
    size_N2, strength_N2, noise_N2 = scale.reshape(-1, 3, 2).transpose(1, 0, 2)
    laws = _scales(spec)
    least, most = (np.array([getattr(law, name) for law in laws]) for name in ("min_px", "max_px"))
    reach = spec.patches.jitter_px if spec.patches else 0
    return SamplePlan(
        rectangle_N4,
        is_crop_N,
        width_px_N2=least + (size_N2 * (most - least + 1)).astype(np.int64),
        noise_std_N2=strength_N2 * [law.max_noise_std for law in laws],
        noise_key_N2=(noise_N2 * 2**32).astype(np.int64),
        is_mirrored_N2=(mirrored < 0.5) & [flip in spec.flips for flip in FLIPS],
        jitter_px_NP2=np.floor((2 * moved - 1) * reach).astype(np.int64).reshape(-1, CELLS, 2),
        kernel_N=(kernel[:, 0] * max(1, len(spec.kernels))).astype(np.int64),
        factor_N3=1 + (2 * colours - 1) * [spec.brightness, spec.contrast, spec.saturation],
    )


def _scales(spec: CropSpec) -> tuple[ScaleLaw, ScaleLaw]:
    halves = (spec.thumbnail, spec.patches)
    return tuple(half.scale if half else NO_SCALE for half in halves)  # type: ignore[return-value]


def plan_fixed(keys_N: NDArray[np.uint64], number: int, spec: CropSpec) -> SamplePlan:
    """Evaluation sample ``number`` of each photo, the same for ever: 0 is the whole frame, the others are crops."""
    law = replace(spec.crop_law, crop_probability=float(number > 0))
    plain = replace(spec, crop_law=law, flips=(), kernels=(), brightness=0.0, contrast=0.0, saturation=0.0)
    return plan_samples(keys_N, spec.evaluation.seed, number, plain)


def plan_as_given(photos: int, spec: CropSpec) -> SamplePlan:
    """Whole photos at the middle of the scales, without noise or jitter: nothing about them is random."""
    middle = np.array([(law.min_px + law.max_px) // 2 for law in _scales(spec)])
    zeros_N2 = np.zeros((photos, 2), np.int64)
    return SamplePlan(
        np.tile(np.array(WHOLE), (photos, 1)),
        np.zeros(photos, np.bool_),
        width_px_N2=zeros_N2 + middle,
        noise_std_N2=zeros_N2.astype(np.float64),
        noise_key_N2=zeros_N2,
        is_mirrored_N2=zeros_N2.astype(np.bool_),
        jitter_px_NP2=np.zeros((photos, CELLS, 2), np.int64),
        kernel_N=np.zeros(photos, np.int64),
        factor_N3=np.ones((photos, 3)),
    )


def training_truth(plan: SamplePlan, keys_N: NDArray[np.uint64], seed: int, epoch: int, spec: CropSpec) -> Arrays:
    """What the network is told of ``plan``; under ``shuffled_labels`` the truth about a sample of another photo.

    Its cells are dealt out among the patches too: in whatever sample, the patch at the top left lies mostly at the top
    left of its frame, and a lens shows that.
    """
    if not spec.shuffled_labels:
        return plan.targets
    told = plan_samples(other_keys(keys_N), seed, epoch, spec).targets
    dealt_NP = uniform_draws("shuffled patches", seed, epoch, keys_N, CELLS).argsort(axis=1)
    return {**told, "location": np.take_along_axis(told["location"], dealt_NP, axis=1)}


def fixed_samples(split: Split, spec: CropSpec) -> Samples:
    """Each photo once whole and several times cropped, the same for ever; weighted so that the halves are equal.

    Under ``shuffled_labels`` val is told as little truth as train is; test is judged by the truth.
    """
    crops, keys_P = spec.evaluation.crops_per_photo, split.keys
    told = replace(spec, shuffled_labels=spec.shuffled_labels and split.name != "test")
    plans = [plan_fixed(keys_P, number, spec) for number in range(crops + 1)]
    truths = [training_truth(plan, keys_P, spec.evaluation.seed, n, told) for n, plan in enumerate(plans)]
    sample_N = np.repeat(np.arange(crops + 1), len(keys_P))
    names = SamplePlan.__dataclass_fields__
    return Samples(
        photo_N=np.tile(np.arange(len(keys_P)), crops + 1),
        sample_N=sample_N,
        weight_N=np.where(sample_N == 0, 0.5, 0.5 / crops),
        targets={name: np.concatenate([truth[name] for truth in truths]) for name in truths[0]},
        plan=SamplePlan(*(np.concatenate([getattr(plan, name) for plan in plans]) for name in names)),
    )


def samples_as_given(split: Split, spec: CropSpec) -> Samples:
    """Each photo once, as it is; there is no truth."""
    photos = len(split)
    zero_N, one_N = np.zeros(photos, np.int64), np.ones(photos)
    return Samples(np.arange(photos), zero_N, one_N, targets={}, plan=plan_as_given(photos, spec))
