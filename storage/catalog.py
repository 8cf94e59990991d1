"""Questions over all that is kept, answered by an in-memory DuckDB. No database file is shared between processes.

Sources of truth are the Parquet files of ledgers and snapshots; every function reads them anew.
"""

import json
from datetime import datetime

import duckdb
import pyarrow as pa

from storage import ledger
from storage.errors import SnapshotMissing
from storage.layout import Layout
from storage.records import SCHEMAS

_LATEST_LISTING = """
    select * from listings qualify row_number() over (
        partition by source, photo_id order by observed_at desc, query_id) = 1
"""
_LATEST_ATTEMPT = """
    select * from attempts qualify row_number() over (
        partition by source, photo_id order by attempt desc, fetched_at desc) = 1
"""


def connect(layout: Layout, dataset: str) -> duckdb.DuckDBPyConnection:
    """A database of listings and attempts, with the views photos (latest facts) and fetched (latest attempt)."""
    db = duckdb.connect()
    for kind in ("listings", "attempts"):
        db.register(f"{kind}_arrow", ledger.read(layout, dataset, kind))
        db.execute(f"create table {kind} as select * from {kind}_arrow")
        db.unregister(f"{kind}_arrow")
    db.execute(f"create view photos as {_LATEST_LISTING}")
    db.execute(f"create view fetched as {_LATEST_ATTEMPT}")
    return db


def wanted(layout: Layout, dataset: str, now: datetime) -> pa.Table:
    """Photos that were found and are not held: never asked for, lost, or due for another try at ``now``.

    Schema "wanted"; ``attempt`` counts the tries before.
    """
    query = """
        select p.source, p.photo_id, coalesce(f.attempt + 1, 0) as attempt,
               case when p.image_url is null then p.fallbacks
                    else list_prepend({'label': p.size_label, 'url': p.image_url}, coalesce(p.fallbacks, []))
               end as renditions
        from photos p left join fetched f using (source, photo_id)
        where f.photo_id is null or (f.sha256 is null and f.next_try_at <= $now)
           or (p.source, p.photo_id) in (select (source, photo_id) from lost)
        order by 1, 2
    """
    gone = lost(layout, held(layout, dataset))
    with connect(layout, dataset) as db:
        db.register("lost", gone)
        return db.sql(query, params={"now": now}).to_arrow_table().cast(SCHEMAS["wanted"])


def lost(layout: Layout, held: pa.Table) -> pa.Table:
    """The rows of ``held`` whose bytes are no longer there."""
    return held.filter(
        pa.array([not layout.blob(row["sha256"], row["format"]).is_file() for row in held.to_pylist()], pa.bool_())
    )


def held(layout: Layout, dataset: str) -> pa.Table:
    """The photos whose bytes are kept. Schema "held"."""
    with connect(layout, dataset) as db:
        rows = db.sql("select source, photo_id, sha256, format from fetched where sha256 is not null order by 1, 2")
        return rows.to_arrow_table().cast(SCHEMAS["held"])


def owners(layout: Layout, dataset: str) -> pa.Table:
    """Owner and label of every photo that was found. Schema "owners"."""
    with connect(layout, dataset) as db:
        rows = db.sql("select source, photo_id, owner_id, label from photos order by 1, 2")
        return rows.to_arrow_table().cast(SCHEMAS["owners"])


def facts(layout: Layout, dataset: str) -> pa.Table:
    """What the source says of every photo that was found, and how its last download ended. Schema "facts"."""
    schema = SCHEMAS["facts"]
    query = f"select {', '.join(schema.names)} from photos left join fetched using (source, photo_id) order by 1, 2"
    with connect(layout, dataset) as db:
        return db.sql(query).to_arrow_table().cast(schema)


def versions(layout: Layout, dataset: str) -> list[int]:
    """The published versions of a dataset, oldest first."""
    cards = layout.dataset(dataset).glob("snapshots/[0-9]*/snapshot.json")  # not the hidden drafts of a publish
    return sorted(int(card.parent.name) for card in cards)


def resolve(layout: Layout, snapshot: str) -> tuple[str, int]:
    """(dataset, version) of ``name`` (its latest version) or ``name@version``; raises SnapshotMissing."""
    name, _, version = snapshot.partition("@")
    known = versions(layout, name)
    if not known:
        raise SnapshotMissing(
            f"the dataset {name!r} has no snapshot below {str(layout.root)!r}: refresh it first, for instance with "
            f"prefect deployment run 'refresh-dataset/{name}'"
        )
    if version and (not version.isdigit() or int(version) not in known):
        raise SnapshotMissing(f"the dataset {name!r} has no version {version!r}; it has {known}")
    return name, int(version) if version else known[-1]


def card(layout: Layout, dataset: str, version: int) -> dict[str, object]:
    """The ``snapshot.json`` of a published version."""
    text = (layout.snapshot(dataset, version) / "snapshot.json").read_text()
    return dict(json.loads(text))
