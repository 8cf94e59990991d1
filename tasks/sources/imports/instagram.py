"""An export of one's own Instagram account, as JSON: pictures with captions, hashtags, times and places.

Posts, stories, reels and the rest are lists of objects with a ``uri``; a caption stands beside it, or at the post that
holds several. Texts are UTF-8 whose bytes were written as if each were a character, which is undone here. Pictures that
no list mentions are found all the same.

Source: Instagram, "Download your information": folders ``content/`` and, since 2023, ``your_instagram_activity/``; the
``media.json`` of 2018.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError
from tasks.sources.base import degrees
from tasks.sources.imports import cells
from tasks.sources.imports.files import Walk, has_picture_name, inside, open_plain, readable, url_within

log = logging.getLogger(__name__)

FOLDERS = ("content", "media", "your_instagram_activity/content", "your_instagram_activity/media")
_POSTS = re.compile(r"(posts|stories|reels|archived_posts|profile_photos|igtv_videos|other_content)(_\d+)?")
_HASHTAG = re.compile(r"""[#\uff03]([^\s#\uff03.,;:!?…(){}\[\]"'<>/\\|&@*+=~^%$-]+)""")
_FACTS = ("title", "caption", "creation_timestamp", "taken_at")  # of a post, for its pictures


def is_here(folder: Path) -> bool:
    """Whether lists of posts are there. Raises ConfigError for an export as HTML, whose captions are for the eye."""
    if lists(folder, ".json"):
        return True
    if lists(folder, ".html"):
        raise ConfigError(f"{str(folder)!r} is an Instagram export as HTML: ask Instagram for one as JSON")
    return False


def lists(folder: Path, suffix: str) -> list[Path]:
    """The files that say what was posted."""
    found = [
        file for name in FOLDERS for file in sorted((folder / name).glob(f"*{suffix}")) if _POSTS.fullmatch(file.stem)
    ]
    old = folder / f"media{suffix}"
    return [*found, old] if old.is_file() and (folder / "photos").is_dir() else found


def photos(folder: Path) -> Iterator[dict[str, Any]]:
    """Every picture below ``folder``, and a row without a file for each that is only mentioned."""
    mentioned = {path: facts for file in lists(folder, ".json") for path, facts in mentions(file)}
    for path in Walk(folder):
        facts = mentioned.pop(path, {})
        yield {"photo_id": readable(path), "image_url": url_within(folder, path), **facts}
    missing = {path: facts for path, facts in mentioned.items() if has_picture_name(path)}
    if missing:
        log.warning("%r: %d pictures are mentioned but not there", str(folder), len(missing))
    for path, facts in missing.items():
        yield {"photo_id": readable(path), "image_url": url_within(folder, path), **facts}


def check_lists(folder: Path) -> None:
    """Raises ConfigError, naming the file, if a list of posts in ``folder`` is no JSON: for when no photo is found."""
    there = [file for file in sorted(folder.glob("*.json")) if _POSTS.fullmatch(file.stem)]
    for file in [*lists(folder, ".json"), *there]:
        try:
            listed(file)
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"no photo is in {str(folder)!r}, and its list {str(file)!r} cannot be read ({error}): unpack the "
                "Instagram export again, or ask Instagram for a new one"
            ) from None


def listed(file: Path) -> Any:
    """The list in ``file``. Raises OSError, ValueError, also for a link or a pipe, or RecursionError."""
    with open_plain(str(file)) as stream:
        return json.load(stream)


def mentions(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, columns) of each file that the list in ``file`` mentions; none if it cannot be read."""
    try:
        found = list(media(listed(file), {}))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("the list %r cannot be read, its captions are missing: %s", str(file), error)
        return
    for uri, item in found:
        if path := inside(unspoilt(uri)):
            yield path, columns(item)


def media(node: Any, post: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(uri, item) of everything in ``node`` that has a file; what it lacks it has from the ``post`` around it."""
    if isinstance(node, list):
        for item in node:
            yield from media(item, post)
    elif isinstance(node, Mapping):
        known = {**post, **{name: node[name] for name in _FACTS if node.get(name)}}
        uri = node.get("uri") or node.get("path")
        if isinstance(uri, str):
            yield uri, {**known, "media_metadata": node.get("media_metadata")}
        for value in node.values():
            yield from media(value, known)


def columns(item: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of "listings" for one picture."""
    caption = cells.text(unspoilt(str(item.get("title") or item.get("caption") or "")))
    place = next((exif for exif in exifs(item["media_metadata"]) if "latitude" in exif), {})
    return {
        "title": caption, "tags": hashtags(caption or ""),
        "uploaded_at": cells.moment(item.get("creation_timestamp") or item.get("taken_at")),
        "latitude": degrees(place.get("latitude"), 90), "longitude": degrees(place.get("longitude"), 180),
    }  # fmt: skip


def exifs(metadata: Any) -> Iterator[Mapping[str, Any]]:
    """The EXIF facts that an export gives for a picture."""
    photo = metadata.get("photo_metadata") if isinstance(metadata, Mapping) else None
    listed = photo.get("exif_data") if isinstance(photo, Mapping) else None
    yield from (each for each in listed or [] if isinstance(each, Mapping)) if isinstance(listed, list) else ()


def unspoilt(text: str) -> str:
    """``text`` whose characters are the bytes of UTF-8, decoded; any other as it is."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def hashtags(caption: str) -> list[str]:
    """The hashtags of a caption in order, each once, without their mark."""
    return list(dict.fromkeys(_HASHTAG.findall(caption)))
