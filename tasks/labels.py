"""What photos are called when training: what their query says, or their tags, with a person's relabelling on top.

A photo's labels stand in the order of its tags, each once; the first is the dominant one, ``label``. A label that a
person gave counts among the photos of a label, and is never dropped as rare. A picture whose photo has no label is
called what its copies are called, which dedup left out for it.

Source: a report on predicting hashtags (97 tags over 62 lemmas to 24 labels), whose lemmatiser took vegan for
vegetarian; hence the exceptions of ``tasks.vocabulary``, and an account of what merged and what was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import duckdb
import pyarrow as pa
from prefect import task
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

from storage import manifest
from storage.layout import layout
from storage.overrides import labels_of
from storage.records import ManifestRef
from tasks import caching
from tasks.vocabulary import OPEN, LabelMap, Vocabulary, Word, load

LOG = logging.getLogger(__name__)
KEPT_BY = ["source", "photo_id", "duplicate_of", "dedup_reason"]  # the columns of "dedup" that matter here


class LabelRules(BaseModel):
    """What photos are called."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Labels")

    from_tags: bool = Field(False, description="Take the photos' tags for labels, not what the query calls them.")
    language: str | None = Field(
        "en", description="Of the tags, for their lemmas (cakes: cake), as ISO 639; empty: words stay as they are."
    )
    mapping: str | LabelMap | None = Field(
        None,
        description="Which words become which label: a map of Darkroom (english.1, food.1), or the path of a .toml "
        "file. Empty: every word is a label of its own.",
    )
    min_photos: int = Field(
        1, ge=1, description="Labels of fewer photos, of those that dedup keeps, are dropped; 1 switches the rule off."
    )
    require: bool = Field(False, description="Leave out photos without a label, but for those kept by hand.")

    @field_validator("language")
    @classmethod
    def _is_known(cls, language: str | None) -> str | None:
        if language is not None and language not in SUPPORTED_LANGUAGES:
            raise ValueError(f"there are no lemmas of the language {language!r}: choose one of {SUPPORTED_LANGUAGES}")
        return language

    @field_validator("mapping")
    @classmethod
    def _is_read(cls, mapping: str | LabelMap | None) -> LabelMap | None:
        """The map itself takes the place of its name: an edited file is another rule, whatever its name."""
        return load(mapping) if isinstance(mapping, str) else mapping

    @model_validator(mode="after")
    def _map_has_tags(self) -> Self:
        if self.mapping is not None and not self.from_tags:
            raise ValueError("a mapping groups tags, and from_tags is off: switch it on, or leave the mapping out")
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """What becomes of tags."""
        return Vocabulary(self.language, self.mapping if isinstance(self.mapping, LabelMap) else OPEN)


# (photo, tag) pairs; a tag that a photo has twice counts once, where it stands first.
_SAID = """
    select source, photo_id, raw, min(place) as place
    from (select source, photo_id, unnest(tags) as raw, generate_subscripts(tags, 1) as place from tagged)
    where raw is not null group by all
"""
_QUERIED = "select source, photo_id, label as raw, 1 as place from tagged where label <> ''"
# A photo without labels of its own borrows those of its copies, unless a person said that it has none.
_OFFERED = """
    with own as (
        select source, photo_id, label, min(place) as place, false as by_hand
        from said join words using (raw) anti join relabelled using (source, photo_id)
        where label is not null group by source, photo_id, label
        union all select source, photo_id, label, place, true
        from (select source, photo_id, unnest(labels) as label, generate_subscripts(labels, 1) as place from relabelled)
        semi join tagged using (source, photo_id)),
    copies as (select source, photo_id, duplicate_of from deduped where duplicate_of is not null),
    pictures as (
        select source, photo_id, source || '/' || photo_id as duplicate_of
        from deduped anti join relabelled using (source, photo_id))
    select *, false as is_borrowed from own
    union all select pictures.source, pictures.photo_id, label, min(place), bool_or(by_hand), true
    from own join copies using (source, photo_id) join pictures using (duplicate_of) group by all
"""
_NEEDED = "qualify is_borrowed = bool_and(is_borrowed) over (partition by source, photo_id)"
_FOUND = f"""
    with needed as (select * from offered {_NEEDED})
    select label, count(*) filter (dedup_reason is null and kept) as photos, count(*) as found
    from needed left join (select source, photo_id, dedup_reason, true as kept from deduped) using (source, photo_id)
    group by label
"""
_LABELLED = f"""
    with often as (
        select offered.* from offered join found using (label)
        where by_hand or photos >= $least or $least = 1 {_NEEDED}),
    chosen as (
        select source, photo_id, list(label order by place, label) as labels from often group by source, photo_id)
    select source, photo_id, labels[1] as label, coalesce(labels, []) as labels,
           case when $require and labels is null and decision is distinct from 'keep' then 'no_label'
                end as labels_reason
    from tagged left join chosen using (source, photo_id) left join decided using (source, photo_id)
"""


