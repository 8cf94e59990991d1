"""Whether two thumbnails show the same picture: lay one over the other to a fraction of a pixel; look at what is left.

A pair comes with the boxes that seemed to be the same part of both. The second box is corrected by Gauss-Newton steps
on its four sides, together with contrast and brightness. Three things are then asked:

- *outside*: one picture must lie within the other, as a crop does; two frames of a burst each show what the other
  does not;
- *correlation* of the fine structure (what a blur takes away) after the best tone curve;
- *moved*: places that are brighter in the one and, elsewhere, places that are brighter in the other. A watermark adds
  to one of the two; a subject that went from here to there does both.

Source: Lucas and Kanade, "An iterative image registration technique", IJCAI 1981, section 4; Baker and Matthews,
"Lucas-Kanade 20 years on", IJCV 56(3), 2004, section 2; thresholds: ``tests/bench/duplicates.py``.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_STEPS = 6
_STEP_MAX, _CORRECTION_MAX = 0.03, 0.06  # of a side
_PAD_PX = 5  # the pixels of the border go on beyond it: more than a corrected box and its kernel reach
_ALIGNED_BLUR_PX, _COMPARED_BLUR_PX, _RESIDUE_BLUR_PX, _CONTRAST_BLUR_PX = 1.0, 0.5, 1.0, 2.0
_FINE_PX = 7
_FLOOR, _OF_CONTRAST, _OF_RESIDUE = 4.0, 0.15, 2.0  # grey levels; shares of local contrast and of the usual residue
_USUAL = 70  # percentile of the residue that counts as usual

Planes = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]
_RIM = slice(1, -1)  # its pixels are half of a frame, or of what lies beyond


class Bar(NamedTuple):
    """What a pair must reach: ``outside`` is the share of a side by which both may show what the other does not.

    Of correlation and moved one must also be clear: pictures of a few large plain shapes reach both, but barely.
    """

    min_correlation: float
    max_moved: float
    max_outside: float
    clear_correlation: float = 0.0
    clear_moved: float = 0.0


SAME = Bar(0.6, 0.8, 0.035, clear_correlation=0.88, clear_moved=0.5)
ALIKE = Bar(0.5, 1.8, 0.15)  # for a person to look at: neighbours in a burst, small changes to a picture


class Agreement(NamedTuple):
    """What is known of each pair once it is registered."""

    correlation: npt.NDArray[np.float32]
    moved: npt.NDArray[np.float32]
    outside: npt.NDArray[np.float64]

    def reaches(self, bar: Bar) -> npt.NDArray[np.bool_]:
        """Whether the pictures of each pair are as like each other as ``bar`` asks."""
        is_like = (self.correlation >= bar.min_correlation) & (self.moved <= bar.max_moved)
        is_clear = (self.correlation >= bar.clear_correlation) | (self.moved <= bar.clear_moved)
        return np.asarray(is_like & is_clear & (self.outside <= bar.max_outside))


def _sampling(low: Boxes, high: Boxes, side: int) -> Planes:
    """pair x side x padded side: cubic interpolation (Keys 1981, a = -1/2) at places from ``low`` to ``high``."""
    places = low[:, None] + (high - low)[:, None] * (np.arange(side) + 0.5) / side
    away = np.abs((places * side - 0.5 + _PAD_PX)[..., None] - np.arange(side + 2 * _PAD_PX)).astype(np.float32)
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((2.5 - 0.5 * away) * away - 4) * away + 2
    return np.where(away < 1, near, np.where(away < 2, far, np.float32(0)))


def _sampled(padded: Planes, boxes: Boxes, blur: Planes) -> Planes:
    """``boxes`` (left, right, top, bottom) of padded pictures as pictures of the full size, blurred."""
    side = len(blur)
    rows, columns = _sampling(boxes[:, 2], boxes[:, 3], side), _sampling(boxes[:, 0], boxes[:, 1], side)
    return np.asarray((blur @ rows) @ padded @ (blur @ columns).transpose(0, 2, 1))


def _padded(thumbnails: npt.NDArray[np.uint8]) -> Planes:
    return np.pad(thumbnails, ((0, 0), (_PAD_PX, _PAD_PX), (_PAD_PX, _PAD_PX)), "edge").astype(np.float32)


def _gaussian(side: int, sigma_px: float) -> Planes:
    """A blur as a matrix; beyond the edge there is nothing."""
    away = np.subtract.outer(np.arange(side), np.arange(side)) / sigma_px
    weights = np.exp(-0.5 * away**2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _moving_mean(side: int) -> Planes:
    """A mean over 7 pixels as a matrix; beyond the edge the last pixel goes on."""
    matrix = np.zeros((side, side), np.float32)
    for offset in range(-(_FINE_PX // 2), _FINE_PX // 2 + 1):
        matrix[np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)] += 1 / _FINE_PX
    return matrix


def corrected(first: Planes, second: Planes, first_boxes: Boxes, second_boxes: Boxes) -> Boxes:
    """``second_boxes`` moved so that they show in ``second`` what ``first_boxes`` show in ``first``."""
    side = first.shape[1] - 2 * _PAD_PX
    blur, along = _gaussian(side, _ALIGNED_BLUR_PX), ((np.arange(side) + 0.5) / side).astype(np.float32)
    target = _inner(_sampled(first, first_boxes, blur)[..., None])
    boxes = second_boxes.copy()
    for _ in range(_STEPS):
        plane = _sampled(second, boxes, blur)
        across = np.gradient(plane, axis=2) * (side / (boxes[:, 1] - boxes[:, 0])[:, None, None]).astype(np.float32)
        down = np.gradient(plane, axis=1) * (side / (boxes[:, 3] - boxes[:, 2])[:, None, None]).astype(np.float32)
        slopes = [across * (1 - along), across * along, down * (1 - along)[:, None], down * along[:, None]]
        jacobian = _inner(np.stack([*slopes, plane, np.ones_like(plane)], axis=-1))
        solved = _least_squares(jacobian, target, 1e-4)
        contrast = np.where(np.abs(solved[:, 4:5]) < 0.1, 0.1, solved[:, 4:5])
        boxes += np.clip(solved[:, :4] / contrast, -_STEP_MAX, _STEP_MAX)
        boxes = np.clip(boxes, second_boxes - _CORRECTION_MAX, second_boxes + _CORRECTION_MAX)
    return boxes


def _inner(planes: Planes) -> Planes:
    """pair x pixels but for the rim x values, of pair x side x side x values."""
    inner = planes[:, _RIM, _RIM]
    return inner.reshape(len(inner), inner.shape[1] * inner.shape[2], inner.shape[3])


def _least_squares(matrix: Planes, target: Planes, damping: float) -> Boxes:
    """The best x of matrix x = target for each pair; ``damping`` keeps pictures without structure in place."""
    transposed = matrix.transpose(0, 2, 1)
    normal = (transposed @ matrix).astype(np.float64)
    size = normal.shape[1]
    normal += np.eye(size) * (damping * np.diagonal(normal, axis1=1, axis2=2) + 1e-6)[:, None, :]
    return np.asarray(np.linalg.solve(normal, (transposed @ target).astype(np.float64))[..., 0])


def _toned(plane: Planes, target: Planes) -> Planes:
    """``plane`` through the cubic tone curve that brings it nearest to ``target``."""
    powers = np.stack([(plane / 128 - 1) ** power for power in range(4)], axis=-1).astype(np.float32)
    curve = _least_squares(_inner(powers), _inner(target[..., None]), 1e-3).astype(np.float32)
    return np.asarray((powers @ curve[:, None, :, None])[..., 0])


def _correlation(first: Planes, second: Planes) -> npt.NDArray[np.float32]:
    """Normalised correlation of each pair's fine structure."""
    mean = _moving_mean(first.shape[1])
    one, other = ((plane - mean @ plane @ mean.T)[:, _RIM, _RIM] for plane in (first, second))
    energy = (one * one).sum(axis=(1, 2)) * (other * other).sum(axis=(1, 2))
    return np.asarray((one * other).sum(axis=(1, 2)) / np.sqrt(energy + 1e-3), dtype=np.float32)


