"""Groups whose name would tell of an owner who is gone, named anew.

A group is named by its smallest owner (``owner:source/owner_id``), so that owner stands in the rows of everybody else
in the group. Where no row of a version has that owner any more, the smallest owner or photo that is left names it. The
published versions say which name that is, and the ledger follows them: splits stay as they were given.
"""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage import catalog, ledger, manifest, removals
from storage.layout import Layout, replacing
from storage.records import SPLITS

OWNER = "owner:"
USED = ["source", "photo_id", "owner_id", "group_id", "verdict"]
_NAME = "case when coalesce(owner_id, '') <> '' then 'owner:' || source || '/' || owner_id end"
# By the photos that are kept, which lie in one file of a version: cut in between, the same names come out again.
_STALE = f"""
    with members as (select *, {_NAME} as name from rows where starts_with(group_id, 'owner:'))
    select group_id, coalesce(
        min(coalesce(name, 'photo:' || source || '/' || photo_id)) filter (verdict),
        min(coalesce(name, 'photo:' || source || '/' || photo_id))) as name
    from members group by group_id having not bool_or(coalesce(name = group_id, false)) order by group_id
"""
_FOLLOWED = """
    with latest as (
        select told.*, published.group_id as published,
               min('photo:' || source || '/' || photo_id) over (partition by told.version, told.group_id) as lone
        from told left join published using (source, photo_id, version))
    select distinct group_id, version, source, photo_id,
           coalesce(published, case when group_id in (select unnest($doomed)) then lone end) as name
    from latest where starts_with(group_id, 'owner:')
"""


def stale(rows: pa.Table) -> pa.Table:
    """group_id and the new ``name`` of the groups in ``rows`` (USED, of one version) whose naming owner has no row."""
    with duckdb.connect() as db:
        db.register("rows", rows.select(USED))
        return db.sql(_STALE).to_arrow_table()


def renamed(rows: pa.Table, names: pa.Table) -> pa.Table:
    """``rows`` with the groups of ``names`` (group_id, name) called by their new name."""
    found = pc.index_in(rows["group_id"], value_set=names["group_id"].combine_chunks(), skip_nulls=True)
    column = pc.coalesce(names["name"].take(found), rows["group_id"])
    return rows.set_column(rows.schema.get_field_index("group_id"), rows.schema.field("group_id"), column)


def doomed(layout: Layout) -> set[str]:
    """The names that groups have of removed owners."""
    table = removals.read(layout)
    table = table.filter(pc.and_(pc.is_valid(table["owner_id"]), pc.is_valid(table["source"])))
    table = table.filter(pc.and_(pc.is_null(table["photo_id"]), pc.is_null(table["sha256"])))
    pairs = zip(table["source"].to_pylist(), table["owner_id"].to_pylist(), strict=True)
    return {f"{OWNER}{source}/{owner}" for source, owner in pairs}


def follow(layout: Layout, dataset: str) -> int:
    """Give groups in the ledger of splits the names that the published versions have; how many files were written.

    Of a version that was deleted, groups of removed owners are named by their smallest photo. Files keep their names.
    """
    told = ledger.read(layout, dataset, "splits")
    if not told.num_rows:
        return 0
    with duckdb.connect() as db:
        db.register("told", told)
        db.register("published", _published(layout, dataset, told))
        found = db.sql(_FOLLOWED, params={"doomed": sorted(doomed(layout))}).to_arrow_table()
    return sum(_rewritten(file, found) for file in ledger.files(layout, dataset, "splits"))


def _published(layout: Layout, dataset: str, told: pa.Table) -> pa.Table:
    """Key, version and group of the photos in the versions that ``told`` speaks of and that are there."""
    known = set(told["version"].unique().to_pylist())
    schema = pa.schema([(name, pa.string()) for name in ("source", "photo_id", "group_id")])
    tables = [schema.append(pa.field("version", pa.int32())).empty_table()]
    for version in (version for version in catalog.versions(layout, dataset) if version in known):
        for split in SPLITS:
            rows = manifest.read_file(layout.snapshot(dataset, version) / f"{split}.parquet").select(schema.names)
            tables.append(rows.append_column("version", pa.array([version] * rows.num_rows, pa.int32())))
    return pa.concat_tables(tables)


def _rewritten(file: Path, found: pa.Table) -> bool:
    """Whether a file of the ledger called a group otherwise than ``found`` (its key, group_id, name), and now does."""
    rows = manifest.read_file(file)
    with duckdb.connect() as db:
        db.register("rows", rows)
        db.register("found", found)
        table = db.sql("""
            select rows.* replace (coalesce(name, group_id) as group_id)
            from rows left join found using (source, photo_id, version, group_id)
            order by source, photo_id, rules, version
        """).to_arrow_table().cast(rows.schema)  # fmt: skip
        [(changed,)] = db.sql("""
            select count(*) from rows join found using (source, photo_id, version, group_id) where name <> group_id
        """).fetchall()
    if changed:
        with replacing(file) as part:
            manifest.write_parquet(part, table, "splits")
    return bool(changed)
