"""The filter of filtering.py by polars: ``filter_polars.py count|write FILE OUT``."""

import sys

import measured
import polars as pl

long, short = pl.col("long_px").cast(pl.Int64), pl.col("short_px").cast(pl.Int64)
REASON = (
    pl.when(pl.col("measure_reason").is_not_null()).then(None)
    .when((long < 1440) | (short < 720)).then(pl.lit("too_small"))
    .when((long * 50 - short * 75).abs() > short).then(pl.lit("wrong_aspect"))
    .when(pl.col("edit_tier") == "edited").then(pl.lit("edited"))
)  # fmt: skip
KEPT = pl.col("measure_reason").is_null() & REASON.is_null()


def count(file: str) -> int:
    """How many are kept."""
    return int(pl.scan_parquet(file).filter(KEPT).select(pl.len()).collect().item())


def write(file: str, out: str) -> int:
    """Key and reason of each."""
    rows = pl.scan_parquet(file).select("source", "photo_id", REASON.alias("filter_reason"))
    rows.sink_parquet(out, compression="zstd", row_group_size=200_000)
    return -1


if __name__ == "__main__":
    job, path, target = sys.argv[1:]
    measured.report(lambda: count(path) if job == "count" else write(path, target))
