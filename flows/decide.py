"""Decide about photos by hand: keep, reject or relabel them, whatever the rules say; the next refresh heeds it.

Run: ``prefect deployment run 'decide-photos/crops'``, or ``decide_photos("crops", "Ann", [...])`` from Python.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from storage.layout import layout
from storage.settings import settings
from tasks.decisions import Decided, Decision, decide, from_table
from tasks.errors import ConfigError

LOG = logging.getLogger(__name__)
Person = Annotated[str, Field(min_length=1, description="Who decides; it is kept with each decision.")]
TablePath = Annotated[
    str | None,
    Field(description="A CSV or Parquet file with the columns photo_id and decision, and source, label, note."),
]


@flow(name="decide-photos", flow_run_name="decide about {dataset}")
def decide_photos(
    dataset: str,
    decided_by: Person,
    decisions: Sequence[Decision] = (),
    table: TablePath = None,
    allow_unknown: bool = False,
) -> Decided:
    """Keep the ``decisions``, and those of a ``table``, all or none; the next refresh of ``dataset`` heeds them.

    What was decided before and is decided again changes nothing. ``allow_unknown``: also about photos that no search
    has found yet. No decision brings back a photo that was removed, nor one that cannot be decoded. Raises ConfigError
    if there is nothing to decide, for photos that the dataset does not know, and for decisions that contradict.
    """
    if not decisions and not table:
        raise ConfigError("there is nothing to decide: give decisions, or a table of photo_id and decision")
    where = layout()
    where.check_writable()
    given = [*decisions, *(from_table(table, settings()) if table else ())]
    result = decide(where, dataset, given, decided_by, datetime.now(UTC), allow_unknown)
    LOG.info("decided about %s: given=%d new=%d", dataset, len(given), result.new)
    create_table_artifact(
        [{"what": name, "photos": number} for name, number in result if name != "dataset"],
        key=f"dataset-{dataset}-decisions",
        description=f"What people decided about {dataset}; new: by this run",
    )
    return result
