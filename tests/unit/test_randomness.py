"""Draws and noise: uniform, white, and functions of nothing but seed, epoch and photo."""

import numpy as np
import pytest
import torch

from models.randomness import CACHED, add_noise_, other_keys, photo_keys, triangular_noise, uniform_draws


def test_draws_change_with_purpose_seed_epoch_and_photo():
    """Draws are uniform, repeatable, and differ as soon as purpose, seed, epoch or photo differ."""
    keys = photo_keys(str(n) for n in range(20_000))
    draws = uniform_draws("a", 0, 0, keys, 3)
    assert np.array_equal(draws, uniform_draws("a", 0, 0, keys, 3))
    others = [
        uniform_draws("b", 0, 0, keys, 3),
        uniform_draws("a", 1, 0, keys, 3),
        uniform_draws("a", 0, 1, keys, 3),
        uniform_draws("a", 0, 0, other_keys(keys), 3),
    ]
    assert all(not np.any(draws == other) for other in others)
    correlation = np.corrcoef(np.concatenate([draws, *others], axis=1).T) - np.eye(15)
    assert np.abs(correlation).max() < 0.04
    assert np.histogram(draws, bins=10, range=(0, 1))[0] == pytest.approx(6000, rel=0.06)


def test_other_keys_are_keys_of_other_photos():
    """No two photos share a stand-in, and none stands in for itself."""
    keys = photo_keys(str(n) for n in range(20_000))
    assert len(set(other_keys(keys).tolist()) | set(keys.tolist())) == 40_000


def test_noise_is_white_and_of_unit_strength():
    """Mean 0, standard deviation 1, no correlation with its neighbour or with another sample's noise."""
    noise = triangular_noise(torch.tensor([17, 99_991]), 50_000).numpy()
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(noise[0, 1:], noise[0, :-1])[0, 1] == pytest.approx(0, abs=0.02)
    assert np.corrcoef(noise)[0, 1] == pytest.approx(0, abs=0.02)


def test_each_sample_gets_noise_of_its_own_strength():
    """A strength of 0 changes nothing; 0.02 changes by 0.02; nothing leaves [0, 1]."""
    image = torch.full((3, 3, 60, 60), 0.5)
    image[2] = 1.0
    noisy = add_noise_(image.clone(), torch.tensor([0.0, 0.02, 0.02]), torch.tensor([1, 2, 3]))
    assert torch.equal(noisy[0], image[0])
    assert float(noisy[1].std()) == pytest.approx(0.02, rel=0.03)
    assert float(noisy[2].max()) == 1.0


def test_noise_is_a_hash_of_key_and_position():
    """It is what NumPy's unsigned numbers give, however many of them are worked on at a time."""
    keys, count = np.array([0, 7, 2**32 - 1]), 2 * CACHED + 100
    bits = (keys[:, None] + np.arange(count) * 0x9E3779B1).astype(np.uint32)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97), (15, 1)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    expected = ((bits & 0xFFFF) + (bits >> 16)) * (6**0.5 / 65535) - 6**0.5
    assert np.abs(triangular_noise(torch.from_numpy(keys), count).numpy() - expected).max() < 1e-6
    noisy = add_noise_(torch.full((3, count), 0.5), torch.tensor([0.01, 0.02, 0.03]), torch.from_numpy(keys))
    assert np.abs(noisy.numpy() - 0.5 - expected * [[0.01], [0.02], [0.03]]).max() < 1e-6
