"""CIFAR-10 in its binary version: files of pictures, 32 x 32, each one byte of label and 3 x 1024 of pixels.

Source: https://www.cs.toronto.edu/~kriz/cifar.html ("Binary version").
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tasks.sources.imports import files, png

log = logging.getLogger(__name__)

SIDE_PX = 32
RECORD_BYTES = 1 + 3 * SIDE_PX * SIDE_PX
SUFFIX = ".bin"


def is_here(folder: Path) -> bool:
    """Whether there is a batch."""
    return bool(batches(folder))


def batches(folder: Path) -> list[Path]:
    """The files that hold pictures."""
    return sorted([*folder.glob("data_batch_*.bin"), *folder.glob("test_batch.bin")])


def photos(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole picture of every batch, labelled by its name in batches.meta.txt, or without that by its number."""
    names = class_names(folder / "batches.meta.txt")
    for batch in batches(folder):
        split = "split:test" if batch.name.startswith("test") else "split:train"
        for number, label in enumerate(labels(batch)):
            yield {
                "photo_id": f"{batch.name}#{number:05d}", "image_url": files.file_url(str(batch), number),
                "label": names[label] if label < len(names) else str(label), "tags": [split],
                "listed_width": SIDE_PX, "listed_height": SIDE_PX,
            }  # fmt: skip


def class_names(file: Path) -> list[str]:
    """The names of the classes in order, one a line; none if there is no such file."""
    if not file.is_file():
        return []
    return file.read_text(encoding="utf-8", errors="replace").split()


def labels(batch: Path) -> list[int]:
    """The label of each whole picture in ``batch``."""
    try:
        with files.open_plain(str(batch)) as stream:
            data = np.frombuffer(stream.read(), np.uint8)
    except (OSError, files.Refused) as error:
        log.warning("the batch %r cannot be read, and its pictures are left out: %s", str(batch), error)
        return []
    if rest_bytes := data.size % RECORD_BYTES:
        log.warning("the batch %r is cut: %d bytes behind its last whole picture", str(batch), rest_bytes)
    whole = data[: data.size - rest_bytes]
    return [int(label) for label in whole[::RECORD_BYTES]]


def record(path: str, number: int) -> bytes:
    """Picture ``number`` of the batch at ``path`` as a PNG. Raises OSError, Refused, LookupError if it is not there."""
    with files.open_plain(path) as stream:
        data = os.pread(stream.fileno(), RECORD_BYTES, number * RECORD_BYTES)
    if len(data) < RECORD_BYTES:
        raise LookupError(f"{path!r} has no whole picture {number}")
    planes = np.frombuffer(data, np.uint8, offset=1).reshape(3, SIDE_PX, SIDE_PX)
    return png.encode(planes.transpose(1, 2, 0))
