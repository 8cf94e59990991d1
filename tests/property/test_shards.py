"""Laws of shards."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from storage.shards import shards

KEYS = st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), max_size=120)


def table(keys: set[str] | list[str]) -> pa.Table:
    return pa.table({"source": ["flickr"] * len(keys), "photo_id": pa.array(sorted(keys), pa.string())})


def by_prefix(keys: set[str] | list[str], capacity: int) -> dict[str, set[str]]:
    return {prefix: set(rows["photo_id"].to_pylist()) for prefix, rows in shards(table(keys), capacity)}


@given(KEYS, st.integers(1, 20))
def test_shards_are_a_partition(keys: set[str], capacity: int) -> None:
    """Every photo lies in exactly one shard, and none is above its capacity."""
    parts = list(by_prefix(keys, capacity).values())
    assert sorted(key for part in parts for key in part) == sorted(keys)
    assert all(0 < len(part) <= capacity for part in parts)


@given(KEYS, st.text("xyz", min_size=7, max_size=9), st.integers(2, 20))
def test_a_new_photo_touches_one_shard(keys: set[str], newcomer: str, capacity: int) -> None:
    """All shards but the newcomer's are the same as before it came; its own grew by it, or split."""
    before, after = by_prefix(keys, capacity), by_prefix(keys | {newcomer}, capacity)
    changed = {prefix for prefix in before if after.get(prefix) != before[prefix]}
    assert len(changed) <= 1
