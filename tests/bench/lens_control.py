"""Controls for crop detection: a lens of full strength has to be learnt, and without one no network may beat a coin.

Photographs come from the synthetic camera, so nothing but the lens tells a crop from a whole photo, nor where it was
cut. The narrow recipe is trained and evaluated as in any run, once for every strength and seed; a figure stands with
its 95 % interval over photos and the trivial answer. At strength 0 intervals have to hold 0.5, but for one in twenty.

    python tests/bench/lens_control.py --photos 450 --strengths 1 0 --seeds 0 1 2
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models import fit
from models.recipes import PackSpec, resolve
from tasks.pictures import imaging
from tasks.sources.standin.camera import CameraFacts, Lens, encode_jpeg, render

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
WIDTH_PX, HEIGHT_PX = 1620, 1080
COLUMNS = {
    "crop_accuracy": "crop or whole, accuracy",
    "crop_auroc": "AUROC",
    "rectangle_iou_crops": "IoU of crops",
    "size_factor_mae_crops": "size factor MAE of crops",
}


def frame(scene: int, strength: float, size: PackSpec) -> npt.NDArray[np.uint8]:
    """One photo through its JPEG, reduced to (height, width, 3) as a pack has it."""
    data = encode_jpeg(render(scene, WIDTH_PX, HEIGHT_PX, Lens.of_strength(strength)), CameraFacts())
    least = {"min_height": size.frame_height, "min_width": size.frame_width}
    return imaging.resize_area(imaging.decode_upright(data, 1, **least), size.frame_height, size.frame_width)


def pack(folder: Path, photos: int, strength: float, size: PackSpec, workers: int) -> None:
    """Write a pack of ``photos`` scenes, the same scenes at every strength."""
    folder.mkdir(parents=True)
    entries: dict[str, Any] = {}
    first = 0
    for split, share in SHARES.items():
        count = round(photos * share)
        scenes = range(first, first + count)
        first += count
        with ProcessPoolExecutor(workers) as pool:
            made = pool.map(frame, scenes, [strength] * count, [size] * count, chunksize=16)
            np.save(folder / f"{split}.npy", np.stack(list(made)))
        pq.write_table(
            pa.table({"source": ["camera"] * count, "photo_id": [str(scene) for scene in scenes]}),
            folder / f"{split}.parquet",
        )
        digests = {
            f"{what}_sha256": hashlib.sha256((folder / f"{split}.{kind}").read_bytes()).hexdigest()
            for what, kind in (("frames", "npy"), ("rows", "parquet"))
        }
        entries[split] = {"photos": count, "frames": f"{split}.npy", "rows": f"{split}.parquet", **digests}
    card = {"version": 1, "frame_height": size.frame_height, "frame_width": size.frame_width, "splits": entries}
    (folder / "pack.json").write_text(json.dumps(card))


def measured(folder: Path, pack_dir: Path, recipe: str, seed: int, threads: int) -> dict[str, dict[str, Any]]:
    """The figures of one run, by name."""
    for job in ("train", "evaluate"):
        request = {"run_id": folder.name, "run_dir": str(folder), "pack_dir": str(pack_dir), "recipe": recipe}
        file = folder.with_suffix(".json")
        file.write_text(json.dumps({**request, "job": job, "seed": seed, "threads": threads}))
        if code := fit.main([str(file)]):
            sys.exit(f"{job} of {folder.name} ended with exit code {code}")
    found = json.loads((folder / "evaluation.json").read_text())
    return {figure["name"]: figure for figure in found["figures"]}


def rows(options: argparse.Namespace, work: Path) -> Iterator[list[str]]:
    """The table: one row for every strength and seed, as soon as it is measured."""
    yield ["lens", "seed", "photos of test", *COLUMNS.values()]
    yield ["---:"] * (3 + len(COLUMNS))
    size = resolve(options.recipe).pack
    for strength in options.strengths:
        pack_dir = work / f"pack-{strength:g}"
        pack(pack_dir, options.photos, strength, size, options.workers)
        tested = json.loads((pack_dir / "pack.json").read_text())["splits"]["test"]["photos"]
        for seed in options.seeds:
            found = measured(work / f"lens-{strength:g}-seed-{seed}", pack_dir, options.recipe, seed, options.workers)
            yield [f"{strength:g}", str(seed), str(tested), *(cell(found[name]) for name in COLUMNS)]


def cell(figure: dict[str, Any]) -> str:
    """``0.912 [0.880, 0.941] (0.500)``: the value, its interval, the trivial answer's."""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] ({figure['baseline']:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=450, help="over all splits")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 0.0], help="of the lens, 0 to 1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the network and its samples")
    parser.add_argument("--recipe", default="crops_thumbnail_narrow")
    parser.add_argument("--workers", type=int, default=2, help="processes that render, threads that train")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options, Path(folder)):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
