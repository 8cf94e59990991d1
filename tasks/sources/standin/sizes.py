"""The sizes in which the site keeps a photo, and their addresses.

Source: flickr.com/services/api/misc.urls.html; the letters of ``url_X`` differ from the suffixes of the files.
"""

from dataclasses import dataclass

from tasks.sources.standin.facts import Photo, secret


@dataclass(frozen=True)
class Size:
    """One size. ``long_px`` None is the original; With ``has_own_secret`` its address cannot be guessed."""

    label: str
    extra: str
    suffix: str
    long_px: int | None
    is_square: bool = False
    has_own_secret: bool = False


@dataclass(frozen=True)
class SizedPhoto:
    """A photo in one of its sizes, ``width`` x ``height`` px."""

    photo: Photo
    size: Size
    width: int
    height: int

    @property
    def file_name(self) -> str:
        """``{id}_{secret}[_{suffix}].{ext}``."""
        suffix = f"_{self.size.suffix}" if self.size.suffix else ""
        extension = "jpg" if self.size.long_px else self.photo.original_format
        return f"{self.photo.id}_{secret_of(self.photo, self.size)}{suffix}.{extension}"

    @property
    def path(self) -> str:
        """Below the image host, without a leading slash."""
        return f"{self.photo.server}/{self.file_name}"


ORIGINAL = Size("Original", "o", "o", None, has_own_secret=True)
SIZES = (
    Size("Square", "sq", "s", 75, is_square=True),
    Size("Thumbnail", "t", "t", 100),
    Size("Large Square", "q", "q", 150, is_square=True),
    Size("Small", "s", "m", 240),
    Size("Small 320", "n", "n", 320),
    Size("Small 400", "w", "w", 400),
    Size("Medium", "m", "", 500),
    Size("Medium 640", "z", "z", 640),
    Size("Medium 800", "c", "c", 800),
    Size("Large", "l", "b", 1024),
    Size("Large 1600", "h", "h", 1600, has_own_secret=True),
    Size("Large 2048", "k", "k", 2048, has_own_secret=True),
    Size("X-Large 3K", "3k", "3k", 3072, has_own_secret=True),
    Size("X-Large 4K", "4k", "4k", 4096, has_own_secret=True),
    Size("X-Large 5K", "5k", "5k", 5120, has_own_secret=True),
    Size("X-Large 6K", "6k", "6k", 6144, has_own_secret=True),
    ORIGINAL,
)
BY_SUFFIX = {size.suffix: size for size in SIZES}


def secret_of(photo: Photo, size: Size) -> str:
    """The secret in the address of this size."""
    if size is ORIGINAL:
        return photo.original_secret
    return secret(photo.original_secret, size.label) if size.has_own_secret else photo.secret


def sized(photo: Photo, size: Size) -> SizedPhoto | None:
    """The photo in this size; None if the original is not larger. Renditions are upright, the original as stored."""
    if size.long_px is None:
        return SizedPhoto(photo, size, photo.width, photo.height)
    width, height = photo.picture.shown_size
    if size.is_square:
        return SizedPhoto(photo, size, size.long_px, size.long_px) if size.long_px < min(width, height) else None
    long_px = max(width, height)
    if size.long_px >= long_px:
        return None
    short_px = max(round(min(width, height) * size.long_px / long_px), 1)
    return SizedPhoto(photo, size, *((size.long_px, short_px) if width >= height else (short_px, size.long_px)))


def public_sizes(photo: Photo) -> list[SizedPhoto]:
    """What a stranger may see, small to large; the original last, if it is public."""
    found = [sized(photo, size) for size in SIZES if size is not ORIGINAL or photo.is_original_public]
    return [each for each in found if each is not None]
