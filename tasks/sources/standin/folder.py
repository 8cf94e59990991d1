"""Photos of a folder, with facts from its ``photos.csv`` (path, width, height, format, taken, ...) where there is one.

Every photo carries the folder's name as a tag, so a search for that name finds all of them; a label ``animal/bee``
gives the tags ``animal`` and ``bee`` and stands in the title. A photo without an author has an owner of its own. The
upload date is the day after it was taken, or a date in 2024 or 2025 that follows from its path.
"""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from tasks.sources.standin.camera import CameraFacts
from tasks.sources.standin.facts import Owner, Photo, secret
from tasks.sources.standin.pictures import Picture
from tasks.sources.standin.words import normal_tag
from tasks.sources.standin.world import EPOCH, UPLOAD_SPAN_S, hash_of

SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".webp": "webp", ".gif": "gif"}
FIRST_UPLOAD = datetime(2004, 2, 10, tzinfo=UTC)  # the site's first day; older photos get a date of their own

# Only where the text names that very licence. "public-domain" says no more than id 7 does. Everything else, among it
# Creative Commons 1.0, 2.5 and 3.0 (which the site has never offered) and "A/B, see README", is 0, all rights reserved:
# nothing is then used under a licence that nobody gave. The text itself stands in the description.
LICENCES = {
    "public-domain": 7,
    "CC-BY-NC-SA-2.0": 1,
    "CC-BY-NC-2.0": 2,
    "CC-BY-NC-ND-2.0": 3,
    "CC-BY-2.0": 4,
    "CC-BY-SA-2.0": 5,
    "CC-BY-ND-2.0": 6,
    "CC0-1.0": 9,
    "CC-BY-4.0": 11,
    "CC-BY-SA-4.0": 12,
    "CC-BY-ND-4.0": 13,
    "CC-BY-NC-4.0": 14,
    "CC-BY-NC-SA-4.0": 15,
    "CC-BY-NC-ND-4.0": 16,
}


@dataclass(frozen=True)
class FolderRow:
    """What is known of one file before it becomes a photo."""

    path: str
    width: int
    height: int
    format: str
    orientation: int = 1
    camera: str = ""
    taken: str = ""
    licence: str = ""
    author: str = ""
    label: str = ""


def folder_photos(directory: Path) -> list[Photo]:
    """One photo per picture, by path. Raises FileNotFoundError if there is no such folder, or no picture in it."""
    if not directory.is_dir():
        raise FileNotFoundError(f"no folder {str(directory)!r}: name one that holds pictures")
    table = directory / "photos.csv"
    rows = _rows_of_table(table) if table.is_file() else _rows_of_headers(directory)
    photos = [_photo(directory, row) for row in rows if (directory / row.path).is_file()]
    if not photos:
        raise FileNotFoundError(f"no picture in {str(directory)!r}: {', '.join(SUFFIXES)} are looked for")
    return photos


def _rows_of_table(table: Path) -> list[FolderRow]:
    """The rows of photos.csv."""
    with table.open(encoding="utf-8", newline="") as lines:
        return [
            FolderRow(
                path=row["path"],
                width=int(row["width"]),
                height=int(row["height"]),
                format=row["format"].lower().replace("jpeg", "jpg"),
                orientation=int(row.get("orientation") or 1),
                camera=row.get("camera") or "",
                taken=row.get("taken") or "",
                licence=row.get("licence") or "",
                author=row.get("author") or "",
                label=row.get("label") or "",
            )
            for row in csv.DictReader(lines)
        ]


def _rows_of_headers(directory: Path) -> list[FolderRow]:
    """What the files themselves say."""
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [_row_of_header(path, path.relative_to(directory).as_posix()) for path in paths]


def _row_of_header(path: Path, name: str) -> FolderRow:
    """Size and EXIF of one file; one that cannot be read is listed as 1x1 px and served as it is."""
    kind = SUFFIXES[path.suffix.lower()]
    try:
        with Image.open(path) as image:
            exif, (width, height) = image.getexif(), image.size
            camera = str(exif.get(0x0110, "")).strip("\0 ")
            taken = str(exif.get_ifd(0x8769).get(0x9003, ""))
            orientation = exif.get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return FolderRow(name, 1, 1, kind)
    return FolderRow(name, width, height, kind, orientation if orientation in range(1, 9) else 1, camera, taken)


def _photo(directory: Path, row: FolderRow) -> Photo:
    """The photo of one file."""
    number = hash_of("folder", row.path)
    taken_at = _taken_at(row.taken)
    dated = taken_at is not None and taken_at >= FIRST_UPLOAD
    uploaded_at = (
        taken_at + timedelta(days=1) if taken_at and dated else EPOCH + timedelta(seconds=number % UPLOAD_SPAN_S)
    )
    stem = Path(row.path).stem.replace("_", " ").replace("-", " ")
    labels = [part for part in row.label.split("/") if part]
    return Photo(
        id=str(54_000_000_000 + number % 10**9),
        secret=secret(row.path),
        original_secret=secret(row.path, "original"),
        owner=_owner(row),
        picture=Picture(
            row.width,
            row.height,
            row.format,
            camera=CameraFacts(model=row.camera, taken_at=taken_at, orientation=row.orientation),
            path=directory / row.path,
        ),
        title=f"{labels[-1]}: {stem}" if labels else stem,
        description=f"Licence as given: {row.licence}" if row.licence else "",
        tags=tuple(dict.fromkeys(tag for tag in map(normal_tag, [directory.resolve().name, *labels]) if tag)),
        licence=LICENCES.get(row.licence, 0),
        uploaded_at=uploaded_at,
        updated_at=uploaded_at,
        taken_at=taken_at,
    )


def _owner(row: FolderRow) -> Owner:
    """One owner per author's name; one per photo where no name is given."""
    number = hash_of("author", row.author) if row.author else hash_of("author of", row.path)
    return Owner(f"{10_000_000 + number % 90_000_000}@N{number % 100:02d}", row.author or f"unknown of {row.path}")


def _taken_at(text: str) -> datetime | None:
    """EXIF's ``YYYY:MM:DD HH:MM:SS``, read as UTC; None if it is missing or no date."""
    try:
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