def _moved(first: Planes, second: Planes) -> npt.NDArray[np.float32]:
    """The lesser of what stands out in ``first`` and in ``second``, beside local contrast and the usual residue."""
    side = first.shape[1]
    blur, wide = _gaussian(side, _RESIDUE_BLUR_PX), _gaussian(side, _CONTRAST_BLUR_PX)
    residue = blur @ (first - second) @ blur.T
    contrast = [
        np.sqrt(np.maximum(wide @ plane**2 @ wide.T - (wide @ plane @ wide.T) ** 2, 0)) for plane in (first, second)
    ]
    usual = np.percentile(np.abs(residue[:, _RIM, _RIM]), _USUAL, axis=(1, 2))[:, None, None]
    expected = _FLOOR + _OF_CONTRAST * np.minimum(*contrast) + _OF_RESIDUE * usual
    ratio = (residue / expected)[:, _RIM, _RIM]
    return np.asarray(np.minimum(ratio.max(axis=(1, 2)), -ratio.min(axis=(1, 2))), dtype=np.float32)


def outside(first_boxes: Boxes, second_boxes: Boxes, first_frames: Boxes, second_frames: Boxes) -> Boxes:
    """How far each pair's pictures show, at some side, what the other does not: the lesser of the two.

    ``first_boxes`` and ``second_boxes`` show the same; what a picture shows ends at its frame.
    """
    pairs = [(first_boxes, second_boxes, first_frames, second_frames)]
    pairs.append((second_boxes, first_boxes, second_frames, first_frames))
    beyond = []
    for here, there, frame_here, frame_there in pairs:
        low, high = here[:, [0, 2]], here[:, [1, 3]]
        scale = (there[:, [1, 3]] - there[:, [0, 2]]) / (high - low)
        begin = there[:, [0, 2]] + (frame_here[:, [0, 2]] - low) * scale
        end = there[:, [0, 2]] + (frame_here[:, [1, 3]] - low) * scale
        beyond.append(np.maximum(frame_there[:, [0, 2]] - begin, end - frame_there[:, [1, 3]]).max(axis=1))
    return np.asarray(np.minimum(*beyond))


def agreement(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], first_boxes: Boxes, second_boxes: Boxes,
    first_frames: Boxes, second_frames: Boxes,
) -> Agreement:  # fmt: skip
    """How well each pair agrees, thumbnails pair x side x side, ``second`` turned as ``first`` stands.

    Boxes are left, right, top, bottom as shares of the side: what seems to be the same part; what lies within a frame.
    """
    if not len(first):
        return Agreement(np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0))
    one, other = _padded(first), _padded(second)
    boxes = corrected(one, other, first_boxes, second_boxes)
    blur = _gaussian(first.shape[1], _COMPARED_BLUR_PX)
    here = _sampled(one, first_boxes, blur)
    there = _toned(_sampled(other, boxes, blur), here)
    return Agreement(
        _correlation(here, there), _moved(here, there), outside(first_boxes, boxes, first_frames, second_frames)
    )
