"""Questions over all that is kept, answered by an in-memory DuckDB. No database file is shared between processes.

Sources of truth are the Parquet files of ledgers and snapshots; every function reads them anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage import ledger, removals
from storage.errors import SnapshotMissing
from storage.layout import Layout
from storage.records import SCHEMAS
from storage.signatures import unsigned

JPEG_BYTES_PER_PIXEL = 0.36  # 700,000 originals of about 20 megapixels are about 5 TB
LOOK_AGAIN_AT_URL = timedelta(days=90)  # a table's address may lead to another picture by then
QUARANTINED = "coalesce(licence, '') like 'unknown:%'"  # an id that the site itself does not list
_NOT_AHEAD = "<= now() + interval 1 day"  # what was written later than now was written under a clock that was ahead
# What changes with the photo is as it was seen last, whichever query saw it. What a query says of it does not depend on
# which was asked last: the label is that of the first query of the dataset that has one, and the file is the largest.
_FOUND = f"""
    with newest as (
        select * from listings qualify row_number() over (
            partition by source, photo_id order by observed_at {_NOT_AHEAD} desc, observed_at desc, query_id) = 1),
    several as (select source, photo_id from listings group by all having count(distinct query_id) > 1),
    by_query as (
        select source, photo_id, query_id, label, image_url, size_label, listed_width, listed_height, fallbacks,
               listed_etag, is_open, observed_at
        from listings semi join several using (source, photo_id) qualify row_number() over (
            partition by source, photo_id, query_id order by observed_at {_NOT_AHEAD} desc, observed_at desc) = 1),
    said as (
        select source, photo_id,
               arg_min(label, struct_pack(place := coalesce(place, 1e9), query_id)) filter (label is not null) as label,
               arg_max(struct_pack(image_url, size_label, listed_width, listed_height, fallbacks, listed_etag, is_open),
                       struct_pack(is_asked := place is not null,
                                   px := coalesce(listed_width::bigint * listed_height, 0),
                                   observed_at, query_id)) filter (image_url is not null) as file
        from by_query left join query_order using (query_id) group by all)
    select newest.* replace (
        coalesce(said.label, newest.label) as label,
        case when file is null then newest.image_url else file.image_url end as image_url,
        case when file is null then newest.size_label else file.size_label end as size_label,
        case when file is null then newest.listed_width else file.listed_width end as listed_width,
        case when file is null then newest.listed_height else file.listed_height end as listed_height,
        case when file is null then newest.fallbacks else file.fallbacks end as fallbacks,
        case when file is null then newest.listed_etag else file.listed_etag end as listed_etag,
        case when file is null then newest.is_open else file.is_open end as is_open)
    from newest left join said using (source, photo_id)
"""
_LATEST_ATTEMPT = """
    select * from attempts qualify row_number() over (
        partition by source, photo_id order by attempt desc, fetched_at desc) = 1
"""
_FIRST_HELD = """
    select source, photo_id, min(fetched_at) as fetched_at from attempts where sha256 is not null group by all
"""
_LICENCES_SEEN = """
    select source, photo_id, observed_at, licence, licence_url from listings where licence is not null
    union all select source, photo_id, checked_at, licence, licence_url from checks where licence is not null
