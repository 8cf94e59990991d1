"""Temperatures, reliability and calibration errors against known truths and against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from models.calibration import BINS, confidences, describe, fit_temperature, weights_of
from models.metrics import PhotoBootstrap

RNG = np.random.default_rng(3)


def yes_or_no(count: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits [M, 1] that are ``sharpness`` times too sure, and the truth."""
    honest = RNG.normal(0, 2, count)
    return sharpness * honest[:, None], (RNG.random(count) < 1 / (1 + np.exp(-honest))).astype(np.int64)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_how_much_too_sure_a_network_is(sharpness: float) -> None:
    """Logits that were multiplied by a number are found hotter by that number, for two classes and for five."""
    logits_M1, truth_M = yes_or_no(8_000, sharpness)
    assert fit_temperature(logits_M1, truth_M, np.ones(8_000)) == pytest.approx(sharpness, rel=0.08)
    honest_MK = RNG.normal(0, 2, (8_000, 5))
    chances_MK = np.exp(honest_MK) / np.exp(honest_MK).sum(1, keepdims=True)
    classes_M = (chances_MK.cumsum(1) < RNG.random((8_000, 1))).sum(1)
    assert fit_temperature(sharpness * honest_MK, classes_M, np.ones(8_000)) == pytest.approx(sharpness, rel=0.08)


def test_a_temperature_changes_no_decision() -> None:
    """The likeliest class, and on which side of one half a probability lies, are what they were."""
    logits_MK, truth_M = RNG.normal(0, 3, (300, 4)), RNG.integers(0, 4, 300)
    assert (confidences(logits_MK, truth_M).is_so_M == confidences(logits_MK, truth_M, 7.0).is_so_M).all()
    sides = [confidences(logits_MK[:, :1], truth_M % 2, each).probability_M > 0.5 for each in (1.0, 7.0)]
    assert (sides[0] == sides[1]).all()


@pytest.mark.parametrize("classes", [1, 4])
def test_the_calibration_error_is_that_of_torchmetrics(classes: int) -> None:
    """Equal to torchmetrics, and a weight of two equals a sample that stands twice."""
    logits_MK, truth_M = RNG.normal(0, 2, (400, classes)), RNG.integers(0, max(2, classes), 400)
    weights_M = RNG.integers(1, 4, 400).astype(float)
    found = describe(logits_MK, truth_M, weights_M, PhotoBootstrap(np.arange(400), 400, 50, 0), 1.0)["before"]
    rows = np.repeat(np.arange(400), weights_M.astype(int))
    logits, truth = torch.from_numpy(logits_MK[rows]), torch.from_numpy(truth_M[rows])
    if classes == 1:
        theirs = binary_calibration_error(logits[:, 0].sigmoid(), truth, n_bins=BINS)
    else:
        theirs = multiclass_calibration_error(logits.softmax(1), truth, classes, n_bins=BINS)
    assert found["calibration_error"]["value"] == pytest.approx(float(theirs), abs=1e-6)


def test_a_calibrated_network_shows_the_error_that_is_foretold() -> None:
    """Truths drawn with the very probabilities err by chance alone, as much as is said of a calibrated network."""
    found = []
    for _ in range(25):
        logits_M1, truth_M = yes_or_no(300, 1.0)
        found.append(
            describe(logits_M1, truth_M, np.ones(300), PhotoBootstrap(np.arange(300), 300, 20, 0), 1.0)["before"]
        )
    errors = [each["calibration_error"]["value"] for each in found]
    foretold = [each["calibration_error_if_calibrated"] for each in found]
    assert np.mean(errors) == pytest.approx(np.mean(foretold), rel=0.1)


def test_the_fitted_temperature_brings_the_error_down() -> None:
    """A network that is three times too sure is calibrated afterwards, and every bin says how often it was so."""
    logits_M1, truth_M = yes_or_no(4000, 3.0)
    temperature = fit_temperature(logits_M1[:2000], truth_M[:2000], np.ones(2000))
    bootstrap = PhotoBootstrap(np.arange(2000), 2000, 200, 0)
    found = describe(logits_M1[2000:], truth_M[2000:], np.ones(2000), bootstrap, temperature)
    assert found["before"]["calibration_error"]["low"] > 2 * found["after"]["calibration_error"]["value"]
    assert found["after"]["surprise_nats"]["high"] < found["before"]["surprise_nats"]["low"]
    assert sum(each["count"] for each in found["after"]["bins"]) == 2000
    assert all(each["low"] <= each["frequency"] <= each["high"] for each in found["after"]["bins"])
    assert all(each["from"] <= each["probability"] <= each["to"] for each in found["after"]["bins"])


def test_the_weight_of_a_sample_is_shared_among_its_probabilities() -> None:
    """Sixteen patches of a sample weigh together what the sample does."""
    sample_M = np.repeat(np.arange(3), [16, 1, 2])
    weights_M = weights_of(sample_M, np.array([0.5, 0.25, 0.25]))
    assert np.bincount(sample_M, weights_M).tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_nothing_to_fit_on_leaves_the_temperature_at_one() -> None:
    """A split without samples changes no probability."""
    assert fit_temperature(np.zeros((0, 1)), np.zeros(0, np.int64), np.zeros(0)) == 1.0
