"""Figures and their uncertainty. Arrays are NumPy: N or M samples, P photos, R bootstrap replicates.

Every interval resamples *photos*, not samples: the crops of one photo are not independent of each other.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13 (percentile intervals).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_CHUNK_VALUES = 4_000_000  # counts held at once: 32 MB


def rectangle_iou(first_N4: Floats, second_N4: Floats) -> Floats:
    """Intersection over union [N] of rectangles (x1, x2, y1, y2); an inverted rectangle is empty and scores 0."""
    low, high = (
        np.maximum(first_N4[..., ::2], second_N4[..., ::2]),
        np.minimum(first_N4[..., 1::2], second_N4[..., 1::2]),
    )
    intersection = np.clip(high - low, 0, None).prod(-1)
    union = _area(first_N4) + _area(second_N4) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)  # type: ignore[no-any-return]


def _area(rectangle_N4: Floats) -> Floats:
    return np.clip(rectangle_N4[..., 1::2] - rectangle_N4[..., ::2], 0, None).prod(-1)  # type: ignore[no-any-return]


def size_factor(rectangle_N4: Floats) -> Floats:
    """Linear size [N] of a rectangle: the mean of its width and its height, as fractions of the frame."""
    return (rectangle_N4[..., 1::2] - rectangle_N4[..., ::2]).mean(-1)  # type: ignore[no-any-return]


def auroc(scores_M: Floats, is_positive_M: NDArray[np.bool_], weights_RM: Floats) -> Floats:
    """Weighted area under the ROC curve [R], one per row of weights; ties count half. NaN where a class is absent."""
    order = np.argsort(scores_M, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores_M[order]) > 0])
    weights = weights_RM[:, order]
    positive = np.add.reduceat(weights * is_positive_M[order], starts, axis=1)
    negative = np.add.reduceat(weights * ~is_positive_M[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))  # type: ignore[no-any-return]


def confusion_matrix(truth_M: Labels, called_M: Labels, weights_M: Floats, classes: int) -> Floats:
    """Weight [K, K] of the samples of each true class (rows) that were called each class (columns)."""
    cells = np.bincount(truth_M * classes + called_M, weights_M, classes * classes)
    return cells.reshape(classes, classes)


def macro_precision(confusion_RKK: Floats) -> Floats:
    """Mean over classes [R] of the share of right calls: 0 for a class never called; those never seen are left out."""
    right_RK, called_RK, is_there_RK = _by_class(confusion_RKK)
    return _mean_where(np.divide(right_RK, called_RK, out=np.zeros_like(right_RK), where=called_RK > 0), is_there_RK)


def macro_f1(confusion_RKK: Floats) -> Floats:
    """Mean over classes [R] of the harmonic mean of precision and recall; classes count as in ``macro_precision``."""
    right_RK, called_RK, is_there_RK = _by_class(confusion_RKK)
    both_RK = called_RK + confusion_RKK.sum(2)
    return _mean_where(np.divide(2 * right_RK, both_RK, out=np.zeros_like(right_RK), where=both_RK > 0), is_there_RK)


def _by_class(confusion_RKK: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Weight called rightly, weight called, and whether the class is there at all, true or called [R, K] each."""
    called_RK = confusion_RKK.sum(1)
    return np.diagonal(confusion_RKK, axis1=1, axis2=2).copy(), called_RK, called_RK + confusion_RKK.sum(2) > 0


