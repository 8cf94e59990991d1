"""Positive control of the categories: train and judge on photos whose labels are known, through the real process.

Either the files of Fashion-MNIST (idx, gzipped: ten labels that a network can learn in minutes), or photos named by a
CSV table with the columns path and label (of which the part before the first "/" counts; labels with fewer photos than
--least are left out). Photos of a table are split 60 / 20 / 20 within each label by a hash of their path. Prints every
figure with its 95 % interval beside the best constant answer.

    python tests/bench/categories_control.py --idx shared/datasets/fashion-mnist --threads 1
    python tests/bench/categories_control.py --table shared/photos/photos.csv --recipe categories_mobilenet_transfer \\
        --start-from shared/weights/mobilenet_v2-b0353104.pth
"""

import argparse
import csv
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from acquire.table import markdown, shown

from models.frames import PackSpec
from models.recipes import resolve
from models.specs import Recipe

FASHION = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
PARTS = {"test": 0.2, "val": 0.4, "train": 1.0}  # upper ends of the shares
Frame = npt.NDArray[np.uint8]


@dataclass
class Labelled:
    """The photos of one split."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def add(self, name: str, label: str, picture: Image.Image, spec: PackSpec) -> None:
        """Take a picture in, squeezed to the pack's frame."""
        size = (spec.frame_width, spec.frame_height)
        self.names.append(name)
        self.labels.append(label)
        self.frames.append(np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)))


def from_idx(folder: Path, counts: dict[str, int], spec: PackSpec) -> dict[str, Labelled]:
    """Train and val from the start and the end of the training files, test from the test files."""
    train, test = (_read_pairs(folder, prefix) for prefix in ("train", "t10k"))
    chosen = {"train": train[: counts["train"]], "val": train[-counts["val"] :], "test": test[: counts["test"]]}
    splits = {name: Labelled() for name in chosen}
    for name, pairs in chosen.items():
        for number, (picture, label) in enumerate(pairs):
            splits[name].add(f"{name}-{number:05d}", FASHION[label], Image.fromarray(picture), spec)
    return splits


def _read_pairs(folder: Path, prefix: str) -> list[tuple[Frame, int]]:
    """Pictures and labels of the two files with that prefix."""
    pictures, labels = (_read_idx(folder / f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return list(zip(pictures, labels.tolist(), strict=True))


def _read_idx(path: Path) -> Frame:
    """The array of a gzipped idx file of bytes: magic number with the number of dimensions, sizes, values."""
    content = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sizes)


def from_table(table: Path, least: int, spec: PackSpec) -> dict[str, Labelled]:
    """The labelled photos of a table, whose paths count from its folder."""
    splits = {name: Labelled() for name in ("train", "val", "test")}
    for name, label, path in _divided(table, least):
        with Image.open(table.parent / path) as photo:
            splits[name].add(path, label, ImageOps.exif_transpose(photo), spec)
    return splits


def _divided(table: Path, least: int) -> Iterator[tuple[str, str, str]]:
    """Split, label and path of each photo of a label that has enough of them."""
    by_label: dict[str, list[str]] = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["label"]:
                by_label[row["label"].split("/")[0]].append(row["path"])
    for label, paths in sorted(by_label.items()):
        order = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())
        for number, path in enumerate(order if len(order) >= least else []):
            yield next(name for name, end in PARTS.items() if (number + 0.5) / len(order) < end), label, path


def write_pack(folder: Path, splits: dict[str, Labelled], spec: PackSpec) -> tuple[Path, Path]:
    """A pack of the photos and a file of their labels."""
    folder.mkdir(parents=True)
    entries = {name: _write_split(folder, name, photos) for name, photos in splits.items()}
    (folder / "pack.json").write_text(json.dumps({"version": 2, **asdict(spec), "splits": entries}))
    names = [name for photos in splits.values() for name in photos.names]
    labels = [label for photos in splits.values() for label in photos.labels]
    pq.write_table(
        pa.table({"source": ["control"] * len(names), "photo_id": names, "label": labels}), folder / "labels.parquet"
    )
    return folder, folder / "labels.parquet"


