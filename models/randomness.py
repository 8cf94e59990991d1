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
_GOLDEN_32 = 0x9E3779B1
_PER_STEP = 6**0.5 / 65535  # makes the standard deviation of the sum of two 16-bit numbers 1
CACHED = 2**16  # numbers that a core works on at a time: 256 KB in each of a few arrays


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


def add_noise_(image_BX: Tensor, std_B: Tensor, key_B: Tensor) -> Tensor:
    """Adds noise to images in [0, 1] of any shape behind B, each of its own strength and key, and clamps them there.

    On a CPU it passes over as many numbers at a time as stay in its cache.
    """
    pixel_BN, on_cpu = image_BX.view(len(image_BX), -1), image_BX.device.type == "cpu"
    rows, columns = (1, CACHED) if on_cpu else (max(1, len(pixel_BN)), pixel_BN.shape[1])
    walk_N, strength_B1 = _walk(columns, key_B.device), std_B[:, None] * _PER_STEP
    for row in range(0, len(pixel_BN), rows):
        some = slice(row, row + rows)
        for start, part_BN in enumerate(pixel_BN[some].split(columns, 1)):
            first_B1 = (key_B[some, None] + start * columns * _GOLDEN_32).to(torch.int32)
            total_BN = _centred_totals(walk_N[: part_BN.shape[1]] + first_B1)
            part_BN.addcmul_(total_BN.float(), strength_B1[some]).clamp_(0, 1)
    return image_BX


def triangular_noise(key_B: Tensor, count: int) -> Tensor:
    """Noise [B, count] of mean 0 and standard deviation 1, a function of (key, position) alone."""
    walk_BN = _walk(count, key_B.device) + key_B[:, None].to(torch.int32)
    return _centred_totals(walk_BN).float().mul_(_PER_STEP)


def _walk(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device, dtype=torch.int32).mul_(_GOLDEN_32 - 2**32)


def _centred_totals(bits: Tensor) -> Tensor:
    """What becomes of 32 bits, in place: the sum of two uniform numbers in [0, 65535] less 65535.

    The two halves of an integer hash (C. Wellons, "Prospecting for hash functions"). Whole numbers wrap at 32 bits, and
    a shift to the right repeats the sign, which the mask takes away.
    """
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97), (15, 1)):
        bits.bitwise_xor_((bits >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        if factor > 1:
            bits.mul_(factor)
    return (bits >> 16).bitwise_and_(0xFFFF).add_(bits.bitwise_and_(0xFFFF)).sub_(65535)
