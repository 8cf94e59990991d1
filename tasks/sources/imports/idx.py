"""MNIST, Fashion-MNIST and their kin: grey pictures and their labels in idx files, plain or gzipped.

``train-images-idx3-ubyte.gz`` goes with ``train-labels-idx1-ubyte.gz``. The classes have no names in these files; a
file ``classes.txt`` beside them may give some, one a line.

Source: http://yann.lecun.com/exdb/mnist/ ("File formats").
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from tasks.errors import ConfigError
from tasks.sources.imports import files, png
from tasks.sources.imports.cells import split_tag

log = logging.getLogger(__name__)

IMAGES, LABELS = 0x803, 0x801  # unsigned bytes in three dimensions, and in one
HEADER_BYTES = {IMAGES: 16, LABELS: 8}
UNPACKED_BYTES = 1 << 30  # of a gzipped file, which is held in memory as its pictures are read
SUFFIXES = ("-ubyte", "-ubyte.gz")
_UNPACKING = Lock()  # one thread unpacks, the others find it done


class Shape(NamedTuple):
    """How many whole pictures a file has, and their size in pixels."""

    pictures: int
    height: int
    width: int


def is_here(folder: Path) -> bool:
    """Whether there is a file of pictures."""
    return bool(image_files(folder))


def image_files(folder: Path) -> list[Path]:
    """The files that hold pictures; of a plain and a gzipped one the plain one."""
    found = [*folder.glob("*images?idx3-ubyte"), *folder.glob("*images?idx3-ubyte.gz")]
    return sorted({file.name.removesuffix(".gz"): file for file in reversed(found)}.values())


def photos(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole picture of every file. Raises ConfigError if one is no idx file."""
    names = class_names(folder / "classes.txt")
    for file in image_files(folder):
        shape = shape_of(str(file))
        labels = labels_for(file)
        if len(labels) != shape.pictures:
            log.warning("%r: pictures=%d labels=%d", str(file), shape.pictures, len(labels))
        tags = split_tag(file.name.partition("-")[0])
        for number in range(shape.pictures):
            label = labels[number] if number < len(labels) else None
            yield {
                "photo_id": f"{file.name}#{number:05d}", "image_url": files.file_url(str(file), number),
                "label": None if label is None else names[label] if label < len(names) else str(label), "tags": tags,
                "listed_width": shape.width, "listed_height": shape.height,
            }  # fmt: skip


def class_names(file: Path) -> list[str]:
    """The names of the classes in order, one a line; none if there is no such file."""
    if not file.is_file():
        return []
    return [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def labels_for(images: Path) -> list[int]:
    """The label of each picture in ``images``; none if the file of labels is not there."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for file in (images.with_name(name), images.with_name(f"{name}.gz")):
        if file.is_file():
            count = header(str(file), LABELS)[0]
            return list(read(str(file), HEADER_BYTES[LABELS], count))
    return []


def shape_of(path: str) -> Shape:
    """What the file of pictures at ``path`` holds. Raises ConfigError if it is none."""
    count, height, width = header(path, IMAGES)
    picture_bytes = height * width
    if not picture_bytes:
        raise ConfigError(f"the pictures of {path!r} are {width} x {height} pixels: the file is damaged, get it anew")
    whole = min(count, (size_bytes(path) - HEADER_BYTES[IMAGES]) // picture_bytes)
    if whole < count:
        log.warning("the file %r is cut: it has %d of %d pictures", path, whole, count)
    return Shape(whole, height, width)


def header(path: str, magic: int) -> tuple[int, ...]:
    """The sizes of the dimensions of an idx file. Raises ConfigError if ``path`` cannot be read or is none."""
    try:
        start = read(path, 0, HEADER_BYTES[magic])
    except (OSError, files.Refused, files.TooLarge) as error:
        raise ConfigError(f"the file {path!r} cannot be read ({error}): make it readable, or unpack it") from None
    if len(start) < HEADER_BYTES[magic] or struct.unpack_from(">I", start)[0] != magic:
        raise ConfigError(f"the file {path!r} is no idx file of {'pictures' if magic == IMAGES else 'labels'}")
    return struct.unpack_from(f">{(len(start) - 4) // 4}I", start, 4)


def record(path: str, number: int) -> bytes:
    """Picture ``number`` of the file at ``path`` as a PNG. Raises OSError, ValueError, LookupError if not there."""
    _, height, width = header(path, IMAGES)
    data = read(path, HEADER_BYTES[IMAGES] + number * height * width, height * width)
    if not data or len(data) < height * width:
        raise LookupError(f"{path!r} has no whole picture {number}")
    return png.encode(np.frombuffer(data, np.uint8).reshape(height, width))


def read(path: str, start: int, size: int) -> bytes:
    """Up to ``size`` bytes of an idx file from ``start``, unpacked if need be."""
    with files.open_plain(path) as stream:
        if not path.endswith(".gz"):
            return os.pread(stream.fileno(), size, start)
        state = os.fstat(stream.fileno())
    return bytes(_unpacked(path, state.st_mtime_ns, state.st_size)[start : start + size])


def size_bytes(path: str) -> int:
    """Bytes of an idx file, unpacked."""
    with files.open_plain(path) as stream:
        state = os.fstat(stream.fileno())
    return len(_unpacked(path, state.st_mtime_ns, state.st_size)) if path.endswith(".gz") else state.st_size


def _unpacked(path: str, mtime_ns: int, packed_bytes: int) -> bytearray:
    with _UNPACKING:
        return _unpack(path, mtime_ns, packed_bytes)


@lru_cache(maxsize=2)
def _unpack(path: str, mtime_ns: int, packed_bytes: int) -> bytearray:
    """What a gzipped file holds, as far as it is whole; kept, for its pictures are asked for one by one."""
    data, inflate = bytearray(), zlib.decompressobj(wbits=31)  # 31: gzip
    with files.open_plain(path) as stream:
        try:
            while len(data) <= UNPACKED_BYTES and not inflate.eof and (block := stream.read(1 << 16)):
                data += inflate.decompress(block)
        except zlib.error as error:
            log.warning("the file %r is damaged behind %d bytes: %s", path, len(data), error)
    if len(data) > UNPACKED_BYTES:
        raise files.TooLarge(f"more than {UNPACKED_BYTES} bytes once unpacked")
    if not inflate.eof:
        log.warning("the file %r ends too early", path)
    return data
