"""Figures against yardsticks, and intervals that cover what they promise to."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
)

from models.metrics import (
    Estimate,
    PhotoBootstrap,
    against_constant,
    auroc,
    best_threshold,
    confusion_matrix,
    macro_f1,
    macro_precision,
    rectangle_iou,
    size_factor,
)


def test_intersection_over_union():
    """By hand: equal, half, disjoint, inverted (empty)."""
    truth = np.array([[0.0, 1.0, 0.0, 1.0]] * 4)
    found = np.array([[0, 1, 0, 1], [0, 0.5, 0, 1], [2, 3, 0, 1], [0.8, 0.2, 0, 1]], float)
    assert rectangle_iou(truth, found).tolist() == pytest.approx([1, 0.5, 0, 0])
    assert size_factor(found)[1] == pytest.approx(0.75)


def test_auroc_is_that_of_torchmetrics():
    """Equal to torchmetrics, ties included; a weight of two equals a sample that stands twice."""
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 20, 500) / 20, rng.random(500) < 0.4
    weights = rng.integers(1, 4, 500)
    ours = auroc(scores, positive, np.stack([np.ones(500), weights]))
    repeated = np.repeat(np.arange(500), weights)
    theirs = [
        binary_auroc(torch.tensor(scores[rows]), torch.tensor(positive[rows])) for rows in (slice(None), repeated)
    ]
    assert ours.tolist() == pytest.approx([float(value) for value in theirs], abs=1e-6)


def test_the_interval_covers():
    """Over 300 draws of 60 photos with correlated samples, the 95 % interval holds the truth 90 to 98 times in 100."""
    rng, hits = np.random.default_rng(1), 0
    photo = np.tile(np.arange(60), 4)
    for trial in range(300):
        values = rng.normal(size=60)[photo] + rng.normal(size=240)
        estimate = PhotoBootstrap(photo, 60, 400, trial).mean(values, np.ones(240))
        hits += estimate.low <= 0 <= estimate.high
    assert 0.90 <= hits / 300 <= 0.98


def test_photos_are_resampled_not_samples():
    """Repeating every sample ten times makes no interval narrower."""
    values = np.random.default_rng(2).normal(size=50)
    once = PhotoBootstrap(np.arange(50), 50, 500, 0).mean(values, np.ones(50))
    often = PhotoBootstrap(np.tile(np.arange(50), 10), 50, 500, 0).mean(np.tile(values, 10), np.ones(500))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_auroc_interval():
    """The interval holds the value, and is that of a coin where scores say nothing."""
    rng = np.random.default_rng(4)
    photo, positive = np.tile(np.arange(80), 3), np.repeat([False, True, True], 80)
    bootstrap = PhotoBootstrap(photo, 80, 500, 0)
    blind = bootstrap.auroc(rng.normal(size=240), positive, np.ones(240))
    seeing = bootstrap.auroc(rng.normal(size=240) + 2 * positive, positive, np.ones(240))
    assert blind.low < 0.5 < blind.high
    assert 0.8 < seeing.low < seeing.value < seeing.high < 1


def test_threshold():
    """The best cut lies between the classes; among equals the one nearest to zero is taken."""
    scores = np.array([-3.0, -2.0, 1.0, 4.0])
    assert best_threshold(scores, np.array([False, False, True, True]), np.ones(4)) == pytest.approx(-0.5)
    assert best_threshold(scores, np.array([False, False, False, True]), np.ones(4)) == pytest.approx(2.5)
    everything = best_threshold(scores, np.ones(4, bool), np.ones(4))
    assert everything < -3


def test_figures_of_classes_are_those_of_torchmetrics():
    """Confusion, macro precision and macro F1, also where a class is never called and where one is not there at all."""
    rng = np.random.default_rng(6)
    truth, called = rng.integers(0, 4, 300), rng.integers(0, 3, 300)  # of five classes, 3 is never called, 4 nowhere
    weights = rng.integers(1, 4, 300)
    ours = confusion_matrix(truth, called, weights.astype(float), 5)
    theirs = [torch.from_numpy(np.repeat(each, weights)) for each in (called, truth)]
    assert ours.tolist() == multiclass_confusion_matrix(*theirs, 5).tolist()
    precision, f1 = multiclass_precision(*theirs, 5, average="macro"), multiclass_f1_score(*theirs, 5, average="macro")
    assert macro_precision(ours[None])[0] == pytest.approx(float(precision), abs=1e-6)
    assert macro_f1(ours[None])[0] == pytest.approx(float(f1), abs=1e-6)


def test_several_means_at_once_are_those_one_by_one():
    """Figures over different samples share the resampling and nothing else; one about nothing has no interval."""
    rng = np.random.default_rng(7)
    bootstrap = PhotoBootstrap(np.tile(np.arange(40), 3), 40, 300, 0)
    values, weights = rng.normal(size=(3, 120)), rng.integers(0, 2, (3, 120)).astype(float)
    weights[2] = 0
    together = bootstrap.means(values, weights)
    for each, alone in zip(together, map(bootstrap.mean, values[:2], weights[:2]), strict=False):
        assert (each.value, each.low, each.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert np.isnan([together[2].value, together[2].low, together[2].high]).all()


def test_the_interval_of_a_macro_figure_resamples_photos():
    """It holds the value, and repeating every sample makes it no narrower."""
    rng = np.random.default_rng(8)
    photo, truth = np.arange(60), rng.integers(0, 3, 60)
    called = np.where(rng.random(60) < 0.7, truth, 0)
    once = PhotoBootstrap(photo, 60, 300, 0).of_confusion(macro_f1, truth, called, np.ones(60), 3)
    often = [np.tile(each, 5) for each in (photo, truth, called)]
    again = PhotoBootstrap(often[0], 60, 300, 0).of_confusion(macro_f1, *often[1:], np.ones(300), 3)
    assert once.low < once.value < once.high
    assert (again.value, again.low, again.high) == pytest.approx((once.value, once.low, once.high))


def test_a_baseline_is_beaten_when_the_whole_interval_is_beyond_it():
    """Above it where higher is better, below it where lower is."""
    value = Estimate(0.6, 0.55, 0.65)

    def beaten(better: str, baseline: float) -> bool:
        return against_constant("f", "F", "", better, value, baseline, "b")["beats_baseline"]

    assert beaten("higher", 0.5)
    assert not beaten("higher", 0.57)
    assert beaten("lower", 0.7)
    assert not beaten("lower", 0.6)
