"""An account of labelling: which tags merged into which label, what was lost, and how many photos that is.

It counts pairs of a photo and a tag. Each pair is either in one of its photo's labels or has one loss: ``empty`` (a tag
without a word), ``split`` (a data set's own split), ``machine_tag`` (data for programs, as ``geo:lat=48.858``),
``ignored`` or ``unmapped`` (by the map), ``rare`` (too few photos), ``relabelled`` (a person said otherwise).
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import duckdb
import pyarrow as pa
from prefect import task

from storage import manifest
from storage.layout import layout, write_bytes
from storage.records import FileRef, ManifestRef
from tasks import caching
from tasks.labels import KEPT_BY, LabelRules, database

LOG = logging.getLogger(__name__)
LISTED = 500  # tags of a list, those of most photos; how many there are in all stands beside it

_FATE = """
    create table fate as
    select raw, written, lemma, words.label, source, photo_id,
           case when loss is not null then loss when list_contains(labelled.labels, words.label) then null
                when given.photo_id is not null then 'relabelled' else 'rare' end as loss
    from said join words using (raw) join labelled using (source, photo_id)
         left join relabelled given using (source, photo_id)
"""
_PHOTOS = """
    with all_of as (select * from labelled left join (select source, photo_id, dedup_reason is null as is_kept
                                                      from deduped) using (source, photo_id))
    select count(*) as "all", count(*) filter (is_kept) as kept, count(label) filter (is_kept) as labelled,
           (select count(*) from relabelled semi join labelled using (source, photo_id)) as relabelled
    from all_of
"""
_STEPS = """
    select count(distinct raw) as tags, count(distinct written) filter (written <> '') as written,
           count(distinct lemma) filter (lemma <> '') as lemmas, count(distinct label) as grouped,
           (select count(distinct label) from (select unnest(labels) as label from labelled)) as labels
    from fate
"""
_LABELS = """
    with worn as (select source, photo_id, unnest(labels) as label from labelled),
    kept as (select source, photo_id from deduped where dedup_reason is null),
    numbers as (select label, count(*) as found, count(kept.photo_id) as photos
                from worn left join kept using (source, photo_id) group by label),
    tags as (select label, raw as tag, count(*) as photos from fate where loss is null group by all),
    told as (select label, count(*) as tags_in_all, list({'tag': tag, 'photos': photos} order by photos desc, tag)
             as tags from tags group by label)
    select label, photos, found, coalesce(tags_in_all, 0) as tags_in_all, coalesce(tags, [])[:$listed] as tags
    from numbers left join told using (label) order by photos desc, label
"""
_LOST = """
    with tags as (select loss, raw as tag, label, count(*) as photos from fate where loss is not null group by all)
    select loss, sum(photos)::bigint as pairs, count(*) as tags_in_all,
           list({'tag': tag, 'label': label, 'photos': photos} order by photos desc, tag)[:$listed] as tags
    from tags group by loss order by loss
"""


def account(
    tagged: pa.Table, deduped: pa.Table, decided: pa.Table, labelled: pa.Table, rules: LabelRules
) -> dict[str, Any]:
    """What ``label_rows`` made of these photos, as plain data. ``photos`` of a tag: all that have it; of a label: those
    that dedup keeps, and ``found`` all.
    """
    with database(tagged, deduped, decided, rules) as db:
        db.register("labelled", labelled)
        db.execute(_FATE)
        [(pairs, in_labels)] = db.sql("select count(*), count(*) filter (loss is null) from fate").fetchall()
        [photos], [steps] = _rows(db, _PHOTOS), _rows(db, _STEPS)
        labels, lost = _rows(db, _LABELS, listed=LISTED), _rows(db, _LOST, listed=LISTED)
    return {
        "rules": rules.model_dump(mode="json", exclude={"mapping"}) | {"mapping": rules.vocabulary.labels.name or None},
        "photos": photos, "steps": steps, "pairs": {"all": pairs, "in_labels": in_labels},
        "labels": labels, "lost": lost,
    }  # fmt: skip


def _rows(db: duckdb.DuckDBPyConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = db.sql(query, params=values).to_arrow_table().to_pylist()
    return found


@task(**caching.stage("labels", name="account-labels"))
def account_labels(
    tagged: ManifestRef, deduped: ManifestRef, decided: ManifestRef, labelled: ManifestRef, rules: LabelRules
) -> FileRef:
    """``account`` as JSON, below ``stages/labels``."""
    where = layout()
    found = account(
        manifest.read(where, tagged), manifest.read(where, deduped, KEPT_BY), manifest.read(where, decided),
        manifest.read(where, labelled), rules,
    )  # fmt: skip
    text = (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()
    file = where.root / "stages" / "labels" / f"{hashlib.sha256(text).hexdigest()}.json"
    write_bytes(file, text)
    lost = " ".join(f"{each['loss']}={each['pairs']}" for each in found["lost"])
    LOG.info("labels of %d tags: %d; lost: %s", found["steps"]["tags"], found["steps"]["labels"], lost or "nothing")
    return manifest.file_ref(where, file)
