"""In which split each photo was published: what was given once stays given.

The published versions themselves say so. The ledger keeps the same rows, so that a refresh reads the newest versions
only and an old one may be deleted; what it lacks, because it was lost or a run was cut after publishing, is read from
the versions again. Of several the latest version counts; under other rules photos are given anew.
"""

import hashlib
import json
from collections.abc import Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage import catalog, ledger, manifest
from storage.layout import Layout
from storage.records import SCHEMAS, SPLITS

_LATEST = """
    select distinct on (source, photo_id, rules) source, photo_id, group_id, split, rules, version
    from told order by source, photo_id, rules, version desc, split, group_id
"""


def rules_digest(rules: Mapping[str, object]) -> str:
    """What identifies the rules of a split, as they stand in ``snapshot.json`` below ``rules`` and ``split``."""
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def given(layout: Layout, dataset: str, digest: str) -> pa.Table:
    """The split in which each photo was last published under the rules with that digest. Schema "given"."""
    told = ledger.read(layout, dataset, "splits")
    with duckdb.connect() as db:
        db.register("told", pa.concat_tables([told, _published(layout, dataset, told)]))
        query = f"select source, photo_id, group_id, split from ({_LATEST}) where rules = $digest order by 1, 2"
        return db.sql(query, params={"digest": digest}).to_arrow_table().cast(SCHEMAS["given"])


def grant(layout: Layout, dataset: str) -> bool:
    """Put into the ledger what the newest versions say and it does not; whether there was anything."""
    told = ledger.read(layout, dataset, "splits")
    with duckdb.connect() as db:
        db.register("told", told)
        db.execute(f"create table known as {_LATEST}")
        db.register("told", _published(layout, dataset, told))
        news = db.sql(f"""
            select * from ({_LATEST}) latest
            anti join known using (source, photo_id, rules, group_id, split) order by source, photo_id, rules
        """).to_arrow_table()
    return ledger.adopt(layout, dataset, manifest.write(layout, "splits", news))


def _published(layout: Layout, dataset: str, told: pa.Table) -> pa.Table:
    """What the versions say from the last one on that the ledger has rows of. Schema "splits".

    A version that does not say by which rules it was split gave nothing under any."""
    last = pc.max(told["version"]).as_py() or 0
    tables = [SCHEMAS["splits"].empty_table()]
    for version in (version for version in catalog.versions(layout, dataset) if version >= last):
        card = catalog.card(layout, dataset, version)
        rules = card["rules"]
        assert isinstance(rules, dict)
        if (split := rules.get("split")) is not None:  # old versions may not say by which rules they were split
            tables.append(_rows(layout, dataset, version, rules_digest(split)))
    return pa.concat_tables(tables)


def _rows(layout: Layout, dataset: str, version: int, digest: str) -> pa.Table:
    """Schema "splits" of one version."""
    files = [str(layout.snapshot(dataset, version) / f"{split}.parquet") for split in SPLITS]
    with duckdb.connect() as db:
        rows = db.sql(
            """
            select source, photo_id, group_id, split, $digest as rules, $version as version
            from read_parquet($files, union_by_name = true, hive_partitioning = false)
            where verdict and split is not null
            """,
            params={"files": files, "digest": digest, "version": version},
        )
        return rows.to_arrow_table().cast(SCHEMAS["splits"])
