"""Files on this machine as photos: which of a tree are pictures, their URLs, and how they are read without surprise.

A URL is ``file:///folder/name`` with every odd byte percent-encoded, and ``#42`` behind it for the 43rd picture inside
a file that holds many. Only plain files are opened, and none through a link: where a link may lead is decided when the
tree is listed, and what took its place since then is refused.
"""

import errno
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote_to_bytes, urlsplit

from storage.catalog import JPEG_BYTES_PER_PIXEL
from storage.settings import Settings
from tasks.errors import ConfigError
from tasks.pictures import imaging
from tasks.sources.base import Query
from tasks.verdicts import Outcome

log = logging.getLogger(__name__)

# Names of pictures, also of those that we do not decode: these become rows that say so.
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".jxl",
        ".ppm",
        ".pgm",
        ".dng",
        ".cr2",
        ".nef",
        ".arw",
    ]
)
_SNIFFED_BYTES = 512  # of a file whose name says nothing
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class Refused(ValueError):
    """A file that is none of ours to open: a link, a device, or not what its name says."""


class TooLarge(ValueError):
    """A file beyond the limit."""


def located(query: Query, settings: Settings) -> Path:
    """What ``query.path`` names, without links; raises ConfigError if nothing is there.

    A relative path begins in the folder that holds the data root: a worker's own folder is a different one each time.
    """
    if query.path is None:
        raise ConfigError("a query of the sources folder and table needs a path: give it the folder or the file")
    base = settings.root.absolute().parent
    try:
        return (base / Path(query.path).expanduser()).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing; a link to itself or an unknown ~user; a zero byte
        raise ConfigError(
            f"nothing can be found at path {query.path!r}: correct it; a relative path begins in {str(base)!r}, "
            "the folder that holds DARKROOM_ROOT"
        ) from None


def readable(path: str) -> str:
    r"""``path`` as text that can be stored: a byte that is no UTF-8 becomes ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_url(path: str, record: int | None = None) -> str:
    """The URL of an absolute path, or of one of the pictures in it."""
    return f"file://{quote(os.fsencode(path))}" + ("" if record is None else f"#{record}")


def path_and_record(url: str) -> tuple[str, int | None]:
    """What ``file_url`` was made of."""
    parts = urlsplit(url)
    return os.fsdecode(unquote_to_bytes(parts.path)), int(parts.fragment) if parts.fragment else None


def url_within(folder: Path, path: str) -> str:
    """The URL of the file at ``path`` below ``folder``, that of its target if it is a link to another file in it.

    A link that leaves ``folder`` keeps its own URL, which nobody opens.
    """
    full = os.path.join(folder, path)
    target = os.path.realpath(full) if os.path.islink(full) else full
    return file_url(target if Path(target).is_relative_to(folder) else full)


def inside(path: str) -> str | None:
    """``path`` in its shortest form if it stays below where it begins, else None."""
    short = os.path.normpath(path) if path and "\0" not in path else ".."
    return None if short.startswith(("/", "..")) or short == "." else short


def has_picture_name(name: str) -> bool:
    """Whether a file called so should be a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


@dataclass
class Walk:
    """The pictures below ``folder``, as paths relative to it; ``skipped`` counts by kind what was left out."""

    folder: Path
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str]:
        waiting = [""]
        while waiting:
            here = waiting.pop()
            for entry in self._entries(here):
                kind = kind_of(entry)
                if kind == "folder":
                    waiting.append(f"{here}{entry.name}/")
                elif kind == "picture":
                    yield here + entry.name
                else:
                    self.skipped[kind] += 1
        if self.skipped:
            counts = " ".join(f"{kind}={count}" for kind, count in self.skipped.most_common())
            log.info("folder %r: left out %s", str(self.folder), counts)

    def _entries(self, here: str) -> list[os.DirEntry[str]]:
        """What lies in one folder, by name."""
        try:
            with os.scandir(self.folder / here) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.skipped["unreadable_folder"] += 1
            log.warning("the folder %r below %r cannot be read: %s", here, str(self.folder), error.strerror)
            return []


def kind_of(entry: os.DirEntry[str]) -> str:
    """``picture``, ``folder``, or what else an entry of a folder is, for which it is left out."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link to itself
        is_folder = False
    if is_folder:
        return "linked_folder" if entry.is_symlink() else "folder"
    if not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
        return "no_plain_file"
    return "picture" if has_picture_name(entry.name) or _begins_like_picture(entry) else "no_picture"


def _begins_like_picture(entry: os.DirEntry[str]) -> bool:
    """Whether the first bytes of a plain file are those of a picture, whatever its name."""
    if entry.is_symlink():
        return False
    try:
        with open_plain(entry.path) as stream:
            imaging.identify(stream.read(_SNIFFED_BYTES))
    except (OSError, ValueError, imaging.BadImage):
        return False
    return True


def open_plain(path: str) -> BinaryIO:
    """The plain file at ``path``. Raises OSError, and Refused for a link, also on the way to it, or a device."""
    if os.path.realpath(path) != path:
        raise Refused("a link")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("not a plain file")
    return os.fdopen(descriptor, "rb")


def read_plain(path: str, max_bytes: int) -> bytes:
    """The bytes of the plain file at ``path``. Raises OSError, Refused or TooLarge."""
    with open_plain(path) as stream:
        body = stream.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise TooLarge(f"more than {max_bytes} bytes")
    return body


def outcome_of(error: OSError | ValueError | LookupError) -> Outcome:
    """What it means for a photo that its file could not be read."""
    if isinstance(error, TooLarge):
        return "too_large"
    if isinstance(error, LookupError) or (isinstance(error, OSError) and error.errno in _GONE):
        return "gone"
    return "unavailable" if isinstance(error, OSError) and error.errno not in _DENIED else "denied"


def size_bytes(photo: Mapping[str, Any]) -> int:
    """Bytes of the file behind a row of "listings", or about as many as its pixels would take elsewhere; 0: unknown."""
    path, record = path_and_record(url) if (url := photo.get("image_url") or "").startswith("file:") else ("", None)
    if path and record is None:
        with suppress(OSError):
            return os.lstat(path).st_size
    pixels = (photo.get("listed_width") or 0) * (photo.get("listed_height") or 0)
    return pixels if path else round(JPEG_BYTES_PER_PIXEL * pixels)
