"""Random numbers as functions of identity: every draw is a hash of (purpose, seed, epoch, photo key).

A draw depends neither on the order of the photos nor on what else is in the batch nor on the device, so a run that is
killed and resumed, or shared among processes, sees what it would have seen.
Shapes: B batch, N photos.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def photo_keys(names: Iterable[str]) -> NDArray[np.uint64]:
    """One 64-bit key per photo name: what a photo's randomness hangs on, wherever it lies in a pack."""
    return np.array([int.from_bytes(hashlib.blake2b(n.encode(), digest_size=8).digest()) for n in names], np.uint64)


def other_keys(keys_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """For each key that of another photo, which is nowhere: whatever is drawn for it says nothing about this one."""
    return _mix(~keys_N)


def uniform_draws(purpose: str, seed: int, epoch: int, keys_N: NDArray[np.uint64], columns: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) [N, columns]; each row is a function of (purpose, seed, epoch, key) alone.

    What is drawn for one purpose tells nothing of another: an order of photos drawn as their crops are would bring all
    crops before all whole photos.
    Source: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), used as a counter-based generator.
    """
    base = _mix(_mix(_mix(photo_keys([purpose]) ^ np.uint64(seed)) + _GOLDEN) ^ np.uint64(epoch))
    state_N1 = _mix(base ^ keys_N)[:, None]
    counters = np.arange(1, columns + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(state_N1 + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64; arithmetic wraps at 64 bits."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def add_noise(image_BX: Tensor, std_B: Tensor, key_B: Tensor) -> Tensor:
    """Images of any shape behind B, in [0, 1], each with noise of its own strength and key, clamped to [0, 1]."""
    noise = triangular_noise(key_B, image_BX[0].numel()).mul_(std_B[:, None])
    return noise.view_as(image_BX).add_(image_BX).clamp_(0, 1)


def triangular_noise(key_B: Tensor, count: int) -> Tensor:
    """Noise [B, count] of mean 0 and standard deviation 1, a function of (key, position) alone.

    The sum of two uniform numbers, from the two halves of a 32-bit integer hash (C. Wellons, "Prospecting for hash
    functions"); both multipliers are below 2^31, so nothing overflows 64 bits.
    """
    counter = torch.arange(count, device=key_B.device)
    bits = (key_B[:, None] + counter * 0x9E3779B1).bitwise_and_(0xFFFFFFFF)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        bits.bitwise_xor_(bits >> shift).mul_(factor).bitwise_and_(0xFFFFFFFF)  # in place: half the time on a CPU
    bits.bitwise_xor_(bits >> 15)
    total = (bits & 0xFFFF).add_(bits >> 16)
    return total.float().mul_(6**0.5 / 65535).sub_(6**0.5)
