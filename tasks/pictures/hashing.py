"""Perceptual hashes of one grey picture: upright, in the other seven orientations, and sketches of parts of it.

The hash is imagehash's ``phash(hash_size=16)`` of the upright grey picture: the 16 x 16 lowest coefficients of the DCT
of 64 x 64 pixels, each compared with their median. Mirroring a picture flips the sign of every other coefficient and
transposing it transposes them, so one DCT gives the hashes of all eight orientations.

A crop of 5 % changes 38 of the hash's 256 bits (median of 225 photographs), for it is the high frequencies that feel a
shift. What finds copies again is therefore coarser, and taken of several parts: a *sketch* is the signs of the 64
lowest coefficients but the first, and a *view* is a sketch with the box that it was taken of. The views of a picture
are the whole, its core, the whole within a uniform frame (if there is one), six inner crops, which are what a crop
of it would look like, and its quarters, some of which a logo or a plate leaves as they were. A picture with fewer than
32 coefficients above its noise is flat and has no views; nor has a flat quarter. All are taken of the picture without
lines of one or two hundredths of its width, light or dark, so that writing across it changes little.

Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.pictures import imaging

VIEW = np.dtype([("box", "<u2", 4), ("sketch", "<u8")])  # left, right, top, bottom in 1/65535 of the side
TRANSPOSED = 5  # the orientation that only transposes
INNER_CROPS = 6  # the last of a picture's views but for quarters; those before can also be met turned
_HASH, _DCT = 16, 64
_SKETCH, _SMALL_PX = 8, 128
_LINE_PX = 5  # of 128: brighter or darker places narrower than that are levelled
_CLIP = 1.5  # standard deviations: what is brighter or darker counts as that, so that burnt lights change little
_NOISE = 200.0  # of a coefficient: a wave of 0.05 grey levels
_MIN_COEFFICIENTS = 32  # of 64, above the noise
_FRAME_TOLERANCE = 12  # grey levels that JPEG adds to a uniform frame
_FRAME_MAX = 0.25  # of a side: the widest frame

Coefficients = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 1.0, 0.0, 1.0)
CORE: Box = (0.1, 0.9, 0.1, 0.9)
_CROPS: tuple[Box, ...] = (
    (0.03, 0.97, 0.03, 0.97), (0.06, 0.94, 0.06, 0.94),
    (0.05, 1.0, 0.0, 1.0), (0.0, 0.95, 0.0, 1.0), (0.0, 1.0, 0.05, 1.0), (0.0, 1.0, 0.0, 0.95),
)  # fmt: skip
# By the orientation that brings it to the upper left, and does so back.
QUARTERS: dict[int, Box] = {
    1: (0.0, 0.45, 0.0, 0.45), 2: (0.55, 1.0, 0.0, 0.45), 3: (0.55, 1.0, 0.55, 1.0), 4: (0.0, 0.45, 0.55, 1.0),
}  # fmt: skip


def dct_matrix(size: int) -> Coefficients:
    """The unnormalised DCT-II as a matrix: row k is 2 cos(pi k (2n + 1) / 2 size)."""
    frequency, place = np.mgrid[:size, :size]
    matrix: Coefficients = 2.0 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * size))
    return matrix


_BASIS = dct_matrix(_DCT)[:_HASH]
_ALTERNATING = 1.0 - 2.0 * (np.arange(_HASH) % 2)
_TRANSPOSED = {5, 6, 7, 8}
_ROWS_FLIPPED = {3, 4, 7, 8}
_COLUMNS_FLIPPED = {2, 3, 6, 7}
_ORIENTATIONS = np.array([[[1, 2], [4, 3]], [[5, 6], [8, 7]]])  # by transposed, rows flipped, columns flipped


def low_frequencies(grey: imaging.Pixels) -> Coefficients:
    """The 16 x 16 lowest DCT coefficients of ``grey`` squeezed to 64 x 64."""
    small = np.asarray(Image.fromarray(grey).resize((_DCT, _DCT), Image.Resampling.LANCZOS), dtype=np.float64)
    # Rounded, so that coefficients which are zero but for the order of a sum are zero on every machine.
    return np.round(_BASIS @ small @ _BASIS.T, 3) + 0.0


def turned(coefficients: Coefficients, orientation: int) -> Coefficients:
    """The coefficients of the picture turned by an EXIF orientation."""
    result = coefficients.T if orientation in _TRANSPOSED else coefficients
    alternating = _ALTERNATING[: len(result)]
    if orientation in _ROWS_FLIPPED:
        result = result * alternating[:, None]
    return result * alternating if orientation in _COLUMNS_FLIPPED else result


_SIGNS = np.stack([turned(np.ones((_HASH, _HASH)), orientation) for orientation in range(1, 9)])


def hash_bits(coefficients: Coefficients) -> npt.NDArray[np.uint8]:
    """(8, 32): 256 bits for each orientation, row by row: is the coefficient above the median of all?"""
    both = np.stack([coefficients, coefficients.T])  # orientations 1 to 4 and 5 to 8, but for their signs
    flat = (both.repeat(4, axis=0) * _SIGNS).reshape(8, -1)
    ranked, half = np.sort(flat, axis=1), _HASH * _HASH // 2
    median = (ranked[:, half - 1] + ranked[:, half]) / 2
    return np.packbits(flat > median[:, None], axis=1)


def _sketch_places() -> npt.NDArray[np.intp]:
    """Which of 9 x 9 coefficients make the 64 bits: 8 x 8, but (8, 8) for the mean; every fourth frequency in a band.

    The four bands of 16 bits, by which near sketches are found, each get high and low frequencies.
    """
    row, column = np.mgrid[: _SKETCH + 1, : _SKETCH + 1].reshape(2, -1)
    chosen = np.flatnonzero(((row < _SKETCH) & (column < _SKETCH) & (row + column > 0)) | (row + column == 2 * _SKETCH))
    by_frequency = chosen[np.argsort((row + column)[chosen], kind="stable")]
    return np.asarray(by_frequency.reshape(-1, 4).T.ravel())


_PLACES = _sketch_places()


def _interval(low: float, high: float) -> Coefficients:
    """(9, 128): the lowest DCT coefficients of the part ``low`` .. ``high`` of 128 pixels, as a matrix."""
    edges, pixels = np.linspace(low, high, _DCT + 1) * _SMALL_PX, np.arange(_SMALL_PX)
    begins, ends = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    cover = np.clip(ends - begins, 0, None)
    return np.asarray(_BASIS[: _SKETCH + 1] @ (cover / cover.sum(axis=1, keepdims=True)))


def _stored(boxes: Sequence[Box]) -> npt.NDArray[np.uint16]:
    """``boxes`` as a ``VIEW`` holds them, n x 4."""
    return np.round(65535 * np.array(boxes)).astype(np.uint16).reshape(-1, 4)


_FIXED = (WHOLE, CORE, *_CROPS)
_HEIGHTS = tuple(dict.fromkeys(box[2:] for box in _FIXED))  # several views share one
_ROWS = np.stack([_interval(*height) for height in _HEIGHTS])
_ROWS_OF = [_HEIGHTS.index(box[2:]) for box in _FIXED]
_COLUMNS = np.stack([_interval(*box[:2]) for box in _FIXED])
_FIXED_BOXES, _QUARTER_BOXES = _stored(_FIXED), _stored(list(QUARTERS.values()))


def _slices(box: Box) -> tuple[slice, slice]:
    """The rows and columns of 128 x 128 pixels that ``box`` holds, but for less than half a pixel."""
    left, right, top, bottom = (round(side * _SMALL_PX) for side in box)
    return slice(top, bottom), slice(left, right)


_QUARTER_SLICES = [_slices(box) for box in QUARTERS.values()]
_QUARTER_ROWS = np.stack([_interval(*box[2:])[:, _slices(box)[0]] for box in QUARTERS.values()])
_QUARTER_COLUMNS = np.stack([_interval(*box[:2])[:, _slices(box)[1]] for box in QUARTERS.values()])


def _levelled(pixels: Coefficients, parts: Coefficients) -> Coefficients:
    """n x height x width ``pixels`` less the mean of their ``parts``, clipped where they are far from it."""
    mean = parts.mean(axis=(1, 2), keepdims=True)
    reach = _CLIP * parts.std(axis=(1, 2), keepdims=True, mean=mean)
    return np.asarray(np.clip(pixels - mean, -reach, reach))


def _edge(pixels: imaging.Pixels) -> int:
    """How many of the first rows have the one colour of the first, at most ``_FRAME_MAX`` of all."""
    first, rows = pixels[0], pixels[: int(_FRAME_MAX * len(pixels))]
    if int(first.max()) - int(first.min()) > 2 * _FRAME_TOLERANCE:  # of no one colour: so nearly all pictures begin
        return 0
    value = int(np.median(first))
    is_frame = (rows.max(axis=1) <= value + _FRAME_TOLERANCE) & (rows.min(axis=1) >= value - _FRAME_TOLERANCE)
    return len(rows) if is_frame.all() else int(is_frame.argmin())


def without_frame(grey: imaging.Pixels, box: Box = WHOLE) -> Box:
    """The part of ``box`` that lies within a frame; each side of it may have another width and colour."""
    height, width = grey.shape
    left, right = round(box[0] * width), round(box[1] * width)
    top, bottom = round(box[2] * height), round(box[3] * height)
    part = grey[top:bottom, left:right]
    top, bottom = top + _edge(part), bottom - _edge(part[::-1])
    part = grey[top:bottom, left:right]
    left, right = left + _edge(part.T), right - _edge(part.T[::-1])
    return left / width, right / width, top / height, bottom / height


def frames(grey: imaging.Pixels) -> list[Box]:
    """What lies within the frame of ``grey``, and within a second frame in that."""
    found: list[Box] = []
    box = without_frame(grey)
    while box != (found[-1] if found else WHOLE) and len(found) < 2:
        found.append(box)
        box = without_frame(grey, box)
    return found


def _words(bits: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Rows of 64 bits as one word each."""
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view("<u8")[:, 0]


