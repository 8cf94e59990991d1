"""A trained network against the trivial answers: every figure with its baseline and a 95 % interval over photos.

The answer of the system is the predicted rectangle where it calls a photo cropped, and the whole frame where it does
not; the threshold of that call is chosen on val. Figures over crops alone judge the rectangle itself.
Shapes: N samples; a rectangle is (x1, x2, y1, y2).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.crops import WHOLE, TrivialAnswers, trivial_answers
from models.loader import Split
from models.metrics import Estimate, Floats, PhotoBootstrap, rectangle_iou, size_factor
from models.predictions import FixedSamples
from models.recipes import Recipe


@dataclass(frozen=True)
class Comparison:
    """One figure, sample by sample: what the network scores and what the trivial answer scores on the same samples."""

    name: str
    label: str
    unit: str
    better: str  # "higher" or "lower"
    scores_N: Floats
    baseline_N: Floats
    baseline_label: str
    counts_N: NDArray[np.bool_]  # the samples that the figure is about


@dataclass(frozen=True)
class Answers:
    """The network's outputs, read: the rectangle inside the frame, the call, and both joined."""

    rectangle_N4: Floats
    logit_N: Floats
    called_crop_N: NDArray[np.bool_]
    final_N4: Floats


def read_outputs(outputs_N5: Floats, threshold: float) -> Answers:
    """Answers from raw outputs: edges clipped to the frame, a crop where the logit reaches ``threshold``."""
    rectangle_N4, logit_N = outputs_N5[:, :4].clip(0, 1), outputs_N5[:, 4]
    called_crop_N = logit_N >= threshold
    return Answers(
        rectangle_N4, logit_N, called_crop_N, np.where(called_crop_N[:, None], rectangle_N4, np.array(WHOLE))
    )


def figures(samples: FixedSamples, answers: Answers, photos: int, recipe: Recipe) -> list[dict[str, Any]]:
    """Every figure as a mapping for ``evaluation.json``."""
    spec = recipe.evaluation
    bootstrap = PhotoBootstrap(samples.photo_N, photos, spec.bootstrap_replicates, spec.bootstrap_seed)
    comparisons = list(_compare(samples, answers, trivial_answers(recipe.crop_law)))
    found = [_figure(comparison, bootstrap, samples.weight_N) for comparison in comparisons]
    area = bootstrap.auroc(answers.logit_N, samples.is_crop_N, samples.weight_N)
    difference = Estimate(area.value - 0.5, area.low - 0.5, area.high - 0.5)
    ranking = _as_dict(
        "crop_auroc", "Crop or whole, area under the ROC curve", "", "higher", area, 0.5, "coin", difference
    )
    return [found[0], ranking, *found[1:]]


def _compare(samples: FixedSamples, answers: Answers, trivial: TrivialAnswers) -> Iterator[Comparison]:
    """The figures that are means over samples, in the order in which they are reported."""
    truth_N4, is_crop_N = samples.rectangle_N4, samples.is_crop_N
    everything_N = np.ones_like(is_crop_N)
    size_N, m = size_factor(truth_N4), trivial.margin

    right_N = (answers.called_crop_N == is_crop_N).astype(float)
    half_N = np.full_like(right_N, 0.5)
    yield Comparison("crop_accuracy", "Crop or whole, accuracy", "", "higher", right_N, half_N, "coin", everything_N)

    iou_N = rectangle_iou(truth_N4, answers.rectangle_N4)
    centred_N = rectangle_iou(truth_N4, np.array([m, 1 - m, m, 1 - m]))
    label, baseline = "Rectangle, intersection over union (crops)", f"centred rectangle {m:.2f} to {1 - m:.2f}"
    yield Comparison("rectangle_iou_crops", label, "", "higher", iou_N, centred_N, baseline, is_crop_N)

    iou_N, whole_N = rectangle_iou(truth_N4, answers.final_N4), rectangle_iou(truth_N4, np.array(WHOLE))
    label = "Rectangle, intersection over union (half whole)"
    yield Comparison("rectangle_iou_half", label, "", "higher", iou_N, whole_N, "always the whole frame", everything_N)

    error_N = np.abs(size_factor(answers.rectangle_N4) - size_N)
    constant_N = np.abs(trivial.size_factor_crops - size_N)
    label, baseline = "Size factor, mean absolute error (crops)", f"always {trivial.size_factor_crops:.2f}"
    yield Comparison("size_factor_mae_crops", label, "of side", "lower", error_N, constant_N, baseline, is_crop_N)

    error_N = np.abs(size_factor(answers.final_N4) - size_N)
    constant_N = np.abs(trivial.size_factor_half - size_N)
    label, baseline = "Size factor, mean absolute error (half whole)", f"always {trivial.size_factor_half:.2f}"
    yield Comparison("size_factor_mae_half", label, "of side", "lower", error_N, constant_N, baseline, everything_N)

    error_N = np.abs(answers.rectangle_N4 - truth_N4).mean(1)
    constant_N = np.abs(np.array(trivial.edges) - truth_N4).mean(1)
    label, baseline = "Edges, mean absolute error (crops)", "the median of each edge"
    yield Comparison("edge_mae_crops", label, "of side", "lower", error_N, constant_N, baseline, is_crop_N)


def _figure(comparison: Comparison, bootstrap: PhotoBootstrap, weight_N: Floats) -> dict[str, Any]:
    """One figure, its interval, its baseline, and the paired difference with its interval."""
    weight_N = weight_N * comparison.counts_N
    value = bootstrap.mean(comparison.scores_N, weight_N)
    baseline = bootstrap.mean(comparison.baseline_N, weight_N).value
    difference = bootstrap.mean(comparison.scores_N - comparison.baseline_N, weight_N)
    names = (comparison.name, comparison.label, comparison.unit, comparison.better)
    return _as_dict(*names, value, baseline, comparison.baseline_label, difference)


def _as_dict(
    name: str, label: str, unit: str, better: str, value: Estimate, baseline: float, baseline_label: str, gap: Estimate
) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "unit": unit,
        "better": better,
        **asdict(value),
        "baseline": baseline,
        "baseline_label": baseline_label,
        "difference": gap.value,
        "difference_low": gap.low,
        "difference_high": gap.high,
        "beats_baseline": gap.low > 0 if better == "higher" else gap.high < 0,
    }


def prediction_rows(split: Split, samples: FixedSamples, answers: Answers) -> pa.Table:
    """One row per sample: who, the truth, the prediction; edges and size factors as fractions of the original frame."""
    photos = samples.photo_N.tolist()
    columns: dict[str, Any] = {
        "source": [split.sources[photo] for photo in photos],
        "photo_id": [split.photo_ids[photo] for photo in photos],
        "split": [split.name] * len(photos),
        "sample": samples.sample_N.astype(np.int32),
        "weight": samples.weight_N,
        "is_crop": samples.is_crop_N,
        **_edges("", samples.rectangle_N4),
        **_edges("pred_", answers.rectangle_N4),
        "crop_logit": answers.logit_N,
        "crop_probability": np.exp(-np.logaddexp(0, -answers.logit_N)),
        "called_crop": answers.called_crop_N,
    }
    return pa.table(columns)


def _edges(prefix: str, rectangle_N4: Floats) -> dict[str, Floats]:
    """Columns x1, x2, y1, y2 and size_factor, each with ``prefix``."""
    edges = dict(zip(("x1", "x2", "y1", "y2"), rectangle_N4.T, strict=True))
    return {f"{prefix}{name}": column for name, column in {**edges, "size_factor": size_factor(rectangle_N4)}.items()}
