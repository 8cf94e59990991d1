"""Packs of the synthetic camera for the controls of crop detection: the same scenes at every strength of its lens.

Pillow, NumPy and pyarrow only, so that it also runs where no photo could be downloaded or decoded otherwise. A photo is
taken (``crop_scenes``) once, whatever frames are wanted of it; packs share the files of frames.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from crop_scenes import PhotoSpec, take

from models.frames import PackSpec

Size = tuple[int, int]  # height, width
FIRST_SCENE = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # more photos of one split move none of another


def sizes(spec: PackSpec) -> list[Size]:
    """The frames that a pack has of each photo."""
    detail = [(spec.detail_height, spec.detail_width)] if spec.detail_height and spec.detail_width else []
    return [(spec.frame_height, spec.frame_width), *detail]


def photograph(scene: int, strength: float, wanted: Sequence[Size], photo: PhotoSpec) -> list[npt.NDArray[np.uint8]]:
    """One photo, reduced to (height, width, 3) of each wanted size as a pack has it."""
    taken = take(scene, strength, max(width for _, width in wanted), photo)
    return [np.asarray(taken.resize((width, height), Image.Resampling.BOX)) for height, width in wanted]


def render(
    folder: Path, split: str, photos: int, strength: float, wanted: Sequence[Size], photo: PhotoSpec, workers: int
) -> None:
    """Write the frames of one split, a file a size, and the digests of each photo's frames; once."""
    index = folder / f"{split}.json"
    if index.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scenes = range(FIRST_SCENE[split], FIRST_SCENE[split] + photos)
    one = partial(photograph, strength=strength, wanted=wanted, photo=photo)
    digests: dict[str, list[str]] = {_name(size): [] for size in wanted}
    with ExitStack() as opened:
        files = [opened.enter_context((folder / f"{split}.{_name(size)}.npy").open("wb")) for size in wanted]
        for file, size in zip(files, wanted, strict=True):
            header = {"descr": "|u1", "fortran_order": False, "shape": (photos, *size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
        pool = opened.enter_context(ProcessPoolExecutor(workers))
        for frames in pool.map(one, scenes, chunksize=8):
            for file, frame, noted in zip(files, frames, digests.values(), strict=True):
                data = frame.tobytes()
                file.write(data)
                noted.append(hashlib.sha256(data).hexdigest())
    index.write_text(json.dumps(digests))


def assemble(folder: Path, rendered: Path, counts: dict[str, int], spec: PackSpec) -> Path:
    """A pack for ``spec`` of what ``render`` wrote; its frames are links."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    entries = {split: _entry(folder, rendered, split, photos, spec) for split, photos in counts.items()}
    (folder / "pack.json").write_text(json.dumps({"version": 2, **asdict(spec), "splits": entries}))
    return folder


def _entry(folder: Path, rendered: Path, split: str, photos: int, spec: PackSpec) -> dict[str, Any]:
    """Link the frames of a split and write its rows; its entry of pack.json."""
    digests = json.loads((rendered / f"{split}.json").read_text())
    names = dict(zip(("frames", "details"), (f"{split}.npy", f"{split}.detail.npy"), strict=True))
    columns: dict[str, Any] = {
        "source": ["camera"] * photos,
        "photo_id": [str(FIRST_SCENE[split] + number) for number in range(photos)],
        "owner_id": [None] * photos,
    }
    kinds = {name: pa.string() for name in columns}
    for kind, column, size in zip(names, ("frame_sha256", "detail_sha256"), sizes(spec), strict=False):
        os.link(rendered / f"{split}.{_name(size)}.npy", folder / names[kind])
        columns[column] = [bytes.fromhex(digest) for digest in digests[_name(size)]]
        kinds[column] = pa.binary()
    rows = folder / f"{split}.parquet"
    pq.write_table(pa.table(columns, schema=pa.schema(list(kinds.items()))), rows)
    return {
        "photos": photos, "frames": names["frames"], "details": names["details"] if len(sizes(spec)) > 1 else None,
        "rows": rows.name, "rows_sha256": hashlib.sha256(rows.read_bytes()).hexdigest(),
    }  # fmt: skip


def packs(
    work: Path,
    counts: dict[str, int],
    strength: float,
    specs: Iterable[PackSpec],
    photo: PhotoSpec,
    workers: int,
) -> dict[PackSpec, Path]:
    """A pack for each of ``specs``, all of the same photos at one strength of the lens."""
    distinct = list(dict.fromkeys(specs))
    wanted = sorted({size for spec in distinct for size in sizes(spec)})
    named = "-".join([photo.label, f"{strength:g}", *map(str, counts.values()), *map(_name, wanted)])
    rendered = work / f"frames-{named}"
    for split, photos in counts.items():
        render(rendered, split, photos, strength, wanted, photo, workers)
    return {
        spec: assemble(work / f"pack-{photo.label}-{strength:g}-{number}", rendered, counts, spec)
        for number, spec in enumerate(distinct)
    }


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
