"""The joint network's loader in the shape of the original's, of loading.py: everything anew for every sample.

A full decode and a copy, a turned copy of standing photos, a crop, the pre-resize to a width of 1024 to 2048 px, four
resizes in a row to the thumbnail, 16 patches of 96 px, all as floats; bilinear without antialiasing, as the original's
turn out to be. Written with Pillow, NumPy and torch, whose resampling of bytes takes the place of OpenCV's.
Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021, and the authors' code (data.py).
"""

from collections.abc import Iterator
from pathlib import Path

import loaded
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

GRID, PATCH_PX, THUMBNAIL = 4, 96, (149, 224)
MIN_PX, MAX_PX = 1024, 2048


def resize(image_CHW: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, without antialiasing."""
    return functional.interpolate(image_CHW[None], (height, width), mode="bilinear")[0]


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """A thumbnail [5, 149, 224] and patches [16, 3, 96, 96] of each photo, whole or cropped."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Drawn anew each time."""
        chance = np.random.default_rng()
        pixels = np.asarray(Image.open(self.files[index]).convert("RGB")).copy()
        if pixels.shape[0] > pixels.shape[1]:
            pixels = np.rot90(pixels, chance.choice((1, 3))).copy()
        image_CHW = torch.from_numpy(self.cropped(pixels, chance)).permute(2, 0, 1)
        height, width = image_CHW.shape[1:]
        target = int(chance.integers(MIN_PX, MAX_PX + 1))
        image_CHW = resize(image_CHW, round(height * target / width), target)
        return self.thumbnail(image_CHW, chance), self.patches(image_CHW, chance)

    def cropped(self, pixels: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """Half of the photos by a size factor of 0.5 to 0.9, pinned to an edge."""
        if chance.random() < 0.5:
            return pixels
        s = chance.uniform(0.5, 0.9)
        x, y = chance.random(2) * (1 - s)
        x, y = ((0, y), (1 - s, y), (x, 0), (x, 1 - s))[chance.integers(4)]
        height, width = pixels.shape[:2]
        return pixels[int(y * height) : int((y + s) * height), int(x * width) : int((x + s) * width)]

    def thumbnail(self, image_CHW: Tensor, chance: np.random.Generator) -> Tensor:
        """After three resizes at random sizes, with two coordinate channels."""
        for _ in range(3):
            width = int(chance.integers(MIN_PX, MAX_PX + 1))
            image_CHW = resize(image_CHW, int(width / 1.5 * chance.uniform(0.8, 1.2)), width)
        image = resize(image_CHW, *THUMBNAIL).float() / 255
        y = torch.linspace(0, 1, THUMBNAIL[0])[:, None].expand(1, *THUMBNAIL)
        x = torch.linspace(0, 1, THUMBNAIL[1]).expand(1, *THUMBNAIL)
        return torch.cat([image, y, x])

    def patches(self, image_CHW: Tensor, chance: np.random.Generator) -> Tensor:
        """One in each cell, moved by -8 to 7 px on each axis."""
        height, width = image_CHW.shape[1:]
        found = []
        for row in range(GRID):
            for column in range(GRID):
                jitter_y, jitter_x = chance.integers(-8, 8, 2)
                top = int((row + 0.5) / GRID * height) + jitter_y - PATCH_PX // 2
                left = int((column + 0.5) / GRID * width) + jitter_x - PATCH_PX // 2
                top, left = min(max(top, 0), height - PATCH_PX), min(max(left, 0), width - PATCH_PX)
                found.append(image_CHW[:, top : top + PATCH_PX, left : left + PATCH_PX].float() / 255)
        return torch.stack(found)


def main() -> None:
    """Batches of 8, as the original's, by a worker a core."""
    if loaded.BATCHES == "prepare":
        return
    batches = DataLoader(
        Photos(loaded.FOLDER / "photos"), 8, shuffle=True, num_workers=loaded.WORKERS, persistent_workers=True
    )

    def epoch() -> Iterator[Tensor]:
        for _, patch_BPCpp in batches:
            yield patch_BPCpp[:, 0]

    loaded.report(epoch)


if __name__ == "__main__":
    main()
