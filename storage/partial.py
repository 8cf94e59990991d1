"""Bodies that arrive: in memory, and in a file from which a transfer that was cut, stalled or killed goes on.

A part file is one line of JSON, the validator that the host gave, and behind it the bytes so far. Its name is a digest
of the URL. Whoever writes it holds its lock, so that two processes never share one; the second does without.

Source: RFC 9110 sections 8.8 (validators), 13.1.5 (If-Range) and 14 (ranges).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from storage.layout import filling

MANY_BYTES = 1 << 20  # fewer are soon sent again if the process is killed
LONG_S = 1.0
KEEP_S = 7 * 86400  # a part that nobody went on with for so long is no use to anybody
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_WHOLE = re.compile(r"bytes \*/([0-9]{1,18})")
_SENDABLE = re.compile(r"[ -~\xa0-\xff]+")


class Body:
    """The bytes of one transfer, in memory; in a file at ``path`` too once they are many, or long in coming, or cut."""

    def __init__(self, path: Path | None = None, stream: BinaryIO | None = None) -> None:
        self._path, self._stream = path, stream
        self._written, self._since = 0, time.monotonic()  # bytes of ``data`` that are in the file
        self.validator, self.data = ("", bytearray()) if stream is None else _read(stream)
        if self.data:
            self._written = len(self.data)

    @property
    def headers(self) -> dict[str, str]:
        """What to ask with, to get the rest."""
        if not self.data or not self.validator:
            return {}
        return {"Range": f"bytes={len(self.data)}-", "If-Range": self.validator}

    def goes_on(self, headers: Mapping[str, str]) -> bool:
        """Whether a 206 with these ``headers`` begins where the bytes end, goes to the end of the file, and is of the
        same version as they are: a host may know Range and not If-Range.
        """
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != len(self.data):
            return False
        is_to_the_end = found[3] == "*" or int(found[2]) + 1 == int(found[3])
        return is_to_the_end and (not self.data or self._is_of_the_same(headers))

    def _is_of_the_same(self, headers: Mapping[str, str]) -> bool:
        """Whether ``headers`` have the validator that the bytes began with. One without any may be of another file."""
        said = headers.get("ETag" if self.validator.startswith('"') else "Last-Modified", "").removeprefix("W/")
        return said != "" and said == self.validator

    def is_whole(self, headers: Mapping[str, str]) -> bool:
        """Whether a 416 says that there are no more bytes than these."""
        found = _WHOLE.fullmatch(headers.get("Content-Range", "").strip())
        return found is not None and len(self.data) > 0 and int(found[1]) == len(self.data)

    def begin(self, headers: Mapping[str, str] | None = None) -> None:
        """Forget what was there; ``headers`` name the validator of what comes instead."""
        self.data, self._written = bytearray(), 0
        self.validator = validator(headers or {})
        if self._stream is not None:
            self._stream.seek(0)
            self._stream.truncate()

    def add(self, chunk: bytes) -> None:
        """Append ``chunk``. Raises DiskFull."""
        self.data += chunk
        if len(self.data) >= MANY_BYTES or time.monotonic() - self._since >= LONG_S:
            self._save()

    def end(self) -> None:
        """Keep what has arrived for the next try; no file if that is nothing, or nobody could tell what it is of."""
        try:
            if self.data and self.validator:
                self._save()
            elif self._stream is not None and self._path is not None:
                self._path.unlink(missing_ok=True)  # while the lock is held
        finally:
            if self._stream is not None:
                self._stream.close()

    def _save(self) -> None:
        """Bring the file up to date, if there may be one. Raises DiskFull."""
        if self._path is None or not self.validator:
            return
        if self._stream is None:
            self._stream = _lock(self._path)
        if self._stream is None:
            self._path = None
            return
        with filling(self._path):
            if self._written == 0:
                _append(self._stream, json.dumps({"validator": self.validator}).encode() + b"\n")
            _append(self._stream, self.data[self._written :])
        self._written = len(self.data)


@contextlib.contextmanager
def claim(folder: Path, url: str) -> Iterator[Body]:
    """What has arrived of ``url`` so far. What the block leaves in it is kept for the next try; empty it to end that.

    Somebody else who is at the same URL has the file; then the body is one of memory alone. Raises DiskFull.
    """
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()}.part"
    is_there = path.exists()
    stream = _lock(path) if is_there else None
    body = Body(None if is_there and stream is None else path, stream)
    try:
        yield body
    finally:
        body.end()


def sweep(folder: Path, now_s: float | None = None) -> int:
    """Delete parts that are older than KEEP_S; how many that were."""
    swept = 0
    for part in folder.glob("[!.]*.part"):  # drafts of others begin with a dot
        with contextlib.suppress(FileNotFoundError):  # its owner was faster
            if (now_s or time.time()) - part.stat().st_mtime > KEEP_S:
                part.unlink()
                swept += 1
    return swept


def validator(headers: Mapping[str, str]) -> str:
    """What tells this version of a file from others: a strong ETag, or the time of its last change; "" if neither."""
    etag = headers.get("ETag", "")
    found = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    return found if is_sendable(found) else ""


def is_sendable(value: str) -> bool:
    """Whether ``value`` may stand in a header: what came in one need not."""
    return _SENDABLE.fullmatch(value) is not None


def _append(stream: BinaryIO, data: bytes | bytearray) -> None:
    """Write all of ``data``, which one call need not do."""
    while data:
        data = data[stream.write(data) :]


def _lock(path: Path) -> BinaryIO | None:
    """The file at ``path``, ours alone, empty if it is new; None if somebody has it. Raises DiskFull."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        if _is_at(path, stream):
            return stream
        stream.close()  # its last owner deleted it between our opening and our locking it


def _is_at(path: Path, stream: BinaryIO) -> bool:
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _read(stream: BinaryIO) -> tuple[str, bytearray]:
    """Validator and bytes of a part file; nothing, and an empty file, if its first line cannot be read."""
    line, _, data = stream.read().partition(b"\n")
    try:
        return str(json.loads(line)["validator"]), bytearray(data)
    except (ValueError, KeyError, TypeError):
        stream.seek(0)
        stream.truncate()
        return "", bytearray()
