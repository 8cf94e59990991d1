"""The folder of an export: made beside its place under a name of our own, and never at the cost of a file of others."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.layout import filling
from tasks.errors import ConfigError

MARKER, PHOTOS = "export.json", "photos.parquet"
COMPANIONS = ("README.md", "ATTRIBUTION.csv", "LICENCES.csv")
DRAFT, REPLACED = "{name}.darkroom-draft", "{name}.darkroom-replaced"  # not hidden: a purge passes over hidden ones


def marker(folder: Path) -> dict[str, Any]:
    """What export.json says; nothing if there is none."""
    try:
        return dict(json.loads((folder / MARKER).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def check_replaceable(folder: Path) -> None:
    """Raise ConfigError if ``folder`` is a file, or holds an entry that is no part of the export in it."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"the target {str(folder)!r} is a file: name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    known = _known(folder)
    strange = min((name for name in _entries(folder) if name not in known), default=None)
    if strange is not None:
        raise ConfigError(
            f"the folder {str(folder)!r} holds {strange!r}, which is no part of an earlier export: move it away, or "
            "name a folder that is empty, or not there yet"
        )


def _entries(folder: Path) -> Iterator[str]:
    """The names of all files and folders in ``folder``, however deep; links are not followed."""
    for here, folders, files in os.walk(folder):
        before = Path(here).relative_to(folder).as_posix()
        yield from (name if before == "." else f"{before}/{name}" for name in (*folders, *files))


def _known(folder: Path) -> set[str]:
    """The names of the files of the export in ``folder``, and of the folders that they lie in."""
    try:
        listed = [str(entry["file"]) for entry in marker(folder)["files"]]
        names = {MARKER, PHOTOS, *COMPANIONS, *listed}
        for index in (name for name in listed if name.endswith(".jsonl") and (folder / name).is_file()):
            with (folder / index).open(encoding="utf-8") as lines:
                names |= {f"{index.rpartition('/')[0]}/{json.loads(line)['file_name']}" for line in lines}
    except (KeyError, TypeError, ValueError):  # not as we wrote it
        return set()
    lowest = {name.rpartition("/")[0] for name in names}
    return names | lowest | {name.rpartition("/")[0] for name in lowest}


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its place when the block ends well, and vanishes when it does not.

    Raises ConfigError, before the block and again behind it, if ``folder`` holds a file of others; and DiskFull when no
    space is left.
    """
    folder = folder.resolve()  # a link keeps leading where it led
    draft, replaced = (folder.with_name(name.format(name=folder.name)) for name in (DRAFT, REPLACED))
    for place in (draft, replaced):
        _clear(place)  # of a process that was killed
    check_replaceable(folder)
    try:
        with filling(folder):
            draft.mkdir(parents=True)
            yield draft
            check_replaceable(folder)
            _replace(folder, draft, replaced)
    finally:
        _delete(draft)


def _clear(place: Path) -> None:
    """Delete what a killed process left; raises ConfigError if it is none of ours."""
    if not os.path.lexists(place):
        return
    if place.is_symlink() or not place.is_dir() or (any(place.iterdir()) and not (place / PHOTOS).is_file()):
        raise ConfigError(f"{str(place)!r}, where a draft is to lie, is no draft of an export: move it away")
    _delete(place)


def _replace(folder: Path, draft: Path, replaced: Path) -> None:
    """Put ``draft`` in the place of ``folder``."""
    if folder.is_dir():
        folder.rename(replaced)
    try:
        os.rename(draft, folder)
    except OSError:
        if replaced.is_dir():
            replaced.rename(folder)
        raise
    _delete(replaced)


def _delete(place: Path) -> None:
    """Delete a folder of ours, the keys by which a takedown finds it last."""
    for path in place.iterdir() if place.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != PHOTOS:
            path.unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