"""
_WANTED = f"""
    with offered as (
        select *, case when image_url is null then [] else list_prepend({{'label': size_label, 'url': image_url}},
                       coalesce(fallbacks, [])) end as renditions
        from photos where not {QUARANTINED}),
    signed_anew as (  -- by a table, since its address was refused: 500px's are renewed by id
        select source, photo_id from photos join fetched using (source, photo_id)
        where source = 'table' and download_reason = 'denied' and not exists (
            select 1 from listings before where before.source = 'table' and before.photo_id = photos.photo_id
                   and before.image_url = photos.image_url and before.observed_at <= fetched_at)),
    forbidden as (  -- by what the owner said last: an attempt that failed, and a site that is away, say nothing of it
        select source, photo_id from (
            select source, photo_id, fetched_at as said_at, download_reason is null as may from attempts
            where download_reason is null or download_reason = 'not_downloadable'
            union all
            select source, photo_id, checked_at, is_download_allowed from checks
            where state = 'present' and is_download_allowed is not null)
        where not may or said_at <= $now + interval 1 day
        group by all having not arg_max(may, said_at)),
    looked_at as (
        select o.*, f.* exclude (source, photo_id), f.photo_id is null as is_new,
               (o.source, o.photo_id) in (select (source, photo_id) from lost) as is_lost,
               -- an address that was asked for and is offered no more leads to another file now; 500px has new ones
               -- for the same file each time
               o.source <> '500px' and f.sha256 is not null and f.fetched_url is not null
                   and not list_contains([regexp_replace(regexp_extract(r.url, '^[^?#]*'),
                                                         '^([A-Za-z][A-Za-z0-9+.-]*:)?//[^/]*@', '\\1//')
                                          for r in renditions], f.fetched_url)
                   or o.listed_etag is not null and o.listed_etag is distinct from f.etag as is_replaced,
               (o.source, o.photo_id) in (select (source, photo_id) from signed_anew) as is_signed_anew,
               o.source = 'table' and f.etag is not null and f.fetched_at <= $look_again as is_old
        from offered o left join fetched f using (source, photo_id))
    select source, photo_id, owner_id,
           -- whoever forbade downloads is asked anew, however open the photo was when it was listed
           case when (source, photo_id) in (select (source, photo_id) from forbidden) then false else is_open
           end as is_open,
           coalesce(attempt + 1, 0) as attempt, renditions,
           case when is_old and not is_lost and not is_replaced then etag end as etag, sha256, format, bytes
    from looked_at
    where is_new or is_lost or is_signed_anew or (is_replaced and len(renditions) > 0) or is_old
       -- what was tried later than now was tried under a clock that was ahead
       or next_try_at <= $now or (next_try_at is not null and fetched_at > $now)
    order by source, photo_id
"""


@contextmanager
def connect(layout: Layout, dataset: str, queries: Sequence[str] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of the ledger without what was removed. ``queries``: ids of the dataset's queries, in their order.

    Views: ``listings``, ``windows``, ``attempts``, ``checks`` (as written), ``photos`` (latest facts) and ``fetched``
    (latest attempt).
    """
    with duckdb.connect() as db:
        db.execute("set preserve_insertion_order = false; set timezone = 'UTC'")
        places = pa.array(range(len(queries)), pa.int32())
        db.register("query_order", pa.table({"query_id": pa.array(queries, pa.string()), "place": places}))
        for kind in ledger.KINDS:
            _see(db, layout, dataset, kind)
        db.register("gone", pa.table({"source": pa.array([], pa.string()), "photo_id": pa.array([], pa.string())}))
        db.execute(f"create view found as {_FOUND}")
        db.execute(f"create view fetched as {_LATEST_ATTEMPT}")
        if blocked := removals.blocked(layout):
            keys = db.sql("""
                select distinct source, photo_id, owner_id, sha256
                from listings left join fetched using (source, photo_id)
            """).to_arrow_table()
            db.unregister("gone")
            db.register("gone", keys.filter(blocked.mask(keys)).select(["source", "photo_id"]))
        db.execute("create view photos as select * from found anti join gone using (source, photo_id)")
        yield db


def _see(db: duckdb.DuckDBPyConnection, layout: Layout, dataset: str, kind: str) -> None:
    """A view of all rows of one kind, read from its files when it is asked; columns that came later are null."""
    db.register(f"no_{kind}", SCHEMAS[kind].empty_table())
    files = [str(file) for file in ledger.files(layout, dataset, kind)]
    rows = f"select * from no_{kind}"
    if files:
        names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        rows += (
            f" union all by name select * from read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
        )
    db.execute(f"create view {kind} as {rows}")


@ledger.beside_others
def wanted(layout: Layout, dataset: str, now: datetime, queries: Sequence[str] = ()) -> pa.Table:
    """Photos that were found and are not held: never asked for, lost, replaced, or due for another try at ``now``.

    Schema "wanted"; ``attempt`` counts the tries before. A photo whose licence nobody explains is not wanted.
    """
    gone = lost(layout, held(layout, dataset))
    with connect(layout, dataset, queries) as db:
        db.register("lost", gone)
        rows = db.sql(_WANTED, params={"now": now, "look_again": now - LOOK_AGAIN_AT_URL})
        return rows.to_arrow_table().cast(SCHEMAS["wanted"])