def _write_split(folder: Path, name: str, photos: Labelled) -> dict[str, Any]:
    """The frames and rows of one split; its entry of pack.json."""
    np.save(folder / f"{name}.npy", np.stack(photos.frames))
    digests = [hashlib.sha256(np.ascontiguousarray(frame).tobytes()).digest() for frame in photos.frames]
    columns: dict[str, Any] = {
        "source": ["control"] * len(digests),
        "photo_id": photos.names,
        "owner_id": pa.nulls(len(digests), pa.string()),
        "frame_sha256": pa.array(digests, pa.binary()),
        "detail_sha256": pa.nulls(len(digests), pa.binary()),
    }
    rows = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), rows)
    sha256 = hashlib.sha256(rows.read_bytes()).hexdigest()
    return {
        "photos": len(digests), "frames": f"{name}.npy", "details": None, "rows": rows.name, "rows_sha256": sha256,
    }  # fmt: skip


def fit(job: str, folder: Path, pack: Path, labels: Path, recipe: Recipe, asked: argparse.Namespace) -> None:
    """One job of ``models.fit`` in a process of its own; its last words, should it fail."""
    request = {
        "run_id": folder.name, "run_dir": str(folder), "pack_dir": str(pack), "recipe": recipe.as_dict(),
        "device": asked.device, "job": job, "seed": asked.seed, "threads": asked.threads, "labels": str(labels),
        "start_from": [str(path.resolve()) for path in asked.start_from],
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{job}.run.json"
    path.write_text(json.dumps(request))
    done = subprocess.run([sys.executable, "-m", "models.fit", str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{job} failed: {done.stderr[-2000:]}")


def report(folder: Path, seconds: float) -> None:
    """Print what evaluation.json says."""
    found = json.loads((folder / "evaluation.json").read_text())
    final = json.loads((folder / "train.json").read_text())["final"]
    rows = [
        [each["name"], f"{shown(each['value'])} ({shown(each['low'])} to {shown(each['high'])})",
         f"{shown(each['baseline'])}, {each['baseline_label']}", "yes" if each["beats_baseline"] else "no"]
        for each in found["figures"]
    ]  # fmt: skip
    print(f"\n{seconds:.0f} s, best epoch {final['best_epoch']} of {final['epochs']}, decisions {found['decisions']}\n")
    print(markdown(["figure", "test (95 %)", "best constant answer", "beats it"], rows), "\n")
    for pair in found["pictures"]["confused_pairs"][:5]:
        print(f"{pair['photos']} photos of {pair['truth']} were called {pair['called']}")


def main() -> None:
    """Pack, train, judge, report."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--idx", type=Path, help="folder of idx files of Fashion-MNIST")
    options.add_argument("--table", type=Path, help="CSV with the columns path and label")
    options.add_argument("--least", type=int, default=8, help="photos that a label of the table must have")
    options.add_argument("--photos", type=int, nargs=3, default=(3000, 1000, 2000), help="train, val, test of --idx")
    options.add_argument("--recipe", default="categories_narrow")
    options.add_argument("--epochs", type=int, help="other than the recipe's")
    options.add_argument("--shuffled", action="store_true", help="the control: labels drawn by chance")
    options.add_argument("--start-from", type=Path, action="append", default=[])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="auto")
    options.add_argument("--threads", type=int)
    asked = options.parse_args()
    recipe = resolve(asked.recipe)
    recipe = replace(recipe, epochs=asked.epochs or recipe.epochs)
    recipe = replace(recipe, system=replace(recipe.system, shuffled_labels=asked.shuffled))
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as work:
        counts = dict(zip(("train", "val", "test"), asked.photos, strict=True))
        spec = recipe.pack
        splits = from_idx(asked.idx, counts, spec) if asked.idx else from_table(asked.table, asked.least, spec)
        for name, photos in splits.items():
            print(f"{name}: {len(photos.names)} photos, {len(set(photos.labels))} labels")
        pack, labels = write_pack(Path(work) / "pack", splits, spec)
        started_s = time.monotonic()
        fit("train", Path(work) / "run", pack, labels, recipe, asked)
        trained_s = time.monotonic() - started_s
        fit("evaluate", Path(work) / "run", pack, labels, recipe, asked)
        report(Path(work) / "run", trained_s)


if __name__ == "__main__":
    main()
