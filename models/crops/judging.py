"""Predicted crops against the truth and against the trivial answers, figure by figure.

Shapes: N samples, P = 16 patches; a rectangle is (x1, x2, y1, y2).
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.crops.answers import CropAnswers, PatchAnswers
from models.crops.law import CELLS, WHOLE, Floats, TrivialAnswers, cell_distance, patch_labels, trivial_answers
from models.crops.spec import CropLaw
from models.metrics import rectangle_iou, size_factor
from models.systems import Score

best_constants = lru_cache(trivial_answers)  # by law


def mean_scores(truth_N4: Floats, is_crop_N: NDArray[np.bool_], answers: CropAnswers, law: CropLaw) -> list[Score]:
    """The figures that are means over samples, in the order in which they are reported."""
    trivial = best_constants(law)
    scores = [*_rectangle_scores(truth_N4, is_crop_N, answers, trivial)]
    if answers.patches:
        scores += _patch_scores(patch_labels(truth_N4), answers.patches, trivial)
        scores += _closed_form_scores(truth_N4, is_crop_N, answers.patches.closed.rectangle_N4, trivial)
    return scores


def _rectangle_scores(
    truth_N4: Floats, is_crop_N: NDArray[np.bool_], answers: CropAnswers, trivial: TrivialAnswers
) -> Iterator[Score]:
    """The call, the rectangle and the size factor, as the head answers them."""
    everything_N, size_N = np.ones_like(is_crop_N), size_factor(truth_N4)

    right_N = (answers.called_crop_N == is_crop_N).astype(float)
    half_N = np.full_like(right_N, 0.5)
    yield Score("crop_accuracy", "Crop or whole, accuracy", "", "higher", right_N, half_N, "coin", everything_N)

    label = "Rectangle, intersection over union (crops)"
    yield _overlap("rectangle_iou_crops", label, truth_N4, is_crop_N, answers.rectangle_N4, trivial)

    iou_N, whole_N = rectangle_iou(truth_N4, answers.final_N4), rectangle_iou(truth_N4, np.array(WHOLE))
    label = "Rectangle, intersection over union (half whole)"
    yield Score("rectangle_iou_half", label, "", "higher", iou_N, whole_N, "always the whole frame", everything_N)

    label = "Size factor, mean absolute error (crops)"
    yield _size_error("size_factor_mae_crops", label, truth_N4, is_crop_N, answers.rectangle_N4, trivial)

    error_N = np.abs(size_factor(answers.final_N4) - size_N)
    constant_N = np.abs(trivial.size_factor_half - size_N)
    label, baseline = "Size factor, mean absolute error (half whole)", f"always {trivial.size_factor_half:.2f}"
    yield Score("size_factor_mae_half", label, "of side", "lower", error_N, constant_N, baseline, everything_N)

    error_N = np.abs(answers.rectangle_N4 - truth_N4).mean(1)
    constant_N = np.abs(np.array(trivial.edges) - truth_N4).mean(1)
    label, baseline = "Edges, mean absolute error (crops)", "the median of each edge"
    yield Score("edge_mae_crops", label, "of side", "lower", error_N, constant_N, baseline, is_crop_N)


def _overlap(
    name: str, label: str, truth_N4: Floats, is_crop_N: NDArray[np.bool_], said_N4: Floats, trivial: TrivialAnswers
) -> Score:
    """Overlap with the true crops, beside that of the best centred rectangle."""
    m = trivial.margin
    iou_N, centred_N = rectangle_iou(truth_N4, said_N4), rectangle_iou(truth_N4, np.array([m, 1 - m, m, 1 - m]))
    return Score(name, label, "", "higher", iou_N, centred_N, f"centred rectangle {m:.2f} to {1 - m:.2f}", is_crop_N)


def _size_error(
    name: str, label: str, truth_N4: Floats, is_crop_N: NDArray[np.bool_], said_N4: Floats, trivial: TrivialAnswers
) -> Score:
    """Error of the size factor on crops, beside that of the median of the law."""
    size_N = size_factor(truth_N4)
    error_N, constant_N = np.abs(size_factor(said_N4) - size_N), np.abs(trivial.size_factor_crops - size_N)
    baseline = f"always {trivial.size_factor_crops:.2f}"
    return Score(name, label, "of side", "lower", error_N, constant_N, baseline, is_crop_N)


def _patch_scores(label_NP: NDArray[np.int64], patches: PatchAnswers, trivial: TrivialAnswers) -> Iterator[Score]:
    """Where the patches were in the frame: means over the sixteen of each sample."""
    everything_N = np.ones(len(label_NP), np.bool_)
    right_N = (patches.cell_NP == label_NP).mean(1)
    commonest_N, own_N = (label_NP == trivial.cell).mean(1), (label_NP == np.arange(CELLS)).mean(1)
    label = "Patch location, top-1 accuracy"
    yield Score("patch_top1", label, "", "higher", right_N, commonest_N, "always the commonest cell", everything_N)

    label, baseline = "Patch location, top-1 accuracy, knowing the patch's place", "always its own cell"
    yield Score("patch_top1_own_cell", label, "", "higher", right_N, own_N, baseline, everything_N)

    away_N = cell_distance(patches.cell_NP, label_NP).mean(1)
    central_N = cell_distance(np.full_like(label_NP, trivial.central_cell), label_NP).mean(1)
    label = "Patch location, mean distance"
    yield Score("patch_distance", label, "cells", "lower", away_N, central_N, "always a central cell", everything_N)

    surprise_N = -np.take_along_axis(patches.log_probability_NPK, label_NP[..., None], axis=2)[..., 0].mean(1)
    constant_N = -np.log(np.array(trivial.cell_shares))[label_NP].mean(1)
    label, baseline = "Patch location, negative log-likelihood", "the share of each cell"
    yield Score("patch_nll", label, "nats", "lower", surprise_N, constant_N, baseline, everything_N)


def _closed_form_scores(
    truth_N4: Floats, is_crop_N: NDArray[np.bool_], closed_N4: Floats, trivial: TrivialAnswers
) -> Iterator[Score]:
    """The rectangle that the heat-maps imply."""
    label = "Rectangle from the heat-maps, intersection over union (crops)"
    yield _overlap("closed_form_iou_crops", label, truth_N4, is_crop_N, closed_N4, trivial)
    label = "Size factor from the heat-maps, mean absolute error (crops)"
    yield _size_error("closed_form_size_factor_mae_crops", label, truth_N4, is_crop_N, closed_N4, trivial)
