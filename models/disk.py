"""Files that are whole or not there: written aside, brought to the disk, then named. A full disk is ``DiskFull``."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import DiskFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no space, no quota, or a limit on the size of a file


@contextmanager
def noticing_a_full_disk(path: Path) -> Iterator[None]:
    """Turn the errors of writing to a full disk into ``DiskFull``, which names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        message = (
            f"no room to write {path} ({error.strerror}): free some and run again;"
            " what was saved before is whole, and training goes on from there"
        )
        raise DiskFull(message, path=str(path)) from error


def write(path: Path, content: bytes) -> None:
    """Write ``content`` and bring it to the disk before returning."""
    with noticing_a_full_disk(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Make ``content`` the file's content at once, so that a reader, or a crash, never sees half of it."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        write(fresh, content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk: without it, a renaming may be lost when the power goes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with noticing_a_full_disk(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
