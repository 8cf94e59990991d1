"""Random parts, flips, turns, kernels and colours of training photos, on the device, for a whole batch at once.

Every number is drawn from (seed, epoch, photo key), so a photo's picture depends on nothing else in its batch.

Shapes: B batch, C channels, H and W frame, h = w = input_px; images are float in [0, 1] until ``normalise``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.categories.spec import AugmentSpec
from models.cutting import cut_bytes, whole_pixels
from models.randomness import uniform_draws
from models.resampling import FILTERS, crop_and_resize

Floats = NDArray[np.float64]
DRAWS = 12
FLIPS = ("horizontal", "vertical")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photos: what pretrained weights expect
# Luma and two axes of colour, in which a hue is an angle. Source: the NTSC signal, YIQ.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class AugmentPlan:
    """What is done to each of B photos: the part that is kept, turns in radians, and changes of its colours."""

    rectangle_B4: Floats
    is_mirrored_B2: NDArray[np.bool_]
    turn_B: Floats
    kernel_B: NDArray[np.int64]  # its place in the spec's kernels
    factor_B3: Floats  # of brightness, contrast and saturation
    hue_B: Floats  # an angle in radians


def plan_augmentation(keys_B: NDArray[np.uint64], seed: int, epoch: int, spec: AugmentSpec) -> AugmentPlan:
    """What ``spec`` draws for each photo in this epoch."""
    draws = uniform_draws("augmentation", seed, epoch, keys_B, DRAWS)
    area, shape, place_x, place_y, flip_x, flip_y, turn, kernel, *colours, hue = draws.T
    share = spec.min_area + area * (1 - spec.min_area)
    factor = np.minimum(spec.max_aspect, 1 / share) ** (2 * shape - 1)  # no more than fits into the frame
    width, height = np.sqrt(share * factor).clip(max=1), np.sqrt(share / factor).clip(max=1)
    x1, y1 = place_x * (1 - width), place_y * (1 - height)
    reach = np.array([spec.brightness, spec.contrast, spec.saturation])
    return AugmentPlan(
        np.stack([x1, x1 + width, y1, y1 + height], axis=1),
        is_mirrored_B2=(np.stack([flip_x, flip_y], axis=1) < 0.5) & [flip in spec.flips for flip in FLIPS],
        turn_B=(2 * turn - 1) * math.radians(spec.turn_deg),
        kernel_B=(kernel * len(spec.kernels)).astype(np.int64),
        factor_B3=1 + (2 * np.stack(colours, axis=1) - 1) * reach,
        hue_B=(2 * hue - 1) * 2 * math.pi * spec.hue,
    )


def augment(
    frame_BCHW: Tensor, keys_B: NDArray[np.uint64], seed: int, epoch: int, spec: AugmentSpec, input_px: int
) -> Tensor:
    """A training picture of each uint8 frame, float [B, 3, input_px, input_px] in [0, 1]."""
    plan = plan_augmentation(keys_B, seed, epoch, spec)
    image_BChw = cut_parts(frame_BCHW, plan, spec, input_px)
    if spec.turn_deg:
        image_BChw = turn(image_BChw, _on(image_BChw, plan.turn_B))
    image_BChw = change_colours(image_BChw, _on(image_BChw, plan.factor_B3))
    if spec.hue:
        image_BChw = turn_hue(image_BChw, _on(image_BChw, plan.hue_B))
    return image_BChw.clamp(0, 1)


def _on(image_BCHW: Tensor, values: Floats) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=image_BCHW.device)


def cut_parts(frame_BCHW: Tensor, plan: AugmentPlan, spec: AugmentSpec, input_px: int) -> Tensor:
    """The planned part of each frame, in whole pixels, each by its own kernel, in [0, 1].

    Cubic and lanczos may overshoot: clamped. The CPU rounds what a triangle gives to bytes.
    """
    parts = [(np.flatnonzero(plan.kernel_B == number), kernel) for number, kernel in enumerate(spec.kernels)]
    if len(parts) == 1:
        return _cut(frame_BCHW, plan.rectangle_B4, plan.is_mirrored_B2, input_px, spec.kernels[0])
    image_BChw = torch.empty(
        (len(frame_BCHW), frame_BCHW.shape[1], input_px, input_px), dtype=torch.float32, device=frame_BCHW.device
    )
    for rows, kernel in parts:
        if len(rows):
            place = torch.from_numpy(rows).to(frame_BCHW.device)
            rectangle_B4, is_mirrored_B2 = plan.rectangle_B4[rows], plan.is_mirrored_B2[rows]
            image_BChw[place] = _cut(frame_BCHW[place], rectangle_B4, is_mirrored_B2, input_px, kernel)
    return image_BChw


def _cut(
    frame_BCHW: Tensor, rectangle_B4: Floats, is_mirrored_B2: NDArray[np.bool_], input_px: int, kernel: str
) -> Tensor:
    """That part of each frame by one kernel."""
    height, width = frame_BCHW.shape[2:]
    rectangle_px_B4 = whole_pixels(rectangle_B4, height, width)
    if kernel == "triangle" and frame_BCHW.device.type == "cpu":
        return cut_bytes(frame_BCHW, rectangle_px_B4, (input_px, input_px), is_mirrored_B2).float().div_(255)
    return crop_and_resize(
        frame_BCHW,
        torch.from_numpy(rectangle_px_B4 / (width, width, height, height)),
        (input_px, input_px),
        mirrored_B2=torch.from_numpy(is_mirrored_B2),
        by=FILTERS[kernel],
    ).clamp(0, 1)


def turn(image_BCHW: Tensor, angle_B: Tensor) -> Tensor:
    """The images turned about their centres, counter-clockwise for positive radians; corners are mirrored in."""
    height, width = image_BCHW.shape[2:]
    cos, sin, zero = angle_B.cos(), angle_B.sin(), torch.zeros_like(angle_B)
    row_x = torch.stack([cos, -sin * height / width, zero], dim=1)
    row_y = torch.stack([sin * width / height, cos, zero], dim=1)
    grid_BHW2 = functional.affine_grid(torch.stack([row_x, row_y], dim=1), list(image_BCHW.shape), align_corners=False)
    return functional.grid_sample(image_BCHW, grid_BHW2, padding_mode="reflection", align_corners=False)


def change_colours(image_BCHW: Tensor, factor_B3: Tensor, photo_BCHW: Tensor | None = None) -> Tensor:
    """Brightness, then contrast about the mean grey, then saturation about each pixel's grey, by those factors.

    The mean grey is that of the brightened ``photo`` where the image is but a part of it.
    """
    brightness, contrast, saturation = factor_B3.view(-1, 3, 1, 1, 1).unbind(1)
    bright = (image_BCHW * brightness).clamp(0, 1)
    whole = bright if photo_BCHW is None else (photo_BCHW * brightness).clamp(0, 1)
    mean = _grey(whole).mean((2, 3), keepdim=True)
    contrasted = (mean + contrast * (bright - mean)).clamp(0, 1)
    grey = _grey(contrasted)
    return (grey + saturation * (contrasted - grey)).clamp(0, 1)


def _grey(image_BCHW: Tensor) -> Tensor:
    """Luma [B, 1, H, W]."""
    return torch.einsum("bchw,c->bhw", image_BCHW, image_BCHW.new_tensor(YIQ[0]))[:, None]


def turn_hue(image_BCHW: Tensor, angle_B: Tensor) -> Tensor:
    """Hues turned by that angle at the same luma."""
    yiq = image_BCHW.new_tensor(YIQ)
    cos, sin = angle_B.cos(), angle_B.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turned_B33 = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    matrix_B33 = torch.linalg.inv(yiq) @ turned_B33 @ yiq
    return (matrix_B33 @ image_BCHW.flatten(2)).view_as(image_BCHW)


def normalise(image_BCHW: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Images in [0, 1] less ``mean`` and by ``std`` of each channel."""
    mean_C11, std_C11 = (image_BCHW.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (image_BCHW - mean_C11) / std_C11
