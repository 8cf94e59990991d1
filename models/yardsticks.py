"""What torchmetrics says of the same outputs: a second opinion, beside figures that are our own.

Our figures are resampled some thousand times with weights, which torchmetrics does not know; its point values need
neither, so they are taken from it wherever it is installed, and the tests hold ours against them. A weight is expressed
by repetition: samples stand as often as the lightest of them goes into their weight.
Shapes: M decisions, K classes (one column is the logit of yes).
"""

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.calibration import BINS, weights_of
from models.metrics import Floats, Labels
from models.systems import Probabilities

MAX_REPEATS = 64  # weights that differ by more, or by fractions, are beyond repetition


def measure(probabilities: Sequence[Probabilities], weight_N: Floats) -> dict[str, Any]:
    """For each of the system's probabilities what torchmetrics measures; empty where it is not installed."""
    if not probabilities or importlib.util.find_spec("torchmetrics") is None:
        return {}
    found: dict[str, Any] = {"torchmetrics": version("torchmetrics")}
    for each in probabilities:
        rows_M = repeated(weights_of(each.sample_M, weight_N))
        logits_MK, truth_M = torch.from_numpy(each.logits_MK[rows_M]), torch.from_numpy(each.truth_M[rows_M])
        found[each.name] = (
            _yes_or_no(logits_MK[:, 0], truth_M) if logits_MK.shape[1] == 1 else _classes(logits_MK, truth_M)
        )
    return found


def repeated(weights_M: Floats) -> Labels:
    """Row numbers, each as often as its weight says; all once where weights are no small multiples of the least."""
    positive_M = weights_M > 0
    if not positive_M.any():
        return np.arange(0)
    times_M = weights_M / weights_M[positive_M].min()
    if times_M.max() > MAX_REPEATS or not np.allclose(times_M, times_M.round(), atol=1e-6):
        return np.flatnonzero(positive_M)
    return np.repeat(np.arange(len(weights_M)), times_M.round().astype(np.int64))


def _yes_or_no(logit_M: Tensor, truth_M: Tensor) -> dict[str, Any]:
    """Figures of the call "yes" at a probability of one half."""
    from torchmetrics.functional import classification as known

    yes_M = logit_M.sigmoid()
    return {
        "accuracy": float(known.binary_accuracy(yes_M, truth_M)),
        "auroc": float(known.binary_auroc(yes_M, truth_M)),
        "f1": float(known.binary_f1_score(yes_M, truth_M)),
        "calibration_error": float(known.binary_calibration_error(yes_M, truth_M, n_bins=BINS)),
    }


def _classes(logits_MK: Tensor, truth_M: Tensor) -> dict[str, Any]:
    """Figures of the likeliest class; rows of the confusion matrix are true classes."""
    from torchmetrics.functional import classification as known

    probability_MK, classes = logits_MK.softmax(1), logits_MK.shape[1]
    return {
        "accuracy": float(known.multiclass_accuracy(probability_MK, truth_M, classes, average="micro")),
        "macro_precision": float(known.multiclass_precision(probability_MK, truth_M, classes, average="macro")),
        "macro_f1": float(known.multiclass_f1_score(probability_MK, truth_M, classes, average="macro")),
        "calibration_error": float(known.multiclass_calibration_error(probability_MK, truth_M, classes, n_bins=BINS)),
        "confusion": known.multiclass_confusion_matrix(probability_MK, truth_M, classes).tolist(),
    }
