"""A person's decisions about photos, given one by one or as a table, checked against what a dataset knows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import duckdb
import pyarrow as pa
from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from storage import catalog, overrides, removals
from storage.layout import Layout
from storage.overrides import DecisionName
from storage.records import SCHEMAS, Record
from storage.settings import Settings
from tasks.audit import ledgers
from tasks.errors import ConfigError
from tasks.sources import SourceName
from tasks.sources.base import Query
from tasks.sources.imports import cells, tabular
from tasks.sources.imports.files import located

NEEDED = ("photo_id", "decision")  # columns of a table
OPTIONAL = ("source", "label", "note")
_SHOWN = 3  # faults in a message


class Decision(Record):
    """What a person wants of one photo, whatever the rules say."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    source: Annotated[SourceName | None, Field(description="Its site; empty: the only one of the dataset.")] = None
    photo_id: Annotated[  # blanks are part of it: a file may be called " lead.jpg"
        str, Field(min_length=1, description="The photo, as the published tables have it."),
        StringConstraints(strip_whitespace=False),
    ]  # fmt: skip
    decision: Annotated[
        DecisionName,
        Field(
            description="keep and reject overrule the rules, but for bridges_splits, for the splits would leak; clear "
            "takes back what was decided before."
        ),
    ]
    label: Annotated[
        str | None, Field(description="Of relabel: the label, or several with ';' between, the dominant one first.")
    ] = None
    note: Annotated[str | None, Field(description="Why.")] = None


class Decided(Record):
    """What became of some decisions: how many say something new, and for how many photos something stands now."""

    dataset: str
    new: int
    keep: int
    reject: int
    relabel: int


def from_table(path: str, settings: Settings) -> list[Decision]:
    """The decisions in a CSV or Parquet file; a relative path begins in the folder that holds the data root.

    Raises ConfigError if there is no such table, if it lacks a column, or for rows that are no decisions.
    """
    file = located(Query(path=path), settings)
    names = tabular.names(file)
    if any(letter in name for name in names for letter in "\0\ufffd"):
        raise ConfigError(f"{path!r} is not written in UTF-8, so its columns cannot be read: save it as CSV in UTF-8")
    if missing := set(NEEDED) - set(names):
        raise ConfigError(
            f"a table of decisions has the columns {', '.join(NEEDED)} and, if need be, {', '.join(OPTIONAL)}; "
            f"{path!r} lacks {', '.join(sorted(missing))}: it has {names}"
        )
    found, faults = [], []
    for number, record in enumerate(tabular.records(file), start=1):
        try:
            found.append(Decision.model_validate(_cells(record)))
        except ValidationError as error:
            faults += [
                f"row {number}: {'.'.join(map(str, each['loc']))} cannot be {each['input']!r}"
                for each in error.errors()
            ]
    if faults:
        more = f" and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        words = ", ".join(overrides.DECISIONS)
        raise ConfigError(f"{path!r} has no decisions in {'; '.join(faults[:_SHOWN])}{more}: a decision is {words}")
    return found


def _cells(record: tabular.Record) -> dict[str, str | None]:
    """The fields of a decision in one row; a photo_id keeps the blanks around it."""
    fields = {name: cells.text(record.get(name)) for name in NEEDED + OPTIONAL}
    written = record.get("photo_id")
    is_only_stripped = isinstance(written, str) and written.strip() == fields["photo_id"]
    return fields | ({"photo_id": written} if is_only_stripped else {})


def rows(
    where: Layout, dataset: str, decisions: Sequence[Decision], decided_by: str, now: datetime, allow_unknown: bool
) -> pa.Table:
    """``decisions`` as rows of "overrides".

    Raises ConfigError if the dataset has several sources and a decision names none, and for photos that it does not
    know or that were removed; ``allow_unknown`` lets the former be.
    """
    known = catalog.known(where, dataset)
    named = [decision.source for decision in decisions]
    only = known["source"].unique().to_pylist() if None in named else []
    if None in named and len(only) != 1:
        raise ConfigError(f"photos of {dataset!r} come from {only or 'nowhere yet'}: say the source with each photo_id")
    table = pa.Table.from_pylist(
        [
            decision.model_dump() | {"source": decision.source or only[0], "decided_by": decided_by, "decided_at": now}
            for decision in decisions
        ],
        SCHEMAS["overrides"],
    )
    removed = table.filter(removals.blocked(where).mask(table))
    strange = removed if allow_unknown else _missing(table, known)
    if strange.num_rows:
        why = "removed, and nothing brings it back" if allow_unknown else "removed, or never found by a search"
        raise ConfigError(f"{dataset!r} has no photo {overrides.named(strange.to_pylist())} to decide about: {why}")
    return table


def _missing(table: pa.Table, known: pa.Table) -> pa.Table:
    """The rows of ``table`` whose photo is not ``known``."""
    with duckdb.connect() as db:
        db.register("given", table)
        db.register("known", known)
        missing: pa.Table = db.sql(
            "select source, photo_id from given anti join known using (source, photo_id) order by all"
        ).to_arrow_table()
    return missing


def decide(
    where: Layout, dataset: str, decisions: Sequence[Decision], decided_by: str, now: datetime, allow_unknown: bool
) -> Decided:
    """Keep ``decisions``, all or none; those that stand already change nothing. Raises ConfigError as ``rows`` does."""
    check_known(where, dataset)
    new = overrides.record(where, dataset, rows(where, dataset, decisions, decided_by, now, allow_unknown))
    standing = overrides.decided(where, dataset)
    counts = standing["decision"].to_pylist()
    return Decided(
        dataset=dataset, new=new, keep=counts.count("keep"), reject=counts.count("reject"),
        relabel=standing.num_rows - standing["relabel"].null_count,
    )  # fmt: skip


def check_known(where: Layout, dataset: str) -> None:
    """Raise ConfigError unless ``dataset`` has a ledger."""
    if dataset not in (known := ledgers(where)):
        hint = f"choose one of {', '.join(known)}" if known else "refresh it first, none has been yet"
        raise ConfigError(f"there is no dataset {dataset!r} to decide about: {hint}")
