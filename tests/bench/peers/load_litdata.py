"""litdata, of loading.py: its optimised chunks of the same JPEG files; see loaded.py."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litdata
import loaded
import torch
from PIL import Image


def sample(file: str) -> dict[str, Any]:
    """One photo for a chunk: the bytes of its file."""
    return {"image": Path(file).read_bytes(), "label": int(Path(file).parent.name)}


class Photos(litdata.StreamingDataset):
    """Photos from chunks, decoded by Pillow."""

    transform_photo: Any = None

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The transformed photo."""
        picture = Image.open(io.BytesIO(super().__getitem__(index)["image"])).convert("RGB")
        image: torch.Tensor = self.transform_photo(picture)
        return image


def main() -> None:
    """Shuffled, with a worker a core."""
    chunks = str(loaded.FOLDER / "chunks")
    if loaded.BATCHES == "prepare":
        files = sorted(map(str, (loaded.FOLDER / "photos").glob("*/*.jpg")))
        litdata.optimize(sample, files, output_dir=chunks, chunk_bytes="16MB", num_workers=1)
        return
    photos = Photos(chunks, shuffle=True)
    photos.transform_photo = loaded.peers_transform()
    batches = litdata.StreamingDataLoader(
        photos, batch_size=loaded.BATCH, num_workers=loaded.WORKERS, persistent_workers=True, prefetch_factor=4
    )

    def epoch() -> Iterator[torch.Tensor]:
        yield from batches

    loaded.report(epoch)


if __name__ == "__main__":
    main()
