"""What the file behind a ``file:`` URL answers, in the words of the client for HTTP."""

import os

from tasks.sources.imports import cifar, files, idx
from tasks.verdicts import Answer


def answer(url: str, etag: str | None, max_bytes: int) -> Answer:
    """The photo at ``url``, which ``files.file_url`` made; its ETag says when the file was written. Never raises."""
    try:
        path, record = files.path_and_record(url)
        now = state(path)
        if etag == now:
            return Answer(url, "not_modified", headers={"ETag": now})
        body = files.read_plain(path, max_bytes) if record is None else picture(path, record)
        return Answer(url, "ok", headers={"ETag": now}, body=body)
    except (OSError, ValueError, LookupError) as error:
        return Answer(url, files.outcome_of(error), detail=str(error))


def state(path: str) -> str:
    """What changes when the file at ``path`` is written."""
    found = os.lstat(path)
    return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'


def listed_state(url: str) -> str | None:
    """The ETag that ``answer`` would give for ``url`` now; None for what is no file here."""
    try:
        return state(files.path_and_record(url)[0]) if url.startswith("file:") else None
    except (OSError, ValueError):
        return None


def picture(path: str, number: int) -> bytes:
    """Picture ``number`` of the file at ``path``, as a PNG. Raises OSError, ValueError or LookupError."""
    if path.endswith(cifar.SUFFIX):
        return cifar.record(path, number)
    if path.endswith(idx.SUFFIXES):
        return idx.record(path, number)
    raise files.Refused("not a file that holds pictures")
