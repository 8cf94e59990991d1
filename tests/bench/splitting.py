"""Split a million photos of 100,000 owners and 28 labels by label without dividing an owner; against scikit-learn.

Both get the same owners and labels as arrays of numbers, and a clock runs until each photo has its split. The
StratifiedGroupKFold of scikit-learn has twenty folds: fifteen train, two val, three test. Beside that the whole stage
of Darkroom, from the Parquet files of the stages before to its own, with the groups and what was given, in both modes.
Each runs in a process of its own.

    python tests/bench/splitting.py                     # about three minutes on two cores
    python tests/bench/splitting.py --photos 100000     # 10,000 owners
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.contenders import peers_python
from acquire.table import Bound, Line, markdown

from storage.records import SCHEMAS

PEERS = Path(__file__).resolve().parent / "peers"
KEPT = Path(tempfile.gettempdir()) / "darkroom-bench"
LABELS = 28
SHARES = {"train": 0.75, "val": 0.10, "test": 0.15}
CONTENDERS = {
    "darkroom": "arrays", "scikit-learn": "arrays", "darkroom, whole stage": "balanced",
    "darkroom, whole stage, stable": "stable",
}  # fmt: skip
RATIO, POINTS = 20, 0.5


def make_photos(folder: Path, photos: int) -> None:
    """The stages' files of ``photos`` photos: few owners have many, and each has some labels far more than others."""
    rng = np.random.default_rng(0)
    owners = photos // 10
    activity = (1 + np.arange(owners)) ** -0.8
    frequency = (1 + np.arange(LABELS)) ** -1.1
    owner = rng.choice(owners, photos, p=activity / activity.sum())
    favourites = rng.choice(LABELS, (owners, 3), p=frequency / frequency.sum())
    label = rng.choice(LABELS, photos, p=frequency / frequency.sum())
    label = np.where(rng.random(photos) < 0.7, favourites[owner, rng.integers(0, 3, photos)], label)
    names = pa.array([f"label {at:02d}" for at in range(LABELS)]).take(pa.array(label))
    ids = pa.array(rng.choice(60_000_000_000, photos, replace=False)).cast(pa.string())
    keys = {"source": pa.array(["flickr"]).take(pa.array(np.zeros(photos, np.int8))), "photo_id": ids}
    lists = pa.ListArray.from_arrays(pa.array(np.arange(photos + 1, dtype=np.int32)), names)
    columns = {
        "deduped": ("dedup", keys), "owners": ("owners", keys | {"owner_id": pa.array(owner).cast(pa.string())}),
        "labels": ("labels", keys | {"label": names, "labels": lists}), "given": ("given", {}),
    }  # fmt: skip
    order = pc.sort_indices(ids)
    for file, (schema, known) in columns.items():
        rows = len(next(iter(known.values()), ()))
        full = [known.get(field.name, pa.nulls(rows, field.type)) for field in SCHEMAS[schema]]
        table = pa.table(full, schema=SCHEMAS[schema])
        pq.write_table(table.take(order) if rows else table, folder / f"{file}.parquet", compression="zstd")


def timed(python: Path, contender: str, folder: Path, out: Path) -> dict[str, float]:
    """Seconds of wall and CPU time, and peak memory in MB, of one contender."""
    program = "split_scikit.py" if contender == "scikit-learn" else "split_darkroom.py"
    command = [str(python), str(PEERS / program), CONTENDERS[contender], str(folder), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def quality(folder: Path, out: Path) -> tuple[int, float, float, float]:
    """Owners in several splits; by how many points the worst split misses its share of all photos, and of a label's
    photos in the worst and in the mean."""
    table = pq.read_table(out).join(pq.read_table(folder / "owners.parquet"), "photo_id")
    table = table.join(pq.read_table(folder / "labels.parquet", columns=["photo_id", "label"]), "photo_id")
    sides = table.group_by("owner_id").aggregate([("split", "count_distinct")])["split_count_distinct"]
    shares = np.array(list(SHARES.values()))
    split = pc.index_in(table["split"], pa.array(list(SHARES))).to_numpy()
    label = pc.index_in(table["label"], pc.unique(table["label"])).to_numpy()
    counts = np.bincount(label * 3 + split, minlength=3 * LABELS).reshape(-1, 3)
    miss = 100 * np.abs(counts / counts.sum(axis=1, keepdims=True) - shares).max(axis=1)
    whole = 100 * np.abs(counts.sum(axis=0) / counts.sum() - shares).max()
    return pc.sum(pc.greater(sides, 1)).as_py(), float(whole), float(miss.max()), float(miss.mean())


def main() -> None:
    """Time all contenders, look at what they made, and print two tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3, help="of Darkroom; scikit-learn runs once")
    options.add_argument("--peers", type=Path, default=KEPT, help="where the peers are kept")
    asked = options.parse_args()
    theirs = peers_python(asked.peers / "splits", "splits.txt")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as place:
        folder = Path(place)
        make_photos(folder, asked.photos)
        for turn in range(asked.rounds):
            for name in CONTENDERS:
                if name != "scikit-learn" or not turn:
                    python = theirs if name == "scikit-learn" else Path(sys.executable)
                    found[name].append(timed(python, name, folder, folder / f"{name}.parquet"))
        made = {name: quality(folder, folder / f"{name}.parquet") for name in CONTENDERS}
    lines = []
    for name, rounds in found.items():
        divided, whole, worst, mean = made[name]
        note = (
            f"CPU {statistics.median(each['cpu_s'] for each in rounds):.1f} s, "
            f"peak {max(each['peak_mb'] for each in rounds):,.0f} MB, owners divided {divided}, "
            f"points off: all {whole:.3f}, worst label {worst:.3f}, mean label {mean:.3f}"
        )
        lines.append(Line(f"split {asked.photos:,} photos", name, [each["wall_s"] for each in rounds], "s", note))
    print(markdown(["measure", "contender", "median", "spread", ""], [line.cells() for line in lines]), "\n")
    ours, peer = (line.median for line in lines[:2])
    cpu = {name: statistics.median(each["cpu_s"] for each in rounds) for name, rounds in found.items()}
    bounds = [
        Bound("scikit-learn's time, of Darkroom's", peer / ours, at_least=RATIO),
        Bound("scikit-learn's CPU time, of Darkroom's", cpu["scikit-learn"] / cpu["darkroom"], at_least=RATIO),
        Bound("owners in several splits", sum(each[0] for each in made.values()), at_most=0),
        Bound("points off, all photos", made["darkroom"][1], at_most=POINTS),
        Bound("points off, worst label", made["darkroom"][2], at_most=POINTS),
    ]
    print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in bounds]))


if __name__ == "__main__":
    main()