@contextmanager
def database(
    tagged: pa.Table, deduped: pa.Table, decided: pa.Table, rules: LabelRules
) -> Iterator[duckdb.DuckDBPyConnection]:
    """What photos say of themselves: ``said`` (photo, tag), ``words`` (what became of each tag), ``offered`` (photo,
    label, before rare ones are dropped), ``found`` (photos of each label)."""
    with duckdb.connect() as db:
        tables = {"tagged": tagged, "deduped": deduped, "decided": decided, "relabelled": relabelled(decided)}
        for name, table in tables.items():
            db.register(name, table)
        db.execute(f"create table said as {_SAID if rules.from_tags else _QUERIED}")
        tags = db.sql("select distinct raw from said order by 1").to_arrow_table()["raw"].to_pylist()
        db.register("words", words(tags, rules))
        db.execute(f"create table offered as {_OFFERED}")
        db.execute(f"create table found as {_FOUND}")
        yield db


def words(tags: list[str], rules: LabelRules) -> pa.Table:
    """What becomes of each of ``tags``: raw, written, lemma, label, loss. What a query says is taken as it is."""
    vocabulary = rules.vocabulary
    found = [vocabulary.word(tag) if rules.from_tags else Word(tag, tag, tag, None) for tag in tags]
    rows = [{"raw": tag, **word._asdict()} for tag, word in zip(tags, found, strict=True)]
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("raw", *Word._fields)]))


def relabelled(decided: pa.Table) -> pa.Table:
    """The photos that a person gave other labels: source, photo_id, labels."""
    rows = decided.filter(decided["relabel"].is_valid())
    labels = [labels_of(cell) for cell in rows["relabel"].to_pylist()]
    return rows.select(["source", "photo_id"]).append_column("labels", pa.array(labels, pa.list_(pa.string())))


def label_rows(tagged: pa.Table, deduped: pa.Table, decided: pa.Table, rules: LabelRules) -> pa.Table:
    """The labels of each photo of ``tagged``. Schema "labels"."""
    with database(tagged, deduped, decided, rules) as db:
        table = db.sql(_LABELLED, params={"least": rules.min_photos, "require": rules.require}).to_arrow_table()
    return manifest.conform("labels", table)


@task(**caching.stage("labels"))
def label_photos(tagged: ManifestRef, deduped: ManifestRef, decided: ManifestRef, rules: LabelRules) -> ManifestRef:
    """Labels of every photo of ``tagged``; rare ones are counted over the photos that ``deduped`` keeps."""
    where = layout()
    table = label_rows(
        manifest.read(where, tagged), manifest.read(where, deduped, KEPT_BY), manifest.read(where, decided), rules
    )
    with_label = table.num_rows - table["label"].null_count
    LOG.info("labels: labelled=%d without=%d", with_label, table["label"].null_count)
    return manifest.write(where, "labels", table)
