"""The layout of Kaggle's iMet collections: ``train.csv`` (id, attribute_ids), ``labels.csv``, and pictures by id.

The names of a picture's attributes (``culture::japan``, ``tag::ships``) become its tags: it has many, and none is its
class. Pictures of ``test/`` have none.

Source: https://www.kaggle.com/c/imet-2019-fgvc6/data.
"""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError
from tasks.sources.imports.cells import split_tag, text
from tasks.sources.imports.files import Walk, readable, url_within
from tasks.sources.imports.tree import top

log = logging.getLogger(__name__)

COLUMNS = {"train.csv": ("id", "attribute_ids"), "labels.csv": ("attribute_id", "attribute_name")}


def is_here(folder: Path) -> bool:
    """Whether both tables are there, with their columns."""
    return all((folder / name).is_file() and columns <= heading(folder / name) for name, columns in _COLUMN_SETS)


_COLUMN_SETS = [(name, frozenset(columns)) for name, columns in COLUMNS.items()]


def heading(file: Path) -> frozenset[str]:
    """The names of the columns of a CSV file."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            return frozenset(next(csv.reader(stream), []))
    except (OSError, csv.Error):
        return frozenset()


def pairs(folder: Path, name: str) -> dict[str, str]:
    """The second column of a table by its first. Raises ConfigError if it cannot be read."""
    key, value = COLUMNS[name]
    try:
        with (folder / name).open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            return {row[key]: row[value] or "" for row in csv.DictReader(stream) if row[key]}
    except (OSError, csv.Error) as error:
        raise ConfigError(f"the table {str(folder / name)!r} cannot be read: {error}") from None


def photos(folder: Path) -> Iterator[dict[str, Any]]:
    """Every picture below ``folder``, and a row without a file for each id of train.csv that has none."""
    attributes = pairs(folder, "labels.csv")
    trained = pairs(folder, "train.csv")
    seen = set()
    for path in Walk(folder):
        stem = Path(path).stem
        is_test = split_tag(top(path)) == ["split:test"]
        seen.add(stem)
        yield {
            "photo_id": readable(path), "image_url": url_within(folder, path),
            "tags": ["split:test"] if is_test else [*names(trained.get(stem, ""), attributes), "split:train"],
        }  # fmt: skip
    missing = [photo_id for photo_id in trained if photo_id not in seen]
    if missing:
        log.warning("%r: %d ids of train.csv have no picture", str(folder), len(missing))
    for stem in missing:
        yield {"photo_id": f"train/{text(stem)}", "tags": [*names(trained[stem], attributes), "split:train"]}


def names(attribute_ids: str, attributes: dict[str, str]) -> list[str]:
    """The names of attributes given by their ids; one that labels.csv lacks is called ``attribute::`` and its id."""
    found = (text(attributes.get(each)) or f"attribute::{each}" for each in (text(attribute_ids) or "").split())
    return list(dict.fromkeys(found))
