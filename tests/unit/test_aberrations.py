"""Perturbations of whole frames: nothing at strength 0, what they say at others, undone by the opposite."""

import numpy as np
import pytest
import torch

from models.crops.aberrations import STRENGTHS, perturbed
from models.crops.system import CropSystem
from models.errors import ConfigError
from models.loader import PhotoBatch
from models.recipes import RECIPES


def smooth_frames() -> torch.Tensor:
    """A uint8 frame [1, 3, 120, 180] of waves in different colours."""
    y, x = np.mgrid[:120, :180]
    waves = [np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)]
    return torch.from_numpy((128 + 90 * np.stack(waves)).astype(np.uint8))[None]


@pytest.mark.parametrize("name", STRENGTHS)
def test_strength_zero_changes_no_bit(name):
    """Every perturbation is tried at 0, where frames and details stay bit for bit what they are."""
    assert 0 in STRENGTHS[name]
    frame = smooth_frames()
    photos = PhotoBatch(np.arange(1), np.arange(1, dtype=np.uint64), frame, frame.clone(), [None])
    same = CropSystem(RECIPES["crops_joint_narrow"]()).perturb(photos, name, 0.0)
    assert same.frame_BCHW is frame  # untouched: no rounding can have changed it
    assert same.detail_BCHW is photos.detail_BCHW


@pytest.mark.parametrize("name", STRENGTHS)
def test_other_strengths_change_the_picture(name):
    """A perturbation changes pixels, on uint8 frames of the same size; a stronger one changes more."""
    frame = smooth_frames()
    changes = [
        (perturbed(frame, name, strength).float() - frame).abs().mean()
        for strength in sorted(STRENGTHS[name])
        if strength > 0
    ]
    assert changes[0] > 0.01
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", ["lateral_colour", "vignetting", "radial_distortion"])
def test_the_opposite_strength_undoes_it(name):
    """Adding an aberration and taking it away leaves the middle of the picture as it was, to rounding."""
    frame, strength = smooth_frames(), max(STRENGTHS[name])
    back = perturbed(perturbed(frame, name, strength), name, -strength)
    assert (back.float() - frame)[..., 20:-20, 30:-30].abs().max() < 4


def test_lateral_colour_moves_red_outward():
    """At the right border red lies further out by the percentage of half the width, blue further in, green stays."""
    frame = torch.zeros(1, 3, 9, 2001, dtype=torch.uint8)
    frame[..., 1900:1901] = 255
    row = perturbed(frame, "lateral_colour", 1.0)[0, :, 4].float()
    place = (row * torch.arange(2001)).sum(1) / row.sum(1) - 1000
    assert place.tolist() == pytest.approx([900 * 1.01, 900, 900 / 1.01], abs=0.2)


def test_vignetting_follows_the_formula():
    """White stays white in the centre and falls to 1 / 11.84 in the corners; half strength falls half as far."""
    white = torch.full((1, 3, 201, 301), 250, dtype=torch.uint8)
    for strength, corner in ((1.0, 1 / 11.8438), (0.5, 0.5 + 0.5 / 11.8438)):
        dark = perturbed(white, "vignetting", strength)[0, 0].float() / 250
        assert dark[100, 150] == pytest.approx(1, abs=0.01)
        assert dark[0, 0] == pytest.approx(corner, abs=0.02)


def test_grey_is_grey():
    """At full strength the three channels are one; at half, half of the colour is left."""
    frame = smooth_frames()
    grey, half = (perturbed(frame, "greyness", strength).float() for strength in (1.0, 0.5))
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert torch.allclose(half, (grey + frame) / 2, atol=1.01)


def test_distortion_keeps_centre_and_moves_by_the_cube():
    """The centre stays; a point at r shows what lay at r (1 + k1 r^2), r in half diagonals."""
    frame = torch.zeros(1, 3, 801, 1201, dtype=torch.uint8)
    frame[..., 400 - 1 : 400 + 2, :] = 0
    frame[0, :, 398:403, 598:603] = 200
    frame[0, :, 398:403, 998:1003] = 200
    row = perturbed(frame, "radial_distortion", 0.05)[0, 0, 400].float()
    halves = row[:800], row[800:]
    places = [float((part * torch.arange(len(part))).sum() / part.sum()) for part in halves]
    half_diagonal = np.hypot(1201, 801) / 2
    shown = (places[1] + 800 - 600) / half_diagonal
    assert places[0] == pytest.approx(600, abs=0.1)
    assert shown * (1 + 0.05 * shown**2) * half_diagonal == pytest.approx(400, abs=0.3)


def test_unknown_perturbations_are_refused():
    """The message lists those that there are."""
    photos = PhotoBatch(np.arange(1), np.arange(1, dtype=np.uint64), smooth_frames(), None, [None])
    with pytest.raises(ConfigError, match="vignetting"):
        CropSystem(RECIPES["crops_thumbnail_narrow"]()).perturb(photos, "rain", 1.0)
