"""torchvision's ImageFolder under torch's DataLoader, of loading.py: see loaded.py."""

from collections.abc import Iterator

import loaded
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder


def main() -> None:
    """Workers stay from epoch to epoch."""
    if loaded.BATCHES == "prepare":
        return
    photos = ImageFolder(str(loaded.FOLDER / "photos"), loaded.peers_transform())
    batches = DataLoader(
        photos, loaded.BATCH, shuffle=True, num_workers=loaded.WORKERS, persistent_workers=True, prefetch_factor=4
    )

    def epoch() -> Iterator[torch.Tensor]:
        for image_BCHW, _ in batches:
            yield image_BCHW

    loaded.report(epoch)


if __name__ == "__main__":
    main()
