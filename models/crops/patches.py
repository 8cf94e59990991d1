"""Sixteen patches of every sample, cut from its intermediate picture without computing the rest of it.

The intermediate picture is the sample brought to a width W that the scale law draws (``models.resampling``), 4 x 4
cells; a patch is a window of it around a cell's centre, moved by whole pixels and kept inside the picture.

Shapes: B batch, P = 16 patches row by row, C channels, H and W frame, p patch.
"""

import torch
from torch import Tensor

from models.crops.law import CELL_CENTRES_P2
from models.crops.samples import SamplePlan
from models.crops.spec import CropLaw, Kernel, PatchSpec
from models.crops.thumbnails import first_filter, recolour
from models.randomness import add_noise_
from models.resampling import Axis, Taps, intermediate_height, resample, taps

HALF = 1  # the patches' place in a plan's arrays of two


def render_patches(
    frame_BCHW: Tensor,
    plan: SamplePlan,
    spec: PatchSpec,
    law: CropLaw,
    kernels: tuple[Kernel, ...] = (),
    small_BCHW: Tensor | None = None,
) -> Tensor:
    """Patches [B, 16, 3, p, p] in [0, 1] from uint8 frames; ``small``: the same photos as the thumbnail sees them."""
    height, width = frame_BCHW.shape[2:]
    device = frame_BCHW.device
    x1, x2, y1, y2 = torch.from_numpy(plan.rectangle_N4).unbind(1)
    mirrored_x, mirrored_y = torch.from_numpy(plan.is_mirrored_N2).unbind(1)
    jitter_x, jitter_y = torch.from_numpy(plan.jitter_px_NP2).unbind(2)
    columns_B = torch.from_numpy(plan.width_px_N2[:, HALF]).double()
    rows_B = intermediate_height(columns_B, height / width)
    by = first_filter(spec.scale, width, law, kernels, torch.as_tensor(plan.kernel_N, device=device))

    def along(number: int, axis: Axis, count_B: Tensor, jitter_BP: Tensor) -> list[Taps]:
        first_BP = first_pixels(number, count_B, jitter_BP, spec.patch_px)
        return [taps(axis, count_B, first_BP, spec.patch_px, by, device)]

    horizontal = along(0, Axis.of_frame(x1, x2, width, mirrored_x), columns_B, jitter_x)
    vertical = along(1, Axis.of_frame(y1, y2, height, mirrored_y), rows_B, jitter_y)
    patch_BPCpp = resample(frame_BCHW, vertical, horizontal)
    patch_BPCpp = recolour(patch_BPCpp, frame_BCHW if small_BCHW is None else small_BCHW, plan)
    std_B = torch.as_tensor(plan.noise_std_N2[:, HALF], dtype=torch.float32, device=device)
    return add_noise_(patch_BPCpp, std_B, torch.as_tensor(plan.noise_key_N2[:, HALF], device=device))


def first_pixels(number: int, count_B: Tensor, jitter_BP: Tensor, patch_px: int) -> Tensor:
    """The first intermediate pixel [B, 16] of each patch along axis ``number``: around its cell's centre, inside."""
    centre_P = torch.as_tensor(CELL_CENTRES_P2[:, number], device=count_B.device)
    corner_BP = (centre_P * count_B[:, None]).round() + jitter_BP - patch_px // 2
    return corner_BP.clamp(min=0).minimum(count_B[:, None] - patch_px)
