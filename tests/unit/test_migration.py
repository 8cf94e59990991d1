"""Rows of older schemas, brought to today's."""

from typing import Any

import pyarrow as pa
import pytest

from storage import migration
from storage.errors import SchemaMismatch
from storage.records import SCHEMA_VERSION, SCHEMAS

NEW_IN_2 = migration.NEW_COLUMNS[2]


def old_rows(**columns: Any) -> pa.Table:
    return pa.table({"source": ["flickr"], "photo_id": ["1"], **columns})


def test_what_was_not_known_then_is_null() -> None:
    """Columns come out as today's schema has them, in its order and types; what was known stays."""
    table = migration.migrate("measure", old_rows(width=pa.array([1500], pa.int32())), 1)
    assert table.schema.equals(SCHEMAS["measure"])
    assert table["width"].to_pylist() == [1500]
    assert table["entropy"].to_pylist() == [None]


def test_what_is_not_known_any_more_is_left_out() -> None:
    """Version 1 kept the label of a photo beside its owner."""
    table = migration.migrate("owners", old_rows(owner_id=["ann"], label=["sea"]), 1)
    assert table.to_pylist() == [{"source": "flickr", "photo_id": "1", "owner_id": "ann"}]


def test_rows_of_today_are_left_alone() -> None:
    """Whatever columns were asked for."""
    table = old_rows()
    assert migration.migrate("publish", table, SCHEMA_VERSION) is table


def test_a_newer_schema_is_refused() -> None:
    """With what to do."""
    with pytest.raises(SchemaMismatch, match="written by a newer one; update"):
        migration.migrate("publish", old_rows(), SCHEMA_VERSION + 1)


def test_every_version_has_its_step() -> None:
    """And says which columns it brought, all of which are in a schema."""
    assert set(migration.STEPS) == set(range(1, SCHEMA_VERSION))
    assert set(migration.NEW_COLUMNS) == set(range(2, SCHEMA_VERSION + 1))
    assert set().union(*migration.NEW_COLUMNS.values()) <= set(SCHEMAS["publish"].names)


def test_rows_from_before_a_schema_are_told_from_rows_without_a_value() -> None:
    """One value of one of its columns is enough."""
    old = migration.migrate("publish", old_rows(), 1)
    assert migration.unknown_columns(old) == NEW_IN_2
    place = old.schema.get_field_index("entropy")
    assert migration.unknown_columns(old.set_column(place, "entropy", pa.array([7.5], pa.float32()))) == set()
