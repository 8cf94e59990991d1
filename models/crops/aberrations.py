"""What lenses and editors do to a whole frame, applied to it before it is cropped: which trace does a network use?

All work on uint8 frames on their device and return such; at strength 0 a frame stays bit for bit what it is. A negative
strength undoes what the positive one does, as far as 8 bits allow.
Source: Van Hoorick and Vondrick, ICCV 2021, ``aberrations.py`` of the authors' code (vignetting gain; the others are
theirs in kind, here with the radius in half diagonals).

Shapes: B batch, C channels, H and W frame; r is the distance from the frame's centre in half diagonals.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

STRENGTHS: dict[str, Sequence[float]] = {
    "lateral_colour": (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2),  # % by which red grows outward, and blue shrinks
    "vignetting": (-1.0, -0.5, 0.0, 0.5, 1.0),  # share of the full gain
    "greyness": (0.0, 0.5, 1.0),  # 1 leaves no colour
    "radial_distortion": (-0.05, -0.02, 0.0, 0.02, 0.05),  # k1: the source radius is r (1 + k1 r^2)
}


def perturbed(frame_BCHW: Tensor, name: str, strength: float) -> Tensor:
    """The frames under the perturbation ``name`` of ``STRENGTHS``."""
    if strength == 0:
        return frame_BCHW
    image_BCHW = _PERTURBATIONS[name](frame_BCHW.float(), strength)
    return (image_BCHW + 0.5).clamp(0, 255).to(torch.uint8)


def lateral_colour(image_BCHW: Tensor, strength: float) -> Tensor:
    """Red magnified about the centre by ``strength`` percent, blue reduced by as much; green stays."""
    red, green, blue = image_BCHW.split(1, dim=1)
    growth = 1 + strength / 100
    place_HW2 = _places(image_BCHW)
    return torch.cat([_sample(red, place_HW2 / growth), green, _sample(blue, place_HW2 * growth)], dim=1)


def vignetting(image_BCHW: Tensor, strength: float) -> Tensor:
    """Darker away from the centre: the gain 1 / (1 + 2.0625 r^2 + 8.75 r^4 + 0.0313 r^6), blended by ``strength``."""
    square_HW = _radius(image_BCHW).square()
    gain_HW = 1 / (1 + square_HW * (2.0625 + square_HW * (8.75 + square_HW * 0.0313)))
    blended_HW = 1 + abs(strength) * (gain_HW - 1)
    return image_BCHW * (blended_HW if strength > 0 else 1 / blended_HW)


def greyness(image_BCHW: Tensor, strength: float) -> Tensor:
    """Blended with its luma (ITU-R BT.601); a negative strength makes colours stronger."""
    luma = image_BCHW.new_tensor([0.299, 0.587, 0.114])
    grey_B1HW = torch.einsum("bchw,c->bhw", image_BCHW, luma)[:, None]
    return image_BCHW + strength * (grey_B1HW - image_BCHW)


def radial_distortion(image_BCHW: Tensor, strength: float) -> Tensor:
    """Every point shows what lies at r (1 + k1 r^2): a positive k1 = ``strength`` draws in (barrel), a negative out."""
    factor_HW1 = 1 + strength * _radius(image_BCHW).square()[..., None]
    return _sample(image_BCHW, _places(image_BCHW) * factor_HW1)


_PERTURBATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "lateral_colour": lateral_colour,
    "vignetting": vignetting,
    "greyness": greyness,
    "radial_distortion": radial_distortion,
}


def _places(image_BCHW: Tensor) -> Tensor:
    """x and y of every pixel's centre [H, W, 2], from -1 to 1 between the frame's borders."""
    height, width = image_BCHW.shape[2:]
    y, x = (
        (2 * torch.arange(size, device=image_BCHW.device, dtype=torch.float32) + 1) / size - 1
        for size in (height, width)
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)


def _radius(image_BCHW: Tensor) -> Tensor:
    """Distance of every pixel from the centre [H, W], 1 in the corners."""
    height, width = image_BCHW.shape[2:]
    size = image_BCHW.new_tensor([width, height])
    return torch.linalg.vector_norm(_places(image_BCHW) * size, dim=2) / torch.linalg.vector_norm(size)


def _sample(image_BCHW: Tensor, place_HW2: Tensor) -> Tensor:
    """The images at those places, by cubic interpolation; beyond the border as on it."""
    grid_BHW2 = place_HW2.expand(len(image_BCHW), *place_HW2.shape)
    return functional.grid_sample(image_BCHW, grid_BHW2, mode="bicubic", padding_mode="border", align_corners=False)
