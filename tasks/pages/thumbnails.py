"""Small pictures of photos for people to look at: on a page as data URIs, in one sheet for the Prefect UI.

Which photos are shown is a function of their keys alone, so the same table always gives the same page.
"""

import base64
import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from storage import blobs
from storage.errors import BlobCorrupt
from storage.layout import Layout
from tasks.pictures import imaging

log = logging.getLogger(__name__)

PAGE_HEIGHT_PX = 216  # about twice the height on the page, for dense displays
PAGE_BYTES = 14_000  # at most, of one picture on a page: the number of pictures is bounded, so the page is
PAGE_QUALITIES = (72, 55, 40, 25)  # of WEBP
JPEG_QUALITY = 68
WIDEST_ASPECT, NARROWEST_ASPECT = 3.0, 0.5  # a panorama would fill a whole row, a tower a whole screen
LEAST_PX = 24  # no bound on bytes makes a picture smaller
THREADS = 4  # decoding and resampling release the GIL
SHEET_BYTES = 150_000  # an artifact travels inside a database row
GAP_PX = 6

Row = dict[str, Any]


class Picture(NamedTuple):
    """One photo on the page: a data URI (empty where it does not decode) and what has to stand beside it."""

    uri: str
    width: int
    height: int
    title: str
    owner: str
    licence: str
    licence_url: str
    page_url: str
    note: str = ""
    mark: str = ""  # a word on the picture, such as that it stands for its group


def link(url: str | None) -> str:
    """``url`` if a browser may be sent there, else nothing: a page address is what a stranger typed."""
    return url if url and urlsplit(url).scheme in {"http", "https"} else ""


def decode(layout: Layout, row: Row, min_height_px: int) -> Image.Image | None:
    """The upright picture of ``row``, at least ``min_height_px`` high if it is that large; None if it cannot be shown.

    A photo that was rejected before it was turned is read from the bytes as they came.
    """
    sha256, net_op = row["blob"] or row["sha256"], row["net_op"] or row["exif_orientation"] or 1
    if sha256 is None or row["format"] is None or row["width"] is None:  # what was never measured may be a bomb
        return None
    try:
        data = blobs.get(layout, sha256, row["format"])
        return Image.fromarray(imaging.decode_upright(data, net_op, min_height=min_height_px))
    except (BlobCorrupt, imaging.BadImage) as error:
        log.debug("no picture of %s/%s: %s", row["source"], row["photo_id"], error)
        return None


def jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """``image`` as a progressive JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, optimize=True, progressive=True)
    return stream.getvalue()


def webp(image: Image.Image, quality: int) -> bytes:
    """``image`` as a WEBP, about two thirds of the JPEG that looks as good."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def data_uri(data: bytes, media_type: str = "image/jpeg") -> str:
    """``data`` as an address that needs no request."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def shrink(image: Image.Image, height_px: int) -> Image.Image:
    """``image`` at most ``height_px`` high; of a panorama or a tower, its middle."""
    width, height = image.size
    spare_x = max(0, int(width - WIDEST_ASPECT * height)) // 2
    spare_y = max(0, int(height - width / NARROWEST_ASPECT)) // 2
    image = image.crop((spare_x, spare_y, width - spare_x, height - spare_y))
    if image.height <= height_px:
        return image
    size = (max(1, round(image.width * height_px / image.height)), height_px)
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def is_cut(width: int, height: int) -> bool:
    """Whether ``shrink`` shows only the middle of a picture."""
    return not NARROWEST_ASPECT <= width / height <= WIDEST_ASPECT


def picture(layout: Layout, row: Row, note: str = "", mark: str = "") -> Picture:
    """``row`` as it stands on the page, with whose it is and where it comes from."""
    image = decode(layout, row, PAGE_HEIGHT_PX)
    small = shrink(image, PAGE_HEIGHT_PX) if image else None
    notes = [note, "only its middle shown" if image and is_cut(*image.size) else ""]
    return Picture(
        uri=data_uri(within(small, PAGE_BYTES, webp, PAGE_QUALITIES), "image/webp") if small else "",
        width=small.width if small else PAGE_HEIGHT_PX * 3 // 2,
        height=small.height if small else PAGE_HEIGHT_PX,
        title=" ".join((row["title"] or "").split()) or "untitled",
        owner=row["owner_name"] or row["owner_id"] or "unknown",
        licence=row["licence"] or "unstated",
        licence_url=link(row["licence_url"]),
        page_url=link(row["page_url"]),
        note=", ".join(filter(None, notes)),
        mark=mark,
    )


def pictures(
    layout: Layout, rows: Sequence[Row], notes: Iterable[str] | None = None, marks: Iterable[str] | None = None
) -> list[Picture]:
    """``rows`` in their order, decoded side by side."""
    nothing = [""] * len(rows)
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda *each: picture(layout, *each), rows, notes or nothing, marks or nothing))


def drawn(table: pa.Table, count: int) -> list[Row]:
    """``count`` rows of ``table``, the same ones whatever their order: those whose keys have the smallest digests."""
    keys = zip(table["source"].to_pylist(), table["photo_id"].to_pylist(), strict=True)
    digests = [hashlib.sha256(f"{source}/{photo_id}".encode()).digest() for source, photo_id in keys]
    first = sorted(range(len(digests)), key=digests.__getitem__)[:count]
    rows: list[Row] = table.take(pa.array(first, pa.int64())).to_pylist()
    return rows


def contact_sheet_jpeg(
    table: pa.Table, layout: Layout, columns: int = 6, rows: int = 4, cell_width_px: int = 160
) -> bytes:
    """Kept photos in a grid, as a JPEG below 150 kB; a blank one of a single cell if nothing is kept."""
    kept = drawn(table.filter(pc.field("verdict")), columns * rows)
    cell = (cell_width_px, cell_width_px * 2 // 3)
    images = [image for row in kept if (image := decode(layout, row, cell[1]))]
    wide = min(columns, max(1, len(images)))
    high = max(1, -(-len(images) // wide))
    sheet = Image.new("RGB", (wide * (cell[0] + GAP_PX) + GAP_PX, high * (cell[1] + GAP_PX) + GAP_PX), "#f4f2ee")
    for index, image in enumerate(images):
        image.thumbnail(cell, Image.Resampling.BOX)
        left, top = index % wide * (cell[0] + GAP_PX) + GAP_PX, index // wide * (cell[1] + GAP_PX) + GAP_PX
        sheet.paste(image, (left + (cell[0] - image.width) // 2, top + (cell[1] - image.height) // 2))
    return within(sheet, SHEET_BYTES)


def within(
    image: Image.Image,
    max_bytes: int,
    encode: Callable[[Image.Image, int], bytes] = jpeg,
    qualities: Iterable[int] = range(85, 25, -10),
) -> bytes:
    """``image`` at the best of ``qualities`` with which it fits into ``max_bytes``; smaller if it fits with none."""
    qualities = tuple(qualities)
    for quality in qualities:
        data = encode(image, quality)
        if len(data) <= max_bytes:
            return data
    if min(image.size) * 3 // 4 < LEAST_PX:
        return data
    return within(image.resize((image.width * 3 // 4, image.height * 3 // 4)), max_bytes, encode, qualities)