def _sketch(coefficients: Coefficients) -> npt.NDArray[np.uint64]:
    """64 bits for each of view x 9 x 9 coefficients: is it above zero?"""
    flat = coefficients.reshape(len(coefficients), -1)[:, _PLACES]
    return _words(flat > 0)


def _run(flat: imaging.Pixels, rank: np.ufunc, size: int, step: int) -> imaging.Pixels:
    """The least or the most (``rank``) of ``size`` pixels, each ``step`` after the last, from every place on."""
    have = 1
    while have < size:
        more = min(have, size - have)
        flat, have = rank(flat[: -more * step], flat[more * step :]), have + more
    return flat


def _ranked(pixels: imaging.Pixels, rank: np.ufunc, size: int) -> imaging.Pixels:
    """The least or the most (``rank``) of those of ``size`` x ``size`` pixels around each that are in the picture.

    The rows lie one after the other, with a margin that never is the least or the most: so each step is one long one.
    """
    height, width = pixels.shape
    half, stride = size // 2, width + size - 1
    padded = np.full((height + size, stride), 255 if rank is np.minimum else 0, np.uint8)
    padded[half : half + height, half : half + width] = pixels
    flat = _run(_run(padded.ravel(), rank, size, 1), rank, size, stride)
    return flat[: height * stride].reshape(height, stride)[:, :width]


