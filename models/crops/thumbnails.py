"""The network's view of a whole sample: cropped, reduced to a thumbnail, noisy, with two coordinate channels.

Shapes: B batch, C channels, H and W frame, h and w thumbnail.
"""

import torch
from torch import Tensor

from models.crops.samples import SamplePlan
from models.crops.spec import CropLaw, ScaleLaw, ThumbnailSpec
from models.randomness import add_noise
from models.resampling import BILINEAR, Filter, crop_and_resize, matched

HALF = 0  # the thumbnail's place in a plan's arrays of two


def first_filter(scale: ScaleLaw, frame_width: int, law: CropLaw) -> Filter:
    """The filter that brings a sample to its intermediate width, as the protocol says.

    Under "matched" it blurs as the smallest reduction does that occurs: the narrowest crop, to the widest width.
    """
    return matched(frame_width * law.min_size_factor / scale.max_px) if scale.protocol == "matched" else BILINEAR


def render_thumbnails(frame_BCHW: Tensor, plan: SamplePlan, spec: ThumbnailSpec, law: CropLaw) -> Tensor:
    """Thumbnails [B, 5, h, w] in [0, 1] (RGB, y, x) from uint8 frames. The reduction to h x w is antialiased always."""
    device = frame_BCHW.device
    image = crop_and_resize(
        frame_BCHW.float() / 255,
        torch.as_tensor(plan.rectangle_N4, dtype=torch.float32, device=device),
        (spec.height, spec.width),
        torch.as_tensor(plan.width_px_N2[:, HALF], dtype=torch.float32, device=device),
        torch.as_tensor(plan.is_mirrored_N2, device=device),
        first_filter(spec.scale, frame_BCHW.shape[3], law),
    )
    std_B = torch.as_tensor(plan.noise_std_N2[:, HALF], dtype=torch.float32, device=device)
    key_B = torch.as_tensor(plan.noise_key_N2[:, HALF], device=device)
    return append_coordinates(add_noise(image, std_B, key_B))


def append_coordinates(image_BCHW: Tensor) -> Tensor:
    """The image with two channels more: y, then x, each from 0 to 1 [B, C + 2, H, W]."""
    batch, _, height, width = image_BCHW.shape
    y = torch.linspace(0, 1, height, device=image_BCHW.device)[:, None].expand(batch, 1, height, width)
    x = torch.linspace(0, 1, width, device=image_BCHW.device).expand(batch, 1, height, width)
    return torch.cat([image_BCHW, y, x], dim=1)
