"""Perceptual hashes of one grey picture: upright, in the other seven orientations, and sketches of parts of it.

The hash is imagehash's ``phash(hash_size=16)`` of the upright grey picture: the 16 x 16 lowest coefficients of the DCT
of 64 x 64 pixels, each compared with their median. Mirroring a picture flips the sign of every other coefficient and
transposing it transposes them, so one DCT gives the hashes of all eight orientations.

A crop of 5 % changes 38 of the hash's 256 bits (median of 225 photographs), for it is the high frequencies that feel a
shift. What finds copies again is therefore coarser, and taken of several parts: a *sketch* is the signs of the 64
lowest coefficients but the first, and a *view* is a sketch with the box that it was taken of. The views of a picture
are the whole, its core, the whole within a uniform frame (if there is one), and six inner crops, which are what a crop
of it would look like. A picture with fewer than 32 coefficients above its noise is flat and has no views.

Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.pictures import imaging

VIEW = np.dtype([("box", "<u2", 4), ("sketch", "<u8")])  # left, right, top, bottom in 1/65535 of the side
INNER_CROPS = 6  # the last of a picture's views; those before can also be met turned
_HASH, _DCT = 16, 64
_SKETCH, _SMALL_PX = 8, 128
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


def hash_bits(coefficients: Coefficients) -> bytes:
    """256 bits, row by row: is the coefficient above the median of all?"""
    return np.packbits(coefficients > np.median(coefficients)).tobytes()


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


@lru_cache(maxsize=1)
def _fixed_views() -> tuple[list[Box], Coefficients, Coefficients]:
    """The boxes of whole, core and crops, and their matrices for rows and columns, each view x 9 x 128."""
    boxes = [WHOLE, CORE, *_CROPS]
    return boxes, np.stack([_interval(*box[2:]) for box in boxes]), np.stack([_interval(*box[:2]) for box in boxes])


def _levelled(small: Coefficients, box: Box) -> Coefficients:
    """``small`` less the mean of its part ``box``, clipped where it is far from it."""
    left, right, top, bottom = (round(side * _SMALL_PX) for side in box)
    part = small[top:bottom, left:right]
    reach = _CLIP * float(part.std())
    return np.asarray(np.clip(small - part.mean(), -reach, reach))


def _edge(pixels: imaging.Pixels) -> int:
    """How many of the first rows have the one colour of the first, at most ``_FRAME_MAX`` of all."""
    value = int(np.median(pixels[0]))
    most = int(_FRAME_MAX * len(pixels))
    for row in range(most):
        if np.abs(pixels[row].astype(np.int16) - value).max() > _FRAME_TOLERANCE:
            return row
    return most


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


def views(grey: imaging.Pixels) -> npt.NDArray[np.void]:
    """Whole, core, frames and crops of ``grey`` as ``VIEW``; none of a flat picture."""
    small = imaging.resize_area(grey, _SMALL_PX, _SMALL_PX).astype(np.float64)
    boxes, rows, columns = _fixed_views()
    inner = rows @ _levelled(small, WHOLE) @ columns.transpose(0, 2, 1)
    if (np.abs(inner[0].ravel()[_PLACES]) >= _NOISE).sum() < _MIN_COEFFICIENTS:
        return np.zeros(0, VIEW)
    framed = frames(grey)
    within = [_interval(*box[2:]) @ _levelled(small, box) @ _interval(*box[:2]).T for box in framed]
    result = np.zeros(len(boxes) + len(framed), VIEW)
    result["box"] = np.round(65535 * np.array([*boxes[:2], *framed, *boxes[2:]]))
    coefficients = np.concatenate([inner[:2], np.array(within).reshape(-1, *inner.shape[1:]), inner[2:]])
    result["sketch"] = _sketch(np.round(coefficients, 3))
    return result


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
    coefficients = low_frequencies(grey)
    hashes = [hash_bits(turned(coefficients, orientation)) for orientation in range(1, 9)]
    return {"phash": hashes[0], "phash_orientations": b"".join(hashes), "phash_probes": views(grey).tobytes()}