def _mean_where(values_RK: Floats, counts_RK: NDArray[np.bool_]) -> Floats:
    return (values_RK * counts_RK).sum(1) / counts_RK.sum(1).clip(1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PhotoBootstrap:
    """Resamples ``photos`` photos ``replicates`` times, in the same way for every figure, so that differences pair."""

    photo_M: NDArray[np.int64]  # which photo each sample shows
    photos: int
    replicates: int
    seed: int

    def mean(self, values_M: Floats, weights_M: Floats) -> Estimate:
        """Weighted mean over the samples; its interval."""
        return self.means(values_M[None], weights_M[None])[0]

    def means(self, values_SM: Floats, weights_SM: Floats) -> list[Estimate]:
        """Weighted means of S figures over the samples, each with its interval; photos are resampled once for all."""
        weight_PS = self.sums(weights_SM)
        sum_PS = self.sums(weights_SM * values_SM)
        return self.estimates(lambda counts_RP: _quotient(counts_RP @ sum_PS, counts_RP @ weight_PS))

    def sums(self, values_SM: Floats) -> Floats:
        """Sums over the samples of each photo [P, S]."""
        return np.stack([np.bincount(self.photo_M, values_M, self.photos) for values_M in values_SM], axis=1)

    def auroc(self, scores_M: Floats, is_positive_M: NDArray[np.bool_], weights_M: Floats) -> Estimate:
        """Weighted area under the ROC curve; its interval."""
        return self.estimate(lambda counts_RP: auroc(scores_M, is_positive_M, counts_RP[:, self.photo_M] * weights_M))

    def of_confusion(
        self, statistic: Callable[[Floats], Floats], truth_M: Labels, called_M: Labels, weights_M: Floats, classes: int
    ) -> Estimate:
        """``statistic`` [R] of a confusion matrix [R, K, K], such as ``macro_precision``; its interval."""
        cell_PC = np.zeros((self.photos, classes * classes))
        np.add.at(cell_PC, (self.photo_M, truth_M * classes + called_M), weights_M)
        return self.estimate(lambda counts_RP: statistic((counts_RP @ cell_PC).reshape(-1, classes, classes)))

    def estimate(self, statistic: Callable[[Floats], Floats]) -> Estimate:
        """``statistic`` [R] of how often each photo counts [R, P]: once on the photos as they are, then resampled."""
        return self.estimates(lambda counts_RP: statistic(counts_RP)[:, None])[0]

    def estimates(self, statistic: Callable[[Floats], Floats]) -> list[Estimate]:
        """As ``estimate``, for a statistic of S numbers [R, S]. NaN where no replicate has one."""
        value_S = statistic(np.ones((1, self.photos)))[0]
        resampled_RS = np.concatenate([statistic(counts_RP) for counts_RP in self._counts()])
        has_any_S = ~np.isnan(resampled_RS).all(0)
        bounds_2S = np.full((2, len(value_S)), np.nan)
        bounds_2S[:, has_any_S] = np.nanquantile(resampled_RS[:, has_any_S], [0.025, 0.975], axis=0)
        return [Estimate(*each) for each in np.stack([value_S, *bounds_2S], axis=1).tolist()]

    def _counts(self) -> Iterator[Floats]:
        rng = np.random.default_rng(self.seed)
        rows = max(1, _CHUNK_VALUES // max(self.photos, len(self.photo_M)))
        for done in range(0, self.replicates, rows):
            count = min(rows, self.replicates - done)
            drawn = rng.integers(0, self.photos, (count, self.photos)) + np.arange(count)[:, None] * self.photos
            yield np.bincount(drawn.ravel(), minlength=count * self.photos).reshape(count, self.photos).astype(float)


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def beats(gap: Estimate, better: str) -> bool:
    """Whether the whole interval of a paired difference is on the better side of 0."""
    return gap.low > 0 if better == "higher" else gap.high < 0


def figure(
    name: str, label: str, unit: str, better: str, value: Estimate, baseline: float, baseline_label: str, gap: Estimate
) -> dict[str, Any]:
    """One figure as ``evaluation.json`` has it. ``gap``: the paired difference of the figure and its baseline."""
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
        "beats_baseline": beats(gap, better),
    }


def against_constant(
    name: str, label: str, unit: str, better: str, value: Estimate, baseline: float, baseline_label: str
) -> dict[str, Any]:
    """A figure whose baseline is a number that no photo changes, such as the 0.5 of an area under the ROC curve."""
    gap = Estimate(value.value - baseline, value.low - baseline, value.high - baseline)
    return figure(name, label, unit, better, value, baseline, baseline_label, gap)


def best_threshold(scores_M: Floats, is_positive_M: NDArray[np.bool_], weights_M: Floats) -> float:
    """The threshold (score >= t is positive) of the best weighted accuracy; of equals, the one nearest to zero."""
    order = np.argsort(scores_M, kind="stable")
    scores, signed = scores_M[order], np.where(is_positive_M, weights_M, -weights_M)[order]
    gain = np.r_[signed[::-1].cumsum()[::-1], 0.0]  # of calling everything from here on positive
    edges = np.r_[scores[0] - 1, (scores[1:] + scores[:-1]) / 2, scores[-1] + 1]
    distinct = np.r_[True, np.diff(scores) > 0, True]
    best = distinct & (gain >= gain[distinct].max() - 1e-12)
    return float(min(edges[best].tolist(), key=abs))
