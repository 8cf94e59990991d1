"""Blobs: encoded pictures, immutable, named by the digest of their bytes."""

import hashlib

from storage.errors import BlobCorrupt
from storage.layout import Layout, write_bytes

_REMEDY = "refresh its dataset with PREFECT_TASKS_REFRESH_CACHE=true to fetch and turn photos again"


def put(layout: Layout, data: bytes, image_format: str) -> str:
    """Keep ``data``; returns its sha256. Keeping the same bytes twice writes them once."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = layout.blob(sha256, image_format)
    if not path.is_file() or path.read_bytes() != data:  # a damaged one is healed
        write_bytes(path, data)
    return sha256


def get(layout: Layout, sha256: str, image_format: str) -> bytes:
    """The bytes named ``sha256``; raises BlobCorrupt if they are missing or others."""
    path = layout.blob(sha256, image_format)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BlobCorrupt(f"the blob {sha256[:12]} is missing below {str(layout.root)!r}: {_REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BlobCorrupt(
            f"the blob {str(path)!r} does not have the bytes that its name promises: delete it; {_REMEDY}"
        )
    return data
