"""What a photo in a reply of 500px says, as a row of ``listings``. Any field but the id may be null.

A photo is its base62 id. The addresses of its files are signed and end after some hours: they are never its identity.

Source: the fields that the site's own pages asked for in September 2026; none is documented.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tasks.sources.base import LONG_EDGE_PX, Query

Json = Mapping[str, Any]

PX500_PAGES = "https://500px.com"
TERMS_URL = "https://500px.com/terms"
LADDER = {
    "size_4k": ("X-Large 4K", 4096), "size_2048": ("Large 2048", 2048), "size_1024": ("Large", 1024),
    "size_600": ("Medium 600", 600),
}  # fmt: skip
_INT32 = 2**31


def pages_of(endpoint: str) -> str:
    """Where photos have their pages: 500px's, or those of a stand-in, whose photos are none of 500px's."""
    address = urlsplit(endpoint)
    host = address.hostname or ""
    return PX500_PAGES if host.endswith(".500px.com") else f"{address.scheme}://{address.netloc}"


def forbidden(photo: Json) -> str | None:
    """What keeps us from taking the picture, the gravest first; None if nothing does. What is null forbids nothing."""
    claims = {
        "deleted": photo.get("isDeleted"),
        "private": photo.get("isPrivate"),
        "in_review": photo.get("isInReview"),
        "login_needed": photo.get("needLoginToView"),
        "no_ai_training": photo.get("aiTrainingOptIn") is False,
        "not_downloadable": photo.get("downloadable") is False,
        "ai_generated": photo.get("taggedAigc") or photo.get("userDeclaredAigc"),
    }
    return next((name for name, claim in claims.items() if claim), None)


def listing(photo: Json, query: Query, observed_at: datetime, pages: str = PX500_PAGES) -> dict[str, Any]:
    """One row of ``listings``; a photo that is ``forbidden`` has one without ``image_url``."""
    photo_id, uploader = str(photo["id"]), mapping(photo.get("uploader"))
    ladder = [] if forbidden(photo) else list(renditions(photo, query.size))
    best = ladder[0] if ladder else {}
    category = text(photo.get("category"))
    return {
        "source": "500px", "photo_id": photo_id, "query_id": query.query_id, "observed_at": observed_at,
        "owner_id": text(uploader.get("id")) or text(uploader.get("username")),
        "owner_name": text(uploader.get("displayName")) or text(uploader.get("username")),
        "title": text(photo.get("title")), "tags": [category] if category else [],
        "label": query.label or query.category, **licence(photo), "page_url": f"{pages}/photo/{photo_id}",
        "image_url": best.get("url"), "size_label": best.get("label"),
        "listed_width": best.get("width"), "listed_height": best.get("height"),
        "uploaded_at": moment(photo.get("uploadedAt")), "taken_at": moment(photo.get("takenAt")),
        "latitude": None, "longitude": None,
        "fallbacks": [{"label": rung["label"], "url": rung["url"]} for rung in ladder[1:]], "is_open": True,
    }  # fmt: skip


def renditions(photo: Json, size: str = "original") -> Iterator[dict[str, Any]]:
    """label, url, width and height in px of what the photo is offered in, largest first, nothing larger than ``size``.

    There is no original. A rendition is never larger than the photo that was uploaded.
    """
    urls = mapping(photo.get("urls"))
    width, height = pixels(photo.get("width")), pixels(photo.get("height"))
    for name, (label, long_px) in LADDER.items():
        url = urls.get(name)
        if isinstance(url, str) and url and (size == "original" or long_px <= LONG_EDGE_PX[size]):
            scale = min(1.0, long_px / max(width or 1, height or 1))
            yield {
                "label": label, "url": url,
                "width": width and round(width * scale), "height": height and round(height * scale),
            }  # fmt: skip


def licence(photo: Json) -> dict[str, str | None]:
    """What 500px says of the photo's licensing, in its word; it knows no Creative Commons any more."""
    status = text(mapping(photo.get("licensing")).get("status"))
    return {"licence": f"500px: {status}" if status else "unstated", "licence_url": TERMS_URL}


def mapping(value: Any) -> Json:
    """``value`` if it has fields; nothing otherwise."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str | None:
    """A text or a number as text; None for nothing and for what is neither."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def pixels(value: Any) -> int | None:
    """A length of 1 px or more, below 32 bits; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _INT32 else None


def moment(value: Any) -> datetime | None:
    """The moment of an ISO 8601 text, in UTC where it names no zone; None for anything else."""
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return None
