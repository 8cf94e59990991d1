"""Licence changes of the photos of a dataset, as its listings and checks tell them."""

import pyarrow as pa

from storage import catalog
from storage.layout import Layout
from storage.records import KEY, MOMENT

SCHEMA = pa.schema([*KEY, ("observed_at", MOMENT), ("before", pa.string()), ("after", pa.string())])

_CHANGES = """
    with seen as (
        select source, photo_id, observed_at, licence from listings where licence is not null
        union all
        select source, photo_id, checked_at, licence from checks where licence is not null),
    pairs as (
        select source, photo_id, observed_at, licence as after,
               lag(licence) over (partition by source, photo_id order by observed_at, licence) as before
        from seen semi join photos using (source, photo_id))
    select source, photo_id, observed_at, before, after from pairs where before <> after
    order by observed_at, source, photo_id
"""


def licence_changes(layout: Layout, dataset: str) -> pa.Table:
    """Each change of a licence (schema SCHEMA), the oldest first: when it was first seen, and from what to what."""
    with catalog.connect(layout, dataset) as db:
        return db.sql(_CHANGES).to_arrow_table().cast(SCHEMA)
