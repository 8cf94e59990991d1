"""Blobs: encoded pictures, immutable, named by the digest of their bytes."""

import hashlib
import os

from storage.errors import BlobCorrupt
from storage.layout import Layout, drafting

_REMEDY = "refresh its dataset with PREFECT_TASKS_REFRESH_CACHE=true to fetch and turn photos again"


def put(layout: Layout, data: bytes, image_format: str) -> str:
    """Keep ``data``; returns its sha256. Keeping the same bytes twice writes them once."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = layout.blob(sha256, image_format)
    if not path.is_file() or path.read_bytes() != data:  # a damaged one is healed
        with drafting(layout.partial) as part:  # one folder, so that what a killed process leaves is found
            part.write_bytes(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, path)
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
