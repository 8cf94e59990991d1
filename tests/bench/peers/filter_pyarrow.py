"""The filter of filtering.py by pyarrow: ``filter_pyarrow.py count|write FILE OUT``."""

import sys

import measured
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

READ = ["long_px", "short_px", "edit_tier", "measure_reason"]


def reasons(table: pa.Table) -> pa.ChunkedArray:
    """The reason of each row."""
    long, short = table["long_px"].cast(pa.int64()), table["short_px"].cast(pa.int64())
    small = pc.or_(pc.less(long, 1440), pc.less(short, 720))
    off = pc.greater(pc.abs(pc.subtract(pc.multiply(long, 50), pc.multiply(short, 75))), short)
    broken = pc.is_valid(table["measure_reason"])
    which = pc.make_struct(broken, small, off, pc.equal(table["edit_tier"], "edited"))
    return pc.case_when(which, pa.scalar(None, pa.string()), "too_small", "wrong_aspect", "edited")


def count(file: str) -> int:
    """How many are kept."""
    kept = 0
    for batch in ds.dataset(file).to_batches(columns=READ, batch_size=1_000_000):
        rows = pa.table(batch)
        kept += pc.sum(pc.and_(pc.is_null(reasons(rows)), pc.is_null(rows["measure_reason"]))).as_py() or 0
    return kept


def write(file: str, out: str) -> int:
    """Key and reason of each."""
    schema = pa.schema([(name, pa.string()) for name in ("source", "photo_id", "filter_reason")])
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        columns = ["source", "photo_id", *READ]
        for batch in ds.dataset(file).to_batches(columns=columns, batch_size=200_000):
            rows = pa.table(batch)
            chosen = rows.select(["source", "photo_id"]).append_column("filter_reason", reasons(rows))
            writer.write_table(chosen.cast(schema))
    return -1


if __name__ == "__main__":
    job, path, target = sys.argv[1:]
    measured.report(lambda: count(path) if job == "count" else write(path, target))
