"""Whether two pictures that agree differ by a mark on one of them, or by what came before the same background.

A mark is written in strokes, lets the picture through, or lies as a plate in a corner; whoever walked through a burst
from a tripod covers what was there. Thumbnails are too small to tell the two apart, so the pictures themselves are laid
over each other. What the best tone curve leaves, in windows that differ as a whole, is *covered*: strokes are too thin
for that. It is a mark still if the fine structure beneath goes on in both pictures, or if it fills a box at a corner.

Source: thresholds by ``tests/bench/duplicates.py``.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tasks.duplicates.registering import Planes

_WINDOW_PX, _COVERED = 13, 0.9  # of 192 a side; the share of a window that must differ
_FLOOR, _OF_USUAL, _USUAL = 8.0, 3.0, 50  # grey levels; times the usual residue, a percentile, that count as equal
_BIN, _MOST_BINS = 8, 32  # grey levels of one place on a tone curve
_SEEN_IN, _BURNT = 30, (3, 252)  # pixels that a place needs; grey levels beyond which it may be cut off
_STEEP = 0.15  # the least slope of a tone curve: a flat one explains anything
_EQUAL, _DARK, _LIGHT, _SETTLES = 4.0, 16, 240, 1 / 3  # grey levels; the share of the pixels
_AS_GOOD = 1.4  # times the least that is left
_FITS = 15
_RIM_PX = 2
_EDGE_PX = 5  # of what is covered: an outline is none of its structure
_FINE_PX, _NOISE = 7, 2.0
_SEEN_THROUGH, _FEWEST_PX = 0.7, 40
_DIFFERS, _FILLED = 0.35, 0.9  # of what stands out, faintly; the share of a box that must
_AT_EDGE, _PLATE = 0.03, 0.35  # of the sides of the picture: how near to two of them a box lies, and how large it is

Mask = npt.NDArray[np.bool_]


def is_mark(overlays: Iterable[tuple[Planes, Planes]]) -> bool:
    """Whether two pictures show the same but for marks on them.

    ``overlays``: both (side x side, grey) laid over each other in one or several ways, of which the best counts.
    """
    tried: list[tuple[float, Planes, tuple[Planes, Planes]]] = []
    for pair in overlays:
        if _is_settled(*pair):
            tried = [(0.0, pair[0] - pair[1], pair)]
            break
        tried += [(float(np.minimum(np.abs(left), _FLOOR).mean()), left, pair) for left in _residues(*pair)]
    tried.sort(key=lambda each: each[0])
    good = [(*_covered(residue), pair) for size, residue, pair in tried if size <= _AS_GOOD * tried[0][0]]
    if not all(covered.any() for _, covered, _ in good):
        return True
    residue, covered, pair = good[0]
    return _is_seen_through(*pair, covered) or _is_plate(residue, covered)


def _is_settled(first: Planes, second: Planes) -> bool:
    """Whether so much is equal as it lies that no other tones and no other place can be meant."""
    is_equal = (np.abs(first - second) < _EQUAL) & (np.minimum(first, second) > _DARK) & (first < _LIGHT)
    return bool(is_equal.mean() >= _SETTLES)


def _residues(first: Planes, second: Planes) -> Iterator[Planes]:
    """What remains between both: as they are, and when the one is given the tones of the other, in several ways."""
    yield first - second
    for toned in _toned(second, first):
        yield first - toned
    for toned in _toned(first, second):
        yield toned - second


def _toned(plane: Planes, target: Planes) -> Iterator[Planes]:
    """``plane`` through the straight and the cubic tone curve that come nearest to ``target``, where these rise.

    Each tone has a voice by the root of its pixels, that of its median; what one of the two cuts off has none.
    """
    codes = np.clip(plane / _BIN, 0, _MOST_BINS - 1).astype(np.intp).ravel()
    order = np.lexsort((target.ravel(), codes))
    ends = np.searchsorted(codes[order], np.arange(_MOST_BINS + 1))
    counts = np.diff(ends)
    medians = target.ravel()[order[np.minimum((ends[:-1] + ends[1:]) // 2, len(order) - 1)]]
    heard = np.flatnonzero((counts >= _SEEN_IN) & (medians > _BURNT[0]) & (medians < _BURNT[1]))
    tones = (heard + 0.5) * _BIN
    for degree in (1, 3):
        if len(heard) > degree:
            curve = np.polynomial.Polynomial(_nearest(tones, medians[heard], np.sqrt(counts[heard]), degree))
            along = np.linspace(tones[0], tones[-1], 64)
            if np.diff(curve(along / 128 - 1)).min() >= _STEEP * (along[1] - along[0]):
                yield np.clip(curve(plane / 128 - 1), 0, 255).astype(np.float32)


def _nearest(tones: Planes, wanted: Planes, voices: Planes, degree: int) -> npt.NDArray[np.float64]:
    """Coefficients of the polynomial in tones / 128 - 1 with the least absolute distance from ``wanted``.

    Source: Schlossmacher, "An iterative technique for absolute deviations curve fitting", JASA 68, 1973.
    """
    powers = np.vander(tones / 128 - 1, degree + 1, increasing=True).astype(np.float64)
    weights: npt.NDArray[np.float64] = voices.astype(np.float64)
    for _ in range(_FITS):
        normal = powers.T @ (powers * weights[:, None])
        normal[np.diag_indices_from(normal)] *= 1 + 1e-4
        found = np.linalg.solve(normal + 1e-6 * np.eye(degree + 1), powers.T @ (wanted * weights))
        weights = voices / np.maximum(np.abs(powers @ found - wanted), 1.5)
    return np.asarray(found)


def _mean(plane: Planes | Mask, size: int) -> Planes:
    """The mean of each window of ``size`` x ``size`` that lies within ``plane``, by its upper left corner."""
    sums = np.pad(plane.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return np.asarray((sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]) / size**2)


def _covered(residue: Planes) -> tuple[Planes, Mask]:
    """How far each pixel stands out, 1 being enough, and those in windows that do so as a whole."""
    inner = np.zeros(residue.shape, np.float32)
    within = slice(_RIM_PX, -_RIM_PX)
    off = np.abs(residue[within, within])
    inner[within, within] = off / (_FLOOR + _OF_USUAL * np.percentile(off, _USUAL))
    full = _mean(inner > 1, _WINDOW_PX) >= _COVERED
    return inner, _mean(np.pad(full, _WINDOW_PX - 1), _WINDOW_PX) > 0


def _is_seen_through(first: Planes, second: Planes, covered: Mask) -> bool:
    """Whether the fine structure of what is covered is in both pictures."""
    size = 2 * _EDGE_PX + 1
    inside = _mean(np.pad(covered, _EDGE_PX), size) > 1 - 0.5 / size**2
    if inside.sum() < _FEWEST_PX:
        return False
    half = _FINE_PX // 2
    one, other = ((plane - _mean(np.pad(plane, half, "edge"), _FINE_PX))[inside] for plane in (first, second))
    noise = (_NOISE**2 * len(one)) ** 2 / 20
    return bool((one * other).sum() >= _SEEN_THROUGH * np.sqrt((one**2).sum() * (other**2).sum() + noise))


def _is_plate(residue: Planes, covered: Mask) -> bool:
    """Whether what is covered fills a box that lies in one of the corners."""
    low, high = np.argwhere(covered).min(axis=0), np.argwhere(covered).max(axis=0) + 1
    side = len(covered)
    is_in_corner = (np.minimum(low, side - high) <= _AT_EDGE * side).all() and (high - low <= _PLATE * side).all()
    begin, end = np.maximum(low, _RIM_PX), np.minimum(high, side - _RIM_PX)
    filled = (residue[begin[0] : end[0], begin[1] : end[1]] > _DIFFERS).mean()
    return bool(is_in_corner and filled >= _FILLED)
