"""Filter 10 million rows: how many are kept, and every row's reason written; against polars and pyarrow.

All read the same Parquet file (the columns of measure that the rules read, as Darkroom writes them), apply the same
exact rule and, in the second part, write photo key and reason as zstd Parquet. Each contender runs in a process of its
own, in turns.

    python tests/bench/filtering.py                # about three minutes on two cores
    python tests/bench/filtering.py --rows 1000000
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.contenders import peers_python
from acquire.table import Bound, Line, markdown

from storage import manifest

PEERS = Path(__file__).resolve().parent / "peers"
KEPT = Path(tempfile.gettempdir()) / "darkroom-bench"
CONTENDERS = ("darkroom", "polars", "pyarrow")
JOBS = {"count": "kept photos counted", "write": "all reasons written"}
TIERS = np.array(["camera_original", "developed", "edited", "unknown"])
BOUNDS_S = {"count": 0.1, "write": 3.0}


def make_rows(path: Path, rows: int) -> None:
    """``rows`` measured photos with ids and sizes like those of a photo site, in the order of their keys."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(60_000_000_000, rows, replace=False))
    short = rng.integers(400, 4000, rows)
    long = (short * rng.choice([1.0, 4 / 3, 1.5, 1.5, 16 / 9], rows)).round() + rng.integers(-3, 4, rows)
    is_broken = rng.random(rows) < 0.001
    table = pa.table(
        {
            "source": pa.array(["flickr"]).take(pa.array(np.zeros(rows, np.int8))),
            "photo_id": pa.array(ids).cast(pa.string()),
            "long_px": pa.array(np.maximum(long, short).astype(np.int32), mask=is_broken),
            "short_px": pa.array(short.astype(np.int32), mask=is_broken),
            "aspect_milli": pa.array(np.round(1000 * np.maximum(long, short) / short).astype(np.int32)),
            "edit_tier": pa.array(TIERS).take(pa.array(rng.integers(0, 4, rows))),
            "is_grey": pa.array(rng.random(rows) < 0.05),
            **{name: pa.array(rng.random(rows, np.float32) * 255) for name in ("brightness", "sharpness", "entropy")},
            "measure_reason": pa.array(["corrupt", None]).take(pa.array(np.where(is_broken, 0, 1))),
        }
    )
    with manifest.parquet_writer(path, "measure", table.schema) as writer:
        writer.write_table(table, row_group_size=200_000)


def timed(python: Path, contender: str, job: str, file: Path, out: Path) -> dict[str, float]:
    """Seconds of wall and CPU time, peak memory in MB and how many rows were kept, of one contender."""
    command = [str(python), str(PEERS / f"filter_{contender}.py"), job, str(file), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Time all contenders and print two tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--peers", type=Path, default=KEPT, help="where the peers are kept")
    asked = options.parse_args()
    theirs = peers_python(asked.peers / "rows", "rows.txt")
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        file = Path(folder) / "measured.parquet"
        make_rows(file, asked.rows)
        for job in JOBS:
            for _ in range(asked.rounds):
                for name in CONTENDERS:
                    python = Path(sys.executable) if name == "darkroom" else theirs
                    out = Path(folder) / f"{name}.parquet"
                    found.setdefault((job, name), []).append(timed(python, name, job, file, out))
        written = [pq.read_table(Path(folder) / f"{name}.parquet", columns=["filter_reason"]) for name in CONTENDERS]
        agree = all(each.to_pydict() == written[0].to_pydict() for each in written)
    counts = {each["kept"] for (job, _), rounds in found.items() for each in rounds if job == "count"}
    assert agree, "the contenders do not give the same reasons"
    assert len(counts) == 1, f"the contenders do not keep the same: {counts}"
    lines = [
        Line(what, name, [each["wall_s"] for each in found[job, name]], "s",
             f"CPU {statistics.median(each['cpu_s'] for each in found[job, name]):.2f} s, "
             f"peak {max(each['peak_mb'] for each in found[job, name]):,.0f} MB")
        for job, what in JOBS.items() for name in CONTENDERS
    ]  # fmt: skip
    print(markdown(["measure", "contender", "median", "spread", ""], [line.cells() for line in lines]), "\n")
    medians = {(line.measure, line.contender): line.median for line in lines}
    bounds = [Bound(f"{what}, s", medians[what, "darkroom"], at_most=BOUNDS_S[job]) for job, what in JOBS.items()]
    bounds += [
        Bound(f"{what}, of {peer}'s time", medians[what, "darkroom"] / medians[what, peer], at_most=1)
        for what in JOBS.values() for peer in CONTENDERS[1:]
    ]  # fmt: skip
    print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in bounds]))


if __name__ == "__main__":
    main()