def lost(layout: Layout, held: pa.Table) -> pa.Table:
    """The rows of ``held`` whose bytes are no longer there."""
    names = zip(held["sha256"].to_pylist(), held["format"].to_pylist(), strict=True)
    return held.filter(pa.array([not layout.blob(*name).is_file() for name in names], pa.bool_()))


@ledger.beside_others
def held(layout: Layout, dataset: str) -> pa.Table:
    """The photos whose bytes are kept. Schema "held"."""
    with connect(layout, dataset) as db:
        rows = db.sql("""
            select source, photo_id, sha256, format
            from fetched semi join listings using (source, photo_id) anti join gone using (source, photo_id)
            where sha256 is not null order by 1, 2
        """)
        return rows.to_arrow_table().cast(SCHEMAS["held"])


@ledger.beside_others
def owners(layout: Layout, dataset: str, queries: Sequence[str] = ()) -> pa.Table:
    """The owner of every photo that was found. Schema "owners"."""
    with connect(layout, dataset, queries) as db:
        rows = db.sql("select source, photo_id, owner_id from photos order by 1, 2")
        return rows.to_arrow_table().cast(SCHEMAS["owners"])


@ledger.beside_others
def tagged(layout: Layout, dataset: str, queries: Sequence[str] = ()) -> pa.Table:
    """Tags, and the label that a query gives, of every photo that was found. Schema "tagged"."""
    with connect(layout, dataset, queries) as db:
        rows = db.sql("select source, photo_id, tags, label from photos order by 1, 2")
        return rows.to_arrow_table().cast(SCHEMAS["tagged"])


@ledger.beside_others
def facts(layout: Layout, dataset: str, queries: Sequence[str] = ()) -> pa.Table:
    """What the source says of every photo that was found, and how its last download ended. Schema "facts".

    ``licence`` is the one under which the file was downloaded; ``licence_now`` is null unless it has another since. A
    path on this machine is no address.
    """
    schema = SCHEMAS["facts"]
    derived = {"licence", "licence_url", "licence_now", "download_reason", "image_url"}
    columns = ", ".join(name for name in schema.names if name not in derived)
    query = f"""
        with seen as ({_LICENCES_SEEN}), held as ({_FIRST_HELD}),
        now as (select source, photo_id, arg_max(licence, observed_at) as licence_now from seen group by all),
        then_held as (
            select held.source, held.photo_id, coalesce(arg_max(licence, observed_at)
                       filter (observed_at <= fetched_at), arg_min(licence, observed_at)) as licence_then,
                   coalesce(arg_max(licence_url, observed_at) filter (observed_at <= fetched_at),
                       arg_min(licence_url, observed_at)) as licence_url_then
            from held join seen using (source, photo_id) group by all)
        select {columns}, coalesce(licence_then, licence) as licence,
               -- a signature is secret, is another one each time, and ends: with it no refresh would be without news
               case when source = '500px' then regexp_extract(image_url, '^[^?#]*')
                    when source = 'table' and image_url not like 'file:%' then unsigned(image_url)
                    when image_url not like 'file:%' then image_url end as image_url,
               case when licence_then is null then licence_url else licence_url_then end as licence_url,
               case when licence_now <> licence_then then licence_now end as licence_now,
               case when sha256 is null and {QUARANTINED} then 'unknown_licence' else download_reason
               end as download_reason
        from photos left join fetched using (source, photo_id) left join then_held using (source, photo_id)
             left join now using (source, photo_id)
        order by source, photo_id
    """
    with connect(layout, dataset, queries) as db:
        db.create_function("unsigned", unsigned)
        return db.sql(query).to_arrow_table().select(schema.names).cast(schema)


@ledger.beside_others
def asked(layout: Layout, dataset: str) -> dict[str, list[dict[str, Any]]]:
    """The window rows of every query by its id, oldest first."""
    with connect(layout, dataset) as db:
        rows = db.sql("select * from windows order by asked_at").to_arrow_table().to_pylist()
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["query_id"], []).append(row)
    return found


