"""What a dataset's report says of the version before: photos that came, went, changed or changed sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from storage import removals
from storage.layout import Layout
from storage.snapshots import Diff
from tasks.pages.page_charts import Bar, bars, words
from tasks.pages.page_galleries import Sheet, fate
from tasks.pages.page_rows import Row, number, rows
from tasks.pages.thumbnails import pictures

CHANGED_PHOTOS = 10  # a kind of change
REASONS_SHOWN = 12
_DERIVED = {"verdict", "reason", "reason_stage"}  # these have words of their own
KINDS = {
    "added": "Came and kept", "gone": "No longer there", "newly_kept": "Kept now, rejected before",
    "newly_rejected": "Rejected now, kept before", "moved": "Moved to another split",
}  # fmt: skip
_KIND = """
    case change
    when 'added' then case when verdict then 'added' else 'added_rejected' end
    when 'removed' then case when was_verdict then 'gone' else 'gone_rejected' end
    when 'taken_down' then 'taken_down'
    else case when verdict and not was_verdict then 'newly_kept'
              when was_verdict and not verdict then 'newly_rejected'
              when verdict and was_verdict and split <> was_split then 'moved' end
    end
"""


def changes(db: duckdb.DuckDBPyConnection, layout: Layout, diff: Diff) -> dict[str, Any]:
    """Numbers of photos by kind of change, changed columns, and photos of each kind. ``db`` has ``before``."""
    db.register("differing", diff.rows)
    db.execute(f"create or replace temp table changes as select *, {_KIND} as kind from differing")
    db.unregister("differing")
    counts = dict(db.execute("select kind, count(*) from changes where kind is not null group by 1").fetchall())
    return {
        "before": number(db, "select count(*) from before where verdict"),
        "now": number(db, "select count(*) from photos where verdict"),
        "counts": {kind: counts.get(kind, 0) for kind in (*KINDS, "added_rejected", "gone_rejected", "taken_down")},
        "columns": changed_columns(db),
        "reasons": new_reasons(db),
        "sheets": [sheet_of(db, layout, kind, counts[kind]) for kind in KINDS if kind in counts],
    }


def changed_columns(db: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    """Columns that differ in photos of both versions, with the number of these, the most first."""
    counts = db.execute("""
        select of_column, count(*) as photos from (select unnest(columns) as of_column from changes)
        group by 1 order by photos desc, 1
    """).fetchall()
    return [(words(name), photos) for name, photos in counts if name not in _DERIVED]


def new_reasons(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Why photos that were kept are rejected now."""
    counts = db.execute(f"""
        select reason, count(*) as photos, coalesce(min(reason_stage), '') from changes where kind = 'newly_rejected'
        group by 1 order by photos desc, 1 limit {REASONS_SHOWN}
    """).fetchall()
    return bars([(words(reason), photos, stage) for reason, photos, stage in counts], "rejected")


def sheet_of(db: duckdb.DuckDBPyConnection, layout: Layout, kind: str, count: int) -> Sheet:
    """Some of the ``count`` photos of one kind of change."""
    table = "before" if kind == "gone" else "photos"
    query = f"""
        select {table}.*, was_split, was_reason from {table} join changes using (source, photo_id)
        where kind = '{kind}' order by drawn limit {CHANGED_PHOTOS}
    """
    shown = allowed(layout, rows(db, query))
    return Sheet(KINDS[kind], count, pictures(layout, shown, [change_of(row, kind) for row in shown]))


def allowed(layout: Layout, shown: Sequence[Row]) -> list[Row]:
    """The photos of ``shown`` that nobody had removed: a page must not bring one back."""
    schema = pa.schema([(name, pa.string()) for name in removals.COLUMNS])
    mask = removals.blocked(layout).mask(pa.Table.from_pylist(list(shown), schema=schema))
    return [row for row, is_blocked in zip(shown, mask.to_pylist(), strict=True) if not is_blocked]


def change_of(row: Row, kind: str) -> str:
    """What changed about a photo, in a few words."""
    match kind:
        case "newly_rejected":
            return words(row["reason"])
        case "newly_kept":
            return f"was {words(row['was_reason'])}"
        case "moved":
            return f"from {row['was_split']} to {row['split']}"
    return fate(row) if kind == "added" else ""
