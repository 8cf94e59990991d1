"""How long it takes to tell two versions of a dataset apart, beside one full join of all columns in DuckDB.

Run: ``python tests/bench/snapshots.py FOLDER`` (10 million rows take 3 GB in FOLDER and a few minutes to write, once).
Each measurement is a process of its own on the same files, all ways in turn, round by round; prints a Markdown table.

A row has its key and 15 columns of mixed types (a hex digest, words, moments, numbers, reasons), or with ``--wide``
every column that is published. Of 211 photos one went and one came, of 101 one changed in a column, of 997 one got
another verdict or split: all of it spread evenly, so that no part of a file is without a change.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from storage import manifest, snapshots
from storage.layout import Layout
from storage.records import SCHEMAS, SPLITS

ROWS = """
    with photos as (
        select range as i, case when {version} = 2 and range % 997 = 0 then hash(range + 9) % 100
                                else hash(range + 8) % 100 end as fate
        from range({rows}) where range % 211 <> {version})
    select 'flickr' as source, (40000000000 + i * 37)::varchar as photo_id,
           (hash(i // 7) % 90000000) || '@N0' || (i // 7 % 9) as owner_id,
           case when i % 5 > 0 then 'Title ' || (hash(i) % 100000) end as title,
           list_extract(['CC BY 4.0', 'CC BY-SA 4.0', 'CC0', 'CC BY-NC 2.0'], (hash(i + 1) % 4)::int + 1) as licence,
           case when {version} = 2 and i % 101 = 0 then 'CC0' end as licence_now,
           make_timestamptz(1500000000000000 + i * 13000000) as uploaded_at,
           md5(i::varchar) || md5((i + 1)::varchar) as sha256, (hash(i + 2) % 5000000)::bigint as bytes,
           (1000 + hash(i + 3) % 5000)::int as width, (800 + hash(i + 4) % 4000)::int as height,
           list_extract(['camera_original', 'developed', 'edited', 'unknown'], (hash(i + 5) % 4)::int + 1) as edit_tier,
           (hash(i + 6) % 100000 / 37)::float as sharpness, fate < 70 as verdict,
           case when fate < 52 then 'train' when fate < 59 then 'val' when fate < 70 then 'test' end as split,
           case when fate >= 90 then 'duplicate' when fate >= 70 then 'too_small' end as reason,
           case when fate >= 90 then 'dedup' when fate >= 70 then 'filter' end as reason_stage
    from photos order by source, photo_id
"""
PICTURES = """
    select *, sha256 as blob, unhex(sha256) as phash, unhex(repeat(sha256, 8)) as phash_orientations,
           unhex(repeat(sha256, 4)) as phash_probes, unhex(repeat(sha256, 32)) as thumbnail, entropy_of.*
    from ({rows}), (select 7.5::float as entropy, 'JPEG' as format) entropy_of
"""
PARTS = {split: f"split = '{split}'" for split in SPLITS} | {"rejected": "not verdict"}


def write(layout: Layout, version: int, rows: int, is_wide: bool) -> None:
    """A version of ``rows`` rows below the root, with the files that a diff reads."""
    folder = layout.snapshot("bench", version)
    folder.mkdir(parents=True)
    query = ROWS.format(version=version, rows=rows)
    with duckdb.connect() as db:
        db.execute(f"set timezone = 'UTC'; create table photos as {PICTURES.format(rows=query) if is_wide else query}")
        for part, condition in PARTS.items():
            table = db.sql(f"select * from photos where {condition} order by source, photo_id").to_arrow_table()
            manifest.write_parquet(folder / f"{part}.parquet", as_published(table, is_wide), "publish")
    digests = {file.name: manifest.sha256_file(file) for file in sorted(folder.iterdir())}
    start = time.perf_counter()
    snapshots.write_row_hashes(folder, digests)
    print(f"hashes of version {version} kept in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    (folder / "snapshot.json").write_text(json.dumps({"version": version, "files": digests}))


def as_published(table: pa.Table, is_wide: bool) -> pa.Table:
    """``table`` in the types of the schema, with all of its columns if it is wide."""
    schema = SCHEMAS["publish"]
    for field in schema if is_wide else ():
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    names = [name for name in schema.names if name in table.column_names]
    return table.select(names).cast(pa.schema([schema.field(name) for name in names]))


def with_kept_hashes(layout: Layout) -> int:
    """As it is done: rows that differ, by the hashes that were kept."""
    return snapshots.diff_versions(layout, "bench", 1, 2).rows.num_rows


def without_kept_hashes(layout: Layout) -> int:
    """As it is done for versions that have none: rows that differ, by hashes made now."""
    versions = [snapshots.published_version(layout, "bench", version) for version in (1, 2)]
    for version in versions:
        version.row_hashes = Path("none")
    return snapshots.compare(*versions).rows.num_rows


def full_join(layout: Layout) -> int:
    """The same in one statement of DuckDB."""
    paths = [[str(layout.snapshot("bench", n) / f"{part}.parquet") for part in PARTS] for n in (1, 2)]
    with duckdb.connect() as db:
        for name, files in zip(("a", "b"), paths, strict=True):
            db.read_parquet(files).create_view(name)
        names = [name for name in snapshots.compared(db.view("a").columns) if name not in snapshots.KEY]
        differ = [f"a.{name} is distinct from b.{name}" for name in names]
        return db.sql(f"""
            select coalesce(a.photo_id, b.photo_id), [{", ".join(differ)}] from a full join b using (source, photo_id)
            where a.source is null or b.source is null or {" or ".join(differ)}
        """).to_arrow_table().num_rows  # fmt: skip


WAYS: dict[str, Callable[[Layout], int]] = {
    "Darkroom": with_kept_hashes, "Darkroom, no hashes kept": without_kept_hashes, "DuckDB, full join": full_join,
}  # fmt: skip


def measured(way: str, folder: Path) -> dict[str, float]:
    """One way in a process of its own: seconds, CPU seconds, peak memory in GB, rows that differ."""
    command = [sys.executable, __file__, str(folder), "--one", way]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def one(way: str, layout: Layout) -> None:
    """Measure ``way`` here, from the import of nothing but what stands above."""
    start, cpu = time.perf_counter(), time.process_time()
    rows = WAYS[way](layout)
    found = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu, "rows": rows}
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps(found | {"peak_gb": int(peak.split()[1]) / 1e6}))


def main() -> None:
    """Write the two versions if they are not there, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--one", choices=WAYS)
    asked = parser.parse_args()
    layout = Layout(asked.folder)
    if asked.one:
        one(asked.one, layout)
        return
    for version in (1, 2):
        if not layout.snapshot("bench", version).is_dir():
            write(layout, version, asked.rows, asked.wide)
    rounds = [{way: measured(way, asked.folder) for way in WAYS} for _ in range(asked.rounds)]
    print("| way | seconds, least | median | CPU s, least | peak GB | rows that differ |\n|---|---|---|---|---|---|")
    for way in WAYS:
        each = [found[way] for found in rounds]
        walls = [found["wall_s"] for found in each]
        print(
            f"| {way} | {min(walls):.2f} | {statistics.median(walls):.2f} | {min(f['cpu_s'] for f in each):.2f} "
            f"| {max(f['peak_gb'] for f in each):.2f} | {each[0]['rows']:,} |"
        )


if __name__ == "__main__":
    main()
