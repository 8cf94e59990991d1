"""Our loader, of loading.py: a pack of the same files, streamed from the disk, parts cut in the batch."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

import loaded
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from models.augment import cut_parts, normalise, plan_augmentation
from models.categories.spec import AugmentSpec
from models.frames import PackSpec
from models.loader import FrameStore, open_pack

SPEC = PackSpec(loaded.FRAME_PX, loaded.FRAME_PX)
AUGMENT = AugmentSpec(brightness=0, contrast=0, saturation=0)
EPOCH = count()


def prepare(spec: PackSpec) -> None:
    """Pack all files for ``spec``, as the stage does."""
    root = Path(tempfile.mkdtemp(dir=loaded.FOLDER))
    os.environ["DARKROOM_ROOT"] = str(root)  # before the first import: tasks learn it there
    from storage import blobs, manifest
    from storage.layout import layout
    from tasks.pack import pack

    rows = [
        {"source": "folder", "photo_id": file.name, "owner_id": None, "split": "train", "net_op": 1, "format": "JPEG",
         "blob": blobs.put(layout(), file.read_bytes(), "JPEG")}
        for file in sorted((loaded.FOLDER / "photos").glob("*/*.jpg"))
    ]  # fmt: skip
    ref = pack.fn(manifest.write_rows(layout(), "selection", rows), **asdict(spec))
    layout().pack(ref.digest).rename(loaded.FOLDER / "pack")
    shutil.rmtree(root)


def epoch(store: FrameStore) -> Iterator[torch.Tensor]:
    """Uint8 frames, or training pictures of them."""
    number = next(EPOCH)
    order = np.random.default_rng(number).permutation(len(store))
    batches = [order[start : start + loaded.BATCH] for start in range(0, len(order), loaded.BATCH)]
    for photos in store.stream(batches):
        if loaded.BATCHES == "frames":
            yield photos.frame_BCHW
        else:
            plan = plan_augmentation(photos.keys_B, 0, number, AUGMENT)
            yield normalise(cut_parts(photos.frame_BCHW, plan, AUGMENT, loaded.INPUT_PX))


def main() -> None:
    """On two threads."""
    if loaded.BATCHES == "prepare":
        return prepare(SPEC)
    torch.set_num_threads(loaded.WORKERS)
    store = FrameStore(open_pack(loaded.FOLDER / "pack", SPEC, ["train"]).splits["train"], torch.device("cpu"))
    return loaded.report(lambda: epoch(store))


if __name__ == "__main__":
    main()
