"""One photo as it leaves Darkroom: upright, its bytes as they are where that is possible, without its whereabouts."""

import hashlib
import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import pyarrow as pa
from PIL import Image
from pydantic import Field

from storage import blobs
from storage.layout import EXTENSIONS, Layout
from storage.records import MOMENT, Record
from tasks.companions import card
from tasks.errors import BlobCorrupt
from tasks.exports.export_names import stem
from tasks.pictures import exif, imaging
from tasks.pictures.containers import blocks_of
from tasks.pictures.lossless import is_lossless_webp, noted_upright, rotate_exactly
from tasks.pictures.whereabouts import without_location

Format = Literal["imagefolder", "huggingface", "webdataset"]
Result = TypeVar("Result")
THREADS = max(4, os.cpu_count() or 4)  # reading, turning and writing release the interpreter's lock
AHEAD = 32  # photos under way or waiting for their turn
PLACE = [("latitude", pa.float64()), ("longitude", pa.float64())]
PLACE_TAG = re.compile(  # machine tags: namespace:predicate=value
    r"\s*((geo|gps|exif|place|woe|osm|geonames|upcoming|dopplr)\s*[:=]|(latitude|longitude|lat|lon|lng|long)\s*=|"
    r"[\w-]+:(venue|place|city|country|latitude|longitude|lat|lon|lng|location|woeid)\w*\s*=)",
    re.IGNORECASE,
)
FACTS = pa.schema([
    ("source", pa.string()), ("photo_id", pa.string()), ("label", pa.string()), ("labels", pa.list_(pa.string())),
    ("title", pa.string()), ("author", pa.string()), ("author_id", pa.string()), ("page_url", pa.string()),
    ("licence", pa.string()), ("licence_url", pa.string()), ("tags", pa.list_(pa.string())),
    ("uploaded_at", MOMENT), ("taken_at", MOMENT), *PLACE, ("group_id", pa.string()),
    ("width", pa.int32()), ("height", pa.int32()),
    ("blob", pa.string()), ("sha256", pa.string()),  # of the bytes it was made from, and of the exported ones
    ("changes", pa.string()),
])  # fmt: skip
USED = [
    "source", "photo_id", "label", "labels", "title", "owner_name", "owner_id", "page_url", "licence", "licence_url",
    "tags", "uploaded_at", "taken_at", "latitude", "longitude", "group_id", "split", "blob", "format", "net_op",
    "landscape_turns", "sha256",
]  # fmt: skip


class ExportRules(Record):
    """What an export is to be like."""

    format: Format = "imagefolder"
    max_side_px: Annotated[int, Field(ge=16)] | None = None
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    locations: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The columns of an exported photo's facts."""
        return FACTS if self.locations else pa.schema([field for field in FACTS if field.name not in dict(PLACE)])


class Picture(NamedTuple):
    """An encoded picture, its size in px, and what was done to it besides turning."""

    data: bytes
    extension: str
    width: int
    height: int
    changes: tuple[str, ...]


class Sample(NamedTuple):
    """An exported photo: its file and its facts (columns of ``ExportRules.schema``)."""

    name: str
    data: bytes
    facts: dict[str, Any]

    @property
    def stem(self) -> str:
        """The name of its file without the extension."""
        return self.name.partition(".")[0]


def picture(data: bytes, image_format: str, net_op: int, rules: ExportRules) -> Picture:
    """The file ``data`` as it is exported: the same bytes if they stand upright, are small enough and tell no more than
    they may; else turned exactly, or with other metadata; else, if it must be turned or reduced, encoded anew. Raises
    BadImage.

    A GIF becomes a PNG of its first picture: half of all readers know no GIF.
    """
    width, height = imaging.upright_size(*imaging.stored_size(data), net_op)
    factor = min(1.0, (rules.max_side_px or max(width, height)) / max(width, height))
    if net_op != 1 and factor == 1 and (turned := rotate_exactly(data, image_format, net_op)) is not None:
        data, net_op = turned, 1
    if net_op != 1 or factor < 1 or image_format == "GIF":
        return _drawn(
            data, image_format, net_op, (max(1, round(width * factor)), max(1, round(height * factor))), rules
        )
    upright, changes = data, []
    blocks = blocks_of(data)
    if exif.facts(blocks).orientation != 1 or b"tiff:Orientation" in blocks.xmp:
        upright = noted_upright(blocks, 1)
        changes.append("orientation noted as 1")
    if not rules.locations and (clean := without_location(upright)) is not upright:
        upright = clean
        changes.append("location left out of the file")
    return Picture(upright, EXTENSIONS[image_format], width, height, tuple(changes))


