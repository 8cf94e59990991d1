"""The split of splitting.py by Darkroom: ``split_darkroom.py MODE FOLDER OUT``.

In the modes stable and balanced from the stages' files to its own. In the mode arrays from numbers to the split of each
photo, as scikit-learn; no clock runs while they are read.
"""

import sys
from pathlib import Path

import duckdb
import measured
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from storage.records import SPLITS
from tasks.split import SplitRules, split_photos
from tasks.splitting import stratify


def split(mode: str, folder: Path, out: str) -> int:
    """Groups and splits of all photos, written; how many photos."""
    with duckdb.connect() as db:
        for name in ("deduped", "owners", "labels", "given"):
            db.register(name, pq.read_table(folder / f"{name}.parquet"))
        table = split_photos(db, SplitRules.model_validate({"mode": mode}))
    pq.write_table(table.select(["photo_id", "split"]), out, compression="zstd")
    return int(table.num_rows)


def share_out(labels: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The split of each photo, by its place in SPLITS."""
    size, groups = int(labels.max()) + 2, int(owners.max()) + 1
    strata = np.concatenate([np.zeros(len(labels), np.int64), labels + 1])
    counts = stratify.count(np.tile(owners, 2), strata, groups, size)
    shares, tickets = np.array([0.75, 0.10, 0.15]), np.arange(groups, dtype=np.uint64)
    return stratify.balance(counts, np.zeros((size, 3)), shares, tickets)[owners]


def numbers(folder: Path, file: str, column: str) -> np.ndarray:
    """A column as numbers."""
    values = pq.read_table(folder / f"{file}.parquet", columns=[column])[column]
    return np.asarray(pc.dictionary_encode(values).combine_chunks().indices).astype(np.int64)


if __name__ == "__main__":
    how, place, target = sys.argv[1:]
    if how == "arrays":
        of_label, of_owner = numbers(Path(place), "labels", "label"), numbers(Path(place), "owners", "owner_id")
        result: list[np.ndarray] = []
        measured.report(lambda: result.append(share_out(of_label, of_owner)) or len(of_label))
        photos = pq.read_table(Path(place) / "labels.parquet", columns=["photo_id"])
        pq.write_table(photos.append_column("split", pa.array(SPLITS).take(pa.array(result[0]))), target)
    else:
        measured.report(lambda: split(how, Path(place), target))
