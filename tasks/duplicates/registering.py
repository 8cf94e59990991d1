"""Whether two thumbnails show the same picture: lay one over the other to a fraction of a pixel; look at what is left.

A pair comes with the boxes that seemed to be the same part of both. The second box is corrected by Gauss-Newton steps
on its four sides, together with contrast and brightness; pixels that fit badly count little, so that a mark which
covers a tenth of one picture neither shifts nor shades the rest. Three things are then asked:

- *outside*: one picture must lie within the other, as a crop does; two frames of a burst each show what the other
  does not;
- *correlation* of the fine structure (what a blur takes away) after the best tone curve, each place beside its own
  contrast: the same mark on two pictures is not the same picture;
- *moved*: places that are brighter in the one and, elsewhere, places that are brighter in the other. A watermark adds
  to one of the two; a subject that went from here to there does both.

Where something *stands out* on one of them alone, the pictures themselves must tell whether it is a mark
(``tasks.duplicates.marks``).

Source: Lucas and Kanade, "An iterative image registration technique", IJCAI 1981, section 4; Baker and Matthews,
"Lucas-Kanade 20 years on", IJCV 56(3), 2004, section 2; weights: Black and Anandan, "The robust estimation of multiple
motions", CVIU 63(1), 1996, section 3; thresholds: ``tests/bench/duplicates.py``.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.pictures import imaging

_STEPS = 6
_STEP_MAX, _CORRECTION_MAX = 0.03, 0.06  # of a side
_PAD_PX = 5  # the pixels of the border go on beyond it: more than a corrected box and its kernel reach
_ALIGNED_BLUR_PX, _COMPARED_BLUR_PX, _RESIDUE_BLUR_PX, _CONTRAST_BLUR_PX = 1.0, 0.5, 1.0, 2.0
_COARSE_PX, _OVERLAID_BLUR_PX = 64, 0.7
_FINE_PX = 7
_FLOOR, _OF_CONTRAST, _OF_RESIDUE = 4.0, 0.15, 2.0  # grey levels; shares of local contrast and of the usual residue
_FINE_FLOOR = 4.0  # grey levels: fine structure much below that does not count
_OUTLIER_FLOOR, _OF_DEVIATION = 2.0, 3.0  # grey levels; times the median: a residue of their sum counts half
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
    plain: float = math.inf  # what stands out by more must be a mark


SAME = Bar(0.55, 0.8, 0.035, clear_correlation=0.85, clear_moved=0.3, plain=0.8)
ALIKE = Bar(0.5, 1.8, 0.15)  # for a person to look at: neighbours in a burst, small changes to a picture


class Agreement(NamedTuple):
    """What is known of each pair once it is registered; the boxes show the same part of both."""

    correlation: npt.NDArray[np.float32]
    moved: npt.NDArray[np.float32]
    stands_out: npt.NDArray[np.float32]
    outside: npt.NDArray[np.float64]
    first_boxes: Boxes
    second_boxes: Boxes

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


def corrected(first: Planes, second: Planes, first_boxes: Boxes, second_boxes: Boxes) -> tuple[Boxes, Boxes]:
    """``second_boxes`` moved so that they show in ``second`` what ``first_boxes`` show in ``first``.

    And the contrast and brightness (pair x 2) that make ``second`` most like ``first``.
    """
    side = first.shape[1] - 2 * _PAD_PX
    blur = _gaussian(side, _ALIGNED_BLUR_PX)
    target = _inner(_sampled(first, first_boxes, blur)[..., None])
    boxes = second_boxes.copy()
    levels = _jacobian(_sampled(second, boxes, blur), boxes)[..., 4:]
    tones = _nearest(levels, target, [_as_is(len(boxes)), _least_squares(levels, target)])
    for _ in range(_STEPS):
        jacobian = _jacobian(_sampled(second, boxes, blur), boxes)
        weights = _weights(_residue(jacobian[..., 4:], target, tones))
        solved = _least_squares(jacobian * weights, target * weights, 1e-4)
        tones = solved[:, 4:]
        contrast = np.where(np.abs(tones[:, :1]) < 0.1, 0.1, tones[:, :1])
        boxes += np.clip(solved[:, :4] / contrast, -_STEP_MAX, _STEP_MAX)
        boxes = np.clip(boxes, second_boxes - _CORRECTION_MAX, second_boxes + _CORRECTION_MAX)
    return boxes, tones


def _jacobian(plane: Planes, boxes: Boxes) -> Planes:
    """pair x pixels x 6: how ``plane`` changes with each side of ``boxes``, with contrast and with brightness."""
    side = plane.shape[1]
    along = ((np.arange(side) + 0.5) / side).astype(np.float32)
    across = np.gradient(plane, axis=2) * (side / (boxes[:, 1] - boxes[:, 0])[:, None, None]).astype(np.float32)
    down = np.gradient(plane, axis=1) * (side / (boxes[:, 3] - boxes[:, 2])[:, None, None]).astype(np.float32)
    slopes = [across * (1 - along), across * along, down * (1 - along)[:, None], down * along[:, None]]
    return _inner(np.stack([*slopes, plane, np.ones_like(plane)], axis=-1))


def _inner(planes: Planes) -> Planes:
    """pair x pixels but for the rim x values, of pair x side x side x values."""
    inner = planes[:, _RIM, _RIM]
    return inner.reshape(len(inner), inner.shape[1] * inner.shape[2], inner.shape[3])


def _as_is(pairs: int) -> Boxes:
    """Contrast and brightness of nothing done."""
    return np.tile([1.0, 0.0], (pairs, 1))


def _residue(matrix: Planes, target: Planes, solved: Boxes) -> Planes:
    """pair x pixels x 1: how far matrix x is from target."""
    return np.asarray(np.abs(target - matrix @ solved[..., None].astype(np.float32)))


def _weights(residue: Planes) -> Planes:
    """What each pixel counts, 0 to 1."""
    wide = _OUTLIER_FLOOR + _OF_DEVIATION * np.median(residue, axis=1, keepdims=True)
    return np.asarray(1 / (1 + (residue / wide) ** 2), dtype=np.float32)


def _nearest(matrix: Planes, target: Planes, several: list[Boxes]) -> Boxes:
    """Of ``several`` x for each pair the one with matrix x nearest to target at half of the pixels."""
    off = [np.median(_residue(matrix, target, solved), axis=(1, 2)) for solved in several]
    return np.asarray(np.stack(several)[np.argmin(off, axis=0), np.arange(len(target))])


def _least_squares(matrix: Planes, target: Planes, damping: float = 1e-3) -> Boxes:
    """The best x of matrix x = target for each pair; ``damping`` keeps pictures without structure in place."""
    transposed = matrix.transpose(0, 2, 1)
    normal = (transposed @ matrix).astype(np.float64)
    size = normal.shape[1]
    normal += np.eye(size) * (damping * np.diagonal(normal, axis1=1, axis2=2) + 1e-6)[:, None, :]
    return np.asarray(np.linalg.solve(normal, (transposed @ target).astype(np.float64))[..., 0])


def _toned(plane: Planes, target: Planes, tones: Boxes) -> Planes:
    """``plane`` as it is, with ``tones`` (contrast, brightness) or through the best cubic curve: what is nearest to
    ``target`` at most places, for a mark is not to bend the curve.
    """
    powers = np.stack([(plane / 128 - 1) ** power for power in range(4)], axis=-1).astype(np.float32)
    matrix, goal = _inner(powers), _inner(target[..., None])
    curves = [_least_squares(matrix, goal)]
    for contrast, brightness in (_as_is(len(plane)).T, tones.T):
        straight = [128 * contrast + brightness, 128 * contrast, np.zeros_like(contrast), np.zeros_like(contrast)]
        curves.append(np.stack(straight, axis=1))
    curve = _nearest(matrix, goal, curves).astype(np.float32)
    return np.asarray((powers @ curve[:, None, :, None])[..., 0])


def _fine(plane: Planes) -> Planes:
    """The fine structure of ``plane`` in units of its local contrast."""
    mean = _moving_mean(plane.shape[1])
    fine = plane - mean @ plane @ mean.T
    return np.asarray(fine / np.sqrt(mean @ fine**2 @ mean.T + _FINE_FLOOR**2))


def _correlation(first: Planes, second: Planes) -> npt.NDArray[np.float32]:
    """Normalised correlation of each pair's fine structure, that of each place relative to what lies around it."""
    one, other = (_fine(plane)[:, _RIM, _RIM] for plane in (first, second))
    energy = (one * one).sum(axis=(1, 2)) * (other * other).sum(axis=(1, 2))
    return np.asarray((one * other).sum(axis=(1, 2)) / np.sqrt(energy + 1e-3), dtype=np.float32)