def without_lines(pixels: imaging.Pixels) -> imaging.Pixels:
    """``pixels`` without what is narrower than ``_LINE_PX``: light lines first, then dark ones (opening, closing)."""
    least = _ranked(pixels, np.minimum, _LINE_PX)
    most = _ranked(least, np.maximum, 2 * _LINE_PX - 1)  # the end of the opening and the beginning of the closing
    return _ranked(most, np.minimum, _LINE_PX)


def _is_flat(coefficients: Coefficients) -> npt.NDArray[np.bool_]:
    """(n,): whether most of view x 9 x 9 coefficients may be noise."""
    flat = coefficients.reshape(len(coefficients), -1)[:, _PLACES]
    return np.asarray((np.abs(flat) >= _NOISE).sum(axis=1) < _MIN_COEFFICIENTS)


def _spread(small: imaging.Pixels, box: Box) -> Coefficients:
    """``small`` with what lies within ``box``, without lines, its edge going on to the edge of the picture."""
    left, top = (math.ceil(side * _SMALL_PX - 0.01) for side in (box[0], box[2]))
    right, bottom = (math.floor(side * _SMALL_PX + 0.01) for side in (box[1], box[3]))
    part = without_lines(small[top:bottom, left:right]).astype(np.float64)
    return np.pad(part, ((top, _SMALL_PX - bottom), (left, _SMALL_PX - right)), "edge") if box != WHOLE else part


def _fixed_views(spread: Coefficients) -> Coefficients:
    """View x 9 x 9 coefficients of whole, core and crops, which are levelled together."""
    # One product for each height, not one for all: BLAS hands larger ones to threads that wait for each other.
    rows = _ROWS @ _levelled(spread[None], spread[None])
    return np.asarray(rows[_ROWS_OF] @ _COLUMNS.transpose(0, 2, 1))


def _framed_view(spread: Coefficients, box: Box) -> Coefficients:
    """The 9 x 9 coefficients of ``box``, levelled by itself."""
    [levelled] = _levelled(spread[None], spread[_slices(box)][None])
    return np.asarray(_interval(*box[2:]) @ levelled @ _interval(*box[:2]).T)


