"""Packed photos, from the disk to the device.

A pack is a folder of decoded photos, written once and never changed:

    pack.json        {"version": 1, "frame_height": H, "frame_width": W, "pad_beyond": null, "picture": "photo",
                      "splits": {"train": {"photos": N, "frames": "train.npy", "rows": "train.parquet",
                                           "frames_sha256": "...", "rows_sha256": "..."},
                                 "val": {...}, "test": {...}}}
    <split>.npy      uint8 [N, H, W, 3], RGB, C order: upright photos reduced (antialiased) to H x W, see PackSpec
    <split>.parquet  one row per frame, in the same order: source, photo_id and, if known, owner_id (strings)

A file that is missing, or has other bytes or another shape than it should, makes ``open_pack`` raise ``PackDamaged``.
A set that fits lies whole in the device's memory, as uint8; a larger one stays mapped and is sent batch by batch.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ConfigError, PackDamaged
from models.frames import LATER, PackSpec
from models.transforms import photo_keys

RESIDENT_FRACTION = 0.5  # of the free memory of a GPU that frames may take


@dataclass(frozen=True)
class Split:
    """The photos of one split: frames [N, H, W, 3] as mapped from the file, and who they are."""

    name: str
    frames: NDArray[np.uint8]
    sources: list[str]
    photo_ids: list[str]

    def __len__(self) -> int:
        return len(self.photo_ids)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """What each photo's randomness hangs on."""
        return photo_keys(f"{source}/{photo}" for source, photo in zip(self.sources, self.photo_ids, strict=True))


@dataclass(frozen=True)
class Pack:
    """An opened pack; ``digest`` is that of its ``pack.json``, which holds the digests of everything else."""

    digest: str
    splits: dict[str, Split]


def open_pack(folder: Path, spec: PackSpec, splits: Sequence[str]) -> Pack:
    """The named splits of a pack, checked; raises ``PackDamaged``, or ``ConfigError`` for frames of another kind."""
    index = folder / "pack.json"
    try:
        text = index.read_bytes()
        described = json.loads(text)
        size = (int(described["frame_height"]), int(described["frame_width"]))
        packed = PackSpec(*size, **{name: described.get(name, before) for name, before in LATER.items()})
        entries = {name: described["splits"][name] for name in splits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackDamaged(f"{index} cannot be read ({error!r}): pack the snapshot again", path=str(index)) from error
    if packed != spec:
        message = f"{folder} holds frames of {packed}, the recipe wants {spec}: pack for this recipe"
        raise ConfigError(message, path=str(folder))
    return Pack(
        hashlib.sha256(text).hexdigest(), {name: _open_split(folder, name, entries[name], size) for name in splits}
    )


def _open_split(folder: Path, name: str, entry: dict[str, Any], size: tuple[int, int]) -> Split:
    """The frames and rows of one split, after their digests and shapes were compared with ``entry``."""
    try:
        frames_path, rows_path = folder / entry["frames"], folder / entry["rows"]
        _check_digest(frames_path, entry["frames_sha256"])
        _check_digest(rows_path, entry["rows_sha256"])
        frames = np.load(frames_path, mmap_mode="r") if entry["photos"] else np.zeros((0, *size, 3), np.uint8)
        rows = pq.read_table(rows_path, columns=["source", "photo_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"split {name!r} of {folder} cannot be read ({error}): pack the snapshot again"
        raise PackDamaged(message, path=str(folder), split=name) from error
    shape = (entry["photos"], *size, 3)
    if frames.shape != shape or frames.dtype != np.uint8 or rows.num_rows != entry["photos"]:
        found = f"frames {frames.dtype}{list(frames.shape)} and {rows.num_rows} rows"
        message = f"split {name!r} of {folder} has {found}, pack.json says uint8{list(shape)}: pack the snapshot again"
        raise PackDamaged(message, path=str(folder), split=name)
    return Split(name, frames, rows["source"].to_pylist(), rows["photo_id"].to_pylist())


def _check_digest(path: Path, expected: str) -> None:
    """Raise ``PackDamaged`` unless the file has that SHA-256."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        message = f"{path} is damaged (its digest is {found[:12]}, not {expected[:12]}): pack the snapshot again"
        raise PackDamaged(message, path=str(path))


class FrameStore:
    """The frames of one split where batches can be drawn from them, on ``device`` as a whole if they fit."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.split, self.device, self.keys = split, device, split.keys
        self.resident: Tensor | None = None
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if split.frames.nbytes <= RESIDENT_FRACTION * free_bytes:
                self.resident = torch.from_numpy(np.array(split.frames)).to(device)

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, rows_B: NDArray[np.int64]) -> Tensor:
        """Frames [B, 3, H, W], uint8, on the device."""
        if self.resident is not None:
            frame_BHWC = self.resident[torch.from_numpy(rows_B).to(self.device)]
        else:
            frame_BHWC = torch.from_numpy(self.split.frames[rows_B])
            if self.device.type == "cuda":
                frame_BHWC = frame_BHWC.pin_memory().to(self.device, non_blocking=True)
        return frame_BHWC.permute(0, 3, 1, 2)
