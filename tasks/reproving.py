"""The proof of a published version's splits for fewer photos than it was made of: after a takedown, or restored.

What is left of splits that do not leak does not leak either, but its numbers, shares and pairs are others.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from storage.errors import BlobCorrupt
from storage.layout import Layout
from tasks.dedup import DedupRules, looking
from tasks.duplicates.copies import photos_of
from tasks.leakage import proof
from tasks.split import SplitRules

LOG = logging.getLogger(__name__)
SEARCHED = ["source", "photo_id", "sha256", "format", "exif_orientation", "phash_probes", "thumbnail"]
_KEPT = """
    select source, photo_id, split, group_id, duplicate_group, sha256, coalesce(owner_id, '') as owner_id,
           list_distinct(coalesce(labels, [])) as labels
    from rows where verdict and split is not null order by source, photo_id
"""


def reproved(
    where: Layout, table: pa.Table, rules: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The proof ``before`` made anew for the rows ``table`` (schema "publish") of its version that are left.

    ``rules``: those of snapshot.json. None if rules, rows or files lack what a proof is made of. Pictures are searched
    only if ``before`` has pairs that lie in two splits: there are none among fewer photos where there was none.
    """
    try:
        split, dedup = SplitRules.model_validate(rules["split"]), DedupRules.model_validate(rules["dedup"])
    except (KeyError, ValidationError):  # of an older version
        return None
    kept, searched = kept_of(table)
    if not before["across_splits"]["near_duplicates"] and not before["wider_pairs"]:
        searched = searched.slice(0, 0)
    if any(searched[name].null_count for name in SEARCHED):
        return None
    bridges = pc.sum(pc.equal(table["split_reason"], "bridges_splits")).as_py() or 0
    try:
        found = proof(kept, photos_of(searched, looking(where, searched)), dedup, split)
    except BlobCorrupt as error:
        LOG.warning("the splits are not proven anew: %s", error)
        return None
    return found | {"bridges_splits": bridges}


def kept_of(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What ``proof`` asks for of the kept rows of ``table``, and their pictures (SEARCHED), by photo key."""
    with duckdb.connect() as db:
        db.register("rows", table)
        kept = db.sql(_KEPT).to_arrow_table()
        names = ", ".join(SEARCHED)
        searched = db.sql(
            f"select {names} from rows where verdict and split is not null order by source, photo_id"
        ).to_arrow_table()
    return kept, searched


def page_of(found: Mapping[str, Any]) -> bytes:
    """leakage.json."""
    return json.dumps(found, indent=1, ensure_ascii=False).encode()


def told(found: Mapping[str, Any]) -> dict[str, Any]:
    """What snapshot.json says of a proof."""
    return {key: value for key, value in found.items() if key not in ("examples", "labels")}
