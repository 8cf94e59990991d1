"""Names of exported files and folders: safe on every file system, the same each time, never twice."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

UNLABELLED = "unlabelled"
PLAIN_ID = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")  # the same on a file system that minds no case
NO_FOLDER = re.compile(
    r'[\x00-\x1f\x7f/\\:*?"<>|]|^[.\s-]|[.\s]$|--|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE
)
MAX_ID, MAX_FOLDER_BYTES = 40, 80


def stem(source: str, photo_id: str) -> str:
    """The name of a photo's file without its extension; it has no dot.

    An id that is not plain is abridged and followed by two dashes and a digest, which no plain one has.
    """
    if PLAIN_ID.fullmatch(photo_id) and len(photo_id) <= MAX_ID:
        return f"{source}-{photo_id}"
    shown = re.sub(r"[^A-Za-z0-9]+", "_", photo_id).strip("_")[:MAX_ID]
    return f"{source}-{shown}--{_digest(source, photo_id, length=32)}"


def class_folders(labels: Iterable[str]) -> dict[str, str]:
    """The folder of each label: its own name where that is possible, else abridged, with a digest.

    Labels that differ by case alone, and one that is called as the folder of those without, have a digest too.
    """
    known = sorted(set(labels))
    alike = Counter(_folded(label) for label in known) + Counter([UNLABELLED])
    return {label: _class_folder(label, is_alone=alike[_folded(label)] == 1) for label in known}


def _class_folder(label: str, is_alone: bool) -> str:
    is_plain = not NO_FOLDER.search(label) and label.isprintable() and unicodedata.is_normalized("NFC", label)
    if is_plain and is_alone and 0 < len(label.encode()) <= MAX_FOLDER_BYTES:
        return label
    shown = re.sub(r"\W+", "_", label).strip("_").encode()[: MAX_FOLDER_BYTES // 2].decode("utf-8", "ignore")
    return f"{shown}--{_digest(label, length=16)}"


def _folded(label: str) -> str:
    return unicodedata.normalize("NFC", label).casefold()


def _digest(*words: str, length: int) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:length]