def _standing_out(first: Planes, second: Planes) -> npt.NDArray[np.float32]:
    """pair x 2: what stands out most in ``first`` and in ``second``, beside local contrast and the usual residue."""
    side = first.shape[1]
    blur, wide = _gaussian(side, _RESIDUE_BLUR_PX), _gaussian(side, _CONTRAST_BLUR_PX)
    residue = blur @ (first - second) @ blur.T
    contrast = [
        np.sqrt(np.maximum(wide @ plane**2 @ wide.T - (wide @ plane @ wide.T) ** 2, 0)) for plane in (first, second)
    ]
    usual = np.percentile(np.abs(residue[:, _RIM, _RIM]), _USUAL, axis=(1, 2))[:, None, None]
    expected = _FLOOR + _OF_CONTRAST * np.minimum(*contrast) + _OF_RESIDUE * usual
    ratio = (residue / expected)[:, _RIM, _RIM]
    return np.stack([ratio.max(axis=(1, 2)), -ratio.min(axis=(1, 2))], axis=1).astype(np.float32)


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
        nothing = np.empty(0, np.float32)
        return Agreement(nothing, nothing, nothing, np.empty(0), first_boxes, second_boxes)
    one, other = _padded(first), _padded(second)
    boxes, tones = corrected(one, other, first_boxes, second_boxes)
    blur = _gaussian(first.shape[1], _COMPARED_BLUR_PX)
    here = _sampled(one, first_boxes, blur)
    there = _toned(_sampled(other, boxes, blur), here, tones)
    out = _standing_out(here, there)
    beyond = outside(first_boxes, boxes, first_frames, second_frames)
    return Agreement(_correlation(here, there), out.min(axis=1), out.max(axis=1), beyond, first_boxes, boxes)


def plane_of(picture: npt.NDArray[np.uint8], box: Boxes) -> Planes:
    """The part of a large picture, side x side, that ``box`` (left, right, top, bottom) shows, side x side."""
    return np.asarray(_sampled(_padded(picture[None]), box[None], _gaussian(len(picture), _OVERLAID_BLUR_PX))[0])


def corrected_box(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], first_box: Boxes, second_box: Boxes
) -> Boxes:
    """``second_box`` moved so that it shows of the large picture ``second`` what ``first_box`` shows of ``first``."""
    one, two = (_padded(imaging.resize_area(each, _COARSE_PX, _COARSE_PX)[None]) for each in (first, second))
    return np.asarray(corrected(one, two, first_box[None], second_box[None])[0][0])
