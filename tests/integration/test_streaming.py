"""Manifests that are written from a stream."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import manifest, streaming
from storage.layout import Layout
from storage.records import SCHEMAS, ManifestRef
from tasks.filter import FilterRules, judge_all

ROWS = 25_000
GROUP = 4096  # rows, so that the file has several groups


@pytest.fixture
def rows() -> pa.Table:
    """Measured photos, of which the rules reject some for each of four reasons."""
    rng = np.random.default_rng(0)
    short, is_broken = rng.integers(600, 2000, ROWS), rng.random(ROWS) < 0.01
    return pa.table(
        {
            "source": ["s"] * ROWS, "photo_id": [f"{number:08d}" for number in range(ROWS)],
            "long_px": pa.array((short * rng.choice([1.5, 1.6], ROWS)).astype(np.int32), mask=is_broken),
            "short_px": pa.array(short.astype(np.int32), mask=is_broken),
            "edit_tier": rng.choice(["edited", "unknown"], ROWS), "is_grey": rng.random(ROWS) < 0.1,
            "measure_reason": pa.array(["corrupt"] * ROWS, mask=~is_broken),
        }
    )  # fmt: skip


def written(where: Layout, parts: list[pa.Table], threads: int) -> ManifestRef:
    """The filter's output over ``parts`` one after the other, judged by so many threads."""
    files = []
    for number, part in enumerate(parts):
        files.append(str(where.root / f"{len(parts)}-{number}.parquet"))
        pq.write_table(part, files[-1], row_group_size=3000)
    with duckdb.connect(config={"threads": threads}) as db:
        db.execute(f"create view measured as select * from read_parquet({files})")
        rules = FilterRules(aspect_tolerance=0.05, reject_edited=True, reject_grey=True)
        return streaming.write(where, "filter", judge_all(db, rules, has_decisions=False))


def test_equal_rows_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pa.Table) -> None:
    """However many threads judge them, and into however many files they were divided."""
    monkeypatch.setattr(streaming, "ROWS", GROUP)
    where = Layout(tmp_path)
    whole = written(where, [rows], threads=1)
    assert pq.ParquetFile(manifest.path(where, whole)).num_row_groups == -(-ROWS // GROUP)
    assert written(where, [rows], threads=4) == whole
    assert written(where, [rows.slice(0, 7777), rows.slice(7777)], threads=3) == whole


def test_reasons_that_were_written_as_codes_are_read_as_words(tmp_path: Path, rows: pa.Table) -> None:
    """By pyarrow and by DuckDB, with the marks of the stage; written as words they would be equal."""
    where = Layout(tmp_path)
    judged = written(where, [rows], threads=2)
    found = manifest.read(where, judged)
    assert found.schema.equals(SCHEMAS["filter"])
    assert set(found["filter_reason"].to_pylist()) == {None, "too_small", "wrong_aspect", "edited", "grey"}
    file = manifest.path(where, judged)
    with duckdb.connect() as db:
        assert db.execute(f"select typeof(filter_reason) from '{file}' limit 1").fetchall() == [("VARCHAR",)]
    again = manifest.write(where, "filter", found)
    assert manifest.read(where, again) == found
    assert pq.read_schema(file).metadata == pq.read_schema(manifest.path(where, again)).metadata
