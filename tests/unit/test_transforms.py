"""Cropping, resampling and noise in the batch: right where there is a yardstick, and the same whatever the batch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.recipes import RECIPES
from models.transforms import (
    crop_and_resize,
    photo_keys,
    plan_fixed_sample,
    plan_samples,
    render,
    resampling_matrix,
    triangular_noise,
    uniform_draws,
)

RECIPE = RECIPES["crops_thumbnail_narrow"]()
WHOLE = torch.tensor([[0.0, 1.0, 0.0, 1.0]])


def frames(count: int, height: int = 128, width: int = 192) -> torch.Tensor:
    """Frames of noise, uint8."""
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, 3, height, width), np.uint8))


def test_the_whole_frame_at_its_own_size_is_itself():
    """Nothing is blurred or shifted where nothing is to be done."""
    image = frames(1).float()
    assert torch.allclose(crop_and_resize(image, WHOLE, (128, 192)), image, atol=1e-3)


@pytest.mark.parametrize("size", [(48, 72), (64, 96), (37, 91)])
def test_a_reduction_is_that_of_torch(size):
    """Reducing a whole frame equals torch's antialiased bilinear interpolation."""
    image = frames(2).float()
    theirs = functional.interpolate(image, size, mode="bilinear", antialias=True)
    assert torch.allclose(crop_and_resize(image, WHOLE.expand(2, 4), size), theirs, atol=0.02)


def test_each_sample_gets_its_own_rectangle():
    """A crop on pixel borders equals slicing the frame first and reducing it then."""
    image = frames(2).float()
    rectangles = torch.tensor([[0.25, 0.75, 0.0, 0.5], [0.5, 1.0, 0.5, 1.0]])
    slices = [image[0, :, :64, 48:144], image[1, :, 64:, 96:]]
    theirs = functional.interpolate(torch.stack(slices), (24, 36), mode="bilinear", antialias=True)
    assert torch.allclose(crop_and_resize(image, rectangles, (24, 36)), theirs, atol=0.02)


def test_a_flip_comes_before_the_crop():
    """A flipped sample is the crop, at the same rectangle, of the mirrored frame."""
    image, rectangle = frames(1).float(), torch.tensor([[0.1, 0.7, 0.3, 0.9]])
    flipped = crop_and_resize(image, rectangle, (24, 36), flipped_B=torch.tensor([True]))
    assert torch.allclose(flipped, crop_and_resize(image.flip(3), rectangle, (24, 36)), atol=1e-3)


def test_weights_sum_to_one_and_stay_inside():
    """Every output pixel is an average of pixels inside the rectangle, and of nothing else."""
    weight = resampling_matrix(torch.tensor([20.0]), torch.tensor([50.0]), torch.tensor([10.0]), 10, 100)
    assert torch.allclose(weight.sum(2), torch.ones(1, 10))
    assert weight[0, :, :20].abs().max() == 0
    assert weight[0, :, 70:].abs().max() == 0


def test_a_sample_does_not_depend_on_its_batch():
    """Alone, in another order or in other company, a photo gets the same pixels and the same target."""
    keys, image = photo_keys(f"flickr/{n}" for n in range(6)), frames(6)
    plan = plan_samples(keys, seed=1, epoch=4, recipe=RECIPE)
    together = render(image, plan, RECIPE)
    order = np.array([4, 1])
    alone = plan_samples(keys[order], seed=1, epoch=4, recipe=RECIPE)
    assert np.array_equal(alone.rectangle_N4, plan.rectangle_N4[order])
    assert torch.allclose(render(image[order], alone, RECIPE), together[order], atol=1e-5)


def test_draws_change_with_seed_epoch_and_photo():
    """Draws are uniform, repeatable, and differ as soon as seed, epoch or photo differ."""
    keys = photo_keys(str(n) for n in range(20_000))
    draws = uniform_draws(0, 0, keys, 3)
    assert np.array_equal(draws, uniform_draws(0, 0, keys, 3))
    others = [uniform_draws(1, 0, keys, 3), uniform_draws(0, 1, keys, 3), uniform_draws(0, 0, keys[::-1], 3)]
    assert all(not np.any(draws == other) for other in others)
    correlation = np.corrcoef(np.concatenate([draws, others[0], others[1]], axis=1).T) - np.eye(9)
    assert np.abs(correlation).max() < 0.04
    assert np.histogram(draws, bins=10, range=(0, 1))[0] == pytest.approx(6000, rel=0.06)


def test_noise_is_white_and_of_unit_strength():
    """Mean 0, standard deviation 1, no correlation with its neighbour or with another sample's noise."""
    noise = triangular_noise(torch.tensor([17, 99_991]), 50_000).numpy()
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(noise[0, 1:], noise[0, :-1])[0, 1] == pytest.approx(0, abs=0.02)
    assert np.corrcoef(noise)[0, 1] == pytest.approx(0, abs=0.02)


def test_fixed_samples_pair_each_photo():
    """Sample 0 of a photo is whole, the others are crops that differ; none is flipped."""
    keys = photo_keys(["a", "b"])
    plans = [plan_fixed_sample(keys, number, RECIPE) for number in range(3)]
    assert [plan.is_crop_N.tolist() for plan in plans] == [[False, False], [True, True], [True, True]]
    assert not np.any(plans[1].rectangle_N4[:, :2] == plans[2].rectangle_N4[:, :2].clip(1e-9))
    assert not any(plan.is_flipped_N.any() for plan in plans)


def scale_free_frames(count: int) -> torch.Tensor:
    """Frames [count, 3, 128, 192] of a 1/f random field, averaged down from twice the size as a pack's frames are."""
    rng, size = np.random.default_rng(2), 512
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((count, size, size))) / frequency, s=(size, size))
    small = fields.reshape(count, 256, 2, 256, 2).mean((2, 4))[:, :128, :192]
    levels = (128 + 30 * small / small.std()).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(np.repeat(levels[:, None], 3, axis=1))


def fine_detail(image_BHW: torch.Tensor) -> np.ndarray:
    """The logarithm of each picture's power in the upper third of its spectrum, tapered: borders are no detail."""
    taper = torch.hann_window(48)[:, None] * torch.hann_window(72)
    power = torch.fft.rfft2((image_BHW - image_BHW.mean((1, 2), keepdim=True)) * taper).abs().square()
    vertical, horizontal = torch.fft.fftfreq(48).abs()[:, None], torch.fft.rfftfreq(72)[None]
    return power[:, torch.hypot(vertical, horizontal) > 0.35].mean(1).log().numpy()


def test_resampling_does_not_tell_crop_from_whole():
    """On a scale-free field the finest detail is as strong in a crop as in the whole frame, within 4 % on average."""
    image, keys = scale_free_frames(48), photo_keys(str(n) for n in range(48))
    plans = [plan_fixed_sample(keys, number, RECIPE) for number in range(5)]
    whole, *crops = [fine_detail(render(image, plan, RECIPE)[:, 0]) for plan in plans]
    assert np.mean(crops) - whole.mean() == pytest.approx(0, abs=0.04)
