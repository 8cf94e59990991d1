"""Packs of the synthetic camera for the controls of crop detection: the same scenes at every strength of its lens.

Pillow, NumPy and pyarrow only, so that it also runs where no photo could be downloaded or decoded otherwise. A scene is
rendered and goes through its JPEG once, whatever frames are wanted of it; packs share the files of frames.
"""

import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.frames import PackSpec

Size = tuple[int, int]  # height, width
CAMERA_WIDTH_PX = 1620  # at least
SCENE_SHRINK = 2.6  # of the camera at most: a scene is that much smaller than its photo, and no frame may resolve it
ASPECT = 1.5
QUALITY = 88
FIRST_SCENE = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # more photos of one split move none of another


def camera() -> ModuleType:
    """The synthetic camera, loaded by its path: the package that it lies in wants all of Darkroom installed."""
    if importlib.util.find_spec("simplejpeg") is None:
        sys.modules.setdefault("simplejpeg", ModuleType("simplejpeg"))  # only its encoder, which is not called
    name = "synthetic_camera"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tasks/sources/standin/camera.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def sizes(spec: PackSpec) -> list[Size]:
    """The frames that a pack has of each photo."""
    detail = [(spec.detail_height, spec.detail_width)] if spec.detail_height and spec.detail_width else []
    return [(spec.frame_height, spec.frame_width), *detail]


def photograph(scene: int, strength: float, wanted: Sequence[Size]) -> list[npt.NDArray[np.uint8]]:
    """One photo through its JPEG, reduced to (height, width, 3) of each wanted size as a pack has it."""
    made = camera()
    width = max(CAMERA_WIDTH_PX, *(math.ceil(SCENE_SHRINK * size[1]) for size in wanted))
    pixels = made.render(scene, width, round(width / ASPECT), made.Lens.of_strength(strength))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, subsampling="4:2:0")
    photo = Image.open(stream).convert("RGB")
    return [np.asarray(photo.resize((width, height), Image.Resampling.BOX)) for height, width in wanted]


def render(folder: Path, split: str, photos: int, strength: float, wanted: Sequence[Size], workers: int) -> None:
    """Write the frames of one split, a file a size, and the digests of each photo's frames; once."""
    index = folder / f"{split}.json"
    if index.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scenes = range(FIRST_SCENE[split], FIRST_SCENE[split] + photos)
    digests: dict[str, list[str]] = {_name(size): [] for size in wanted}
    with ExitStack() as opened:
        files = [opened.enter_context((folder / f"{split}.{_name(size)}.npy").open("wb")) for size in wanted]
        for file, size in zip(files, wanted, strict=True):
            header = {"descr": "|u1", "fortran_order": False, "shape": (photos, *size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
        pool = opened.enter_context(ProcessPoolExecutor(workers))
        for frames in pool.map(photograph, scenes, [strength] * photos, [wanted] * photos, chunksize=8):
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
    work: Path, counts: dict[str, int], strength: float, specs: Iterable[PackSpec], workers: int
) -> dict[PackSpec, Path]:
    """A pack for each of ``specs``, all of the same photos at one strength of the lens."""
    distinct = list(dict.fromkeys(specs))
    wanted = sorted({size for spec in distinct for size in sizes(spec)})
    named = "-".join([f"{strength:g}", *map(str, counts.values()), *map(_name, wanted)])
    rendered = work / f"frames-{named}"
    for split, photos in counts.items():
        render(rendered, split, photos, strength, wanted, workers)
    return {
        spec: assemble(work / f"pack-{strength:g}-{number}", rendered, counts, spec)
        for number, spec in enumerate(distinct)
    }


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
