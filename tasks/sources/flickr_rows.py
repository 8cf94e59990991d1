"""What a photo in a reply of Flickr says, as a row of ``listings``.

Flickr mixes texts and numbers, wraps some texts in ``_content`` and leaves out what it does not know.

Source: https://www.flickr.com/services/api/ (pages flickr.photos.search, misc.urls and misc.dates).
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tasks.sources.base import LONG_EDGE_PX, Query, degrees

Json = Mapping[str, Any]
Licences = Mapping[str, tuple[str, str]]  # id -> name, URL

FLICKR_PAGES = "https://www.flickr.com"
LADDER = {
    "o": "Original", "6k": "X-Large 6K", "5k": "X-Large 5K", "4k": "X-Large 4K", "3k": "X-Large 3K", "k": "Large 2048",
    "h": "Large 1600", "l": "Large", "c": "Medium 800", "z": "Medium 640",
}  # fmt: skip
_INT32 = 2**31


def pages_of(endpoint: str) -> str:
    """Where photos have their pages: Flickr's, or those of a stand-in, whose photos are none of Flickr's."""
    address = urlsplit(endpoint)
    return FLICKR_PAGES if address.hostname == "api.flickr.com" else f"{address.scheme}://{address.netloc}"


def listing(
    photo: Json, query: Query, licences: Licences, observed_at: datetime, pages: str = FLICKR_PAGES
) -> dict[str, Any]:
    """One row of ``listings``. A photo whose owner shows no picture has a row without ``image_url``."""
    photo_id, owner = text(photo["id"]), text(photo.get("owner"))
    ladder = list(renditions(photo, query.size))
    best = ladder[0] if ladder else {}
    has_place = bool(integer(photo.get("accuracy")))
    return {
        "source": "flickr", "photo_id": photo_id, "query_id": query.query_id, "observed_at": observed_at,
        "owner_id": owner, "owner_name": text(photo.get("ownername")), "title": text(photo.get("title")),
        "tags": (text(photo.get("tags")) or "").split(), "label": query.label, **licence(photo, licences),
        "page_url": f"{pages}/photos/{owner}/{photo_id}/" if owner else None,
        "image_url": best.get("url"), "size_label": best.get("label"),
        "listed_width": best.get("width"), "listed_height": best.get("height"),
        "uploaded_at": unix_time(photo.get("dateupload")), "taken_at": taken_at(photo),
        "latitude": degrees(photo.get("latitude"), 90) if has_place else None,
        "longitude": degrees(photo.get("longitude"), 180) if has_place else None,
        "fallbacks": [{"label": rung["label"], "url": rung["url"]} for rung in ladder[1:]],
        "is_open": isinstance(photo.get("url_o"), str),  # an owner who forbids downloads hides the original
    }  # fmt: skip


def renditions(photo: Json, size: str) -> Iterator[dict[str, Any]]:
    """label, url, width and height of what the photo is offered in, largest first, nothing larger than ``size``.

    The URLs are taken as they are: from 1600 px up each has a secret of its own.
    """
    for letter, label in LADDER.items():
        url = photo.get(f"url_{letter}")
        width, height = integer(photo.get(f"width_{letter}")), integer(photo.get(f"height_{letter}"))
        long_px = LONG_EDGE_PX.get(label) or max(width or _INT32, height or _INT32)
        if isinstance(url, str) and url and (size == "original" or long_px <= LONG_EDGE_PX[size]):
            yield {"label": label, "url": url, "width": width, "height": height}


def licence(photo: Json, licences: Licences) -> dict[str, str | None]:
    """Name and URL of the photo's licence; ``unknown:<id>`` if Flickr does not explain it, ``unstated`` without one."""
    licence_id = text(photo.get("license"))
    if licence_id is None:
        return {"licence": "unstated", "licence_url": None}
    name, url = licences.get(licence_id, (f"unknown:{licence_id}", ""))
    return {"licence": name, "licence_url": url or None}


def text(value: Any) -> str | None:
    """A text that Flickr gives plainly, as a number, or wrapped in ``_content``; None for nothing and for lists."""
    if isinstance(value, Mapping):
        value = value.get("_content")
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def integer(value: Any) -> int | None:
    """A number that Flickr gives as a number or as text; None for anything else, and beyond 32 bits."""
    found = re.fullmatch(r"-?[0-9]{1,10}", text(value) or "")
    return int(found[0]) if found and abs(int(found[0])) < _INT32 else None


def unix_time(value: Any) -> datetime | None:
    """The moment that many seconds after 1970; None for zero and for what is no number."""
    seconds = integer(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds and seconds > 0 else None


def taken_at(photo: Json) -> datetime | None:
    """What the camera's clock said (its zone is unknown; written as if UTC). None where Flickr made the date up."""
    written = text(photo.get("datetaken")) or ""
    if integer(photo.get("datetakenunknown")) or written.startswith("0000"):
        return None
    try:
        return datetime.strptime(written, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