@ledger.beside_others
def sightings(layout: Layout, dataset: str) -> dict[str, list[tuple[datetime, datetime]]]:
    """(uploaded_at, last observed_at) of every photo that a query has found, by the query's id."""
    with connect(layout, dataset) as db:
        rows = db.sql(f"""
            select query_id, uploaded_at,
                   coalesce(max(observed_at) filter (observed_at {_NOT_AHEAD}), min(uploaded_at)) as seen_at
            from listings anti join gone using (source, photo_id)
            where uploaded_at is not null group by query_id, source, photo_id, uploaded_at
        """).to_arrow_table()
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for query_id in rows["query_id"].unique().to_pylist():
        of_query = rows.filter(pc.equal(rows["query_id"], query_id))
        found[query_id] = list(zip(of_query["uploaded_at"].to_pylist(), of_query["seen_at"].to_pylist(), strict=True))
    return found


@ledger.beside_others
def known(layout: Layout, dataset: str) -> pa.Table:
    """The keys of all photos that were found. Schema "known"."""
    with connect(layout, dataset) as db:
        rows = db.sql("select distinct source, photo_id from listings anti join gone using (source, photo_id)")
        return rows.to_arrow_table().cast(SCHEMAS["known"])


@ledger.beside_others
def expected_bytes(layout: Layout, dataset: str, wanted: pa.Table) -> float:
    """What the files of ``wanted`` take, judged by their announced sizes and by what the files that are held took."""
    with connect(layout, dataset) as db:
        db.register("wanted", wanted)
        held = """
            select sum(bytes) / sum(listed_width::bigint * listed_height)
            from photos join fetched using (source, photo_id)
            where bytes is not null and size_label = fetched_label and listed_width * listed_height > 0
        """
        pixels = """
            select sum(listed_width::bigint * listed_height) from photos semi join wanted using (source, photo_id)
        """
        [(per_pixel, area)] = db.sql(f"select ({held}), ({pixels})").fetchall()
    return float(area or 0) * float(per_pixel or JPEG_BYTES_PER_PIXEL)


def versions(layout: Layout, dataset: str) -> list[int]:
    """The published versions of a dataset, oldest first."""
    cards = layout.dataset(dataset).glob("snapshots/[0-9]*/snapshot.json")  # not the hidden drafts of a publish
    return sorted(int(card.parent.name) for card in cards if card.parent.name.isdecimal())


def resolve(layout: Layout, snapshot: str) -> tuple[str, int]:
    """(dataset, version) of ``name`` (its newest version), ``name@3``, ``name@2026-11-01`` (the newest one published
    until the end of that day, UTC) or ``name@2026-11-01T12:00:00Z`` (until that moment). Raises SnapshotMissing."""
    name, _, asked = snapshot.partition("@")
    known = versions(layout, name)
    if not known:
        raise SnapshotMissing(
            f"the dataset {name!r} has no snapshot below {str(layout.root)!r}: refresh it first, for instance with "
            f"prefect deployment run 'refresh-dataset/{name}'"
        )
    if not asked or (asked.isdecimal() and int(asked) in known):
        return name, int(asked) if asked else known[-1]
    moment = None if asked.isdecimal() else _moment(asked)
    if moment is None:
        raise SnapshotMissing(
            f"the dataset {name!r} has no version {asked!r}; it has {known}, and takes dates like {name}@2026-11-01 too"
        )
    dated = [(published_at(layout, name, version), version) for version in known]
    until_then = [version for published, version in dated if published <= moment]
    if not until_then:
        first, version = min(dated)
        raise SnapshotMissing(
            f"the dataset {name!r} had no version at {asked}: version {version} is of {first:%Y-%m-%d %H:%M} UTC"
        )
    return name, until_then[-1]


def _moment(text: str) -> datetime | None:
    """The moment that a date (its end) or a time (UTC unless it says otherwise) means; None if it is neither."""
    try:
        if len(text) == len("2026-11-01"):
            return datetime.combine(date.fromisoformat(text), time.max, UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def published_at(layout: Layout, dataset: str, version: int) -> datetime:
    """When a version was published."""
    return datetime.fromisoformat(str(card(layout, dataset, version)["created_at"])).astimezone(UTC)


def card(layout: Layout, dataset: str, version: int) -> dict[str, object]:
    """The ``snapshot.json`` of a published version."""
    text = (layout.snapshot(dataset, version) / "snapshot.json").read_text()
    return dict(json.loads(text))
