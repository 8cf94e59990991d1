"""Figures and their uncertainty. Arrays are NumPy: N or M samples, P photos, R bootstrap replicates.

Every interval resamples *photos*, not samples: the crops of one photo are not independent of each other.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13 (percentile intervals).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
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
        weight_P = np.bincount(self.photo_M, weights_M, self.photos)
        sum_P = np.bincount(self.photo_M, weights_M * values_M, self.photos)
        return self.estimate(lambda counts_RP: (counts_RP @ sum_P) / (counts_RP @ weight_P))

    def auroc(self, scores_M: Floats, is_positive_M: NDArray[np.bool_], weights_M: Floats) -> Estimate:
        """Weighted area under the ROC curve; its interval."""
        return self.estimate(lambda counts_RP: auroc(scores_M, is_positive_M, counts_RP[:, self.photo_M] * weights_M))

    def estimate(self, statistic: Callable[[Floats], Floats]) -> Estimate:
        """``statistic`` [R] of how often each photo counts [R, P]: once on the photos as they are, then resampled."""
        value = float(statistic(np.ones((1, self.photos)))[0])
        resampled = np.concatenate([statistic(counts_RP) for counts_RP in self._counts()])
        low, high = np.nanquantile(resampled, [0.025, 0.975]).tolist()
        return Estimate(value, low, high)

    def _counts(self) -> Iterator[Floats]:
        rng = np.random.default_rng(self.seed)
        rows = max(1, _CHUNK_VALUES // max(self.photos, len(self.photo_M)))
        for done in range(0, self.replicates, rows):
            count = min(rows, self.replicates - done)
            drawn = rng.integers(0, self.photos, (count, self.photos)) + np.arange(count)[:, None] * self.photos
            yield np.bincount(drawn.ravel(), minlength=count * self.photos).reshape(count, self.photos).astype(float)


def best_threshold(scores_M: Floats, is_positive_M: NDArray[np.bool_], weights_M: Floats) -> float:
    """The threshold (score >= t is positive) of the best weighted accuracy; of equals, the one nearest to zero."""
    order = np.argsort(scores_M, kind="stable")
    scores, signed = scores_M[order], np.where(is_positive_M, weights_M, -weights_M)[order]
    gain = np.r_[signed[::-1].cumsum()[::-1], 0.0]  # of calling everything from here on positive
    edges = np.r_[scores[0] - 1, (scores[1:] + scores[:-1]) / 2, scores[-1] + 1]
    distinct = np.r_[True, np.diff(scores) > 0, True]
    best = distinct & (gain >= gain[distinct].max() - 1e-12)
    return float(min(edges[best].tolist(), key=abs))
