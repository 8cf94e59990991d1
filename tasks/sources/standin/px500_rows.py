"""Photos of the catalogue as 500px's pages receive them, and what stands between them in its lists.

What the catalogue does not know (category, consent, signs of a generator) follows from the photo's id. Any field but id
and type may be null. Values of ``licensing.status`` are invented: none has been published.
"""

import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from tasks.sources.standin.facts import Owner, Photo

Json = dict[str, Any]
Sign = Callable[[Photo, str], str]

# Source: github.com/500px/legacy-api-documentation, basics/formats_and_terms.md, and two of later years; without
# "Uncategorized" and "Nude".
CATEGORIES = (
    "Abstract", "Aerial", "Animals", "Black and White", "Celebrities", "City and Architecture", "Commercial", "Concert",
    "Family", "Fashion", "Film", "Fine Art", "Food", "Journalism", "Landscapes", "Macro", "Nature", "Night", "People",
    "Performing Arts", "Sport", "Still Life", "Street", "Transportation", "Travel", "Underwater", "Urban Exploration",
    "Wedding",
)  # fmt: skip
LICENSINGS = ("NONE", "SUBMITTED", "ACCEPTED")
SIZES = {"size_600": 600, "size_1024": 1024, "size_2048": 2048, "size_4k": 4096}
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NULLABLE = (
    "title", "description", "uploadedAt", "takenAt", "width", "height", "category", "downloadable", "isNsfw",
    "isPrivate", "isDeleted", "isInReview", "needLoginToView", "taggedAigc", "userDeclaredAigc", "licensing",
    "uploader", "urls", "dominantColorLight", "dominantColorDark", "camera", "lens", "iso",
)  # fmt: skip
NULL_SHARE = 0.03  # of each of these
NODES_PER_OTHER = 17  # one node in so many is no photo, where lists are mixed


@lru_cache(maxsize=200_000)
def base62(*identity: str) -> str:
    """Eleven of DIGITS that follow from ``identity``."""
    number = int(hashlib.sha256("/".join(("500px", *identity)).encode()).hexdigest()[:20], 16)
    digits = ""
    for _ in range(11):
        number, digit = divmod(number, 62)
        digits += DIGITS[digit]
    return digits


def category_of(photo: Photo) -> str:
    """The category of a photo; a topic in its title decides, or else its id."""
    named = [name for name in CATEGORIES if name in photo.title or name.rstrip("s") in photo.title.split()]
    return named[0] if named else random.Random(f"category/{photo.id}").choice(CATEGORIES)


def is_nsfw(photo: Photo) -> bool:
    """Whether the site marks it as not safe."""
    return photo.safety_level > 0 or random.Random(f"nsfw/{photo.id}").random() < 0.03


def photo_node(photo: Photo, sign: Sign, has_ai_opt_in: bool) -> Json:
    """All fields of one photo. ``sign``: the address of its file in one of SIZES."""
    chance = random.Random(f"500px/{photo.id}")
    width, height = photo.picture.shown_size
    node = {
        "title": photo.title, "description": photo.description or None, "uploadedAt": iso(photo.uploaded_at),
        "takenAt": iso(photo.taken_at) if photo.taken_at else None, "width": width, "height": height,
        "category": category_of(photo), "camera": photo.picture.camera.model or None, "lens": None, "iso": None,
        "dominantColorLight": "#aabbcc", "dominantColorDark": "#112233",
        "downloadable": chance.random() > 0.05, "isNsfw": is_nsfw(photo), "isPrivate": not photo.is_public,
        "isDeleted": photo.is_deleted, "isInReview": chance.random() < 0.02, "needLoginToView": chance.random() < 0.03,
        "taggedAigc": chance.random() < 0.03, "userDeclaredAigc": chance.random() < 0.02,
        "licensing": {"status": chance.choice(LICENSINGS), "__typename": "Licensing"},
        "urls": {name: sign(photo, name) for name in SIZES} | {"__typename": "PhotoUrls"},
        "uploader": user_node(photo.owner),
    }  # fmt: skip
    hidden = {name for name in NULLABLE if chance.random() < NULL_SHARE and node[name] is not True}
    consent = {"aiTrainingOptIn": chance.random() > 0.05} if has_ai_opt_in else {}
    facts = {name: None if name in hidden else value for name, value in node.items()}
    return {"__typename": "Photo", "id": base62(photo.id)} | facts | consent


def user_node(owner: Owner) -> Json:
    """One uploader."""
    return {
        "id": base62("user", owner.nsid), "username": owner.path_alias or owner.username,
        "displayName": owner.realname or owner.username, "__typename": "User",
    }  # fmt: skip


def other_node(number: int) -> Json:
    """What stands in a list beside photos: a group of photos or a video."""
    shared = {"id": base62("other", str(number)), "title": None, "isNsfw": False, "isDeleted": False}
    if number % 2:
        return {"__typename": "PhotoGroup", **shared, "numCount": 3, "publicItemCount": 3, "coverPhotos": []}
    return {"__typename": "Video", **shared, "videoUrl": None, "coverUrl": None, "width": 1920, "height": 1080}


def iso(moment: datetime) -> str:
    """A moment as the site writes it, to the millisecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
