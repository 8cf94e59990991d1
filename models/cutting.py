"""Parts of uint8 frames on the CPU, by torch's resampler of bytes: there twenty times as fast as matrices of weights.

What comes out is what ``resampling.crop_and_resize`` gives with its triangle, rounded to whole bytes.
Shapes: B batch, C channels, H and W frame, h and w output; a rectangle is (x1, x2, y1, y2).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def whole_pixels(rectangle_B4: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Rectangles in fractions of a frame as pixels of it, to the nearest; none becomes empty."""
    low_B2 = np.rint(rectangle_B4[:, ::2] * (width, height)).clip(max=(width - 1, height - 1))
    high_B2 = np.rint(rectangle_B4[:, 1::2] * (width, height)).clip(min=low_B2 + 1)
    return np.stack([low_B2, high_B2], axis=2).reshape(-1, 4).astype(np.int64)


def cut_bytes(
    frame_BCHW: Tensor, rectangle_px_B4: NDArray[np.int64], size: tuple[int, int], mirrored_B2: NDArray[np.bool_]
) -> Tensor:
    """The rectangle of each frame, antialiased to ``size`` (h, w), uint8 [B, C, h, w].

    Frames are mirrored, left to right or top to bottom, *before* the crop, so the rectangle stays what it is.
    """
    height, width = frame_BCHW.shape[2:]
    cut_BChw = torch.empty(
        (*frame_BCHW.shape[:2], *size), dtype=torch.uint8, memory_format=torch.channels_last
    )  # as frames lie, in which order it is fastest
    for place, (rectangle, mirrored) in enumerate(zip(rectangle_px_B4.tolist(), mirrored_B2.tolist(), strict=True)):
        x1, x2 = _as_it_lies(*rectangle[:2], width, mirrored[0])
        y1, y2 = _as_it_lies(*rectangle[2:], height, mirrored[1])
        part = frame_BCHW[place : place + 1, :, y1:y2, x1:x2]
        cut = functional.interpolate(part, size, mode="bilinear", antialias=True)
        flipped = [axis for axis, is_mirrored in zip((3, 2), mirrored, strict=True) if is_mirrored]
        cut_BChw[place : place + 1] = cut.flip(flipped) if flipped else cut
    return cut_BChw


def _as_it_lies(low: int, high: int, length: int, is_mirrored: bool) -> tuple[int, int]:
    return (length - high, length - low) if is_mirrored else (low, high)
