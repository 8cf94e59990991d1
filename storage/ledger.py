"""The ledger of a dataset: what was found, asked, fetched and failed. Append-only Parquet, one folder a kind.

Rows arrive as manifests that tasks wrote; adopting one twice adds nothing, so a run may always adopt all it has.
"""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from storage import manifest
from storage.layout import Layout, replacing
from storage.records import SCHEMAS, ManifestRef

KINDS = ("listings", "windows", "attempts")


def adopt(layout: Layout, dataset: str, ref: ManifestRef) -> bool:
    """Add the rows of ``ref`` to the ledger of ``dataset``; False if they are in it already."""
    target = layout.ledger(dataset, ref.stage) / f"{ref.sha256}.parquet"
    if target.is_file():
        return False
    source = manifest.path(layout, ref)
    with replacing(target) as part:
        shutil.copyfile(source, part)
    return True


def read(layout: Layout, dataset: str, kind: str) -> pa.Table:
    """All rows of one kind, in no order; an empty table for a dataset that has none."""
    files = sorted(layout.ledger(dataset, kind).glob("*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables) if tables else SCHEMAS[kind].empty_table()