def _drawn(data: bytes, image_format: str, net_op: int, size: tuple[int, int], rules: ExportRules) -> Picture:
    """``data`` decoded, turned, reduced to ``size`` (width, height) and encoded without its metadata."""
    pixels = imaging.decode_upright(data, net_op, min_height=size[1], min_width=size[0])
    is_full = size == imaging.upright_size(*imaging.stored_size(data), net_op)
    if pixels.shape[:2] != size[::-1]:
        pixels = imaging.resize_area(pixels, size[1], size[0])
    kind = {"GIF": "PNG"}.get(image_format, image_format)
    lossy: dict[str, Any] = {"quality": rules.quality}
    options = {
        "JPEG": lossy | {"subsampling": 0},
        "PNG": {"compress_level": 6},
        "WEBP": {"lossless": True} if is_full or is_lossless_webp(data) else lossy,
    }[kind]
    out = io.BytesIO()
    profile, losses = _not_pixels(data)
    Image.fromarray(pixels).save(out, kind, **options, **profile)
    changes = [] if is_full else [f"reduced to {size[0]} x {size[1]}"]
    quality = [f"quality {options['quality']}"] if "quality" in options else []
    said = [*quality, *losses] or (["without loss"] if is_full else [])
    return Picture(out.getvalue(), EXTENSIONS[kind], *size, (*changes, ", ".join([f"encoded anew as {kind}", *said])))


def _not_pixels(data: bytes) -> tuple[dict[str, bytes], list[str]]:
    """What of a file is more than 8-bit RGB: its colour profile, if it is for RGB, as an option of ``Image.save``; and
    what is lost, in words."""
    with Image.open(io.BytesIO(data)) as image:
        profile = image.info.get("icc_profile") or b""
        lost = {
            "first picture only": getattr(image, "is_animated", False) or "more_pictures" in blocks_of(data),
            "8 bits": image.mode.startswith(("I", "F")) or (data[:4] == b"\x89PNG" and data[24] == 16),
            "without transparency": image.has_transparency_data,
            "as RGB": image.mode in {"CMYK", "YCCK", "LAB"},
        }
    return {"icc_profile": profile} if profile[16:20] == b"RGB " else {}, [
        word for word, is_so in lost.items() if is_so
    ]


def sample(where: Layout, row: dict[str, Any], rules: ExportRules) -> Sample:
    """The photo of ``row`` (columns USED) as it is exported; raises BlobCorrupt, naming it, if its file is no good."""
    try:
        data = blobs.get(where, row["blob"], row["format"])
        row = row | {
            "net_op": upright_op(row, data),
            "tags": row["tags"] if rules.locations else placeless(row["tags"]),
        }
        made = picture(data, row["format"], row["net_op"], rules)
    except (BlobCorrupt, imaging.BadImage) as error:
        raise BlobCorrupt(f"the photo {row['source']}/{row['photo_id']} cannot be exported: {error}") from error
    facts = row | {
        "author": row["owner_name"] or row["owner_id"], "author_id": row["owner_id"], "width": made.width,
        "height": made.height, "sha256": row["blob"] if made.data is data else hashlib.sha256(made.data).hexdigest(),
        "changes": "; ".join([*turning(row), *made.changes]) or "none",
    }  # fmt: skip
    name = f"{stem(row['source'], row['photo_id'])}.{made.extension}"
    return Sample(name, made.data, {column: facts[column] for column in rules.schema.names})


def upright_op(row: dict[str, Any], data: bytes) -> int:
    """The orientation to apply to ``data``, the file of ``row``: a file as downloaded that nobody was to turn (rotate:
    none) still notes its own."""
    is_untouched = row["net_op"] == 1 and row["blob"] == row["sha256"] and not row["landscape_turns"]
    return exif.facts(blocks_of(data)).orientation if is_untouched else int(row["net_op"])


def placeless(tags: list[str] | None) -> list[str] | None:
    """``tags`` without the machine tags that say where a photo was taken."""
    return None if tags is None else [tag for tag in tags if not PLACE_TAG.match(tag)]


def turning(row: dict[str, Any]) -> list[str]:
    """How a photo was turned, by whomever: losslessly before, or now."""
    turned = card.changes(row)
    return [turned] if turned != "none" else ["turned upright"] if row["net_op"] != 1 else []


def as_json(facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` with times as text."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in facts.items()}


def in_order(work: Callable[[dict[str, Any]], Result], rows: Iterable[dict[str, Any]]) -> Iterator[Result]:
    """The results of ``work`` for ``rows`` in their order, made on threads; the first failure ends it."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for row in rows:
                waiting.append(pool.submit(work, row))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def cut(samples: Iterable[Sample], max_bytes: int, max_photos: int | None = None) -> Iterator[Iterator[Sample]]:
    """``samples`` in parts of so many bytes or photos; a part ends with the sample that reaches either.

    Each part must be used up before the next is asked for.
    """
    rest = iter(samples)
    for first in rest:
        yield _part(first, rest, max_bytes, max_photos)


def _part(first: Sample, rest: Iterator[Sample], max_bytes: int, max_photos: int | None) -> Iterator[Sample]:
    photos, size_bytes = 1, len(first.data)
    yield first
    while size_bytes < max_bytes and photos != max_photos and (following := next(rest, None)) is not None:
        photos, size_bytes = photos + 1, size_bytes + len(following.data)
        yield following
