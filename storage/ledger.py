"""The ledger of a dataset: what was listed, asked, tried and checked. Append-only Parquet files, named by digest."""

import os
import shutil
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage import manifest
from storage.layout import Layout, drafting, replacing
from storage.records import SCHEMAS, ManifestRef

KINDS = ("listings", "windows", "attempts", "checks", "overrides", "splits")
P = ParamSpec("P")
T = TypeVar("T")
WAITS_S = (0.05, 0.1, 0.2, 0.4)  # before reading once more what others put together: their old files go one by one
MANY_FILES = 128  # of one kind; a year of weekly refreshes would leave thousands


def beside_others(read: Callable[P, T]) -> Callable[P, T]:
    """``read``, which lists files and reads them, once more if somebody has put them together or rewritten them
    meanwhile: what they said stands in a new file by then.
    """

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        for wait_s in WAITS_S:
            try:
                return read(*args, **kwargs)
            except (FileNotFoundError, duckdb.IOException):
                time.sleep(wait_s)
        return read(*args, **kwargs)

    return reading


def adopt(layout: Layout, dataset: str, ref: ManifestRef) -> bool:
    """Add the rows of ``ref`` to the ledger of ``dataset``; False if they are in it already, or are none."""
    target = layout.ledger(dataset, ref.stage) / f"{ref.sha256}.parquet"
    if target.is_file() or not ref.rows:
        return False
    source = manifest.path(layout, ref)
    with replacing(target) as part:
        shutil.copyfile(source, part)
    return True


def files(layout: Layout, dataset: str, kind: str) -> list[Path]:
    """The files that hold the rows of one kind."""
    return sorted(layout.ledger(dataset, kind).glob("*.parquet"))


@beside_others
def read(layout: Layout, dataset: str, kind: str) -> pa.Table:
    """All rows of one kind, in no order; columns that came later are null in rows written before."""
    tables = [pq.read_table(file, partitioning=None) for file in files(layout, dataset, kind)]
    whole = pa.concat_tables([SCHEMAS[kind].empty_table(), *tables], promote_options="default")
    return whole.select(SCHEMAS[kind].names)


def compact(layout: Layout, dataset: str) -> int:
    """Put the files of a kind that has many into one; how many were replaced. Nobody else may write meanwhile.

    Rows that are there twice remain once, and of listings that say the same of a photo time after time remain the
    first and the last. Interrupted, it leaves rows twice, which says no more than once.
    """
    replaced = 0
    for kind in KINDS:
        old = files(layout, dataset, kind)
        if len(old) > MANY_FILES:
            whole = _write_compacted(layout, dataset, kind)
            for path in old:
                if path != whole:
                    path.unlink()
                    replaced += 1
    return replaced


def _write_compacted(layout: Layout, dataset: str, kind: str) -> Path:
    """The file of all rows of ``kind`` that say something of their own."""
    said = ", ".join(name for name in SCHEMAS[kind].names if name != "observed_at")
    query = "select distinct * from rows"
    if kind == "listings":
        query = f"""
            with said as (select *, hash({said}) as what from (select distinct * from rows)),
            around as (select *, lag(what) over day as before, lead(what) over day as after from said
                       window day as (partition by source, photo_id, query_id order by observed_at))
            select * exclude (what, before, after) from around
            where what is distinct from before or what is distinct from after
        """
    with duckdb.connect() as db, drafting(layout.ledger(dataset, kind)) as part:
        db.register("rows", read(layout, dataset, kind))
        table = manifest.conform(kind, db.sql(query).to_arrow_table())
        manifest.write_parquet(part, table, kind)
        whole = part.with_name(f"{manifest.sha256_file(part)}.parquet")
        os.replace(part, whole)
    return whole
