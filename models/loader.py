"""Packed photos, from the disk to the device.

A pack is a folder of decoded photos, written once and never changed:

    pack.json           {"version": 2, "frame_height": H, ... (the fields of PackSpec), "rotate": how they were turned,
                         "splits": {"train": {"photos": N, "frames": "train.npy", "details": "train.detail.npy" | null,
                                              "rows": "train.parquet", "rows_sha256": "..."},
                                    "val": {...}, "test": {...}}}
    <split>.npy         uint8 [N, H, W, 3], RGB, C order: upright photos reduced (antialiased) to H x W, see PackSpec
    <split>.detail.npy  the same photos larger, where the recipe wants patches of them
    <split>.parquet     one row a photo, in the same order: source, photo_id, owner_id (strings), frame_sha256,
                        detail_sha256 (32 bytes each, or null)

**Trust.** The digest of a pack is that of ``pack.json``, which holds the digests of the row files, which hold those of
every frame: one number stands for all bytes. Opening a pack compares the small files and the sizes of the large ones.
A frame is compared with its digest when it is first read, and again once its file was touched: a pack of many
gigabytes opens at once, and nothing reaches a network that was not compared in this very run.

Shapes: N photos of a split, B of a batch, C channels, H and W of a frame.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import ConfigError, PackDamaged
from models.frames import PackSpec
from models.randomness import photo_keys
from models.reading import FrameReader, Frames, Rows, read_ahead

VERSION = 2
RESIDENT_FRACTION = 0.5  # of the free memory of a GPU that frames may take
AHEAD = (2, 4)  # batches that are read before they are asked for: at least, at most
AHEAD_BYTES = 2**29  # of which as many as stay within this


@dataclass(frozen=True, eq=False)
class Split:
    """The photos of one split: frames [N, H, W, 3] and details, as mapped from their files, and who they are.

    ``labels``: what each photo is, None where nobody said. Digests are known of what was opened from a pack.
    """

    name: str
    frames: Frames
    details: Frames | None
    sources: list[str]
    photo_ids: list[str]
    labels: list[str | None]
    frame_sha256s: list[bytes] | None = None
    detail_sha256s: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.photo_ids)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """What each photo's randomness hangs on."""
        return photo_keys(f"{source}/{photo}" for source, photo in zip(self.sources, self.photo_ids, strict=True))


@dataclass(frozen=True)
class Pack:
    """An opened pack; ``digest`` is that of its ``pack.json``, which stands for everything in it."""

    digest: str
    splits: dict[str, Split]


@dataclass(frozen=True, eq=False)
class PhotoBatch:
    """Some photos of a split on the device: rows of the split, keys, uint8 frames and details, and labels."""

    rows_B: Rows
    keys_B: NDArray[np.uint64]
    frame_BCHW: Tensor
    detail_BCHW: Tensor | None
    labels: list[str | None]

    def __len__(self) -> int:
        return len(self.rows_B)

    def take(self, rows: Rows) -> "PhotoBatch":
        """Those of its photos alone, by their place in the batch."""
        place = torch.from_numpy(rows).to(self.frame_BCHW.device)
        return PhotoBatch(
            self.rows_B[rows],
            self.keys_B[rows],
            self.frame_BCHW[place],
            None if self.detail_BCHW is None else self.detail_BCHW[place],
            [self.labels[row] for row in rows],
        )


def open_pack(folder: Path, spec: PackSpec, splits: Sequence[str], labels: Path | None = None) -> Pack:
    """The named splits of a pack, with the labels of a Parquet file (source, photo_id, label).

    Raises ``PackDamaged``, or ``ConfigError`` for frames of another kind and for labels that cannot be read.
    """
    digest, packed, entries = _read_card(folder, splits)
    if packed != spec:
        message = f"{folder} holds frames of {packed}, the recipe wants {spec}: pack for this recipe"
        raise ConfigError(message, path=str(folder))
    label_of = read_labels(labels) if labels else {}
    opened = {name: _open_split(folder, name, entries[name], spec, label_of) for name in splits}
    return Pack(digest, opened)


def open_rows(folder: Path, name: str, labels: Path | None) -> Split:
    """The photos of one split without their frames, which have no pixels here; raises as ``open_pack`` does."""
    label_of = read_labels(labels) if labels else {}
    entry = _read_card(folder, [name])[2][name]
    with _naming(folder, name):
        rows = _read_rows(folder, entry, [])
    sources, photo_ids = rows["source"].to_pylist(), rows["photo_id"].to_pylist()
    found = [label_of.get(photo) for photo in zip(sources, photo_ids, strict=True)]
    return Split(name, np.zeros((rows.num_rows, 0, 0, 3), np.uint8), None, sources, photo_ids, found)


