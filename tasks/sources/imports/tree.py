"""A folder of pictures; folders in it are classes: ``animal/bee/1.jpg`` is labelled ``animal/bee``.

Folders train, val and test at the top are no classes but the data set's own split, which becomes a tag.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.sources.imports.cells import split_tag
from tasks.sources.imports.files import Walk, readable, url_within


def is_here(folder: Path) -> bool:
    """Every folder can be read so."""
    return True


def photos(folder: Path) -> Iterator[dict[str, Any]]:
    """Every picture below ``folder``."""
    paths = list(Walk(folder))
    has_splits = bool(paths) and all(split_tag(top(path)) for path in paths)
    for path in paths:
        classes = path.split("/")[:-1]
        yield {
            "photo_id": readable(path), "image_url": url_within(folder, path),
            "label": readable("/".join(classes[has_splits:])) or None,
            "tags": split_tag(top(path)) if has_splits else [],
        }  # fmt: skip


def top(path: str) -> str:
    """The folder that ``path`` begins with; empty if it is a mere name."""
    return path.rpartition("/")[0].partition("/")[0]
