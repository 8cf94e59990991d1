"""The filter of filtering.py by Darkroom: ``filter_darkroom.py count|write FILE OUT``. The code of the filter stage."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import duckdb
import measured

from storage import streaming
from tasks.filter import FilterRules, judge_all, kept_sql

RULES = FilterRules(reject_edited=True)


def seen(file: str) -> duckdb.DuckDBPyConnection:
    """A database with the view that the filter asks for, as ``streaming.database`` makes it."""
    db = duckdb.connect()
    db.execute("set parquet_metadata_cache = true")
    db.execute(f"create view measured as select * from read_parquet('{file}')")
    return db


def count(file: str) -> int:
    """How many are kept."""
    [(kept,)] = seen(file).sql(f"select count(*) from measured where {kept_sql(RULES)}").fetchall()
    return int(kept)


def write(file: str, out: str) -> int:
    """Key and reason of each."""
    streaming.write_parquet(Path(out), "filter", judge_all(seen(file), RULES, has_decisions=False))
    return -1


if __name__ == "__main__":
    job, path, target = sys.argv[1:]
    measured.report(lambda: count(path) if job == "count" else write(path, target))
