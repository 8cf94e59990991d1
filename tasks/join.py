"""Join what the stages wrote into one table with a verdict for every photo."""

from __future__ import annotations

import duckdb
from prefect import task

from storage import streaming
from storage.layout import layout
from storage.records import SCHEMAS, ManifestRef
from tasks import caching

REASON_STAGES = ("download", "measure", "filter", "rotate", "dedup", "labels", "split")
DERIVED = ("verdict", "reason", "reason_stage")


def join(db: duckdb.DuckDBPyConnection, locations: bool) -> duckdb.DuckDBPyRelation:
    """One row per photo ever found, by key: all columns of all stages, verdict, and the first reason that a stage gave.

    ``db`` has a view by the name of each stage: facts, measure, filter, rotate, dedup, labels, split and decided.
    """
    columns = [name for name in SCHEMAS["publish"].names if name not in DERIVED]
    first = ", ".join(f"{stage}_reason" for stage in REASON_STAGES)
    which = " ".join(f"when {stage}_reason is not null then '{stage}'" for stage in REASON_STAGES)
    return db.sql(f"""
        with joined as (
            select * replace (
                {"latitude" if locations else "null::double"} as latitude,
                {"longitude" if locations else "null::double"} as longitude,
                case when sha256 is null then coalesce(download_reason, 'not_downloaded') end as download_reason)
            from facts
            left join (select * exclude (sha256, format) from measure) using (source, photo_id)
            left join "filter" using (source, photo_id)
            left join rotate using (source, photo_id)
            left join dedup using (source, photo_id)
            left join labels using (source, photo_id)
            left join split using (source, photo_id)
            left join decided using (source, photo_id))
        select {", ".join(columns)}, coalesce({first}) as reason, reason is null as verdict,
               case {which} end as reason_stage
        from joined order by source, photo_id
    """)


@task(**caching.stage("join"))
def join_photos(
    facts: ManifestRef, measured: list[ManifestRef], filtered: ManifestRef, rotated: list[ManifestRef],
    deduped: ManifestRef, labels: ManifestRef, splits: ManifestRef, decided: ManifestRef, locations: bool,
) -> ManifestRef:  # fmt: skip
    """The table that a snapshot consists of."""
    stages: dict[str, ManifestRef | list[ManifestRef]] = {
        "facts": facts, "measure": measured, "filter": filtered, "rotate": rotated, "dedup": deduped, "labels": labels,
        "split": splits, "decided": decided,
    }  # fmt: skip
    with streaming.database(layout(), **stages) as db:
        return streaming.write(layout(), "publish", join(db, locations))