def _quarter_views(spread: Coefficients) -> Coefficients:
    """4 x 9 x 9 coefficients of the quarters, each levelled by itself."""
    parts = np.stack([spread[each] for each in _QUARTER_SLICES])
    return np.asarray(_QUARTER_ROWS @ _levelled(parts, parts) @ _QUARTER_COLUMNS.transpose(0, 2, 1))


def views(grey: imaging.Pixels) -> npt.NDArray[np.void]:
    """Whole, core, frames, crops and quarters of ``grey`` as ``VIEW``; none of a flat picture."""
    small = imaging.resize_area(grey, _SMALL_PX, _SMALL_PX)
    spread = _spread(small, WHOLE)
    fixed = _fixed_views(spread)
    if _is_flat(fixed[:1])[0]:
        return np.zeros(0, VIEW)
    framed = {box: _spread(small, box) for box in frames(grey)}
    frame_views = np.array([_framed_view(pixels, box) for box, pixels in framed.items()]).reshape(-1, *fixed.shape[1:])
    quarters = _quarter_views([spread, *framed.values()][-1])
    is_kept = ~_is_flat(quarters)
    within = np.concatenate([fixed[:2], frame_views, fixed[2:], quarters[is_kept]])
    result = np.empty(len(within), VIEW)
    frame_boxes = _stored(list(framed))
    result["box"] = np.concatenate([_FIXED_BOXES[:2], frame_boxes, _FIXED_BOXES[2:], _QUARTER_BOXES[is_kept]])
    result["sketch"] = _sketch(np.round(within, 3))
    return result


def quarters_of(found: npt.NDArray[np.void]) -> npt.NDArray[np.intp]:
    """Which quarter each of ``VIEW`` is, as a key of ``QUARTERS``; 0 for other views."""
    result = np.zeros(len(found), np.intp)
    for orientation, box in zip(QUARTERS, _QUARTER_BOXES, strict=True):
        result[(found["box"] == box).all(axis=1)] = orientation
    return result


def between(
    first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], is_transposed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """The orientations that turn quarters ``second`` to ``first`` that are alike in the upper left, or transposed."""
    low, right = np.isin(second, list(_ROWS_FLIPPED)), np.isin(second, list(_COLUMNS_FLIPPED))
    low, right = np.where(is_transposed, right, low), np.where(is_transposed, low, right)
    low, right = low ^ np.isin(first, list(_ROWS_FLIPPED)), right ^ np.isin(first, list(_COLUMNS_FLIPPED))
    return np.asarray(_ORIENTATIONS[is_transposed.astype(np.intp), low.astype(np.intp), right.astype(np.intp)])


def turned_sketches(sketches: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """(8, n): ``sketches`` of the pictures turned by each EXIF orientation."""
    bits = np.unpackbits(sketches.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)
    side = _SKETCH + 1
    places, ranks = np.arange(side * side, dtype=np.float64).reshape(side, side) + 1, np.empty(side * side, np.intp)
    ranks[_PLACES] = np.arange(len(_PLACES))
    result = np.empty((8, len(sketches)), np.uint64)
    for orientation in range(1, 9):
        signed = turned(places, orientation).ravel()[_PLACES]
        moved = bits[:, ranks[np.abs(signed).astype(np.intp) - 1]] ^ (signed < 0)
        result[orientation - 1] = _words(moved)
    return result


def turned_boxes(boxes: Coefficients, orientations: npt.NDArray[np.intp]) -> Coefficients:
    """n x (left, right, top, bottom) where each box lies after its picture is turned by its EXIF orientation."""
    transposed, rows_flipped, columns_flipped = (
        np.isin(orientations, list(values)) for values in (_TRANSPOSED, _ROWS_FLIPPED, _COLUMNS_FLIPPED)
    )
    result = boxes.copy()
    result[transposed] = boxes[transposed][:, [2, 3, 0, 1]]
    result[rows_flipped, 2:] = 1 - result[rows_flipped][:, [3, 2]]
    result[columns_flipped, :2] = 1 - result[columns_flipped][:, [1, 0]]
    return result


def hash_facts(grey: imaging.Pixels) -> dict[str, Any]:
    """The columns phash, phash_orientations and phash_probes (``VIEW``) of an upright picture, height x width."""
    hashes = hash_bits(low_frequencies(grey))
    return {
        "phash": hashes[0].tobytes(),
        "phash_orientations": hashes.tobytes(),
        "phash_probes": views(grey).tobytes(),
    }
