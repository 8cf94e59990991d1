"""What a person decided about photos of a dataset: to keep, reject or relabel them, or to take that back.

Decisions are rows of the ledger, so they survive refreshes. Of each kind the latest counts: keep and reject are of one
kind, relabel is another, and ``clear`` takes back whatever was decided before it. Several labels stand in one cell with
a semicolon between them, the dominant one first.
"""

from collections import Counter
from typing import Literal, get_args

import duckdb
import pyarrow as pa

from storage import catalog, ledger, manifest
from storage.errors import ConfigError
from storage.layout import Layout
from storage.records import SCHEMAS

DecisionName = Literal["keep", "reject", "relabel", "clear"]
DECISIONS: tuple[DecisionName, ...] = get_args(DecisionName)
_NAMED = 3  # photos in a message

_STANDING = """
    with ordered as (
        select *, row_number() over (order by decided_at, decided_by, decision, label, note) as place
        from (select distinct * from overrides) anti join gone using (source, photo_id)),
    since as (  -- what was decided at the moment of a clear was decided before it
        select source, photo_id, max(decided_at) filter (decision = 'clear') as cleared_at from ordered group by all)
    select source, photo_id,
           arg_max(decision, place) filter (decision in ('keep', 'reject')) as decision,
           arg_max(label, place) filter (decision = 'relabel') as relabel
    from ordered join since using (source, photo_id)
    where decision <> 'clear' and (cleared_at is null or decided_at > cleared_at)
    group by source, photo_id order by source, photo_id
"""
# A clock that was ahead must not make a decision last: the next one is dated behind it.
_NEWS = f"""
    with standing as ({_STANDING}),
    latest as (select source, photo_id, max(decided_at) as latest_at from overrides group by all)
    select given.* replace (greatest(given.decided_at, latest_at + interval 1 microsecond) as decided_at)
    from (select distinct on (source, photo_id, decision) * from given order by all) given
    left join standing using (source, photo_id) left join latest using (source, photo_id)
    where case given.decision when 'relabel' then standing.relabel is distinct from given.label
                              when 'clear' then standing.source is not null
                              else standing.decision is distinct from given.decision end
"""


def record(layout: Layout, dataset: str, table: pa.Table) -> int:
    """Keep the decisions of ``table`` (schema "overrides"); how many say something new.

    Raises ConfigError, and keeps none, if one is no decision or if two of them contradict each other.
    """
    given = manifest.conform("overrides", table)
    check(given)
    with catalog.connect(layout, dataset) as db:
        db.register("given", given)
        news = db.sql(_NEWS).to_arrow_table()
    if news.num_rows:
        ledger.adopt(layout, dataset, manifest.write(layout, "overrides", news))
    return int(news.num_rows)


def decided(layout: Layout, dataset: str) -> pa.Table:
    """What stands for each photo about which something stands; none of them was removed. Schema "decided"."""
    with catalog.connect(layout, dataset) as db:
        return db.sql(_STANDING).to_arrow_table().cast(SCHEMAS["decided"])


def labels_of(relabel: str) -> list[str]:
    """The labels that a person gave in one cell, each once, the dominant one first."""
    return list(dict.fromkeys(label for part in relabel.split(";") if (label := part.strip())))


def check(given: pa.Table) -> None:
    """Raise ConfigError, naming the photos, for what is no decision and for decisions that contradict each other."""
    rows = given.to_pylist()
    unknown = [row for row in rows if row["decision"] not in DECISIONS]
    if unknown:
        words = ", ".join(repr(word) for word in dict.fromkeys(row["decision"] for row in unknown))
        raise ConfigError(f"{words} of {named(unknown)} is no decision: choose one of {', '.join(DECISIONS)}")
    bare = [row for row in rows if row["decision"] == "relabel" and not labels_of(row["label"] or "")]
    if bare:
        raise ConfigError(f"the decision relabel of {named(bare)} lacks a label: give one, or several with ';' between")
    idle = [row for row in rows if row["decision"] != "relabel" and row["label"]]
    if idle:
        raise ConfigError(f"a label goes with the decision relabel only, unlike that of {named(idle)}")
    with duckdb.connect() as db:
        db.register("given", given)
        clashing = db.sql("""
            select source, photo_id from given group by all
            having count(distinct decision) filter (decision <> 'relabel') > 1 or count(distinct label) > 1
                   or (bool_or(decision = 'clear') and bool_or(decision = 'relabel'))
            order by all
        """).to_arrow_table().to_pylist()  # fmt: skip
    if clashing:
        raise ConfigError(f"two decisions about {named(clashing)} contradict each other: leave one of them")


def named(rows: list[dict[str, str]]) -> str:
    """The photos of ``rows`` in few words."""
    names = list(Counter(f"{row['source']}/{row['photo_id']}" for row in rows))
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
