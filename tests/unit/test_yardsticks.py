"""The second opinion of torchmetrics agrees with our figures, weights and all."""

import numpy as np
import pytest

from models import yardsticks
from models.calibration import confidences, weights_of
from models.metrics import auroc, confusion_matrix, macro_f1, macro_precision
from models.systems import Probabilities

RNG = np.random.default_rng(12)
SAMPLE_M = np.repeat(np.arange(60), 2)
WEIGHT_N = np.where(np.arange(60) < 20, 0.5, 0.125)  # four to one, as whole photos and their crops are


def test_several_classes() -> None:
    """Accuracy, macro precision, macro F1 and the confusion matrix are ours, each sample by its weight."""
    logits_MK, truth_M = RNG.normal(size=(120, 3)), RNG.integers(0, 3, 120)
    found = yardsticks.measure([Probabilities("label", "Label", logits_MK, truth_M, SAMPLE_M)], WEIGHT_N)["label"]
    weights_M = weights_of(SAMPLE_M, WEIGHT_N)
    confusion_KK = confusion_matrix(truth_M, logits_MK.argmax(1), weights_M / weights_M.min(), 3)
    assert found["confusion"] == confusion_KK.tolist()
    assert found["macro_precision"] == pytest.approx(macro_precision(confusion_KK[None])[0], abs=1e-6)
    assert found["macro_f1"] == pytest.approx(macro_f1(confusion_KK[None])[0], abs=1e-6)
    right_M = confidences(logits_MK, truth_M).is_so_M
    assert found["accuracy"] == pytest.approx(np.average(right_M, weights=weights_M), abs=1e-6)


def test_yes_or_no() -> None:
    """Accuracy and the area under the ROC curve are ours."""
    logits_M1, truth_M = RNG.normal(size=(120, 1)), RNG.integers(0, 2, 120)
    found = yardsticks.measure([Probabilities("crop", "Crop", logits_M1, truth_M, SAMPLE_M)], WEIGHT_N)
    weights_M = weights_of(SAMPLE_M, WEIGHT_N)
    right_M = (logits_M1[:, 0] >= 0) == truth_M
    assert found["crop"]["accuracy"] == pytest.approx(np.average(right_M, weights=weights_M), abs=1e-6)
    assert found["crop"]["auroc"] == pytest.approx(auroc(logits_M1[:, 0], truth_M > 0, weights_M[None])[0], abs=1e-6)
    assert "torchmetrics" in found


def test_weights_that_no_repetition_expresses_count_alike() -> None:
    """Every sample once, but for those of no weight."""
    assert yardsticks.repeated(np.array([1.0, 2.0, 0.0, 3.0])).tolist() == [0, 1, 1, 3, 3, 3]
    assert yardsticks.repeated(np.array([1.0, 1.5, 0.0])).tolist() == [0, 1]
    assert yardsticks.repeated(np.array([1.0, 1000.0])).tolist() == [0, 1]
    assert yardsticks.repeated(np.zeros(3)).tolist() == []
