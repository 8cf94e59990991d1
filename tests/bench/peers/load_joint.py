"""The joint network's loader, of loading.py: a pack of the same files, streamed, samples drawn in the batch."""

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import load_darkroom
import loaded
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from models.loader import FrameStore, open_pack
from models.networks import system_of
from models.recipes import crops_joint

BATCH = 16
RECIPE = crops_joint()
SYSTEM = system_of(RECIPE)
EPOCH = count()


def epoch(store: FrameStore) -> Iterator[torch.Tensor]:
    """Thumbnails and patches of all photos; or what a GPU makes them of, uint8 frames and details."""
    number = next(EPOCH)
    order = np.random.default_rng(number).permutation(len(store))
    for photos in store.stream([order[start : start + BATCH] for start in range(0, len(order), BATCH)]):
        if loaded.BATCHES == "frames" and photos.detail_BCHW is not None:
            yield photos.detail_BCHW
        else:
            yield SYSTEM.draw(photos, 0, number).inputs["patches"][:, 0]


def main() -> None:
    """On one thread: two that share pieces so small wait for each other, and take twice the CPU time."""
    if loaded.BATCHES == "prepare":
        return load_darkroom.prepare(RECIPE.pack)
    torch.set_num_threads(1)
    split = open_pack(loaded.FOLDER / "pack", RECIPE.pack, ["train"]).splits["train"]
    store = FrameStore(split, torch.device("cpu"), needs_detail=True)
    return loaded.report(lambda: epoch(store))


if __name__ == "__main__":
    main()
