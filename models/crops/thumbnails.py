"""The network's view of a whole sample: cropped, reduced to a thumbnail, noisy, with two coordinate channels.

Shapes: B batch, C channels, H and W frame, h and w thumbnail.
"""

import torch
from torch import Tensor

from models.augment import change_colours
from models.crops.samples import SamplePlan
from models.crops.spec import KERNELS, CropLaw, Kernel, ScaleLaw, ThumbnailSpec
from models.randomness import add_noise_
from models.resampling import PLAIN, Filter, crop_and_resize, drawn, matched, matched_gaussian

HALF = 0  # the thumbnail's place in a plan's arrays of two


def first_filter(
    scale: ScaleLaw, frame_width: int, law: CropLaw, kernels: tuple[Kernel, ...] = (), number_B: Tensor | None = None
) -> Filter:
    """The filter that brings a sample to its intermediate width, as the protocol says; by its number among several.

    Under "matched" it blurs as the smallest reduction does that occurs: the narrowest crop, to the widest width.
    """
    least_scale = frame_width * law.min_size_factor / scale.max_px
    if scale.protocol == "matched":
        known = {"triangle": matched(least_scale), "gaussian": matched_gaussian(least_scale)}
    else:
        known = PLAIN
    chosen = kernels or KERNELS[scale.protocol][:1]
    assert number_B is not None or len(chosen) == 1
    return drawn([known[name] for name in chosen], number_B)


def render_thumbnails(
    frame_BCHW: Tensor, plan: SamplePlan, spec: ThumbnailSpec, law: CropLaw, kernels: tuple[Kernel, ...] = ()
) -> Tensor:
    """Thumbnails [B, 5, h, w] in [0, 1] (RGB, y, x) from uint8 frames. The reduction to h x w is antialiased always."""
    device = frame_BCHW.device
    number_B = torch.as_tensor(plan.kernel_N, device=device)
    image = crop_and_resize(
        frame_BCHW,
        torch.from_numpy(plan.rectangle_N4),
        (spec.height, spec.width),
        torch.from_numpy(plan.width_px_N2[:, HALF]).double(),
        torch.from_numpy(plan.is_mirrored_N2),
        first_filter(spec.scale, frame_BCHW.shape[3], law, kernels, number_B),
    )
    image = recolour(image, frame_BCHW, plan)
    std_B = torch.as_tensor(plan.noise_std_N2[:, HALF], dtype=torch.float32, device=device)
    key_B = torch.as_tensor(plan.noise_key_N2[:, HALF], device=device)
    return append_coordinates(add_noise_(image, std_B, key_B))


def recolour(image_BXCHW: Tensor, frame_BCHW: Tensor, plan: SamplePlan) -> Tensor:
    """Images in [0, 1], one or P of each sample, with the colours that the plan gives to the uint8 frames they are of.

    Contrast changes about the mean grey of the whole frame (every fourth pixel each way), for all of its parts alike.
    """
    if (plan.factor_N3 == 1).all():
        return image_BXCHW
    factor_B3 = torch.as_tensor(plan.factor_N3, dtype=torch.float32, device=image_BXCHW.device)
    image_BCXHW = image_BXCHW.movedim(-3, 1)
    changed = change_colours(image_BCXHW.flatten(3), factor_B3, frame_BCHW[:, :, ::4, ::4].float() / 255)
    return changed.view_as(image_BCXHW).movedim(1, -3).contiguous()


def append_coordinates(image_BCHW: Tensor) -> Tensor:
    """The image with two channels more: y, then x, each from 0 to 1 [B, C + 2, H, W]."""
    batch, _, height, width = image_BCHW.shape
    y = torch.linspace(0, 1, height, device=image_BCHW.device)[:, None].expand(batch, 1, height, width)
    x = torch.linspace(0, 1, width, device=image_BCHW.device).expand(batch, 1, height, width)
    return torch.cat([image_BCHW, y, x], dim=1)