def _read_card(folder: Path, splits: Sequence[str]) -> tuple[str, PackSpec, dict[str, dict[str, Any]]]:
    """Of ``pack.json`` its digest, what its frames are, and its entries of those splits; raises ``PackDamaged``."""
    index = folder / "pack.json"
    try:
        text = index.read_bytes()
        card = json.loads(text)
        if card["version"] != VERSION:
            raise ValueError(f"version {card['version']}, not {VERSION}")
        if missing := [name for name in splits if name not in card["splits"]]:
            raise ValueError(f"there is no split {missing[0]!r}")
        packed = PackSpec(**{field.name: card[field.name] for field in fields(PackSpec)})
        return hashlib.sha256(text).hexdigest(), packed, {name: card["splits"][name] for name in splits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error if isinstance(error, OSError | ValueError) else repr(error)  # the others say too little
        raise PackDamaged(f"{index} cannot be read ({reason}): pack the snapshot again", path=str(index)) from error


def read_labels(path: Path) -> dict[tuple[str, str], str]:
    """The label of each photo (source, photo_id); ``ConfigError`` if the file cannot be read or contradicts itself."""
    try:
        rows = _texts(pq.read_table(path, columns=["source", "photo_id", "label"], partitioning=None)).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        message = f"the labels in {path} cannot be read ({reason}): they are Parquet with source, photo_id and label"
        raise ConfigError(message, path=str(path)) from error
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        photo, label = (row["source"], row["photo_id"]), row["label"]
        if label is not None and found.setdefault(photo, label) != label:
            name = "/".join(map(str, photo))
            message = f"{path} calls the photo {name} both {found[photo]!r} and {label!r}: keep one label"
            raise ConfigError(message, path=str(path))
    return found


def _texts(table: pa.Table) -> pa.Table:
    """The table, if every column holds text, or nothing at all; else ``ValueError``."""
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise ValueError(f"{field.name} is {field.type}, not text")
    return table


def _open_split(
    folder: Path, name: str, entry: dict[str, Any], spec: PackSpec, label_of: dict[tuple[str, str], str]
) -> Split:
    """One split, after its rows' digest and the sizes of its frames were compared with ``entry``."""
    has_detail = spec.detail_height is not None
    digests = ["frame_sha256", "detail_sha256"] if has_detail else ["frame_sha256"]
    with _naming(folder, name):
        rows = _read_rows(folder, entry, digests)
        size = (rows.num_rows, spec.frame_height, spec.frame_width, 3)
        frames = map_frames(folder / entry["frames"], size)
        detail_size = (rows.num_rows, spec.detail_height or 0, spec.detail_width or 0, 3)
        details = map_frames(folder / entry["details"], detail_size) if has_detail else None
    sources, photo_ids, *sha256s = (rows[column].to_pylist() for column in rows.column_names)
    labels = [label_of.get(photo) for photo in zip(sources, photo_ids, strict=True)]
    return Split(name, frames, details, sources, photo_ids, labels, *sha256s)


@contextmanager
def _naming(folder: Path, split: str) -> Iterator[None]:
    """Turn whatever is wrong with the files of a split into ``PackDamaged``, which names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"split {split!r} of {folder} cannot be read ({error}): pack the snapshot again"
        raise PackDamaged(message, path=str(folder), split=split) from error


def _read_rows(folder: Path, entry: dict[str, Any], digests: Sequence[str]) -> pa.Table:
    """source, photo_id and those digests of a split, after its file was compared with ``entry``."""
    rows_path = folder / entry["rows"]
    _check_digest(rows_path, entry["rows_sha256"])
    rows = pq.read_table(rows_path, columns=["source", "photo_id", *digests], partitioning=None)
    if rows.num_rows != entry["photos"]:
        raise ValueError(f"it has {rows.num_rows} rows, pack.json says {entry['photos']}")
    return rows


def map_frames(path: Path, shape: tuple[int, ...]) -> Frames:
    """The uint8 array of that shape in a .npy file, mapped; ``ValueError`` if the file holds another or is cut."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        found, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        offset, size_bytes = stream.tell(), os.fstat(stream.fileno()).st_size
    if found != shape or dtype != np.uint8 or is_fortran:
        raise ValueError(f"{path.name} holds {dtype}{list(found)}, pack.json says uint8{list(shape)}")
    if size_bytes != offset + math.prod(shape):
        raise ValueError(f"{path.name} has {size_bytes:,} bytes, not {offset + math.prod(shape):,}")
    if not shape[0]:
        return np.zeros(shape, np.uint8)
    return np.memmap(path, np.uint8, mode="r", offset=offset, shape=shape)


def _check_digest(path: Path, expected: str) -> None:
    """Raise ``PackDamaged`` unless the file has that SHA-256."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        message = f"{path} is damaged (its digest is {found[:12]}, not {expected[:12]}): pack the snapshot again"
        raise PackDamaged(message, path=str(path))


class FrameSource:
    """Frames of one array where batches can be drawn from them: in the device's memory as a whole, or in a file."""

    def __init__(self, reader: FrameReader, device: torch.device) -> None:
        self.reader, self.device = reader, device
        self.resident_NHWC: Tensor | None = None
        is_cuda = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]

    def settle(self, room_bytes: int) -> int:
        """Copy everything to the device if it takes at most ``room_bytes``; what is then left of the room."""
        frames = self.reader.frames
        if frames.nbytes > room_bytes:
            return 0  # nor does anything that comes after it
        self.resident_NHWC = torch.empty(frames.shape, dtype=torch.uint8, device=self.device)
        step = max(1, 2**26 // self.reader.frame_bytes)
        parts = [np.arange(start, min(start + step, len(frames))) for start in range(0, len(frames), step)]
        for part, frame_BHWC in zip(parts, read_ahead(self.reader.read, parts, AHEAD[1]), strict=True):
            self.resident_NHWC[int(part[0]) : int(part[-1]) + 1] = frame_BHWC
        return room_bytes - frames.nbytes

    def fetch(self, rows_B: Rows) -> Tensor | None:
        """What has to be brought from the file, on the device [B, H, W, 3]; None if everything is there already."""
        if self.resident_NHWC is not None:
            return None
        frame_BHWC = self.reader.read(rows_B)
        if self._copies is None:
            return frame_BHWC
        with torch.cuda.stream(self._copies):  # beside whatever the device computes
            on_device = frame_BHWC.to(self.device, non_blocking=True)
            self._copies.synchronize()  # the buffer may be filled again
        return on_device

    def deliver(self, rows_B: Rows, fetched_BHWC: Tensor | None) -> Tensor:
        """Frames [B, 3, H, W], after ``fetch``."""
        if self.resident_NHWC is not None:
            frame_BHWC = self.resident_NHWC[torch.from_numpy(rows_B).to(self.device)]
        else:
            assert fetched_BHWC is not None
            frame_BHWC = fetched_BHWC
            if self._copies is not None:
                frame_BHWC.record_stream(torch.cuda.current_stream(self.device))
        return frame_BHWC.permute(0, 3, 1, 2)


class FrameStore:
    """The photos of one split where batches can be drawn from them: from the disk, until ``settle`` brings them."""

    def __init__(self, split: Split, device: torch.device, needs_detail: bool = False) -> None:
        if needs_detail and split.details is None:
            raise ConfigError(f"split {split.name!r} was packed without details: pack for this recipe")
        self.split, self.device, self.keys = split, device, split.keys
        arrays = [(split.frames, split.frame_sha256s)]
        if needs_detail and split.details is not None:
            arrays.append((split.details, split.detail_sha256s))
        is_pinned = device.type == "cuda"
        self.sources = [FrameSource(FrameReader(*array, is_pinned=is_pinned), device) for array in arrays]

    def __len__(self) -> int:
        return len(self.split)

    @property
    def is_resident(self) -> bool:
        """Whether no batch needs the disk."""
        return all(source.resident_NHWC is not None for source in self.sources)

    def batch(self, rows_B: Rows) -> PhotoBatch:
        """The photos of those rows."""
        return self._deliver(self._fetch(rows_B))

    def stream(self, batches: Sequence[Rows]) -> Iterator[PhotoBatch]:
        """The photos of each batch of rows, read ahead where they are not on the device."""
        if self.is_resident or not batches:
            yield from map(self.batch, batches)
            return
        batch_bytes = max(map(len, batches)) * sum(source.reader.frame_bytes for source in self.sources)
        ahead = min(max(AHEAD[0], AHEAD_BYTES // batch_bytes), AHEAD[1])
        with closing(read_ahead(self._fetch, batches, ahead)) as fetched:
            yield from map(self._deliver, fetched)

    def _fetch(self, rows_B: Rows) -> tuple[Rows, list[Tensor | None]]:
        return rows_B, [source.fetch(rows_B) for source in self.sources]

    def _deliver(self, fetched: tuple[Rows, list[Tensor | None]]) -> PhotoBatch:
        rows_B, frames = fetched
        parts = [source.deliver(rows_B, frame) for source, frame in zip(self.sources, frames, strict=True)]
        labels = [self.split.labels[row] for row in rows_B]
        return PhotoBatch(rows_B, self.keys[rows_B], parts[0], parts[1] if len(parts) > 1 else None, labels)


def settle(stores: Iterable[FrameStore], room_bytes: int) -> None:
    """Bring what fits into ``room_bytes`` to the stores' device for good: all frames, store by store, then all details.

    What comes after the first that does not fit stays on the disk.
    """
    all_sources = [store.sources for store in stores]
    for kind in range(max(map(len, all_sources), default=0)):
        for sources in all_sources:
            room_bytes = sources[kind].settle(room_bytes)


def room_on(device: torch.device) -> int:
    """The bytes that the photos of a run may take of a GPU: half of what is free of it. Elsewhere none."""
    return int(RESIDENT_FRACTION * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
