"""The split of splitting.py by scikit-learn: ``split_scikit.py balanced FOLDER OUT``.

Twenty folds: fifteen are trained on, two are val and three test. It is given owners and labels as numbers, and no clock
runs while they are read.
"""

import sys
from pathlib import Path

import measured
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.model_selection import StratifiedGroupKFold

FOLDS = np.repeat(["train", "val", "test"], [15, 2, 3])


def read(folder: Path) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The photos with the numbers of their labels and of their owners."""
    labels = pq.read_table(folder / "labels.parquet", columns=["photo_id", "label"])
    owners = pq.read_table(folder / "owners.parquet", columns=["photo_id", "owner_id"])
    assert labels["photo_id"].equals(owners["photo_id"])
    numbers = [
        pc.dictionary_encode(column).combine_chunks().indices for column in (labels["label"], owners["owner_id"])
    ]
    return labels, *(np.asarray(each) for each in numbers)


def split(labels: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The split of each photo."""
    found = np.empty(len(labels), dtype=FOLDS.dtype)
    folds = StratifiedGroupKFold(n_splits=len(FOLDS)).split(np.zeros(len(labels)), labels, owners)
    for name, (_, members) in zip(FOLDS, folds, strict=True):
        found[members] = name
    return found


if __name__ == "__main__":
    _, place, target = sys.argv[1:]
    photos, of_label, of_owner = read(Path(place))
    result: list[np.ndarray] = []
    measured.report(lambda: result.append(split(of_label, of_owner)) or len(of_label))
    pq.write_table(pa.table({"photo_id": photos["photo_id"], "split": result[0]}), target)
