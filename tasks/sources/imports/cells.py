"""Values of tables and exports as columns of our rows; whatever cannot be read is None."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

_LARGEST = 2**31 - 1
_SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "t10k": "test",
}  # fmt: skip


def text(value: Any) -> str | None:
    """A value as text that can be stored; whole numbers without ``.0``, which a gap in a column gives them."""
    if value is None or isinstance(value, list | dict) or value != value:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    written = str(value).strip().encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair is no UTF-8
    return written or None


def tags(value: Any) -> list[str]:
    """Tags given as a list, or as text with ``|``, ``;`` or ``,`` between them, or without one of these, spaces."""
    if isinstance(value, str):
        mark = next((mark for mark in "|;," if mark in value), None)
        value = value.split(mark)
    values = value if isinstance(value, Iterable) and not isinstance(value, bytes | dict) else [value]
    return list(dict.fromkeys(tag for tag in map(text, values) if tag))


def split_tag(name: Any) -> list[str]:
    """A data set's own split as a tag, ``split:test``; none for what is no split."""
    split = _SPLITS.get((text(name) or "").lower())
    return [f"split:{split}"] if split else []


def integer(value: Any) -> int | None:
    """A count of pixels."""
    found = re.fullmatch(r"\d{1,10}", text(value) or "")
    return int(found[0]) if found and int(found[0]) <= _LARGEST else None


def moment(value: Any) -> datetime | None:
    """A time given as such, in seconds after 1970, or as ISO 8601; without a zone it is taken for UTC."""
    written = text(value) or ""
    try:
        if re.fullmatch(r"\d+(\.\d+)?", written):
            return datetime.fromtimestamp(float(written), UTC) if float(written) > 0 else None
        found = value if isinstance(value, datetime) else datetime.fromisoformat(written)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
