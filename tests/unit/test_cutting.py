"""Parts of frames on the CPU: the same pictures as everywhere, only sooner."""

import numpy as np
import pytest
import torch

from models.cutting import cut_bytes, whole_pixels
from models.resampling import crop_and_resize

RECTANGLES = np.array([(0, 80, 0, 60), (3, 50, 10, 60), (40, 80, 0, 23), (17, 30, 20, 30)], np.int64)


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("size", [(24, 32), (48, 64)])
def test_bytes_are_those_of_the_matrices(size: tuple[int, int], mirrored: tuple[bool, bool]) -> None:
    """Reduced or enlarged, mirrored or not: within the two roundings of a byte."""
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), np.uint8)).permute(0, 3, 1, 2)
    mirrored_B2 = np.array([mirrored] * 4)
    rectangle = torch.from_numpy(RECTANGLES / (80, 80, 60, 60)).float()
    expected = crop_and_resize(frame.float(), rectangle, size, mirrored_B2=torch.from_numpy(mirrored_B2))
    found = cut_bytes(frame, RECTANGLES, size, mirrored_B2)
    assert found.dtype == torch.uint8
    assert (found - expected).abs().max() < 1.5
    assert (found - expected).abs().mean() < 0.5


def test_rectangles_become_whole_pixels() -> None:
    """To the nearest; the whole frame stays whole, and nothing becomes empty or leaves the frame."""
    fractions = np.array([(0.0, 1.0, 0.0, 1.0), (0.26, 0.74, 0.1, 0.5), (0.999, 1.0, 0.5, 0.5)])
    assert whole_pixels(fractions, 10, 20).tolist() == [[0, 20, 0, 10], [5, 15, 1, 5], [19, 20, 5, 6]]
