"""The laws of comparing two versions."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import snapshots
from storage.records import SCHEMAS

COLUMNS = ("title", "width", "tags", "sharpness", "split", "reason")
Rows = dict[str, dict[str, Any]]
photos = st.dictionaries(
    st.sampled_from("abcdef"),
    st.fixed_dictionaries({
        "title": st.sampled_from([None, "", "sea"]), "width": st.sampled_from([None, 0, 1]),
        "tags": st.sampled_from([None, [], ["x"], ["x", "y"]]), "sharpness": st.sampled_from([None, 0.0, 1.5]),
        "split": st.sampled_from([None, "train", "test"]), "reason": st.sampled_from([None, "small"]),
    }),
)  # fmt: skip


def table(rows: Rows) -> pa.Table:
    listed = [{"source": "s", "photo_id": key, "entropy": 1.0, **row} for key, row in rows.items()]
    return pa.Table.from_pylist(listed, schema=SCHEMAS["publish"])


@settings(max_examples=20, deadline=None)  # a new database each time
@given(photos, photos)
def test_a_diff_says_what_a_look_at_every_cell_says(old: Rows, new: Rows) -> None:
    """Photos that came, that went, and the columns of the others that differ; null is a value like any other."""
    found = {
        row["photo_id"]: (row["change"], set(row["columns"]))
        for row in snapshots.diff(table(old), table(new)).rows.to_pylist()
    }
    changed = {key: {name for name in COLUMNS if old[key][name] != new[key][name]} for key in old.keys() & new.keys()}
    expected: dict[str, tuple[str, set[str]]] = {key: ("added", set()) for key in new.keys() - old.keys()}
    expected |= {key: ("removed", set()) for key in old.keys() - new.keys()}
    expected |= {key: ("changed", names) for key, names in changed.items() if names}
    assert found == expected


@settings(max_examples=20, deadline=None)  # a new database each time
@given(photos)
def test_a_version_does_not_differ_from_itself(rows: Rows) -> None:
    """In whatever order its rows are."""
    assert snapshots.diff(table(rows), table(dict(reversed(rows.items())))).rows.num_rows == 0


hashes = st.lists(st.integers(0, 40) | st.integers(2**64 - 40, 2**64 - 1), unique=True).map(
    lambda values: np.array(values, np.uint64)
)


@given(hashes, hashes)
def test_what_stands_in_one_place_only_is_lonely(old: snapshots.Hashes, new: snapshots.Hashes) -> None:
    """On either side, and in order."""
    for places, own, other in zip(snapshots.lonely(old, new), (old, new), (new, old), strict=True):
        assert places.tolist() == [
            place for place, value in enumerate(own.tolist()) if value not in set(other.tolist())
        ]
