"""Shards: fixed prefixes of a hash of the photo key, so that a new photo touches one shard and moves no other photo.

A shard that is full splits in two by one more bit; all the others stay as they are.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HASH_BITS = 64


def key_hashes(table: pa.Table) -> npt.NDArray[np.uint64]:
    """The first 64 bits of sha256 of ``source/photo_id``, for each row."""
    keys = zip(table["source"].to_pylist(), table["photo_id"].to_pylist(), strict=True)
    return np.array([_hash(f"{source}/{photo_id}") for source, photo_id in keys], dtype=np.uint64)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[: HASH_BITS // 8], "big")


def shards(table: pa.Table, capacity: int) -> Iterator[tuple[str, pa.Table]]:
    """(prefix in binary digits, its rows) of every shard of ``table``, none above ``capacity`` rows, none empty."""
    hashes = key_hashes(table)
    open_shards = [("", np.arange(len(hashes)))]
    while open_shards:
        prefix, rows = open_shards.pop()
        if len(rows) > capacity and len(prefix) < HASH_BITS:
            bit = (hashes[rows] >> np.uint64(HASH_BITS - 1 - len(prefix))) & np.uint64(1)
            open_shards += [(prefix + "1", rows[bit == 1]), (prefix + "0", rows[bit == 0])]
        elif len(rows):
            yield prefix or "all", table.take(pa.array(rows))
