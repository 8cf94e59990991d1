"""Cropping and resampling in the batch: right where there is a yardstick."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from models import resampling
from models.resampling import (
    BILINEAR,
    FILTERS,
    PLAIN,
    TRIANGLE,
    Axis,
    Filter,
    crop_and_resize,
    drawn,
    matched,
    matched_gaussian,
    resample,
    taps,
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


def matrix(axis: Axis, count: int, by: Filter = TRIANGLE) -> torch.Tensor:
    """The yardstick: every weight of every pixel [count, length], most of them zero, of a batch of one."""
    pixel_L = torch.arange(axis.length, dtype=torch.float64) + 0.5
    row_R, (start, extent) = torch.arange(count, dtype=torch.float64), (float(axis.start_B), float(axis.extent_B))
    centre_R = start + (row_R + 0.5) * extent / count
    if axis.mirrored_B:
        start, centre_R = axis.length - start - extent, axis.length - centre_R
    weight_RL = by.weight(pixel_L - centre_R[:, None], torch.tensor(extent / count, dtype=torch.float64))
    weight_RL = weight_RL * ((pixel_L >= start) & (pixel_L <= start + extent))
    return (weight_RL / weight_RL.sum(1, keepdim=True)).float()


MANY = {**PLAIN, **FILTERS, "matched": matched(1.3), "gaussian": matched_gaussian(1.3)}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("kernel", MANY)
@pytest.mark.parametrize("count", [91, 270])
def test_taps_are_what_is_not_zero_of_a_matrix(kernel, mirrored, count):
    """Reduced or enlarged, at the borders or within, by every kernel: the weights of the dense matrix."""
    whole, by = axis(33.3, 201.7, 300, mirrored), MANY[kernel]
    first = torch.tensor([[0.0, 17.0, 71.0]], dtype=torch.float64)
    found = taps(whole, torch.tensor([count], dtype=torch.float64), first, 20, by)
    expected_RL = matrix(whole, count, by)
    for number, row in enumerate((0, 17, 71)):
        weight_RT, first_R = found.weight_BPRT[0, number], found.first_BPR[0, number]
        pixel_RT = first_R[:, None] + torch.arange(weight_RT.shape[1])
        spread_RL = torch.zeros(20, 300 + weight_RT.shape[1]).scatter_(1, pixel_RT, weight_RT)
        assert torch.allclose(spread_RL[:, :300], expected_RL[row : row + 20], atol=1e-5)
        assert spread_RL[:, 300:].abs().max() == 0
        within = pixel_RT[weight_RT != 0] - found.origin_BP[0, number]
        assert within.min() >= 0
        assert within.max() < found.span


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_picture_is_two_matrix_products(mirrored):
    """By way of an intermediate width, too: within float rounding; bytes become numbers in [0, 1]."""
    image, by = frames(1).to(torch.uint8), matched(1.6)
    rectangle, mirrors = torch.tensor([[0.1, 0.8, 0.3, 1.0]], dtype=torch.float64), torch.tensor([[mirrored, True]])
    found = crop_and_resize(image, rectangle, (24, 36), torch.tensor([49.0]), mirrors, by)
    vertical = matrix(axis(0, 33, 33), 24) @ matrix(axis(0.3 * 128, 0.7 * 128, 128, True), 33, by)
    horizontal = matrix(axis(0, 49, 49), 36) @ matrix(axis(0.1 * 192, 0.7 * 192, 192, mirrored), 49, by)
    assert torch.allclose(found[0], vertical @ (image[0] / 255) @ horizontal.mT, atol=1e-6)


def test_all_at_once_is_what_comes_of_one_photo_after_another(monkeypatch):
    """On a GPU all windows are one product; on a CPU some at a time, without what other photos need: the same."""
    low, high, mirrored = torch.tensor([0.1, 0.0]).double(), torch.tensor([0.6, 1.0]).double(), torch.tensor([True, 0])
    number_B, first_BP = torch.tensor([0, 1]), torch.tensor([[0.0, 15.0, 30.0], [2.0, 30.0, 7.0]])
    by = drawn([matched(1.6), matched_gaussian(1.6)], number_B)
    both = [
        [taps(Axis.of_frame(low, high, length, mirrored.bool()), torch.tensor([40.0, 45.0]), first_BP, 10, by)]
        for length in (128, 192)
    ]
    together = resample(frames(2), *both, is_at_once=True)
    for cached in (1, resampling.CACHED):
        monkeypatch.setattr(resampling, "CACHED", cached)
        assert torch.allclose(resample(frames(2), *both), together, atol=1e-3)


def test_weights_sum_to_one_and_stay_inside():
    """Every sample is an average of pixels inside the rectangle, and of nothing else; samples beyond it are zero."""
    found = taps(axis(20.0, 50.0, 100), torch.tensor([10.0]), torch.zeros(1, 1), 12)
    assert torch.allclose(found.weight_BPRT.sum(3), (torch.arange(12) < 10).float())
    pixel_BPRT = found.first_BPR[..., None] + torch.arange(found.weight_BPRT.shape[3])
    assert pixel_BPRT[found.weight_BPRT > 0].min() == 20
    assert pixel_BPRT[found.weight_BPRT > 0].max() == 69


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
