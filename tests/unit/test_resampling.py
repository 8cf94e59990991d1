"""Cropping and resampling in the batch: right where there is a yardstick."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from models.resampling import (
    BILINEAR,
    FILTERS,
    TRIANGLE,
    Axis,
    Filter,
    crop_and_resize,
    matched,
    resampling_matrix,
    window_length,
    windows,
)

WHOLE = torch.tensor([[0.0, 1.0, 0.0, 1.0]])


def frames(count: int, height: int = 128, width: int = 192) -> torch.Tensor:
    """Frames of noise, float."""
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, 3, height, width), np.uint8)).float()


@pytest.mark.parametrize("kernel", FILTERS)
def test_the_whole_frame_at_its_own_size_is_itself(kernel):
    """Nothing is blurred or shifted where nothing is to be done, whatever the kernel."""
    image = frames(1)
    assert torch.allclose(crop_and_resize(image, WHOLE, (128, 192), by=FILTERS[kernel]), image, atol=1e-3)


@pytest.mark.parametrize("size", [(48, 72), (64, 96), (37, 91)])
def test_a_reduction_is_that_of_torch(size):
    """Reducing a whole frame equals torch's antialiased bilinear interpolation."""
    image = frames(2)
    theirs = functional.interpolate(image, size, mode="bilinear", antialias=True)
    assert torch.allclose(crop_and_resize(image, WHOLE.expand(2, 4), size), theirs, atol=0.02)


@pytest.mark.parametrize(("kernel", "theirs"), [("cubic", "BICUBIC"), ("lanczos", "LANCZOS")])
def test_other_kernels_are_those_of_pillow(kernel, theirs):
    """Cubic (a = -1/2) and Lanczos (3 lobes) reductions equal Pillow's, to its rounding."""
    image = frames(1) * 0.5 + 64  # no overshoot beyond 8 bits
    pillow = Image.fromarray(image[0].permute(1, 2, 0).to(torch.uint8).numpy())
    reduced = np.asarray(pillow.resize((72, 48), Image.Resampling[theirs]))
    ours = crop_and_resize(image.floor(), WHOLE, (48, 72), by=FILTERS[kernel])[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - reduced).max() < 1.1


def test_nearest_takes_pixels_as_they_are():
    """The kernel "nearest" reduces by leaving pixels out, the same ones as torch's exact nearest neighbour."""
    image = frames(1)
    theirs = functional.interpolate(image, (50, 96), mode="nearest-exact")
    assert torch.equal(crop_and_resize(image, WHOLE, (50, 96), by=FILTERS["nearest"]), theirs)


@pytest.mark.parametrize("size", [(24, 36), (100, 150)])
def test_plain_interpolation_is_that_of_torch(size):
    """Without widening, a crop equals torch's bilinear interpolation, reduced (aliased) or enlarged."""
    image, rectangle = frames(1), torch.tensor([[0.25, 0.75, 0.0, 0.5]])
    theirs = functional.interpolate(image[:, :, :64, 48:144], size, mode="bilinear", align_corners=False)
    ours = crop_and_resize(image, rectangle, size, by=BILINEAR)
    assert torch.allclose(ours, theirs, atol=0.02)


def test_each_sample_gets_its_own_rectangle():
    """A crop on pixel borders equals slicing the frame first and reducing it then."""
    image = frames(2)
    rectangles = torch.tensor([[0.25, 0.75, 0.0, 0.5], [0.5, 1.0, 0.5, 1.0]])
    slices = [image[0, :, :64, 48:144], image[1, :, 64:, 96:]]
    theirs = functional.interpolate(torch.stack(slices), (24, 36), mode="bilinear", antialias=True)
    assert torch.allclose(crop_and_resize(image, rectangles, (24, 36)), theirs, atol=0.02)


@pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
def test_a_flip_comes_before_the_crop(flip):
    """A flipped sample is the crop, at the same rectangle, of the mirrored frame."""
    image, rectangle = frames(1), torch.tensor([[0.1, 0.7, 0.3, 0.9]])
    axes = [axis for axis, is_flipped in ((3, flip[0]), (2, flip[1])) if is_flipped]
    options = {"intermediate_px_B": torch.tensor([60.0]), "by": matched(2.0)}
    flipped = crop_and_resize(image, rectangle, (24, 36), mirrored_B2=torch.tensor([flip]), **options)
    assert torch.allclose(flipped, crop_and_resize(image.flip(axes), rectangle, (24, 36), **options), atol=1e-3)


def axis(start: float, extent: float, length: int, mirrored: bool = False) -> Axis:
    """One sample's axis, in float64."""
    return Axis(
        *(torch.tensor([value], dtype=torch.float64) for value in (start, extent)), length, torch.tensor([mirrored])
    )


def test_weights_sum_to_one_and_stay_inside():
    """Every output pixel is an average of pixels inside the rectangle, and of nothing else."""
    weight = resampling_matrix(axis(20.0, 50.0, 100), torch.tensor([10.0]), 10)
    assert torch.allclose(weight.sum(2), torch.ones(1, 10))
    assert weight[0, :, :20].abs().max() == 0
    assert weight[0, :, 70:].abs().max() == 0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("by", [TRIANGLE, BILINEAR, matched(1.3)], ids=["triangle", "bilinear", "matched"])
def test_windows_are_parts_of_the_whole_matrix(by, mirrored):
    """The weights of a window are rows of the whole matrix; what they leave out of it is zero."""
    whole = axis(33.3, 201.7, 300, mirrored)
    count, first = torch.tensor([91.0], dtype=torch.float64), torch.tensor([[0.0, 17.0, 71.0]], dtype=torch.float64)
    matrix = resampling_matrix(whole, count, 91, by)
    columns = window_length(20, 201.7 / 91, by, 300)
    found = windows(whole, count, first, 20, columns, by)
    for number, row in enumerate((0, 17, 71)):
        part, origin = matrix[0, row : row + 20], int(found.origin_BP[0, number])
        assert torch.allclose(part[:, origin : origin + columns], found.weight_BPRL[0, number], atol=5e-5)
        assert part.sum() == pytest.approx(float(found.weight_BPRL[0, number].sum()), abs=1e-4)


def blur(by: Filter, scale: float, cycles: float) -> float:
    """The response of a filter and of the frame's own pixels to ``cycles`` per output pixel."""
    distance = torch.arange(-30, 30, 0.005, dtype=torch.float64)
    weight = by.weight(distance, torch.tensor(scale, dtype=torch.float64))
    wave = torch.cos(2 * torch.pi * cycles * distance / scale)
    return float((weight * wave).sum() / weight.sum()) * float(np.sinc(cycles / scale))


@pytest.mark.parametrize("least", [1.0, 1.6])
def test_matched_filters_blur_alike_at_every_scale(least):
    """Up to half a cycle per output pixel the blur is the same from the least scale on; a plain triangle's is not."""
    by = matched(least)
    for cycles in (0.1, 0.25, 0.4, 0.5):
        expected = blur(by, least, cycles)
        assert [blur(by, scale, cycles) for scale in (1.2 * least, 2.0, 3.7, 8.0)] == pytest.approx(
            4 * [expected], rel=0.01
        )
    assert blur(TRIANGLE, 2.0, 0.5) > 1.1 * blur(TRIANGLE, 1.0, 0.5)
