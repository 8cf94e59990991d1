"""webdataset, of loading.py: shards of the same JPEG files, a worker a core; see loaded.py."""

from collections.abc import Iterator

import loaded
import torch
import webdataset as wds

SHARDS = 4


def prepare() -> None:
    """The JPEG files, as they are, in a few tar files."""
    files = sorted((loaded.FOLDER / "photos").glob("*/*.jpg"))
    (loaded.FOLDER / "shards").mkdir()
    for shard in range(SHARDS):
        with wds.TarWriter(str(loaded.FOLDER / "shards" / f"{shard:03d}.tar")) as writer:
            for file in files[shard::SHARDS]:
                writer.write({"__key__": file.stem, "jpg": file.read_bytes(), "cls": int(file.parent.name)})


def main() -> None:
    """Shuffled among 1,000, decoded by Pillow."""
    if loaded.BATCHES == "prepare":
        return prepare()
    shards = sorted(map(str, (loaded.FOLDER / "shards").glob("*.tar")))
    photos = (
        wds.WebDataset(shards, shardshuffle=SHARDS, seed=0)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(loaded.peers_transform(), int)
        .batched(loaded.BATCH)
    )
    batches = wds.WebLoader(
        photos, batch_size=None, num_workers=loaded.WORKERS, persistent_workers=True, prefetch_factor=4
    )

    def epoch() -> Iterator[torch.Tensor]:
        for image_BCHW, _ in batches:
            yield image_BCHW

    return loaded.report(epoch)


if __name__ == "__main__":
    main()
