"""Augmentation: what is drawn stays within what the recipe allows, and colours change as torchvision changes them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as theirs

from models.augment import augment, change_colours, normalise, plan_augmentation, turn, turn_hue
from models.categories.spec import AugmentSpec
from models.randomness import photo_keys

NOTHING = AugmentSpec(min_area=1.0, max_aspect=1.0, flips=(), brightness=0, contrast=0, saturation=0)
BUSY = AugmentSpec(
    flips=("horizontal", "vertical"), turn_deg=10, hue=0.1, kernels=("triangle", "nearest", "cubic", "lanczos")
)
KEYS = photo_keys(str(n) for n in range(2_000))


def frames(count: int) -> torch.Tensor:
    """Frames of noise, uint8 [count, 3, 80, 80]."""
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, 3, 80, 80), np.uint8))


def test_an_augmentation_that_allows_nothing_changes_nothing():
    """The whole frame at its own size comes back."""
    image = frames(3)
    assert torch.allclose(augment(image, KEYS[:3], 0, 0, NOTHING, 80), image / 255, atol=1e-4)


def test_parts_stay_inside_and_as_large_as_they_must_be():
    """A part lies in the frame, has at least the least area, and an aspect within the allowed factor."""
    spec = replace(BUSY, min_area=0.9)
    x1, x2, y1, y2 = plan_augmentation(KEYS, 1, 2, spec).rectangle_B4.T
    assert min(x1.min(), y1.min()) >= 0
    assert max(x2.max(), y2.max()) <= 1 + 1e-9
    assert ((x2 - x1) * (y2 - y1)).min() >= spec.min_area - 1e-9
    assert np.abs(np.log((x2 - x1) / (y2 - y1))).max() <= math.log(spec.max_aspect) + 1e-9


def test_every_draw_is_used_in_full():
    """Turns, flips, kernels and factors reach what is allowed, and no further."""
    plan = plan_augmentation(KEYS, 0, 0, BUSY)
    assert np.abs(plan.turn_B).max() == pytest.approx(math.radians(10), rel=0.01)
    assert plan.is_mirrored_B2.mean(0) == pytest.approx(0.5, abs=0.05)
    assert np.bincount(plan.kernel_B) == pytest.approx(500, rel=0.15)
    assert plan.factor_B3.min(0) == pytest.approx(0.8, abs=0.01)
    assert plan.factor_B3.max(0) == pytest.approx(1.2, abs=0.01)
    assert not plan_augmentation(KEYS, 0, 0, replace(BUSY, flips=())).is_mirrored_B2.any()


def test_a_photo_does_not_depend_on_its_batch():
    """Alone or in company a photo gets the same picture; in another epoch another."""
    image = frames(8)
    together = augment(image, KEYS[:8], 3, 5, BUSY, 64)
    assert torch.allclose(augment(image[4:6], KEYS[4:6], 3, 5, BUSY, 64), together[4:6], atol=1e-5)
    assert not torch.allclose(augment(image, KEYS[:8], 3, 6, BUSY, 64), together, atol=0.1)
    assert together.shape == (8, 3, 64, 64)
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.parametrize(
    ("place", "change"),
    [(0, theirs.adjust_brightness), (1, theirs.adjust_contrast), (2, theirs.adjust_saturation)],
)
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_colours_change_as_in_torchvision(place, change, factor):
    """Each of the three changes alone is torchvision's (whose luma weights have four digits)."""
    image, factors = frames(1) / 255, torch.ones(1, 3)
    factors[0, place] = factor
    assert torch.allclose(change_colours(image, factors), change(image, factor), atol=2e-4)


def test_hue_turns_at_the_same_luma():
    """A full turn is none; half a turn makes the complement around the same grey; grey stays grey."""
    image = 0.4 + 0.2 * frames(1) / 255
    assert torch.allclose(turn_hue(image, torch.tensor([2 * math.pi])), image, atol=1e-5)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    half = turn_hue(image, torch.tensor([math.pi]))
    assert torch.allclose((half * luma).sum(1), (image * luma).sum(1), atol=1e-5)
    assert torch.allclose((half + image) / 2, (image * luma).sum(1, keepdim=True).expand_as(image), atol=1e-3)
    grey = torch.full((1, 3, 4, 4), 0.3)
    assert torch.allclose(turn_hue(grey, torch.tensor([1.0])), grey, atol=1e-3)


def test_a_quarter_turn_is_that_of_numpy():
    """Positive angles turn counter-clockwise, and nothing is stretched."""
    image = frames(1) / 255
    turned = turn(image, torch.tensor([math.pi / 2]))
    assert torch.allclose(turned, torch.rot90(image, 1, (2, 3)), atol=1e-3)


def test_normalising_centres_each_channel():
    """The mean colour becomes 0, one standard deviation 1."""
    image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    assert torch.allclose(normalise(image), torch.ones(1, 3, 1, 1))
